"""A network's forward and backward pass on a CPU with faster operators for some layers; the same but for rounding.

TensorFlow's instance normalization of large maps takes as long as the convolutions between, its transposed convolution
and its input gradients at stride 2 several times longer than a convolution with as many operations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.environment import has_gpu
from advgan.networks.input_gradients import by_phases, by_products, convolution_input_gradient
from advgan.networks.normalization import ADDONS

keras = tf.keras
Tensor = Any
Step = tuple[Callable[..., Tensor], list[int], int]
"""What to call, on which tensors of the model's graph, and which it makes; tensors by their ``id``."""
LIBRARIES = ("keras", "tensorflow_addons")
"""Whose layers are taken one by one."""
FEW_FILTERS = 4
"""Of a convolution that is made of matrix products."""


def forward(network: Any) -> Callable[..., Tensor]:
    """The function ``network(images, training=False)``, to be called inside a ``tf.function``.

    Args:
        network: any Keras model. Where it is not simply a graph of Keras's layers from one input to one output, or
            there is a GPU, the function is the model itself.
    """
    steps = None if has_gpu() else _steps(network)
    if steps is None:
        return network
    start, end = id(network.inputs[0]), id(network.outputs[0])

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, which takes a second to find out
    def call(images: Tensor, training: bool = False) -> Tensor:
        made = {start: images}
        for layer, inputs, output in steps:
            made[output] = layer(*(made[key] for key in inputs), training=training)
        return made[end]

    return call


def _steps(network: Any) -> list[Step] | None:
    """The layers in their order; None where this order and their tensors are not all that the network is."""
    try:
        [start], [end] = network.inputs, network.outputs
        layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
        inputs = [tf.nest.flatten(layer.input) for layer in layers]
        outputs = [layer.output for layer in layers]
    except (AttributeError, TypeError, ValueError):  # it has no graph, or a layer that is used twice
        return None
    if not all(type(layer).__module__.split(".")[0] in LIBRARIES for layer in layers):
        return None
    made = {id(start)}
    for taken, output in zip(inputs, outputs, strict=True):
        if not made.issuperset(id(tensor) for tensor in taken):
            return None
        made.add(id(output))
    if id(end) not in made:
        return None
    return [
        (_operator(layer), [id(tensor) for tensor in taken], id(output))
        for layer, taken, output in zip(layers, inputs, outputs, strict=True)
    ]


def _operator(layer: Any) -> Callable[..., Tensor]:
    """What computes a layer: a faster operator, or itself."""
    kind = type(layer)
    if layer.compute_dtype == "float32":
        if kind is keras.layers.Conv2DTranspose and _plain(layer) and _doubles(layer):
            return lambda images, **_: _finished(layer, transposed_convolution(images, layer.kernel))
        if kind is keras.layers.Conv2D and _plain(layer):
            return lambda images, **_: _finished(layer, convolution(images, layer.kernel, layer.strides, layer.padding))
        if _normalizes_each_map(layer):
            return lambda images, **_: instance_normalization(images, layer.gamma, layer.beta, layer.epsilon)
        if kind is keras.layers.LeakyReLU:
            slope = layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha  # in Keras 3, in Keras 2
            return lambda values, **_: leaky_relu(values, float(slope))
    several = isinstance(layer.input, (list, tuple))
    takes_training = "training" in inspect.signature(layer.call).parameters

    def itself(*tensors: Tensor, training: bool) -> Tensor:
        options = {"training": training} if takes_training else {}
        return layer(list(tensors) if several else tensors[0], **options)

    return itself


def _plain(layer: Any) -> bool:
    return (
        layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and getattr(layer, "groups", 1) == 1
        and layer.padding in ("same", "valid")
        and layer.kernel_regularizer is None
    )


def _doubles(layer: Any) -> bool:
    return tuple(layer.strides) == (2, 2) and layer.padding == "same" and layer.output_padding is None


def _normalizes_each_map(layer: Any) -> bool:
    kinds = [keras.layers.GroupNormalization] + ([] if ADDONS is None else [ADDONS.layers.InstanceNormalization])
    if type(layer) not in kinds or layer.axis not in (-1, 3) or len(layer.output.shape) != 4:
        return False
    channels = layer.output.shape[-1]
    return layer.groups in (-1, channels) and layer.center and layer.scale and None not in layer.output.shape[1:]


def _finished(layer: Any, made: Tensor) -> Tensor:
    made = made + tf.convert_to_tensor(layer.bias) if layer.use_bias else made
    return layer.activation(made)


def convolution(images: Tensor, kernel: Any, strides: Any, padding: str) -> Tensor:
    """A convolution as ``tf.nn.conv2d`` computes it.

    Args:
        images: float32 (n, height, width, channels).
        kernel: (kernel height, kernel width, channels, filters).
        strides: down and across.
        padding: ``valid`` or ``same``.
    """
    strides = tuple(strides)
    if few_filters(tf.convert_to_tensor(kernel), strides, padding):
        return _convolution_with_few_filters(images, tf.convert_to_tensor(kernel))
    size, options = images.shape[1:3], {"strides": [1, *strides, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def call(images: Tensor, kernel: Tensor) -> Any:
        def gradients(gradient: Tensor) -> tuple[Tensor, Tensor]:
            made = convolution_input_gradient(size, kernel, gradient, strides, padding)
            if made is None:
                made = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **options
                )
            return made, tf.raw_ops.Conv2DBackpropFilter(
                input=images, filter_sizes=tf.shape(kernel), out_backprop=gradient, **options
            )

        return tf.nn.conv2d(images, kernel, strides, padding.upper()), gradients

    return call(images, tf.convert_to_tensor(kernel))


def _convolution_with_few_filters(images: Tensor, kernel: Tensor) -> Tensor:
    """At stride 1, SAME, odd sizes: the input gradient of the convolution with the kernel turned around."""

    def turned(kernel: Tensor) -> Tensor:
        return tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])

    options = {"strides": [1, 1, 1, 1], "padding": "SAME"}

    @tf.custom_gradient
    def call(images: Tensor, kernel: Tensor) -> Any:
        def gradients(gradient: Tensor) -> tuple[Tensor, Tensor]:
            of_images = tf.nn.conv2d(gradient, turned(kernel), 1, "SAME")
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=gradient, filter_sizes=tf.shape(turned(kernel)), out_backprop=images, **options
            )
            return of_images, turned(of_kernel)

        return by_products(tuple(images.shape[1:3]), turned(kernel), images, "same"), gradients

    return call(images, kernel)


def few_filters(kernel: Tensor, strides: tuple[int, int], padding: str) -> bool:
    """Whether a convolution is faster as products: it is the input gradient of one with the kernel turned around."""
    odd = kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    return padding == "same" and strides == (1, 1) and odd and kernel.shape[3] <= FEW_FILTERS < kernel.shape[2]


def transposed_convolution(images: Tensor, kernel: Any) -> Tensor:
    """A transposed convolution of stride 2 with SAME padding, as ``tf.nn.conv2d_transpose`` computes it.

    Args:
        images: float32 (n, height, width, channels).
        kernel: (kernel height, kernel width, filters, channels).

    Returns:
        Of shape (n, 2 height, 2 width, filters).
    """
    options = {"strides": [1, 2, 2, 1], "padding": "SAME"}

    @tf.custom_gradient
    def call(images: Tensor, kernel: Tensor) -> Any:
        def gradients(gradient: Tensor) -> tuple[Tensor, Tensor]:
            return tf.nn.conv2d(gradient, kernel, 2, "SAME"), tf.raw_ops.Conv2DBackpropFilter(
                input=gradient, filter_sizes=tf.shape(kernel), out_backprop=images, **options
            )

        return by_phases(kernel, images), gradients

    return call(images, tf.convert_to_tensor(kernel))


def leaky_relu(values: Tensor, slope: float) -> Tensor:
    """``max(x, slope x)``; its gradient needs its output alone, so that TensorFlow joins it to the convolution before.

    Args:
        values: x, float32 of any shape.
        slope: of the negative values.
    """

    if slope <= 0:
        return tf.nn.leaky_relu(values, slope)

    @tf.custom_gradient
    def call(values: Tensor) -> Any:
        made = tf.nn.leaky_relu(values, slope)

        def gradients(gradient: Tensor) -> Tensor:
            return tf.raw_ops.LeakyReluGrad(gradients=gradient, features=made, alpha=slope)

        return made, gradients

    return call(values)


def instance_normalization(images: Tensor, gamma: Any, beta: Any, epsilon: float) -> Tensor:
    """Instance normalization (Ulyanov et al. 2016) whose rows of pixels are the rows of matrices.

    A number for each channel becomes one for each value of a row, and the other way round, by a product with a matrix
    of zeros and ones; so no operator works along the few channels.

    Args:
        images: float32 (n, height, width, channels).
        gamma, beta: (channels,).
        epsilon: added to the variance.
    """
    height, width, channels = images.shape[1:]
    same_channel = tf.constant(np.tile(np.eye(channels), (width, 1)), images.dtype)  # (width * channels, channels)
    pixels = height * width

    def total(rows: Tensor) -> Tensor:
        return tf.reduce_sum(rows, 1) @ same_channel

    def spread(values: Tensor) -> Tensor:
        return tf.matmul(values, same_channel, transpose_b=True)[:, None]

    @tf.custom_gradient
    def call(images: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        rows = tf.reshape(images, [-1, height, width * channels])
        centred = rows - spread(total(rows) / pixels)
        inverse = tf.math.rsqrt(total(tf.square(centred)) / pixels + epsilon)
        made = centred * spread(inverse * gamma) + tf.tile(beta, [width])

        def gradients(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            gradient = tf.reshape(gradient, [-1, height, width * channels])
            of_mean, of_scale = total(gradient), total(gradient * centred) * inverse
            factor = inverse * gamma
            of_images = (
                gradient * spread(factor)
                - centred * spread(factor * inverse * of_scale / pixels)
                - spread(factor * of_mean / pixels)
            )
            return tf.reshape(of_images, tf.shape(images)), tf.reduce_sum(of_scale, 0), tf.reduce_sum(of_mean, 0)

        return tf.reshape(made, tf.shape(images)), gradients

    return call(images, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))
