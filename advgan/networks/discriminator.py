"""The discriminator D: tells clean images from adversarial ones (Xiao et al. 2018; least squares, Mao et al. 2017)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config.settings import DiscriminatorSettings
from advgan.networks.convolution import fitting, output_size, require_normalizable_map
from advgan.networks.normalization import in_float32, normalization, normalizes_each_map

keras = tf.keras


def build_discriminator(
    image_shape: tuple[int, int, int], settings: DiscriminatorSettings, compute_dtype: str = "float32"
) -> Any:
    """Build ``C8, C16, C32`` (the default) and one dense output.

    Each C is a 4x4 convolution of stride 2 with SAME padding and leaky ReLU 0.2; all but the first are normalized.
    Without padding, a 28x28 image shrinks to 13, 5 and 1 pixels before the last instance norm, whose output is then a
    constant: D would never learn. Such a D is an error.

    Args:
        image_shape: height, width, channels.
        settings: widths, kernel, padding and normalization.
        compute_dtype: ``float32``, or ``bfloat16`` for the convolutions.

    Returns:
        A Keras model from images in [0, 1], shape (n, height, width, channels), to scores of shape (n, 1):
        1 for clean, 0 for adversarial, no activation.

    Raises:
        ConfigurationError: an instance norm would see a single pixel, or a kernel exceeds its input.
    """
    height, width, _ = image_shape
    dtype = "float32" if compute_dtype == "float32" else f"mixed_{compute_dtype}"
    image = keras.Input(image_shape, name="image")
    x = image
    kernel, padding = settings.kernel, settings.padding
    at_fault: tuple[str, Any] = ("discriminator.widths", list(settings.widths))
    if padding == "valid":
        at_fault = ("discriminator.padding", padding)
    for index, filters in enumerate(settings.widths):
        norm = normalization(settings.normalization, settings.groups, f"c{index}_norm") if index else None
        with fitting(image_shape, *at_fault, f"c{index} ({kernel}x{kernel}, stride 2, {padding})"):
            height, width = (output_size(size, kernel, 2, padding) for size in (height, width))
            if norm is not None and normalizes_each_map(settings.normalization, settings.groups, filters):
                require_normalizable_map(height, width)
        x = keras.layers.Conv2D(
            filters, kernel, strides=2, padding=padding, use_bias=norm is None, dtype=dtype, name=f"c{index}"
        )(x)
        x = x if norm is None else norm(in_float32(x, f"c{index}"))
        x = keras.layers.LeakyReLU(0.2, dtype="float32", name=f"c{index}_relu")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(image, keras.layers.Dense(1, dtype="float32", name="score")(x), name="discriminator")
