"""The outer optimizer: a Keras optimizer whose gradient is what the replicas' weights have moved by, on average.

With x the weights of the last averaging (the anchor), x_r those of replica r now, and share_r its part of the rows:

    gradient = sum_r share_r (x - x_r)          x <- outer_optimizer(x, gradient)          x_r <- x

    SGD(1)                                  plain averaging
    SGD(lr, momentum=m)                     slow momentum: SlowMo (Wang et al. 2019, arXiv:1910.00643)
    SGD(0.7, momentum=0.9, nesterov=True)   DiLoCo (Douillard et al. 2023, arXiv:2311.08105)
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

OuterFactory = Callable[[], Any]

#: All outer optimizers; strategies leave their gradients alone, which are global.
_outer: weakref.WeakSet[Any] = weakref.WeakSet()


def is_outer(optimizer: Any) -> bool:
    """Whether an optimizer is the outer one of an averaging."""
    return optimizer in _outer


def outer_factory(outer: Any) -> OuterFactory | None:
    """A function that makes a new outer optimizer.

    Args:
        outer: such a function, a Keras optimizer to make others like, its name or its serialized configuration
            (`{"class_name": "SGD", "config": {...}}`); None for none.

    Raises:
        TypeError: it is something else.
    """
    if outer is None:
        return None
    if isinstance(outer, keras.optimizers.Optimizer):
        class_, config = type(outer), outer.get_config()
        return lambda: class_.from_config(config)
    if isinstance(outer, str | Mapping):
        return lambda: keras.optimizers.get(outer if isinstance(outer, str) else dict(outer))
    if callable(outer):
        return outer
    raise TypeError(
        "Expected: outer_optimizer as a function that makes a Keras optimizer, a name such as 'sgd', or a "
        f"configuration. Received: outer_optimizer={outer!r}. Write outer_optimizer=lambda: keras.optimizers.SGD(0.7, "
        "momentum=0.9, nesterov=True)."
    )


class Outer:
    """Anchor and outer optimizer of some variables; made in the strategy's scope.

    Args:
        factory: makes the optimizer; None for plain averaging.
        variables: Keras variables that are averaged.

    Attributes:
        anchors: the variables' values at the last averaging.
        optimizer: built for the anchors.
    """

    def __init__(self, factory: OuterFactory | None, variables: list[Any]) -> None:
        self._variables = variables
        self.anchors = [_anchor(variable) for variable in variables]
        self.optimizer = _checked(keras.optimizers.SGD(1.0) if factory is None else factory())
        self.optimizer.build(self.anchors)
        _outer.add(self.optimizer)

    def take(self) -> None:
        """Begin from the weights as they are; in each replica."""
        for anchor, variable in zip(self.anchors, self._variables, strict=True):
            anchor.assign(variable.value)

    def changes(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """x - x_r, of the variables' values x_r; in each replica."""
        return [tf.subtract(anchor.value, value) for anchor, value in zip(self.anchors, values, strict=True)]

    def step(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Move the anchor by the averaged change; its new values, from which to go on; in each replica."""
        self.optimizer.apply(gradients, self.anchors)
        return [anchor.value for anchor in self.anchors]

    @property
    def state(self) -> list[Any]:
        """The optimizer's variables, which files hold."""
        return list(self.optimizer.variables)


def describe(optimizer: Any) -> str:
    """An optimizer's class and configuration, for comparisons."""
    config = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    return (
        f"{type(optimizer).__name__} {json.dumps(config, sort_keys=True, default=lambda value: type(value).__name__)}"
    )


def _anchor(variable: Any) -> Any:
    name = f"{variable.path.replace('/', '_')}_anchor"
    return keras.Variable(tf.zeros(variable.shape, variable.dtype), dtype=variable.dtype, name=name)


def _checked(optimizer: Any) -> Any:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Expected: outer_optimizer to make a Keras optimizer. "
            f"Received: outer_optimizer that made {optimizer!r}. Return one, such as keras.optimizers.SGD(0.7)."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or optimizer.gradient_accumulation_steps:
        raise ValueError(
            "Expected: an outer optimizer that makes a step of each averaged change. Received: "
            f"outer_optimizer={type(optimizer).__name__} with gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}. Leave loss scaling and accumulation to the inner optimizer."
        )
    return optimizer
