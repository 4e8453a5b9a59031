"""The generator G: an image in, a perturbation of the same size out (Xiao et al. 2018)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config.settings import GeneratorSettings
from advgan.errors import ConfigurationError
from advgan.networks.convolution import fitting, pad_to_multiple, require_normalizable_map
from advgan.networks.normalization import in_float32, normalization, normalizes_each_map

keras = tf.keras
SMALLEST_IMAGE = 8


def build_generator(
    image_shape: tuple[int, int, int],
    settings: GeneratorSettings,
    compute_dtype: str = "float32",
    classes: int | None = None,
) -> Any:
    """Build ``c3s1-8, d16, d32, r32 x 4, u16, u8, c3s1-C`` (the default): norm and ReLU after each but the last.

    With ``skips``, each u is followed by the map of its size from before the d, put beside its own, and a convolution.

    The image is padded with zeros to a size that the stride-2 layers divide, and the output is cropped back, so any
    size from 8x8 up comes out as it went in.

    Args:
        image_shape: height, width, channels.
        settings: widths, kernel, residual blocks, normalization, upsampling, skips.
        classes: for a generator conditioned on the wanted class: how many there are.
        compute_dtype: ``float32``, or ``bfloat16`` for the convolutions; the tanh at the end is float32 always.

    Returns:
        A Keras model from images in [0, 1], shape (n, height, width, channels), to tanh outputs of the same shape,
        in [-1, 1]; ``advgan.perturbation.perturb`` turns those into a perturbation. With ``classes`` it takes the
        wanted class of each image too, as one-hot rows (n, classes), which become maps beside the image's channels.

    Raises:
        ConfigurationError: the image is too small.
    """
    height, width, channels = image_shape
    if min(height, width) < SMALLEST_IMAGE:
        raise ConfigurationError(
            "data.dataset",
            f"images of {height}x{width}",
            f"should be {SMALLEST_IMAGE}x{SMALLEST_IMAGE} or larger for the generator, at its first layer, c0",
        )
    multiple = 2 ** (len(settings.widths) - 1)
    padding = (pad_to_multiple(height, multiple), pad_to_multiple(width, multiple))
    if normalizes_each_map(settings.normalization, settings.groups, settings.widths[-1]):
        smallest = [(size + sum(pad)) // multiple for size, pad in zip((height, width), padding, strict=True)]
        with fitting(image_shape, "generator.widths", list(settings.widths), f"d{len(settings.widths) - 1}"):
            require_normalizable_map(*smallest)
    layers = _Layers(settings, "float32" if compute_dtype == "float32" else f"mixed_{compute_dtype}")

    image = keras.Input(image_shape, name="image")
    x = keras.layers.ZeroPadding2D(padding, name="pad")(image)
    wanted = None if classes is None else keras.Input((classes,), name="wanted")
    if wanted is not None:
        maps = keras.layers.Reshape((1, 1, classes), name="wanted_pixel")(wanted)
        maps = keras.layers.UpSampling2D(x.shape[1:3], name="wanted_maps")(maps)
        x = keras.layers.Concatenate(name="wanted_join")([x, maps])
    x = layers.block(x, "c0", layers.convolution("c0", settings.widths[0]))
    before = [x]
    for index, filters in enumerate(settings.widths[1:], start=1):
        x = layers.block(x, f"d{index}", layers.convolution(f"d{index}", filters, strides=2))
        before.append(x)
    for index in range(1, settings.residual_blocks + 1):
        y = layers.block(x, f"r{index}a", layers.convolution(f"r{index}a", settings.widths[-1]))
        y = layers.block(y, f"r{index}b", layers.convolution(f"r{index}b", settings.widths[-1]), activate=False)
        x = keras.layers.Add(dtype="float32", name=f"r{index}_add")([x, y])
        x = keras.layers.ReLU(dtype="float32", name=f"r{index}_relu")(x)
    for index, filters in enumerate(reversed(settings.widths[:-1]), start=1):
        if settings.upsampling == "resize":
            x = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"u{index}_resize")(x)
        x = layers.block(x, f"u{index}", layers.upsampling(f"u{index}", filters))
        if settings.skips:
            x = keras.layers.Concatenate(dtype="float32", name=f"s{index}_join")([x, before[-1 - index]])
            x = layers.block(x, f"s{index}", layers.convolution(f"s{index}", filters))
    x = keras.layers.Conv2D(channels, settings.kernel, padding="same", dtype=layers.dtype, name="c1")(x)
    x = keras.layers.Cropping2D(padding, name="crop")(x)
    x = keras.layers.Activation("tanh", dtype="float32", name="tanh")(x)
    return keras.Model(image if wanted is None else [image, wanted], x, name="generator")


class _Layers:
    """The layers that G repeats. A convolution before a normalization needs no bias: the mean would cancel it."""

    def __init__(self, settings: GeneratorSettings, dtype: str) -> None:
        self.settings = settings
        self.dtype = dtype
        self.use_bias = settings.normalization == "none"

    def convolution(self, name: str, filters: int, strides: int = 1) -> Any:
        return keras.layers.Conv2D(
            filters,
            self.settings.kernel,
            strides=strides,
            padding="same",
            use_bias=self.use_bias,
            dtype=self.dtype,
            name=name,
        )

    def upsampling(self, name: str, filters: int) -> Any:
        if self.settings.upsampling == "resize":
            return self.convolution(name, filters)
        return keras.layers.Conv2DTranspose(
            filters,
            self.settings.kernel,
            strides=2,
            padding="same",
            use_bias=self.use_bias,
            dtype=self.dtype,
            name=name,
        )

    def block(self, x: Any, name: str, layer: Any, activate: bool = True) -> Any:
        x = layer(x)
        norm = normalization(self.settings.normalization, self.settings.groups, f"{name}_norm")
        x = x if norm is None else norm(in_float32(x, name))
        return keras.layers.ReLU(dtype="float32", name=f"{name}_relu")(x) if activate else x
