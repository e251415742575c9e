"""The script does not do the same twice on one device, so no comparison can say more."""

from __future__ import annotations

from tfdist.verify.comparison import Comparison
from tfdist.verify.diagnosis.finding import Evidence, Finding

_REMEDIES = {
    "data": "Give what chooses or orders the rows a seed: np.random.default_rng(0), shuffle(..., seed=0).",
    "weights": "Draw initial weights from Keras' initializers, or from a generator with a seed.",
    "step": "Give what is random in the training step a seed, and take out what depends on the time or the process.",
}
_SAID = {
    "data": "it trains on other rows, or in another order",
    "weights": "its weights differ before the first step",
    "step": "the same rows and weights lead to other results",
}


def not_reproducible(evidence: Evidence) -> Finding | None:
    """One device, run again, does not do what it did."""
    again = evidence.again
    if again is None or again.is_equal:
        return None
    what = _what(again)
    return Finding(
        "not_reproducible",
        "the script does not do the same when one device runs it again",
        f"Run twice on one device with the same seeds, {_SAID[what]}: what is random here is reached by no seed of "
        "keras.utils.set_random_seed, which also seeds Python's random and NumPy's global generator. Workers would "
        "each draw numbers of their own.",
        f"{_REMEDIES[what]} Then run tfdist verify again.",
        evidence.sites("unseeded"),
        "certain",
    )


def _what(again: Comparison) -> str:
    if again.first and again.first[0].step == 0:
        return "weights"
    return "data" if again.data or again.structure else "step"
