"""A batch in parts that are worked on side by side: one for each core, one update for all.

TensorFlow's operators are too small here to share between cores. So each runs on one thread, the parts of a batch run
side by side in one graph, and their gradients are averaged: the same update as on the whole batch, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Tensor = Any


class Part(NamedTuple):
    """A part of a batch."""

    images: Tensor
    labels: Tensor
    share: float
    """Of the batch's images."""


def split_batch(images: Tensor, labels: Tensor, count: int) -> list[Part]:
    """A batch in so many parts of as equal size as can be; in one where it has fewer images, or its size is not known.

    Args:
        images, labels: of one length, known where the graph is made.
        count: parts.
    """
    size = images.shape[0]
    if count == 1 or size is None or size < count:
        return [Part(images, labels, 1.0)]
    sizes = [size // count + (place < size % count) for place in range(count)]
    pieces = zip(tf.split(images, sizes), tf.split(labels, sizes), sizes, strict=True)
    return [Part(some, classes, here / size) for some, classes, here in pieces]


def mean_over(parts: Sequence[Part], values: Sequence[Tensor]) -> Tensor:
    """The mean over a batch of what is a mean over each of its parts."""
    if len(parts) == 1:
        return values[0]
    return tf.add_n([part.share * value for part, value in zip(parts, values, strict=True)])


def update(network: Any, optimizer: Any, parts: Sequence[Part], gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Apply the mean of the parts' gradients to a network, and return its norm.

    Args:
        network, optimizer: updated in place.
        parts: of the batch.
        gradients: for each part, one for each trainable variable, of a mean over the part.
    """
    means = [mean_over(parts, of_variable) for of_variable in zip(*gradients, strict=True)]
    optimizer.apply_gradients(zip(means, network.trainable_variables, strict=True))
    return tf.linalg.global_norm(means)
