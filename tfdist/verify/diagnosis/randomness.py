"""Random numbers that the script draws in its training step, where every replica draws its own."""

from __future__ import annotations

from tfdist.verify.diagnosis.finding import Evidence, Finding


def random_numbers_in_step(evidence: Evidence) -> Finding | None:
    """The step draws, and results differ from its first run on; nothing in it can be compared."""
    sites = (*evidence.sites("random", in_step=True), *evidence.sites("unseeded", in_step=True))
    if not sites:
        return None
    return Finding(
        "random_numbers_in_step",
        "the training step draws random numbers",
        "Each replica draws numbers of its own for its rows, as it should, so they are not those that one device draws "
        "for the whole batch: both trainings are right, and can't be compared number by number. Random layers of Keras "
        "are switched off for the comparison; what the script draws by itself is not.",
        "Draw the numbers in the input pipeline, by row, or compare with the noise switched off by an argument of the "
        "script. There is nothing to repair if that is equal.",
        sites,
        "likely",
    )
