"""Normalization layers by name; the one place that decides which layer a name means."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import tensorflow as tf

from advgan.config.values import Normalization
from advgan.environment import uses_addons

keras = tf.keras
EPSILON = 1e-5


def import_addons() -> Any | None:
    """Import TensorFlow Addons where it is installed with TensorFlow 2.15, else give None.

    It warns of its own end of life, which docs/addons.md states; and its instance normalization warns whenever it is
    made from a saved configuration, its own ``groups`` being among the keys.
    """
    if not uses_addons():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons
    logging.getLogger().addFilter(lambda record: record.msg != "The given value for groups will be overwritten.")
    return tensorflow_addons


ADDONS = import_addons()
"""TensorFlow Addons, or None on the default stack. Its import makes its layers known to ``keras.models.load_model``."""


def normalization(kind: Normalization, groups: int, name: str) -> Any | None:
    """Build a normalization layer, or None for ``none``.

    Instance averages over each image's height and width, channel by channel (Ulyanov et al. 2016); layer over height,
    width and channels (Ba et al. 2016); group over height, width and the channels of a group (Wu & He 2018); batch over
    the images too (Ioffe & Szegedy 2015). All learn a scale and a shift per channel and compute in float32; give them
    float32 (``in_float32``).

    Instance is TensorFlow Addons' layer on a stack that has it, and elsewhere Keras's group normalization with a group
    for each channel. Both compute the same (``docs/normalization.md``).

    Args:
        kind: which of them.
        groups: for ``group``; it divides the number of channels.
        name: of the layer.
    """
    if kind == "none":
        return None
    if kind == "batch":
        return keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, dtype="float32", name=name)
    if kind == "instance" and ADDONS is not None:
        return ADDONS.layers.InstanceNormalization(epsilon=EPSILON, dtype="float32", name=name)
    groups = {"instance": -1, "layer": 1, "group": groups}[kind]
    return keras.layers.GroupNormalization(groups=groups, epsilon=EPSILON, dtype="float32", name=name)


def normalizes_each_map(kind: Normalization, groups: int, channels: int) -> bool:
    """Whether each channel's map is normalized by itself, by whatever name: a map of one pixel becomes constant."""
    return kind == "instance" or (kind == "group" and groups == channels)


def in_float32(x: Any, name: str) -> Any:
    """The symbolic tensor x in float32, by a layer ``<name>_float32`` where a convolution computed it in bfloat16.

    Statistics in bfloat16 are off by more than a tenth, and Keras 3's group normalization, which takes its input as it
    comes, rounds its output back to the input's type.
    """
    return x if x.dtype == "float32" else keras.layers.Activation("linear", dtype="float32", name=f"{name}_float32")(x)
