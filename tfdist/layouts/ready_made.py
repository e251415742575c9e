"""Layouts for common blocks, by the names that Keras' own layers give to their variables (Megatron-LM's rules).

Of two matrices that follow each other, the first is split by its columns and the second by its rows, so that between
them nothing is exchanged and after them there is one all-reduce (Shoeybi et al., "Megatron-LM", 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfdist.layouts.mesh_axes import Spec

#: What a layout map may have in place of a tuple.
ShapeRule = Callable[[Sequence[int]], Spec]

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


def mlp(axis: str = "model", *, names: str = r".*") -> dict[str, Spec | ShapeRule]:
    """`Dense` layers in pairs: the one that widens by its columns, the one that narrows by its rows; biases are whole.

    Args:
        axis: of the mesh.
        names: regular expression of the layers' paths.

    Example:

        tfdist.HybridParallelStrategy({"batch": 2, "model": 2}, tfdist.layouts.mlp(names=".*dense[^/]*"))
    """
    return {f"(?!.*{_PROJECTIONS}/|.*attention_output/)(?:{names})/kernel": by_width(axis)}


def attention(axis: str = "model") -> dict[str, Spec | ShapeRule]:
    """`MultiHeadAttention` and `GroupQueryAttention`: each device has some of the heads.

    Args:
        axis: of the mesh; its size must divide the number of heads, also those of keys and values.
    """
    return {
        rf".*/{_PROJECTIONS}/kernel": (None, axis, None),
        rf".*/{_PROJECTIONS}/bias": (axis, None),
        r".*/attention_output/kernel": (axis, None, None),
    }


def embedding(axis: str = "model", *, by: str = "features") -> dict[str, Spec | ShapeRule]:
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
    return {r".*embeddings": (None, axis) if by == "features" else (axis, None)}


def transformer(axis: str = "model") -> dict[str, Spec | ShapeRule]:
    """Attention by heads, `Dense` layers in pairs, embeddings by features; normalizations and most biases are whole.

    Args:
        axis: of the mesh.

    Example:

        strategy = tfdist.HybridParallelStrategy({"batch": 2, "model": 4}, tfdist.layouts.transformer())
    """
    return {**attention(axis), **mlp(axis), **embedding(axis)}
