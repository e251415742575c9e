"""One small example of each layer class in keras.layers, for tests that try them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

#: Rows of a batch.
ROWS = 8


@dataclass(frozen=True)
class Example:
    """How a layer is made and called.

    Args:
        make: makes it.
        inputs: shapes of a row of each input.
        high: inputs are integers below this; None for normal floats.
    """

    make: Callable[[], Any]
    inputs: tuple[tuple[int, ...], ...]
    high: int | None = None

    def arrays(self) -> list[np.ndarray]:
        """A batch."""
        random = np.random.RandomState(0)
        shapes = [(ROWS, *shape) for shape in self.inputs]
        if self.high is not None:
            return [random.randint(0, self.high, shape).astype("int32") for shape in shapes]
        return [random.randn(*shape).astype("float32") for shape in shapes]


#: Not layers to train a model with: bases, cells that RNN calls, other frameworks', and those that make numbers of
#: strings or batches of pictures, which belong into the data set.
NOT_IN_MODELS = {
    **dict.fromkeys(["Layer", "Wrapper", "InputLayer", "Pipeline"], "a base class"),
    **dict.fromkeys(["LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"], "part of RNN"),
    **dict.fromkeys(["JaxLayer", "FlaxLayer", "TorchModuleWrapper", "TFSMLayer"], "another framework's"),
    **dict.fromkeys(["StringLookup", "TextVectorization", "Hashing", "HashedCrossing"], "for data sets"),
    "STFTSpectrogram": "needs SciPy",
    "Equalization": "can't be in a model after another layer, in Keras 3.15.1",
    **dict.fromkeys(["IntegerLookup", "MaxNumBoundingBoxes", "Discretization"], "for data sets"),
}

_vector, _sequence, _image, _volume = ((8,),), ((6, 4),), ((8, 8, 4),), ((4, 4, 4, 4),)
_two, _three = ((8,), (8,)), ((6, 4), (6, 4))


def _of(name: str, *args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(layers, name)(*args, **options)


def _each(names: str, inputs: tuple[tuple[int, ...], ...], *args: Any, **options: Any) -> dict[str, Example]:
    return {name: Example(_of(name, *args, **options), inputs) for name in names.split()}


EXAMPLES: dict[str, Example] = {
    **_each("Identity ReLU LeakyReLU ELU PReLU Softmax UnitNormalization Flatten ActivityRegularization", _vector),
    **_each("LayerNormalization RMSNormalization BatchNormalization", _vector),
    "GroupNormalization": Example(_of("GroupNormalization", 2), _image),
    "Activation": Example(_of("Activation", "gelu"), _vector),
    "Dense": Example(_of("Dense", 8), _vector),
    "EinsumDense": Example(_of("EinsumDense", "abc,cd->abd", output_shape=(6, 8), bias_axes="d"), _sequence),
    "Embedding": Example(_of("Embedding", 12, 8), ((6,),), high=12),
    "ReversibleEmbedding": Example(_of("ReversibleEmbedding", 12, 8), ((6,),), high=12),
    "CategoryEncoding": Example(_of("CategoryEncoding", 12), ((6,),), high=12),
    "Lambda": Example(lambda: layers.Lambda(lambda x: x * 2.0), _vector),
    "Masking": Example(_of("Masking"), _sequence),
    "Permute": Example(_of("Permute", (2, 1)), _sequence),
    "RepeatVector": Example(_of("RepeatVector", 3), _vector),
    "Reshape": Example(_of("Reshape", (4, 2)), _vector),
    "Rescaling": Example(_of("Rescaling", 0.5), _vector),
    "Normalization": Example(lambda: _adapted(layers.Normalization()), _vector),
    "SpectralNormalization": Example(lambda: layers.SpectralNormalization(layers.Dense(8)), _vector),
    "TimeDistributed": Example(lambda: layers.TimeDistributed(layers.Dense(8)), _sequence),
    **_each("Dropout GaussianDropout AlphaDropout GaussianNoise", _vector, 0.3, seed=1),
    **_each("SpatialDropout1D", _sequence, 0.3, seed=1),
    **_each("SpatialDropout2D", _image, 0.3, seed=1),
    **_each("SpatialDropout3D", _volume, 0.3, seed=1),
    **_each("Add Average Concatenate Maximum Minimum Multiply Subtract", _two),
    "Dot": Example(_of("Dot", 1), _two),
    **_each("Attention AdditiveAttention", _three),
    "MultiHeadAttention": Example(_of("MultiHeadAttention", 4, 2), _three),
    "GroupedQueryAttention": Example(_of("GroupQueryAttention", 2, 4, 2), _three),
    **_each("Conv1D Conv1DTranspose SeparableConv1D", _sequence, 8, 3),
    **_each("DepthwiseConv1D", _sequence, 3),
    **_each("Conv2D Conv2DTranspose SeparableConv2D", _image, 8, 3),
    **_each("DepthwiseConv2D", _image, 3),
    **_each("Conv3D Conv3DTranspose", _volume, 8, 2),
    **_each("ConvLSTM1D", ((3, 6, 4),), 4, 3),
    **_each("ConvLSTM2D", ((3, 6, 6, 2),), 4, 3),
    **_each("ConvLSTM3D", ((2, 4, 4, 4, 2),), 4, 2),
    **_each("MaxPooling1D AveragePooling1D", _sequence, 2),
    **_each("GlobalMaxPooling1D GlobalAveragePooling1D", _sequence),
    **_each("MaxPooling2D AveragePooling2D", _image, 2),
    **_each("GlobalMaxPooling2D GlobalAveragePooling2D", _image),
    **_each("MaxPooling3D AveragePooling3D", _volume, 2),
    **_each("GlobalMaxPooling3D GlobalAveragePooling3D", _volume),
    **_each("AdaptiveAveragePooling1D AdaptiveMaxPooling1D", _sequence, 2),
    **_each("AdaptiveAveragePooling2D AdaptiveMaxPooling2D", _image, 2),
    **_each("AdaptiveAveragePooling3D AdaptiveMaxPooling3D", _volume, 2),
    **_each("Cropping1D UpSampling1D ZeroPadding1D", _sequence),
    **_each("Cropping2D UpSampling2D ZeroPadding2D", _image),
    **_each("Cropping3D UpSampling3D ZeroPadding3D", _volume),
    **_each("LSTM GRU SimpleRNN", _sequence, 8),
    "RNN": Example(lambda: layers.RNN(layers.SimpleRNNCell(8)), _sequence),
    "Bidirectional": Example(lambda: layers.Bidirectional(layers.LSTM(4)), _sequence),
    "MelSpectrogram": Example(_of("MelSpectrogram", fft_length=32, sequence_stride=16, num_mel_bins=4), ((64,),)),
    "CenterCrop": Example(_of("CenterCrop", 4, 4), ((8, 8, 3),)),
    "Resizing": Example(_of("Resizing", 4, 4), ((8, 8, 3),)),
    **_each("AutoContrast Solarization", ((8, 8, 3),), value_range=(0, 1)),
    "ContrastLimitedAdaptiveHistogramEqualization": Example(
        _of("ContrastLimitedAdaptiveHistogramEqualization", value_range=(0, 1)), ((8, 8, 3),)
    ),
    **_each("RandomBrightness RandomContrast RandomZoom RandomRotation", ((8, 8, 3),), 0.2, seed=1),
    **_each("RandomTranslation", ((8, 8, 3),), 0.2, 0.2, seed=1),
    **_each("RandomCrop", ((8, 8, 3),), 4, 4, seed=1),
    **_each("RandomFlip RandomGrayscale RandomErasing RandomInvert", ((8, 8, 3),), seed=1),
    **_each("RandomPerspective RandomShear RandomElasticTransform RandomGaussianBlur", ((8, 8, 3),), seed=1),
    **_each("RandomHue RandomSaturation RandomSharpness RandomColorDegeneration", ((8, 8, 3),), 0.5, seed=1),
    **_each("RandomPosterization", ((8, 8, 3),), 4, seed=1),
    **_each("RandomColorJitter AugMix RandAugment CutMix MixUp", ((8, 8, 3),), seed=1),
}


def _adapted(layer: Any) -> Any:
    layer.adapt(np.random.RandomState(3).randn(32, 8).astype("float32"))
    return layer


def all_names() -> list[str]:
    """Names of the layer classes that Keras exports, each once."""
    exported = [getattr(layers, name) for name in dir(layers)]
    return sorted({one.__name__ for one in exported if inspect.isclass(one) and issubclass(one, keras.layers.Layer)})


def model_around(example: Example) -> keras.Model:
    """A model that trains through the layer: weights before it, as far as it takes floats, and after it."""
    dtype = "float32" if example.high is None else "int32"
    inputs = [keras.Input(shape, dtype=dtype) for shape in example.inputs]
    hidden: list[Any] = list(inputs)
    if example.high is None:
        hidden = [layers.Dense(one.shape[-1], name=f"before{place}")(one) for place, one in enumerate(inputs)]
    layer = example.make()
    takes_two = isinstance(layer, (layers.MultiHeadAttention, layers.GroupQueryAttention))
    outputs = layer(*hidden) if takes_two or len(hidden) == 1 else layer(hidden)
    return keras.Model(inputs, layers.Dense(4, name="after")(layers.Reshape((-1,))(outputs)))
