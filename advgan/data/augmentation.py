"""Training images changed at random on the fly; what is drawn is a function of (seed, step), so nothing is saved."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan import replicas

Tensor = Any
SHARE_OF_HEIGHT = 8
"""Images are shifted by up to one part in so many of their height and width: 4 pixels of CIFAR-10's 32."""


def flipped_and_shifted(images: Tensor, seed: int, step: Tensor) -> Tensor:
    """Each image mirrored left to right or not, and shifted by up to an eighth, zeros filling the border.

    This is what He et al. (2016) do to CIFAR-10. It belongs to a replica's share of a batch, before that is split.

    Args:
        images: float32 (n, height, width, channels), sizes known.
        seed: of the run.
        step: the number of the step, int32 scalar.
    """
    count, height, width, _ = images.shape
    down, across = height // SHARE_OF_HEIGHT, width // SHARE_OF_HEIGHT

    def drawn(number: int, least: int, most: int) -> Tensor:
        place = tf.stack([tf.constant(seed % 2**31, tf.int32), step * 4 + number])
        of_batch = tf.random.stateless_uniform([count * replicas.here(), 1], place, least, most + 1, tf.int32)
        return replicas.share_of(of_batch)

    rows = tf.range(height) + drawn(0, 0, 2 * down)
    columns = tf.range(width) + drawn(1, 0, 2 * across)
    columns = tf.where(drawn(2, 0, 1) == 1, tf.reverse(columns, [1]), columns)
    bordered = tf.pad(images, [(0, 0), (down, down), (across, across), (0, 0)])
    return tf.gather(tf.gather(bordered, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
