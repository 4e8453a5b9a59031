"""The order in which images are seen: a function of (seed, epoch), so a resumed run needs nothing saved for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf


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
