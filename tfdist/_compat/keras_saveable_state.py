"""State of tfdist that Keras saves with a model, beside what plain Keras knows.

Upstream: `model.save` and `save_weights` walk over the attributes of models and optimizers and keep those that are
`KerasSaveable`, a private class; groups of a file that nobody asks for are left alone, so plain Keras loads the file.
Here: a base class for an attribute of an optimizer. Seen in Keras 3.15.1. Can go when Keras exports the class.
"""

from __future__ import annotations

from keras.src.saving.keras_saveable import KerasSaveable


class SaveableState(KerasSaveable):
    """Subclasses have `save_own_variables(store)` and `load_own_variables(store)`; a store maps names to arrays."""

    def _obj_type(self) -> str:
        # One of the types that Keras knows; it decides which attributes are left out of the walk.
        return "Loss"
