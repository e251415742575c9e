"""The features of a data set: a mapping of names, checked, and as JSON for an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfdist.data.features.feature import Feature
from tfdist.data.features.image import Image
from tfdist.data.features.lengths import Ragged, VariableLength
from tfdist.data.features.plain import CLASSES, Plain
from tfdist.data.features.sparse import Sparse
from tfdist.data.features.tensor import String, Tensor

_KINDS: dict[str, type[Feature]] = {
    kind.kind: kind for kind in (Tensor, String, VariableLength, Ragged, Sparse, Image, Plain)
}


def as_features(features: Mapping[str, Any]) -> dict[str, Feature]:
    """Returns features by name; TensorFlow's own descriptions become features.

    Args:
        features: name -> feature of `tfdist.data`, or what `tf.io.parse_example` takes.

    Raises:
        TypeError: If it is no mapping, or something in it no feature.
        ValueError: If there is no feature, or two would lie in the same place of a record.
    """
    if not isinstance(features, Mapping):
        raise TypeError(
            f"features must be a mapping of names to features. Received: features={features!r}. "
            'Write for example {"label": tfdist.data.Tensor((), "int64")}.'
        )
    if not features:
        raise ValueError("At least one feature must be given. Received: features={}. Describe what a record holds.")
    found = {_checked_name(name): _as_feature(name, feature) for name, feature in features.items()}
    _check_places(found)
    return found


def features_to_json(features: Mapping[str, Any]) -> dict[str, Any]:
    """Returns features as JSON can hold them."""
    return {name: feature.to_json() for name, feature in as_features(features).items()}


def features_from_json(fields: Mapping[str, Any]) -> dict[str, Feature]:
    """Returns the features that `features_to_json` was given.

    Raises:
        ValueError: If a feature is of no known kind, or lacks a field.
    """
    return {name: _from_json(name, each) for name, each in fields.items()}


def _from_json(name: str, fields: Mapping[str, Any]) -> Feature:
    rest = {key: tuple(value) if key.endswith("shape") and value else value for key, value in fields.items()}
    try:
        return _KINDS[str(rest.pop("kind"))].from_json(rest)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"Feature {name!r} must be of a kind that this version knows, {', '.join(_KINDS)}, with all its fields. "
            f"Received: {dict(fields)!r}. Read it with the version of tfdist that wrote it."
        ) from error


def _as_feature(name: str, feature: Any) -> Feature:
    if isinstance(feature, Feature):
        return feature
    if isinstance(feature, tuple(CLASSES.values())):
        return Plain(feature)
    raise TypeError(
        f"Feature {name!r} must be one of tfdist.data.Tensor, String, VariableLength, Ragged, Sparse, Image or of "
        f'tf.io. Received: {name}={feature!r}. Write for example tfdist.data.Tensor((), "int64").'
    )


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"Names of features must be strings. Received: name={name!r}. Name it.")
    return name


def _check_places(features: dict[str, Feature]) -> None:
    """Parts of a feature are called NAME/PART, so no other may be."""
    for name in features:
        owner, slash, _ = name.partition("/")
        if slash and isinstance(features.get(owner), Sparse):
            raise ValueError(f"{name!r} belongs to the feature {owner!r}. Received: both as features. Rename one.")
