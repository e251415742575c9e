"""Training configurations: what is read, and what is refused in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tfdist
from tfdist.config import ConfigError, Part, load
from tfdist.config.objects import find, make
from tfdist.config.training import with_objects

pytestmark = pytest.mark.unit

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
SMALL = """
model: package.module:build
data: package.module:data
loss: mse
"""


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def extended(path: Path, text: str) -> Path:
    path.write_text(SMALL + text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configurations_are_valid(path):
    config = load(path)
    steps = config.strategy.options.get("gradient_accumulation_steps", 1)
    assert config.batch_size * steps == {"two_tower": 256, "async_sgd": 32, "incremental_sgd": 16}.get(path.stem, 64)
    assert config.data in (
        Part("../examples/two_tower.py:load_data", {"split": "train"}),
        Part("tfdist.data:digits", {"split": "train", "shuffle": True}),
        Part("../examples/tfrecords_mnist.py:load", {"split": "train"}),
        Part("../examples/char_transformer.py:load_text"),
    )


def test_what_is_not_given_has_its_default(small):
    config = load(small)
    assert config.model == Part("package.module:build")
    assert config.optimizer == Part("adam")
    assert (config.epochs, config.batch_size, config.strategy, config.save) == (1, 32, None, None)
    assert config.launch.workers == 1


def test_overrides_replace_what_the_file_says(small):
    extended(small, "epochs: 5\noptimizer: {name: sgd, options: {momentum: 0.9, learning_rate: 1e-3}}")
    config = load(small, ["epochs=2", "optimizer.options.momentum=0.5", "metrics=[accuracy]"])
    assert config.epochs == 2
    assert config.optimizer == Part("sgd", {"momentum": 0.5, "learning_rate": 0.001})
    assert config.metrics == [Part("accuracy")]


def test_a_new_name_drops_the_options_of_the_old_one(small):
    extended(small, "optimizer: {name: sgd, options: {momentum: 0.9}}")
    assert load(small, ["optimizer=adam"]).optimizer == Part("adam")
    named = load(small, ["optimizer=adam", "validation_data=a.b:c"])
    assert named.validation_data == Part("a.b:c")


def test_one_key_can_refer_to_another(small):
    assert load(extended(small, "epochs: 7\nseed: ${epochs}")).seed == 7


WRONG = [
    ("epoch: 3", [], r"Received: epoch in .*small.yaml. Did you mean 'epochs'\?"),
    ("", ["epoch=3"], r"Received: epoch on the command line. Did you mean 'epochs'\?"),
    ("zebra_crossing: 1", [], r"Received: zebra_crossing in .* Remove it."),
    ("optimizer: {nam: sgd}", [], r"Received: optimizer.nam .* Did you mean 'name'\?"),
    ("callbacks: [{name: X, option: {}}]", [], r"Received: callbacks\[0\].option .*'options'\?"),
    ("launch: {worker: 2}", [], r"Received: launch.worker .*'workers'\?"),
    ("epochs: three", [], r"epochs must be an integer. Received: epochs='three' \(str\)"),
    ("epochs: 1.5", [], r"epochs must be an integer. Received: epochs=1.5 \(float\)"),
    ("epochs: true", [], r"epochs must be an integer. Received: epochs=True \(bool\)"),
    ("epochs: 0", [], r"epochs must be at least 1. Received: epochs=0"),
    ("epochs:", [], r"epochs must be an integer. Received: epochs=None"),
    ("optimizer: 3", [], r"optimizer must be a name, or keys 'name' and 'options'. Received: .*=3"),
    ("optimizer: {options: 3}", [], r"optimizer.options must be keys with values. Received: .*=3"),
    ("metrics: accuracy", [], r"metrics must be a list. Received: metrics='accuracy'"),
    ("save: 3", [], r"save must be text. Received: save=3"),
    ("launch: {workers: 2}", [], r"ParameterServerStrategy. Received: strategy=None"),
    ("seed: ${epocs}", [], r"is wrong in .*small.yaml: Interpolation key 'epocs' not found"),
    ("seed: ${save}\nsave: x", [], r"seed is wrong .*Value 'x' .* Integer"),
    ("callbacks: [{options: {a: 1}}]", [], r"callbacks\[0\] must be given"),
    ("a: [1", [], r"small.yaml must be YAML. Received: .*line 5, column 6"),
    ("", ["--epochs=3"], r"Overrides must be key=value. Received: '--epochs=3'"),
    ("", ["epochs"], r"Overrides must be key=value. Received: 'epochs'"),
    ("", ["metrics=[[1"], r"Values must be YAML. Received: 'metrics=\[\[1'"),
]  # fmt: skip


@pytest.mark.parametrize("text, overrides, message", WRONG)
def test_what_is_wrong_is_named(small, text, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(extended(small, text), overrides)


@pytest.mark.parametrize("missing", ["model", "data", "loss"])
def test_a_missing_part_is_named(tmp_path, missing):
    lines = [line for line in SMALL.splitlines() if not line.startswith(missing)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=f"{missing} must be given. Received: no {missing} in"):
        load(tmp_path / "x.yaml")


def test_a_missing_file_and_a_folder_suggest_a_file(small):
    with pytest.raises(ConfigError, match=r"No such file.* Did you mean .*small.yaml\?"):
        load(small.with_name("smal.yaml"))
    with pytest.raises(ConfigError, match=r"directory.*for example .*small.yaml"):
        load(small.parent)


@pytest.mark.parametrize("text", ["- 1\n- 2", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match="The configuration must be keys with values"):
        load(tmp_path / "x.yaml")


class Base:
    def __init__(self, rate: float = 0.1, **kwargs: object) -> None:
        if not isinstance(rate, float):
            raise TypeError("rate must be a number.")
        self.rate = rate


class Derived(Base):
    def __init__(self, speed: int = 1, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.speed = speed


def test_a_class_is_found_by_its_name_in_any_case_and_takes_options_of_its_bases(tmp_path):
    made = make(Part("derived", {"rate": 0.5, "speed": 2}), "part", tmp_path, {"Derived": Derived})
    assert (made.rate, made.speed) == (0.5, 2)


def test_a_function_is_found_in_a_file_beside_the_configuration(tmp_path):
    (tmp_path / "neighbour_of_parts.py").write_text("VALUE = 3")
    source = "import neighbour_of_parts\ndef f(x):\n    return x + neighbour_of_parts.VALUE\n"
    (tmp_path / "parts_of_a_test.py").write_text(source)
    assert make(Part("parts_of_a_test.py:f", {"x": 1}), "part", tmp_path, {}) == 4


@pytest.mark.parametrize(
    "name, message",
    [
        ("Drived", r"Received: part='Drived'. Did you mean 'Derived'\?"),
        ("zzz", "Choose from Derived"),
        ("absent.py:f", "must name a Python file. Received: part='absent.py'"),
        ("absent_package.module:f", "Received: part='absent_package.module'"),
        ("tfdist.log:loger", r"Did you mean tfdist.log:logger\?"),
        ("tfdist.log:zzzzz", "Correct the name behind the colon"),
    ],
)
def test_an_unknown_name_is_refused(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        find(name, "part", tmp_path, {"Derived": Derived})


def test_unknown_and_unfit_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Received: part.options.sped .*'speed'\?"):
        make(Part("derived", {"sped": 2}), "part", tmp_path, {"Derived": Derived})
    with pytest.raises(ConfigError, match=r"can't be made: rate must be a number. Received: part"):
        make(Part("derived", {"rate": "x"}), "part", tmp_path, {"Derived": Derived})


def test_an_import_that_fails_inside_the_named_module_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_with_a_bad_import.py").write_text("import package_that_is_absent")
    with pytest.raises(ModuleNotFoundError, match="package_that_is_absent"):
        find("module_with_a_bad_import:f", "part", tmp_path, {})


@pytest.mark.parametrize(
    "described, made",
    [
        ("StalenessAware", "StalenessAware(offset=0)"),
        ({"name": "stalenessaware", "options": {"offset": 1}}, "StalenessAware(offset=1)"),
        (
            {"name": "BoundedStaleness", "options": {"max_staleness": 4, "when_exceeded": "drop"}},
            "BoundedStaleness(max_staleness=4, when_exceeded='drop')",
        ),
        ({"name": "tfdist.updates:Synchronous"}, "Synchronous(backup_workers=0)"),
        (None, "None"),
    ],
)
def test_a_policy_of_updates_is_described_as_other_parts_are(tmp_path, described, made):
    strategy = Part("ParameterServerStrategy", {"update": described, "data": "feed"})
    found = with_objects(strategy, tmp_path)
    assert found.name == strategy.name
    assert {name: str(value) for name, value in found.options.items()} == {"update": made, "data": "feed"}
    assert strategy.options["update"] == described, "the configuration stays as it is"


@pytest.mark.parametrize(
    "described, message",
    [
        ("BoundedStalenes", "Received: strategy.options.update='BoundedStalenes'. Did you mean 'BoundedStaleness'?"),
        ({"name": "StalenessAware", "options": {"ofset": 1}}, "Did you mean 'offset'?"),
        ({"name": "Synchronous", "backup_workers": 1}, "Received: strategy.options.update.backup_workers"),
        ({"name": "BoundedStaleness", "options": {"max_staleness": -1}}, "Received: max_staleness=-1"),
        (3, "Received: strategy.options.update=3"),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path, described, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        with_objects(Part("ParameterServerStrategy", {"update": described}), tmp_path)


@pytest.mark.parametrize(
    "described, made",
    [
        ({"name": "PowerSGD", "options": {"rank": 2}}, tfdist.gradients.PowerSGD(rank=2)),
        ("cast", tfdist.gradients.Cast()),
        (
            {"name": "TopK", "options": {"fraction": 0.1, "warmup_steps": 10}},
            tfdist.gradients.TopK(0.1, warmup_steps=10),
        ),
        ("int8", "int8"),
        (None, None),
    ],
)
def test_compression_is_described_as_an_object_or_by_its_word(tmp_path, described, made):
    assert with_objects(Part("LocalSGDStrategy", {"compression": described}), tmp_path).options["compression"] == made


@pytest.mark.parametrize(
    "described, message",
    [
        ("PowerSDG", "Did you mean 'PowerSGD'?"),
        ({"name": "PowerSGD", "options": {"ranks": 2}}, "Did you mean 'rank'?"),
        ({"name": "Quantize", "options": {"bits": 2}}, "Received: bits=2"),
    ],
)
def test_what_is_no_compression_is_refused(tmp_path, described, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        with_objects(Part("MirroredStrategy", {"compression": described}), tmp_path)


@pytest.mark.parametrize(
    "described, made",
    [
        ("transformer", tfdist.layouts.transformer()),
        ({"name": "embedding", "options": {"by": "vocabulary"}}, {".*embeddings": ("model", None)}),
        ({".*up/kernel": [None, "model"]}, {".*up/kernel": [None, "model"]}),
        ("auto", "auto"),
        (None, None),
    ],
)
def test_layouts_are_described_by_name_or_as_a_map(tmp_path, described, made):
    strategy = Part("HybridParallelStrategy", {"mesh": {"model": 2}, "layout_map": described})
    found = with_objects(strategy, tmp_path).options["layout_map"]
    if isinstance(made, dict):  # of which rules that are functions are made anew
        found, made = list(found), list(made)
    assert found == made


def test_layouts_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'transformer'"):
        with_objects(Part("HybridParallelStrategy", {"layout_map": "transformr"}), tmp_path)
