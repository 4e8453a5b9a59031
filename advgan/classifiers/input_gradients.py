"""Gradients of a classifier's first operations, faster on a CPU than TensorFlow's own, and the same but for rounding.

A convolution over few channels and max pooling take most of the time of a small classifier's input gradient: TensorFlow
computes them many times slower than their forward pass. Inside ``fast_gradients`` they are registered with gradients made
of matrix products and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any
FEW_CHANNELS = 4
"""Of the images that a convolution with a gradient of matrix products takes."""


@contextmanager
def fast_gradients() -> Iterator[None]:
    """Give the convolutions and poolings of a graph that is traced in the block these gradients."""
    names = {"Conv2D": "AdvGANConv2D", "MaxPool": "AdvGANMaxPool"}
    with tf.compat.v1.get_default_graph().gradient_override_map(names):
        yield


@tf.RegisterGradient("AdvGANConv2D")
def _convolution(operation: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    images, kernel = operation.inputs
    options = {
        name: operation.get_attr(name) for name in ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    }
    options = {name: value.decode() if isinstance(value, bytes) else list(value) for name, value in options.items()}
    of_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=gradient, **options
    )
    height, width, channels, filters = kernel.shape
    plain = options["strides"] == options["dilations"] == [1, 1, 1, 1] and options["data_format"] == "NHWC"
    sizes = [*images.shape[1:], *gradient.shape[1:]]
    if plain and options["padding"] in ("VALID", "SAME") and channels <= FEW_CHANNELS < filters and None not in sizes:
        return convolution_input_gradient(images, kernel, gradient, options["padding"]), of_kernel
    return (
        tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **options
        ),
        of_kernel,
    )


def convolution_input_gradient(images: Tensor, kernel: Tensor, gradient: Tensor, padding: str) -> Tensor:
    """The input gradient of a convolution of stride 1: a product with the kernel, then two products that add up places.

    Args:
        images: float32 (n, height, width, channels).
        kernel: (kernel height, kernel width, channels, filters).
        gradient: of the output, (n, rows, columns, filters).
        padding: ``VALID`` or ``SAME``.
    """
    down, across, channels, filters = kernel.shape
    _, rows, columns, _ = gradient.shape
    height, width = images.shape[1:3]
    before = (0, 0) if padding == "VALID" else ((down - 1) // 2, (across - 1) // 2)
    flat = tf.reshape(tf.transpose(kernel, [3, 0, 2, 1]), [filters, down * channels * across])
    product = tf.reshape(tf.reshape(gradient, [-1, filters]) @ flat, [-1, rows, columns, down * channels, across])
    product = tf.reshape(tf.transpose(product, [0, 1, 3, 2, 4]), [-1, columns * across])
    product = product @ _places(columns, across, width, before[1])  # (n, rows, down, channels; width)
    product = tf.reshape(product, [-1, rows * down, channels * width])
    summed = tf.matmul(_places(rows, down, height, before[0]), product, transpose_a=True)
    return tf.transpose(tf.reshape(summed, [-1, height, channels, width]), [0, 1, 3, 2])


def _places(outputs: int, kernel: int, inputs: int, before: int) -> Tensor:
    """Which input each pair of an output and a place in the kernel reads: 0 or 1, (outputs * kernel, inputs)."""
    read = np.arange(outputs)[:, None] + np.arange(kernel) - before
    return tf.constant((read.reshape(-1, 1) == np.arange(inputs)).astype(np.float32))


@tf.RegisterGradient("AdvGANMaxPool")
def _max_pooling(operation: Any, gradient: Tensor) -> Tensor:
    images, output = operation.inputs[0], operation.outputs[0]
    size, strides = list(operation.get_attr("ksize")), list(operation.get_attr("strides"))
    padding, layout = (operation.get_attr(name).decode() for name in ("padding", "data_format"))
    _, height, width, channels = images.shape
    if size == strides == [1, 2, 2, 1] and layout == "NHWC" and None not in (height, width, channels):
        if height % 2 == width % 2 == 0 or padding == "VALID":
            return pooling_input_gradient(images, output, gradient)
    return tf.raw_ops.MaxPoolGrad(
        orig_input=images, orig_output=output, grad=gradient, ksize=size, strides=strides, padding=padding
    )


def pooling_input_gradient(images: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
    """The input gradient of max pooling over 2x2 places: it goes to the first that is the largest, as TensorFlow's does.

    Args:
        images: float32 (n, height, width, channels).
        output: the largest of each four, (n, height // 2, width // 2, channels).
        gradient: of the output.
    """
    _, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    cut = images[:, : 2 * rows, : 2 * columns]
    pairs = tf.reshape(cut, [-1, rows, 2, columns, 2 * channels])
    upper, lower = pairs[:, :, 0], pairs[:, :, 1]
    places = [upper[..., :channels], upper[..., channels:], lower[..., :channels], lower[..., channels:]]
    left, made = gradient, []
    for place in places:
        here = tf.where(place == output, left, tf.zeros_like(left))
        left -= here
        made.append(here)
    whole = tf.stack([tf.concat(made[:2], -1), tf.concat(made[2:], -1)], axis=2)
    whole = tf.reshape(whole, [-1, 2 * rows, 2 * columns, channels])
    return tf.pad(whole, [[0, 0], [0, height - 2 * rows], [0, width - 2 * columns], [0, 0]])
