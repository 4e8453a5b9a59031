"""A batch in parts that are worked on side by side, one for each core.

TensorFlow's operators are too small here to share between cores. So each runs on one thread, and the parts of a batch
run side by side in one graph; the mean of their losses is that of the whole batch, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import tensorflow as tf

from advgan import replicas
from advgan.environment import FEWEST_IN_A_PART, parts_of

Tensor = Any
MANY = 10**6
"""Images of which there are enough for every core."""


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


def by_parts(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A function of rows, worked out for each part of a batch by itself; to be called inside a ``tf.function``.

    Args:
        function: from as many rows of each tensor to a tensor with as many rows.
        tensors: of one length, known where the graph is made.
    """
    size = tensors[0].shape[0]
    count = parts_of(size)
    sizes = [size // count + (place < size % count) for place in range(count)]
    return tf.concat([function(*part) for part in zip(*(tf.split(each, sizes) for each in tensors), strict=True)], 0)


def means_over(parts: Sequence[Part], values: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The means over a batch of what are means over each of its parts, by name."""
    if len(parts) == 1:
        return values[0]
    shares = [part.share for part in parts]
    return {
        name: tf.add_n([share * each[name] for share, each in zip(shares, values, strict=True)]) for name in values[0]
    }


def side_by_side(
    function: Callable[..., Any], image_shape: tuple[int, int, int], others: Sequence[tf.TensorSpec] = ()
) -> Callable[..., Any]:
    """The same function, which works on the parts of a large batch at the same time where it is called from Python.

    The parts belong to the cores of a processor, or to the devices of the strategy in force.

    Args:
        function: a ``tf.function`` from any number of images, and what else is the same for each part, to one tensor,
            or several, with as many rows.
        image_shape: height, width, channels.
        others: what else it is given.
    """
    count, devices = parts_of(MANY), replicas.on_this_machine()
    if count == devices == 1:
        return function

    def of_parts(images: Tensor, *others: Tensor) -> Any:
        size = tf.shape(images)[0]
        ends = [size * place // count for place in range(count + 1)]
        made = [function(images[start:end], *others) for start, end in pairwise(ends)]
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *made)

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.float32), *others], autograph=False)
    def in_parts(images: Tensor, *others: Tensor) -> Any:
        return replicas.rows_on_each(of_parts, images, *others)

    def call(images: Tensor, *others: Tensor) -> Any:
        large = tf.executing_eagerly() and len(images) >= count * devices * FEWEST_IN_A_PART
        return in_parts(images, *others) if large else function(images, *others)

    return call
