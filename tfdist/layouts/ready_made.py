"""Layouts for common blocks, by the names that Keras' own layers give to their variables (Megatron-LM's rules).

Of two matrices that follow each other, the first is split by its columns and the second by its rows, so that between
them nothing is exchanged and after them there is one all-reduce (Shoeybi et al., "Megatron-LM", 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfdist.layouts.mesh_axes import Spec

#: What a layout map may have in place of a tuple.
ShapeRule = Callable[[Sequence[int]], Spec]


class ReadyMade(dict[str, Any]):
    """A layout map for models of many kinds: keys that match nothing in one of them are no mistake."""


_PROJECTIONS = r"(query|key|value)"


def by_width(axis: str) -> ShapeRule:
    """For kernels [inputs, outputs]: by columns where a layer widens, by rows where it narrows.

    Example:
        >>> by_width("model")((64, 256)), by_width("model")((256, 64))
        ((None, 'model'), ('model', None))
    """

    def rule(shape: Sequence[int]) -> Spec:
        if len(shape) != 2:
            return (None,) * len(shape)
        return (axis, None) if shape[0] > shape[1] else (None, axis)

    return rule


def mlp(axis: str = "model", *, names: str = r".*") -> ReadyMade:
    """`Dense` layers in pairs: the one that widens by its columns, the one that narrows by its rows; biases are whole.

    Args:
        axis: of the mesh.
        names: regular expression of the layers' paths.

    Example:

        tfdist.HybridParallelStrategy({"batch": 2, "model": 2}, tfdist.layouts.mlp(names=".*dense[^/]*"))
    """
    return ReadyMade({f"(?!.*{_PROJECTIONS}/|.*attention_output/)(?:{names})/kernel": by_width(axis)})


def attention(axis: str = "model") -> ReadyMade:
    """`MultiHeadAttention` and `GroupQueryAttention`: each device has some of the heads.

    Args:
        axis: of the mesh; its size must divide the number of heads, also those of keys and values.
    """
    return ReadyMade(
        {
            rf".*/{_PROJECTIONS}/kernel": (None, axis, None),
            rf".*/{_PROJECTIONS}/bias": (axis, None),
            r".*/attention_output/kernel": (axis, None, None),
        }
    )


def embedding(axis: str = "model", *, by: str = "features") -> ReadyMade:
    """`Embedding` tables.

    Args:
        axis: of the mesh.
        by: "features", each device has some numbers of every row; or "vocabulary", some of the rows, where the
            vocabulary is a multiple of the axis.

    Raises:
        ValueError: `by` is neither.
    """
    if by not in ("features", "vocabulary"):
        raise ValueError(f"Expected: by='features' or 'vocabulary'. Received: by={by!r}.")
    return ReadyMade({r".*embeddings": (None, axis) if by == "features" else (axis, None)})


def transformer(axis: str = "model") -> ReadyMade:
    """Attention by heads, `Dense` layers in pairs, embeddings by vocabulary; normalizations and most biases are whole.

    Args:
        axis: of the mesh.

    Example:

        strategy = tfdist.HybridParallelStrategy({"batch": 2, "model": 4}, tfdist.layouts.transformer())
    """
    return ReadyMade({**attention(axis), **mlp(axis), **embedding(axis)})
