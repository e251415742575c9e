"""Which runs are made, in which order, and what follows from them.

    1. one device                                     fails, or has no fit: could not run
    2. all workers                                    fails: could not run (tfdist's own refusals say what to do)
       equal within float32's tolerance               -> EQUAL
    3. both in float64, if 2 may be rounding          equal within float64's tolerance -> EQUAL
    4. one device again, and the probe                -> DIFFERENT, with the first cause that they speak for

So a script that is right costs two runs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfdist.verify.comparison import Comparison, compare
from tfdist.verify.diagnosis import Evidence, diagnose
from tfdist.verify.options import VerifyError, VerifyOptions
from tfdist.verify.progress import Progress
from tfdist.verify.recording import Recording
from tfdist.verify.result import Result, Verdict
from tfdist.verify.runs import Run, RunFailed, Runner
from tfdist.verify.spec import ChildSpec
from tfdist.verify.tolerance import FLOAT32, FLOAT64, grows_like_rounding

_LOW_PRECISION = ("float16", "bfloat16")
_NOTHING_TO_COMPARE = (
    "tfdist verify records Keras models in model.fit and model.train_on_batch, and saw neither. Expected: a script "
    "that trains a Keras 3 model with one of them. A training loop of your own (GradientTape, strategy.run) can't be "
    "compared; put it into a train_step and call fit.",
)
_ACCUMULATES_ITSELF = (
    "The script accumulates gradients by itself, which is compared without an option. Expected: --accumulate or a "
    "script with gradient_accumulation_steps. Received: both. Leave --accumulate out.",
)


def verify(options: VerifyOptions, progress: Progress) -> Result:
    """Run the script on one device and on all workers, and compare.

    Args:
        options: what is asked.
        progress: shows what is going on.

    Raises:
        VerifyError: the directory to keep can't be made.
        Interrupted: by a signal.
    """
    with _folder(options) as folder:
        result = _Procedure(options, Runner(folder, progress)).carry_out()
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    return result


@contextmanager
def _folder(options: VerifyOptions) -> Iterator[Path]:
    if options.keep is None:
        with tempfile.TemporaryDirectory(prefix="tfdist-verify-") as folder:
            yield Path(folder)
        return
    if options.keep.exists() and (not options.keep.is_dir() or any(options.keep.iterdir())):
        raise VerifyError(
            f"The directory to keep must be empty or new. Received: keep={str(options.keep)!r}. Remove what it holds, "
            "or choose another."
        )
    options.keep.mkdir(parents=True, exist_ok=True)
    yield options.keep


class _Procedure:
    """The order of runs for one script."""

    def __init__(self, options: VerifyOptions, runner: Runner) -> None:
        self._options, self._runner = options, runner
        self._one_device = ChildSpec(
            script=options.script,
            arguments=tuple(options.arguments),
            folder="",
            steps=options.steps,
            timeout_seconds=options.timeout_seconds,
            float64=options.float64,
        )
        self._tolerance = FLOAT64 if options.float64 else FLOAT32
        self._notes: list[str] = []

    def carry_out(self) -> Result:
        """From the first run to the result."""
        try:
            (reference,) = self._runner.carry_out(Run("one-device", "one device", self._one_device))
            if not reference.steps:
                return self._not_run("nothing to compare", _NOTHING_TO_COMPARE)
            if self._options.accumulate > 1 and reference.chief_facts.get("accumulate", 1) > 1:
                return self._not_run("gradients are accumulated twice", _ACCUMULATES_ITSELF)
            (distributed,) = self._runner.carry_out(self._workers_run(reference))
        except RunFailed as failure:
            return self._not_run(f"{failure.run}: {failure.how}", _words(failure))
        return self._judge(reference, distributed)

    def _not_run(self, why: str, words: tuple[str, ...]) -> Result:
        return Result(Verdict.NOT_RUN, self._options, failed=why, words=words)

    def _workers_run(self, reference: Recording) -> Run:
        made = reference.chief_facts["strategies"]
        spec = replace(
            self._one_device,
            workers=self._options.workers,
            accumulate=self._options.accumulate,
            enter_scope=not made,
            own_seeds=any(strategy["several_workers"] for strategy in made),
        )
        return Run("workers", self._title, spec)

    @property
    def _title(self) -> str:
        workers = f"{self._options.workers} worker{'s' if self._options.workers > 1 else ''}"
        many = self._options.accumulate
        return workers if many == 1 else f"{workers}, {many} micro-batches a step"

    def _judge(self, reference: Recording, distributed: Recording) -> Result:
        comparison = compare(reference, distributed, self._tolerance, without=self._raw_logs(distributed))
        inert = tuple(path for fit in reference.chief_facts["fits"] for path in fit["inert"])
        result = Result(Verdict.EQUAL, self._options, comparison, inert=inert, notes=tuple(self._notes))
        if comparison.is_equal:
            return result
        float64 = None
        if not self._options.float64 and _may_be_rounding(reference, comparison):
            float64 = self._in_float64(reference)
            if float64.is_equal if float64 else grows_like_rounding(comparison.excesses):
                return replace(result, float64=float64, notes=tuple(self._notes))
        evidence = self._evidence(reference, distributed, comparison)
        evidence = replace(evidence, undecided=float64 is None and _may_be_rounding(reference, comparison))
        return replace(
            result,
            verdict=Verdict.DIFFERENT,
            float64=float64,
            finding=diagnose(evidence),
            notes=tuple(self._notes),
        )

    def _in_float64(self, reference: Recording) -> Comparison | None:
        runs = (Run("one-device", "one device", self._one_device), self._workers_run(reference))
        doubled = [
            replace(run, name=f"{run.name}-float64", title=title, spec=replace(run.spec, float64=True))
            for run, title in zip(runs, ("one device", f"{self._title} in float64"), strict=True)
        ]
        try:
            one, other = self._runner.carry_out(*doubled)
        except RunFailed as failure:
            self._notes.append(f"The script does not run in float64 ({failure.run}: {_last(failure)}).")
            return None
        return compare(one, other, FLOAT64, without=self._raw_logs(other))

    def _raw_logs(self, distributed: Recording) -> frozenset[str]:
        """Logs that are of the last micro-batch where one device's are of the whole batch."""
        facts = distributed.chief_facts
        accumulate = max(self._options.accumulate, facts.get("accumulate", 1))
        raw = frozenset(facts.get("raw_logs", ())) if accumulate > 1 else frozenset()
        said = f"{', '.join(sorted(raw))}: not compared, since workers log what the last micro-batch returned."
        if raw and said not in self._notes:
            self._notes.append(said)
        return raw

    def _evidence(self, reference: Recording, distributed: Recording, comparison: Comparison) -> Evidence:
        accumulate = max(self._options.accumulate, reference.chief_facts.get("accumulate", 1))
        evidence = Evidence(reference, distributed, comparison, self._options.workers, accumulate)
        runs = [Run("again", "one device again", self._one_device)]
        if not (comparison.data or comparison.structure):
            # On the same rows; with others there is nothing to be seen in a step.
            runs.append(self._probe_run())
        try:
            again, *probes = self._runner.carry_out(*runs)
        except RunFailed as failure:
            self._notes.append(f"The cause was looked for without a second run ({failure.run}: {_last(failure)}).")
            return evidence
        seen = self._seen(probes[0]) if probes else {}
        return replace(evidence, again=compare(reference, again, self._tolerance), probe=seen)

    def _probe_run(self) -> Run:
        options = self._options
        slices = max(options.workers * options.accumulate, 2)
        # One device trains on whole batches: what it is told of micro-batches is for the probe alone.
        spec = replace(self._one_device, probe=slices, accumulate=options.accumulate)
        return Run("probe", "its first step in slices", spec)

    def _seen(self, probed: Recording) -> dict[str, Any]:
        seen: dict[str, Any] = probed.chief_facts.get("probe", {})
        if "error" not in seen:
            return seen
        self._notes.append("The first step does not run on slices of the batch, eagerly, so nothing was seen there.")
        return {}


def _may_be_rounding(reference: Recording, comparison: Comparison) -> bool:
    if comparison.structure or comparison.data:
        return False
    layers = [layer for fit in reference.chief_facts["fits"] for layer in fit["layers"]]
    return any(layer["compute_dtype"] in _LOW_PRECISION for layer in layers) or not comparison.is_certain


def _words(failure: RunFailed) -> tuple[str, ...]:
    return tuple(failure.words) or ("It printed nothing to stderr.",)


def _last(failure: RunFailed) -> str:
    return failure.words[-1].strip() if failure.words else failure.how
