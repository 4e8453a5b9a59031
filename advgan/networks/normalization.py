"""Normalization layers by name; the one place that decides which layer a name means."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config import Normalization

keras = tf.keras
EPSILON = 1e-5


def normalization(kind: Normalization, groups: int, name: str) -> Any | None:
    """Build a normalization layer, or None for ``none``.

    Instance averages over each image's height and width, channel by channel (Ulyanov et al. 2016); layer over height,
    width and channels (Ba et al. 2016); group over height, width and the channels of a group (Wu & He 2018); batch over
    the images too (Ioffe & Szegedy 2015). All learn a scale and a shift per channel, and compute in float32 whatever
    the convolutions compute in: bfloat16 statistics are off by more than a tenth.
    """
    if kind == "none":
        return None
    if kind == "batch":
        return keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, dtype="float32", name=name)
    groups = {"instance": -1, "layer": 1, "group": groups}[kind]
    return keras.layers.GroupNormalization(groups=groups, epsilon=EPSILON, dtype="float32", name=name)
