"""The order in which images are seen: a function of (seed, epoch), so a resumed run needs nothing saved for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf


MOST_AT_ONCE, FEWEST_AT_ONCE = 500, 8
VALUES_AT_ONCE = 400_000
"""Pixel values in a batch of images that are attacked or classified: about 510 images of MNIST, 130 of CIFAR-10."""


def images_at_once(shape: tuple[int, int, int]) -> int:
    """How many images are attacked or classified at a time, so that memory does not grow with their size.

    Args:
        shape: height, width, channels; nothing else decides, so results repeat on every machine.
    """
    return max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, VALUES_AT_ONCE // math.prod(shape)))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, int32, the same whenever seed and epoch are the same."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)


def gather_batch(images: Any, labels: Any, indices: Any) -> tuple[Any, Any]:
    """The images at these indices as float32 in [0, 1], and their labels; all are tensors."""
    batch = tf.gather(images, indices)
    batch = tf.cast(batch, tf.float32) / 255.0 if batch.dtype == tf.uint8 else batch
    return batch, tf.gather(labels, indices)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in an epoch; the images left over change with the order, so none is left out for good."""
    return count // batch_size


def slices(count: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices that cover ``range(count)``, the last one included whatever its size."""
    for start in range(0, count, batch_size):
        yield slice(start, min(start + batch_size, count))
