"""The discriminator D: tells clean images from adversarial ones (Xiao et al. 2018; least squares, Mao et al. 2017)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config import DiscriminatorSettings
from advgan.convolution import same_output_size
from advgan.errors import ConfigurationError
from advgan.networks.normalization import in_float32, normalization

keras = tf.keras


def build_discriminator(
    image_shape: tuple[int, int, int], settings: DiscriminatorSettings, compute_dtype: str = "float32"
) -> Any:
    """Build ``C8, C16, C32`` (the default) and one dense output.

    Each C is a 4x4 convolution of stride 2 with SAME padding and leaky ReLU 0.2; all but the first are normalized.
    Without padding, a 28x28 image shrinks to 1x1 before the last instance norm, whose output is then a constant: D
    would never learn.

    Args:
        image_shape: height, width, channels.
        settings: widths and normalization.
        compute_dtype: ``float32``, or ``bfloat16`` for the convolutions.

    Returns:
        A Keras model from images in [0, 1], shape (n, height, width, channels), to scores of shape (n, 1):
        1 for clean, 0 for adversarial, no activation.

    Raises:
        ConfigurationError: a normalized layer would see a single pixel.
    """
    height, width, _ = image_shape
    dtype = "float32" if compute_dtype == "float32" else f"mixed_{compute_dtype}"
    image = keras.Input(image_shape, name="image")
    x = image
    for index, filters in enumerate(settings.widths):
        height, width = same_output_size(height, 2), same_output_size(width, 2)
        norm = normalization(settings.normalization, settings.groups, f"c{index}_norm") if index else None
        if norm is not None and settings.normalization == "instance" and height == width == 1:
            raise ConfigurationError(
                "discriminator.widths",
                list(settings.widths),
                f"images of {image_shape[0]}x{image_shape[1]} shrink to 1x1 at layer c{index} (C{filters}), where "
                "instance normalization has a constant output; use fewer widths, larger images or another norm",
            )
        x = keras.layers.Conv2D(
            filters, 4, strides=2, padding="same", use_bias=norm is None, dtype=dtype, name=f"c{index}"
        )(x)
        x = x if norm is None else norm(in_float32(x, f"c{index}"))
        x = keras.layers.LeakyReLU(0.2, dtype="float32", name=f"c{index}_relu")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(image, keras.layers.Dense(1, dtype="float32", name="score")(x), name="discriminator")
