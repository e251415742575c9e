"""Runs the user's script, instrumented, in this process: `python -m tfdist.verify.child SPEC`."""

from __future__ import annotations

import contextlib
import faulthandler
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import tensorflow as tf

from tfdist.cluster import resolve
from tfdist.data.sharding import prefer_batches
from tfdist.verify.child.batches import Batches
from tfdist.verify.child.call_sites import CallSites
from tfdist.verify.child.fits import Fits
from tfdist.verify.child.precision import compute_in_float64
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.child.seeds import set_default_seeds
from tfdist.verify.child.substitution import WorkersStrategy, one_device, substitute
from tfdist.verify.spec import ChildSpec


def main(path: str) -> int:
    """Carry out the run that the file describes; returns the exit code."""
    spec = ChildSpec.read(Path(path))
    # A worker may wait in C++ for one that is gone: this ends it all the same, and says where it was.
    faulthandler.dump_traceback_later(spec.timeout_seconds, exit=True)
    worker = resolve().task.index if spec.is_distributed else 0
    recorder, sites = Recorder(Path(spec.folder), worker), CallSites()
    recorder.facts |= {"sites": sites.sites, "strategies": [], "argv": [spec.script, *spec.arguments]}
    if spec.float64:
        compute_in_float64()
    prefer_batches()
    set_default_seeds(of_worker=worker if spec.own_seeds else 0)
    strategy = _strategy(spec, sites)
    substitute(strategy, recorder.facts["strategies"])
    sites.watch()
    slices = spec.accumulate if spec.is_distributed else 1
    batches = Batches(strategy, slices=slices, join=not spec.is_distributed)
    Fits(spec, recorder, batches).watch()
    with strategy.scope() if spec.enter_scope else contextlib.nullcontext():
        code = _run_script(spec)
    recorder.facts["ended"] = code
    recorder.write_facts()
    return code


def _strategy(spec: ChildSpec, sites: CallSites) -> tf.distribute.Strategy:
    if not spec.is_distributed:
        return one_device()
    return WorkersStrategy(sites=sites, gradient_accumulation_steps=spec.accumulate)


def _run_script(spec: ChildSpec) -> int:
    """Run it as `python script.py arguments` would; an exception's traceback begins in the script."""
    sys.argv = [spec.script, *spec.arguments]
    sys.path[0] = str(Path(spec.script).resolve().parent)
    try:
        runpy.run_path(spec.script, run_name="__main__")
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as error:
        traceback.print_exception(type(error), error, _from_script(error.__traceback__, spec.script))
        return 1
    return 0


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _from_script(trace: TracebackType | None, script: str) -> TracebackType | None:
    frames = list(_frames(trace))
    return next((frame for frame in frames if frame.tb_frame.f_code.co_filename == script), trace)


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
