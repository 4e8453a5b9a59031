"""Gradients of images, faster on a CPU than TensorFlow's own, and the same but for rounding.

TensorFlow computes the input gradients of convolutions of stride 2, of those over few channels and of max pooling many
times slower than their forward pass. These are made of convolutions of stride 1, matrix products and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from advgan.environment import has_gpu
from advgan.networks.convolution import input_padding

Tensor = Any
Size = tuple[int, int]
FEW_CHANNELS = 4
"""Of the images that a convolution with a gradient of matrix products takes."""


@contextmanager
def fast_gradients() -> Iterator[None]:
    """Give the convolutions and poolings of a graph that is traced in the block these gradients, where no GPU works.

    They take effect where the graph is a function that another one calls and differentiates.
    """
    names = {} if has_gpu() else {"Conv2D": "AdvGANConv2D", "MaxPool": "AdvGANMaxPool"}
    with tf.compat.v1.get_default_graph().gradient_override_map(names):
        yield


@tf.RegisterGradient("AdvGANConv2D")
def _of_convolution(operation: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    images, kernel = operation.inputs
    names = ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    options = {name: operation.get_attr(name) for name in names}
    options = {name: value.decode() if isinstance(value, bytes) else list(value) for name, value in options.items()}
    of_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=gradient, **options
    )
    if options["data_format"] == "NHWC" and options["dilations"] == [1, 1, 1, 1]:
        made = convolution_input_gradient(
            images.shape[1:3], kernel, gradient, options["strides"][1:3], options["padding"].lower()
        )
        if made is not None:
            return made, of_kernel
    of_images = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **options
    )
    return of_images, of_kernel


def convolution_input_gradient(
    size: Any, kernel: Tensor, gradient: Tensor, strides: Any, padding: str
) -> Tensor | None:
    """The input gradient of a convolution, or None where TensorFlow's own is as fast.

    Args:
        size: height and width of the images.
        kernel: float32 (kernel height, kernel width, channels, filters).
        gradient: of the output, (n, rows, columns, filters).
        strides: down and across.
        padding: ``valid`` or ``same``.

    Returns:
        Of shape (n, height, width, channels).
    """
    known = None not in (*size, *gradient.shape[1:], *kernel.shape)
    if not known or padding not in ("valid", "same") or kernel.dtype not in (tf.float32, tf.float64):
        return None
    channels, filters = kernel.shape[2:]
    size, strides = tuple(size), tuple(strides)
    if strides == (1, 1) and channels <= FEW_CHANNELS < filters:
        return by_products(size, kernel, gradient, padding)
    if strides == (2, 2) and padding == "same" and size[0] % 2 == size[1] % 2 == 0:
        return by_phases(kernel, gradient)
    return None


def by_products(size: Size, kernel: Tensor, gradient: Tensor, padding: str) -> Tensor:
    """At stride 1: a product with the kernel, then two products that add up what belongs to one pixel."""
    down, across, channels, filters = kernel.shape
    _, rows, columns, _ = gradient.shape
    height, width = size
    above, left = (input_padding(*each, 1, padding)[0] for each in ((height, down), (width, across)))
    flat = tf.reshape(tf.transpose(kernel, [3, 0, 2, 1]), [filters, down * channels * across])
    product = tf.reshape(tf.reshape(gradient, [-1, filters]) @ flat, [-1, rows, columns, down * channels, across])
    product = tf.reshape(tf.transpose(product, [0, 1, 3, 2, 4]), [-1, columns * across])
    product = product @ tf.constant(
        _reads(columns, across, width, left), product.dtype
    )  # (n, rows, down, channels; width)
    product = tf.reshape(product, [-1, rows * down, channels * width])
    summed = tf.matmul(tf.constant(_reads(rows, down, height, above), product.dtype), product, transpose_a=True)
    return tf.transpose(tf.reshape(summed, [-1, height, channels, width]), [0, 1, 3, 2])


def _reads(outputs: int, kernel: int, inputs: int, before: int) -> np.ndarray:
    """Which input each pair of an output and a place in the kernel reads: 0 or 1, (outputs * kernel, inputs)."""
    read = np.arange(outputs)[:, None] + np.arange(kernel) - before
    return (read.reshape(-1, 1) == np.arange(inputs)).astype(np.float32)


def by_phases(kernel: Tensor, gradient: Tensor) -> Tensor:
    """At stride 2, SAME, even sizes: one convolution makes the four pixels of each 2x2 block as channels.

    It is also the transposed convolution of stride 2 of ``gradient`` with this kernel.
    """
    down, across, channels, filters = kernel.shape
    vertical, horizontal = _phases(down), _phases(across)
    kernel = tf.pad(kernel, [vertical.zeros, horizontal.zeros, (0, 0), (0, 0)])
    kernel = tf.reshape(kernel, [vertical.kernel, 2, horizontal.kernel, 2, channels, filters])
    kernel = tf.transpose(tf.reverse(kernel, [0, 2]), [0, 2, 5, 1, 3, 4])
    kernel = tf.reshape(kernel, [vertical.kernel, horizontal.kernel, filters, 4 * channels])
    padding = [(0, 0), vertical.padding, horizontal.padding, (0, 0)]
    return tf.nn.depth_to_space(tf.nn.conv2d(gradient, kernel, 1, padding), 2)


class _Phases(NamedTuple):
    """How a kernel of stride 2 becomes one of stride 1, along one axis."""

    kernel: int
    zeros: Size
    """Before and after the kernel, so that its places at even and at odd pixels form pairs."""
    padding: Size
    """Of the new convolution."""


def _phases(kernel: int) -> _Phases:
    """Pixel 2a + r receives from output a - d by the kernel's place 2d + r + p, p being what SAME pads before."""
    before = max(kernel - 2, 0) // 2
    nearest, farthest = -((before + 1) // 2), (kernel - 1 - before) // 2  # the smallest and the largest d
    zeros = -2 * nearest - before
    return _Phases(farthest - nearest + 1, (zeros, 2 * (farthest - nearest + 1) - kernel - zeros), (farthest, -nearest))


@tf.RegisterGradient("AdvGANMaxPool")
def _of_max_pooling(operation: Any, gradient: Tensor) -> Tensor:
    images, output = operation.inputs[0], operation.outputs[0]
    size, strides = list(operation.get_attr("ksize")), list(operation.get_attr("strides"))
    padding, layout = (operation.get_attr(name).decode() for name in ("padding", "data_format"))
    _, height, width, channels = images.shape
    halves = size == strides == [1, 2, 2, 1] and layout == "NHWC" and None not in (height, width, channels)
    if halves and (padding == "VALID" or (padding == "SAME" and height % 2 == width % 2 == 0)):
        return pooling_input_gradient(images, output, gradient)
    return tf.raw_ops.MaxPoolGrad(
        orig_input=images,
        orig_output=output,
        grad=gradient,
        ksize=size,
        strides=strides,
        padding=padding,
        explicit_paddings=list(operation.get_attr("explicit_paddings")),
        data_format=layout,
    )


def pooling_input_gradient(images: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
    """The input gradient of max pooling over 2x2 pixels: it goes to the first that is the largest.

    Args:
        images: float32 (n, height, width, channels).
        output: the largest of each four, (n, height // 2, width // 2, channels).
        gradient: of the output.
    """
    _, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    cut = tf.reshape(images[:, : 2 * rows, : 2 * columns], [-1, 4 * columns * channels])
    halves = [tf.reshape(half, [-1, rows, columns, 2 * channels]) for half in tf.split(cut, 2, 1)]
    left, made = gradient, []
    for pixel in [pixel for half in halves for pixel in tf.split(half, 2, -1)]:
        here = left * tf.cast(pixel == output, left.dtype)
        left -= here
        made.append(here)
    made = [tf.reshape(tf.concat(pair, -1), [-1, 2 * columns * channels]) for pair in (made[:2], made[2:])]
    whole = tf.reshape(tf.concat(made, 1), [-1, 2 * rows, 2 * columns, channels])
    return tf.pad(whole, [[0, 0], [0, height - 2 * rows], [0, width - 2 * columns], [0, 0]])
