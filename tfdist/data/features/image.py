"""Images, compressed in the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfdist.data.features.feature import Feature, checked_shape
from tfdist.data.features.storage import fixed_storage

_ENCODERS = {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}
# How files of the kinds that TensorFlow decodes begin.
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_BYTES = fixed_storage("string")


@dataclass(frozen=True)
class Image(Feature):
    """An image, written as an image file.

    A record's value is the bytes of such a file, which are written as they are, or a uint8 array [height, width,
    channels], which is encoded.

    Args:
        shape: (height, width, channels) of all images, which are then read as uint8 [rows, *shape]. By default they may
            differ, and the bytes are read, as strings [rows].
        encoding: Of arrays: "png", which loses nothing, or "jpeg".

    Raises:
        TypeError: If the shape is no sequence of integers.
        ValueError: If it isn't one of an image, or there is no such encoding.

    Example:
        >>> features = {"photo": tfdist.data.Image((224, 224, 3), encoding="jpeg")}
    """

    shape: Sequence[int] | None = None
    encoding: str = "png"
    kind: ClassVar[str] = "image"
    encodes_slowly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.encoding not in _ENCODERS:
            raise ValueError(
                f"encoding must be one of {sorted(_ENCODERS)}. Received: encoding={self.encoding!r}. Choose one."
            )
        if self.shape is None:
            return
        object.__setattr__(self, "shape", checked_shape(self.shape, smallest=1))
        if len(self.shape) != 3 or self.shape[2] not in self._channels():
            raise ValueError(
                f"shape must be (height, width, channels), with channels one of {self._channels()} for "
                f"{self.encoding}. Received: shape={self.shape}. Correct it."
            )

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        return {name: _BYTES.to_feature(np.array([self._encoded(self._checked(name, value))], object))}

    def snapshot(self, name: str, value: Any) -> Any:
        """See `Feature.snapshot`."""
        checked = self._checked(name, value)
        return checked if isinstance(checked, bytes) else checked.copy()

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        return {name: tf.io.FixedLenFeature((), tf.string)}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        if self.shape is None:
            return parsed[name]
        shape = list(self.shape)
        wrong = f"Feature {name!r} has an image of another shape than {tuple(shape)}. Declare it with its shape."

        def decode(data: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(data, channels=shape[2], expand_animations=False)
            with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image), shape, wrong)]):
                image = tf.identity(image)
            image.set_shape(shape)
            return image

        return tf.map_fn(decode, parsed[name], fn_output_signature=tf.TensorSpec(shape, tf.uint8))

    def _channels(self) -> tuple[int, ...]:
        return (1, 3) if self.encoding == "jpeg" else (1, 2, 3, 4)

    def _encoded(self, image: Any) -> bytes:
        if isinstance(image, bytes):
            return image
        return bytes(_ENCODERS[self.encoding](image).numpy())

    def _checked(self, name: str, value: Any) -> Any:
        value = value.numpy() if isinstance(value, tf.Tensor) else value
        value = value.item() if isinstance(value, np.ndarray) and value.dtype == object and not value.shape else value
        if isinstance(value, bytes):
            if not value.startswith(_BEGINNINGS):
                raise ValueError(
                    f"Feature {name!r} must be the bytes of a PNG, JPEG, GIF or BMP file. Received: bytes that begin "
                    f"with {value[:8]!r}. Give an array, or the bytes of such a file."
                )
            return value
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            what = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"Feature {name!r} must be bytes or a uint8 array. Received: {what}. Convert it.")
        expected = tuple(self.shape) if self.shape else None
        if (expected and value.shape != expected) or value.ndim != 3 or value.shape[2] not in self._channels():
            wanted = expected or f"(height, width, channels), with channels one of {self._channels()}"
            raise ValueError(f"Feature {name!r} must have shape {wanted}. Received: shape {value.shape}. Reshape it.")
        return value
