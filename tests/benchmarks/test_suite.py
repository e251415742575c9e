"""The benchmarks that there are, what they need, and their options."""

from __future__ import annotations

import pytest
from absl import flags

from benchmarks.harness import documents, options, registry
from benchmarks.harness.command import DOCUMENT
from benchmarks.harness.requirements import TENSORFLOW, Pythons, Requirement
from benchmarks.suite import scaling

pytestmark = pytest.mark.unit

ABSENT = Requirement("no_such_library", "pip install it")
FALSE = Requirement("json", "turn the moon", "1 == 2")


@pytest.mark.parametrize("name", registry.names())
def test_a_benchmark(name):
    one = registry.load(name)
    assert one.name == name
    assert len(one.measures) <= 110 and one.takes and one.needs
    cases = one.cases(one.options(), Pythons())
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    contenders = {case.job.contender.name for case in cases}
    assert one.baseline in contenders
    # --contenders is a list with commas.
    assert not [name for name in contenders if "," in name]
    modules = {case.job.contender.module.rpartition(".")[2] for case in cases}
    assert all((registry.FOLDER / "tasks" / f"{module}.py").exists() for module in modules)


@pytest.mark.parametrize("name", registry.names())
def test_the_document_has_a_section(name):
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [text.count(marker) for marker in documents.markers(name)] == [1, 1]
    assert f": `{name}`\n" in text


def test_scripts_are_found_by_their_docstrings():
    found = dict(registry.scripts())
    assert found["step_overhead"].startswith("Seconds a step of `fit` under tfdist.MirroredStrategy")
    # Parts of a script are none.
    assert not {"accumulation_tf_task", "accumulation_meter", "limited_link", "model_parallel_task"} & set(found)
    assert not set(found) & set(registry.names())


def test_what_is_missing_is_said_with_the_remedy():
    pythons = Pythons({"torch": "/nowhere/python"})
    assert pythons.missing("here", (TENSORFLOW,)) == ""
    assert pythons.missing("here", (TENSORFLOW, ABSENT)) == (
        "no_such_library is not installed for this Python. Remedy: pip install it"
    )
    assert pythons.missing("here", (FALSE,)) == "not available. Remedy: turn the moon"
    assert "tensorflow is not installed for --torch_python. Remedy: " in pythons.missing("torch", (TENSORFLOW,))


def test_versions():
    found = Pythons().versions("here", ["tensorflow", "no_such_library"])
    assert set(found) == {"python", "tensorflow"}
    assert found["tensorflow"].startswith("2.")


def read(argv: list[str], *, quick: bool = False) -> scaling.Options:
    values = flags.FlagValues()
    options.define(scaling.Options, values)
    values(["bench", *argv])
    return options.read(scaling.Options, values, quick=quick)


def test_options_of_a_benchmark():
    assert read([]) == scaling.Options()
    assert read([], quick=True).steps < scaling.Options().steps
    assert read(["--hidden=64,32", "--steps=7"], quick=True) == scaling.Options(hidden=(64, 32), steps=7)
    with pytest.raises(ValueError, match="--hidden: Expected: numbers above 0"):
        read(["--hidden=64,0"])
