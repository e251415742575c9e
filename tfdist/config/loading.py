"""A YAML file and the overrides of a command line, merged and checked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tfdist.config.checking import check, wrong_type
from tfdist.config.schema import TrainConfig
from tfdist.errors import ConfigError

_COMMAND_LINE = "on the command line"
#: A line of YAML can stand for billions of values, each of which is copied.
_MOST_VALUES = 100_000


def load(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a training configuration.

    Args:
        path: A YAML file whose keys are the fields of `TrainConfig`.
        overrides: "key=value", with dots for what is inside: "optimizer.options.clipnorm=1.0".
            Values are YAML. A name replaces a part as a whole: "optimizer=sgd".

    Raises:
        ConfigError: If the file can't be read, a key is unknown or missing, or a value is wrong.

    Example:
        >>> config = load("configs/quickstart.yaml", ["epochs=1"])
    """
    merged = OmegaConf.structured(TrainConfig)
    for source, values in [(f"in {path}", _read(Path(path))), (_COMMAND_LINE, _parse(overrides))]:
        checked = check(values, TrainConfig, "", source)
        for key, value in checked.items():
            if isinstance(value, dict) and "options" not in value and value.get("name"):
                _forget(merged, key)  # a new name: the options were those of the old one
        merged = _merge(merged, checked, source)
    return _finish(merged, f"in {path}")


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration must be a YAML file. Received: path={str(path)!r}, seen from "
            f"{Path.cwd()} ({getattr(error, 'strerror', error)}). {_similar_file(path)}"
        ) from error
    try:
        plain = yaml.safe_load(text)
        if _has_more_values(plain, _MOST_VALUES):
            raise yaml.YAMLError(f"more than {_MOST_VALUES} values, of which aliases (*name) repeat others")
        # OmegaConf's own reader knows numbers such as 1e-3, which YAML 1.1 takes for text.
        read = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if isinstance(plain, dict) else plain
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} must be YAML. Received: {_one_line(error)}. Correct that line.") from error
    if read is not None and not isinstance(read, dict):
        raise wrong_type("", "keys with values", read, f"in {path}")
    return read or {}


def _has_more_values(value: Any, most: int) -> bool:
    """Whether it takes more than so many values to write it without aliases."""
    left, seen = [value], 0
    while left and seen <= most:
        seen += 1
        one = left.pop()
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return seen > most


def _similar_file(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    names = [each.name for each in folder.glob("*.y*ml")] if folder.is_dir() else []
    if path.is_dir() and names:
        return f"Name one of its files, for example {folder / min(names)}."
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.4)
    return f"Did you mean {folder / near[0]}?" if near else "Correct the path."


def _parse(overrides: Sequence[str]) -> Any:
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not equals or not key or key.startswith("-"):
            raise ConfigError(
                f"Overrides must be key=value. Received: {text!r} {_COMMAND_LINE}. "
                "Write for example epochs=3 or optimizer.options.learning_rate=0.01"
            )
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(
            f"Values must be YAML. Received: {' '.join(overrides)!r} {_COMMAND_LINE} "
            f"({_one_line(error)}). Quote the value."
        ) from error


def _forget(config: DictConfig, key: str) -> None:
    node = config[key]
    if node is not None and "options" in node:
        node.options = {}


def _merge(config: DictConfig, values: dict[str, Any], source: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(config, values)
    except OmegaConfBaseException as error:
        raise _from_omegaconf(error, source) from error
    if not isinstance(merged, DictConfig):
        raise wrong_type("", "keys with values", values, source)
    return merged


def _finish(config: DictConfig, source: str) -> TrainConfig:
    try:
        OmegaConf.resolve(config)
        _check_all_given(config, source)
        values = check(OmegaConf.to_container(config), TrainConfig, "", source)
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), values))
    except OmegaConfBaseException as error:
        raise _from_omegaconf(error, source) from error
    if not isinstance(made, TrainConfig):
        raise wrong_type("", "keys with values", made, source)
    return made


def _check_all_given(config: DictConfig, source: str) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        key = missing[0].removesuffix(".name")
        raise ConfigError(
            f"{key} must be given. Received: no {key} {source}. "
            f"Add the line `{key}: ...`, or {key}=... on the command line."
        )


def _from_omegaconf(error: OmegaConfBaseException, source: str) -> ConfigError:
    key = getattr(error, "full_key", None) or "a key"
    kind = "missing" if isinstance(error, MissingMandatoryValue) else "wrong"
    return ConfigError(f"{key} is {kind} {source}: {_one_line(error)}. Correct it.")


def _one_line(error: Exception) -> str:
    """Of OmegaConf's errors the first line, of YAML's what and where."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', error)} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error).split("\n", 1)[0].rstrip(".")
