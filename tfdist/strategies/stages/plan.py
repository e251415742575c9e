"""Which layer is in which stage.

A call of a layer is in the latest stage of its inputs, or in a later one that it begins. So data only ever goes to
later stages, an operation between layers (the addition of a residual) is where the latest of what it adds is made, and
a tensor that skips a stage is sent past it. Stages begin at the layers that are named, or at those that make the
largest stage's parameters as few bytes as can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdist._compat.keras_staged_models import LayerCall
from tfdist.log import logger


@dataclass(frozen=True)
class Stage:
    """What one device does.

    Attributes:
        index: from 0.
        calls: in the order in which they are made.
        needed: ids of the tensors that come from the model's inputs or from earlier stages.
        handed: ids of the tensors that later stages or the model's outputs need.
        own_variables: Keras variables that are on this stage's device.
        variables: those that it uses; more than its own where layers are shared with an earlier stage.
    """

    index: int
    calls: list[LayerCall]
    needed: list[int]
    handed: list[int]
    own_variables: list[Any] = field(default_factory=list)
    variables: list[Any] = field(default_factory=list)

    @property
    def layer_names(self) -> list[str]:
        """In the order of their first calls."""
        return list(dict.fromkeys(call.name for call in self.calls))


def cut(
    calls: Sequence[LayerCall], inputs: Sequence[int], outputs: Sequence[int], count: int, boundaries: Any = None
) -> list[Stage]:
    """Cut a model.

    Args:
        calls: of its graph, in an order in which they can be made.
        inputs, outputs: ids of the model's tensors.
        count: stages.
        boundaries: names of the layers that begin the stages after the first; None to balance bytes of parameters.

    Raises:
        ValueError: a name is none of a layer, names are in another order than data, or there are too few layers.
    """
    names = _balanced(calls, count) if boundaries is None else list(boundaries)
    _check_names(calls, names, count)
    stages = list(_stages_of(calls, {name: index + 1 for index, name in enumerate(names)}))
    _check_order(calls, stages, names)
    if boundaries is None and names:
        logger.info("pipeline: stages begin at layers %s, chosen to balance bytes of parameters", ", ".join(names))
    return _with_variables(_connected(calls, stages, inputs, outputs, count))


def _stages_of(calls: Sequence[LayerCall], begins: dict[str, int]) -> Iterator[int]:
    """The stage of each call."""
    made: dict[int, int] = {}
    for call in calls:
        stage = max([made.get(one, 0) for one in call.inputs] + [begins.get(call.name, 0)])
        made.update(dict.fromkeys(call.outputs, stage))
        yield stage


def _balanced(calls: Sequence[LayerCall], count: int) -> list[str]:
    """Layers that begin stages, so that the largest stage is as small as it can be."""
    sizes = {call.name: size_bytes(call.variables) for call in calls if call.variables}
    names = list(sizes)
    if len(names) < count:
        raise ValueError(
            f"Each stage needs a layer with parameters. Expected: at least {count} of them, the number of devices. "
            f"Received: {len(names)} ({', '.join(names) or 'none'}). Use fewer devices, or name the layers that begin "
            "stages with boundaries=."
        )
    # best[n][stages] of the first n layers: bytes of the largest stage, and where the last stage begins.
    best = {(0, 0): (0, 0)}
    for end in range(1, len(names) + 1):
        for stages in range(1, min(end, count) + 1):
            choices = [
                (max(best[begin, stages - 1][0], sum(sizes[name] for name in names[begin:end])), begin)
                for begin in range(stages - 1, end)
                if (begin, stages - 1) in best
            ]
            best[end, stages] = min(choices)
    begins, end = [], len(names)
    for stages in range(count, 1, -1):
        end = best[end, stages][1]
        begins.append(names[end])
    return begins[::-1]


def _check_names(calls: Sequence[LayerCall], names: list[str], count: int) -> None:
    known = list(dict.fromkeys(call.name for call in calls))
    if len(names) != count - 1:
        raise ValueError(
            f"A boundary is the layer that begins a stage after the first. Expected: {count - 1} names for {count} "
            f"devices. Received: boundaries={names}."
        )
    wrong = [name for name in names if name not in known]
    if wrong or len(set(names)) < len(names):
        what = f"{wrong[0]!r} is none" if wrong else "a name is there twice"
        raise ValueError(
            f"Expected: boundaries that are names of the model's layers, {', '.join(known)}. "
            f"Received: boundaries={names}; {what}. A layer inside another model is none of this one."
        )


def _check_order(calls: Sequence[LayerCall], stages: list[int], names: list[str]) -> None:
    begun: dict[str, int] = {}
    for call, stage in zip(calls, stages, strict=True):
        begun.setdefault(call.name, stage)
    for index, name in enumerate(names):
        if begun[name] != index + 1:
            raise ValueError(
                f"Stages follow each other as data does. Expected: boundaries in the order in which the model calls "
                f"its layers. Received: boundaries={names}, of which {name!r} is in stage {begun[name]} by its "
                f"inputs, and so can't begin stage {index + 1}. Sort them, or name layers that follow each other."
            )
    if 0 not in stages:
        raise ValueError(
            "Each stage needs a layer. Expected: boundaries behind the model's first layer, which begins the first "
            f"stage by itself. Received: boundaries={names}, of which {names[0]!r} is that layer. Name a later one."
        )


def _connected(
    calls: Sequence[LayerCall], stages: list[int], inputs: Sequence[int], outputs: Sequence[int], count: int
) -> list[Stage]:
    made = dict.fromkeys(inputs, -1)
    for call, stage in zip(calls, stages, strict=True):
        made.update(dict.fromkeys(call.outputs, stage))
    used = [(one, stage) for call, stage in zip(calls, stages, strict=True) for one in call.inputs]
    used += [(one, count) for one in outputs]
    return [
        Stage(
            index,
            [call for call, stage in zip(calls, stages, strict=True) if stage == index],
            needed=list(dict.fromkeys(one for one, stage in used if stage == index and made[one] < index)),
            handed=list(dict.fromkeys(one for one, stage in used if stage > index and made[one] == index)),
        )
        for index in range(count)
    ]


def _with_variables(stages: list[Stage]) -> list[Stage]:
    """A layer that several stages share has its variables in the first of them."""
    placed: set[int] = set()
    for stage in stages:
        stage.variables.extend({id(v): v for call in stage.calls for v in call.variables}.values())
        stage.own_variables.extend(v for v in stage.variables if id(v) not in placed)
        placed |= {id(v) for v in stage.variables}
    return stages


def size_bytes(variables: Sequence[Any]) -> int:
    """What the values of Keras variables take."""
    return sum(one.value.dtype.size * int(one.value.shape.num_elements()) for one in variables)
