"""The order in which images are seen: a function of (seed, epoch), so a resumed run needs nothing saved for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

MOST_AT_ONCE, FEWEST_AT_ONCE = 250, 8
VALUES_AT_ONCE = 200_000
"""Pixel values in a batch of images that are attacked or classified: about 250 images of MNIST, 65 of CIFAR-10."""


def images_at_once(shape: tuple[int, int, int]) -> int:
    """How many images are attacked or classified at a time, so that memory does not grow with their size.

    Args:
        shape: height, width, channels; nothing else decides, so results repeat on every machine.
    """
    return max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, VALUES_AT_ONCE // math.prod(shape))) // _halved_by


_halved_by = 1


def halve_batches() -> bool:
    """Halve ``images_at_once`` for the rest of the process after memory ran out; False where that was done before."""
    global _halved_by
    if _halved_by > 1:
        return False
    _halved_by = 2
    logging.getLogger(__name__).warning("Out of memory: images are attacked and classified half as many at a time")
    return True


def in_batches(count: int, shape: tuple[int, int, int], work: Callable[[slice], object]) -> None:
    """Call ``work`` with consecutive slices of ``range(count)``; after an out-of-memory error with half as many, once.

    Args:
        count: images.
        shape: of one: height, width, channels.
        work: attacks or classifies the images of a slice; a slice on which memory ran out comes again, in halves.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + images_at_once(shape), count))
        try:
            work(part)
        except tf.errors.ResourceExhaustedError:
            if not halve_batches():
                raise
            continue
        start = part.stop


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, int32, the same whenever seed and epoch are the same."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The indices of an epoch's full batches, int32 of shape (steps, batch size)."""
    steps = steps_per_epoch(count, batch_size)
    return epoch_order(count, seed, epoch)[: steps * batch_size].reshape(steps, batch_size)


def gather_batch(images: Any, labels: Any, indices: Any) -> tuple[Any, Any]:
    """The images at these indices as float32 in [0, 1], and their labels; all are tensors."""
    return unit_range(tf.gather(images, indices)), tf.gather(labels, indices)


def unit_range(images: Any) -> Any:
    """A tensor of uint8 pixels as float32 in [0, 1]; one of floats is that already."""
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in an epoch; the images left over change with the order, so none is left out for good."""
    return count // batch_size


def slices(count: int, batch_size: int, first: int = 0) -> Iterator[slice]:
    """Consecutive slices that cover ``range(first, count)``, the last one included whatever its size."""
    for start in range(first, count, batch_size):
        yield slice(start, min(start + batch_size, count))
