"""Typed features: what a record holds, how it is written, how it is read."""

from tfdist.data.features.collection import as_features, features_from_json, features_to_json
from tfdist.data.features.feature import Feature
from tfdist.data.features.image import Image
from tfdist.data.features.lengths import Ragged, VariableLength
from tfdist.data.features.sparse import Sparse
from tfdist.data.features.tensor import String, Tensor

__all__ = [
    "Feature",
    "Image",
    "Ragged",
    "Sparse",
    "String",
    "Tensor",
    "VariableLength",
    "as_features",
    "features_from_json",
    "features_to_json",
]
