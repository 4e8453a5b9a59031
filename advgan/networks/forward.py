"""A network's forward and backward pass on a CPU with faster operators for some layers; the same but for rounding.

TensorFlow's instance normalization of large maps takes as long as the convolutions between, its transposed convolution
and its input gradients at stride 2 several times longer than a convolution with as many operations.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from advgan import replicas
from advgan.environment import has_gpu
from advgan.errors import AdvGANError
from advgan.networks.input_gradients import by_phases, by_products, convolution_input_gradient
from advgan.networks.normalization import ADDONS

keras = tf.keras
Tensor = Any
Operator = Callable[[list[list[Tensor]], bool], list[Tensor]]
"""From the inputs of each part and whether this is training to the output of each part."""
LIBRARIES = ("keras", "tensorflow_addons")
"""Whose layers are taken one by one."""
FEW_FILTERS = 4
"""Of a convolution that is made of matrix products."""
LARGEST_MATRIX = 2**20
"""Numbers of a matrix from channels to the pixels of a row."""


class Step(NamedTuple):
    """What computes a layer, or two."""

    name: str
    operator: Operator
    inputs: list[int]
    """Tensors of the model's graph, by their ``id``."""
    output: int


def forward(network: Any) -> Callable[..., Tensor]:
    """The function ``network(images, training=False)``, to be called inside a ``tf.function``.

    Args:
        network: any Keras model; of several inputs it takes a list. Where it is not simply a graph of Keras's layers
            to one output, or there is one GPU, the function is the model itself.
    """
    if _steps(network) is None:
        return network
    in_parts = forward_in_parts(network)

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, which takes a second to find out
    def call(images: Tensor, training: bool = False) -> Tensor:
        return in_parts([images], training)[0]

    return call


def forward_in_parts(network: Any) -> Callable[[list[Any], bool], list[Tensor]]:
    """The same function of a batch in parts, which depend on each other in batch normalization alone.

    Returns:
        From the images of each part (or a list of its inputs), and whether this is training, to what the network makes
        of each. Where ``forward`` gives the model itself, it is called on the whole batch.

    Raises:
        AdvGANError: in training on several replicas, if its batch normalization does not know of the others.
    """
    steps = _steps(network)
    if steps is None:
        return partial(_whole, network)
    starts, end = [id(tensor) for tensor in network.inputs], id(network.outputs[0])

    @tf.autograph.experimental.do_not_convert
    def call(parts: list[Any], training: bool) -> list[Tensor]:
        inputs = list(zip(*([part] if tf.is_tensor(part) else part for part in parts), strict=True))
        made = {start: list(each) for start, each in zip(starts, inputs, strict=True)}
        for step in steps:
            with tf.name_scope(step.name):
                of_step = [list(each) for each in zip(*(made[key] for key in step.inputs), strict=True)]
                made[step.output] = step.operator(of_step, training)
        return made[end]

    return call


def _whole(network: Any, parts: list[Any], training: bool) -> list[Tensor]:
    if training and replicas.here() > 1:
        for layer in network._flatten_layers():
            _check_alone(layer)
    if len(parts) == 1:
        return [network(parts[0], training=training)]
    made = network(tf.nest.map_structure(lambda *tensors: tf.concat(tensors, 0), *parts), training=training)
    return tf.split(made, [tf.shape(tf.nest.flatten(part)[0])[0] for part in parts])


def _steps(network: Any) -> list[Step] | None:
    """The layers in their order; None where this order and their tensors are not all that the network is.

    None on a GPU too, but for several replicas, which batch normalization has to know of.
    """
    if has_gpu() and replicas.count() == 1:
        return None
    try:
        [end] = network.outputs
        layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
        inputs = [[id(tensor) for tensor in tf.nest.flatten(layer.input)] for layer in layers]
        outputs = [id(layer.output) for layer in layers]
    except (AttributeError, TypeError, ValueError):  # it has no graph, or a layer that is used twice
        return None
    if not all(type(layer).__module__.split(".")[0] in LIBRARIES for layer in layers):
        return None
    made = {id(tensor) for tensor in network.inputs}
    for taken, output in zip(inputs, outputs, strict=True):
        if not made.issuperset(taken):
            return None
        made.add(output)
    if id(end) not in made:
        return None
    uses = Counter([*(key for taken in inputs for key in taken), id(end)])
    takers = {key: layer for layer, taken in zip(layers, inputs, strict=True) for key in taken}
    steps: list[Step] = []
    folded: dict[int, tuple[Any, list[int]]] = {}  # convolutions that the normalization after them includes
    for layer, taken, output in zip(layers, inputs, outputs, strict=True):
        if uses[output] == 1 and _folds(layer, takers.get(output)):
            folded[output] = layer, taken
        elif taken[0] in folded:
            before, of_convolution = folded[taken[0]]
            steps.append(Step(layer.name, _normalized(before, layer), of_convolution, output))
        else:
            steps.append(Step(layer.name, _operator(layer), taken, output))
    return steps


def _operator(layer: Any) -> Operator:
    """What computes a layer: faster operators, or itself."""
    if _normalizes_batches(layer):
        return lambda inputs, training: (
            _each(_itself(layer), inputs, training)
            if not training or (len(inputs) == 1 and replicas.here() == 1)
            else _batch_normalized(layer, [images for [images] in inputs])
        )
    function = _function(layer) or _itself(layer)

    def call(inputs: list[list[Tensor]], training: bool) -> list[Tensor]:
        if training:
            _check_alone(layer)
        return _each(function, inputs, training)

    return call


def _check_alone(layer: Any) -> None:
    """Raise where a layer would normalize over the share of one replica."""
    if replicas.here() > 1 and isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
        raise AdvGANError(
            f"{layer.name}: batch normalization of this kind works on one device only; set training.devices to 1"
        )


def _each(function: Callable[..., Tensor], inputs: list[list[Tensor]], training: bool) -> list[Tensor]:
    return [function(*tensors, training=training) for tensors in inputs]


def _function(layer: Any) -> Callable[..., Tensor] | None:
    """A faster function than a layer whose parts do not depend on each other."""
    kind = type(layer)
    if layer.compute_dtype != "float32" or has_gpu():
        return None
    if kind is keras.layers.Conv2DTranspose and _plain(layer) and _doubles(layer):
        return lambda images, **_: _finished(layer, transposed_convolution(images, layer.kernel))
    if kind is keras.layers.Conv2D and _plain(layer):
        return lambda images, **_: _finished(layer, convolution(images, layer.kernel, layer.strides, layer.padding))
    if _normalizes_each_map(layer):
        return lambda images, **_: instance_normalization(images, layer.gamma, layer.beta, layer.epsilon)
    if kind is keras.layers.LeakyReLU:
        slope = layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha  # in Keras 3, in Keras 2
        return lambda values, **_: leaky_relu(values, float(slope))
    return None


def _itself(layer: Any) -> Callable[..., Tensor]:
    several = isinstance(layer.input, (list, tuple))
    takes_training = "training" in inspect.signature(layer.call).parameters

    def call(*tensors: Tensor, training: bool) -> Tensor:
        options = {"training": training} if takes_training else {}
        return layer(list(tensors) if several else tensors[0], **options)

    return call


def _plain(layer: Any) -> bool:
    return (
        layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and getattr(layer, "groups", 1) == 1
        and layer.padding in ("same", "valid")
    )


def _doubles(layer: Any) -> bool:
    return tuple(layer.strides) == (2, 2) and layer.padding == "same" and layer.output_padding is None


def _normalizes_each_map(layer: Any) -> bool:
    kinds = [keras.layers.GroupNormalization] + ([] if ADDONS is None else [ADDONS.layers.InstanceNormalization])
    if type(layer) not in kinds or layer.axis not in (-1, 3) or len(layer.output.shape) != 4:
        return False
    channels = layer.output.shape[-1]
    return layer.groups in (-1, channels) and layer.center and layer.scale and None not in layer.output.shape[1:]


def _normalizes_batches(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.compute_dtype == "float32"
        and len(layer.output.shape) == 4
        and layer.axis in (-1, 3, [3], (3,))
        and layer.center
        and layer.scale
        and None not in layer.output.shape[1:]
    )


def _finished(layer: Any, made: Tensor) -> Tensor:
    made = made + tf.convert_to_tensor(layer.bias) if layer.use_bias else made
    return layer.activation(made)


# --- Batch normalization -----------------------------------------------------------------------------------------


def _folds(layer: Any, following: Any) -> bool:
    """Whether a layer is a convolution that batch normalization follows, which is a part of it in inference mode."""
    return (
        not has_gpu()
        and type(layer) is keras.layers.Conv2D
        and layer.compute_dtype == "float32"
        and _plain(layer)
        and layer.activation is keras.activations.linear
        and _normalizes_batches(following)
    )


def _normalized(layer: Any, norm: Any) -> Operator:
    """A convolution and its batch normalization: one convolution with other weights, but in training."""
    in_training = _operator(layer), _operator(norm)

    def call(inputs: list[list[Tensor]], training: bool) -> list[Tensor]:
        if training and norm.trainable:
            made = in_training[0](inputs, training)
            return in_training[1]([[each] for each in made], training)
        gamma, beta, mean, variance, kernel = (
            tf.convert_to_tensor(each)
            for each in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, layer.kernel)
        )
        scale = gamma * tf.math.rsqrt(variance + norm.epsilon)
        shift = beta - mean * scale + (tf.convert_to_tensor(layer.bias) * scale if layer.use_bias else 0.0)
        return [convolution(images, kernel * scale, layer.strides, layer.padding) + shift for [images] in inputs]

    return call


def _batch_normalized(layer: Any, parts: list[Tensor]) -> list[Tensor]:
    """Batch normalization in training, over all parts; it moves the layer's statistics as Keras does."""
    if not layer.trainable:
        return [layer(images, training=False) for images in parts]
    *made, mean, variance = batch_normalization(parts, layer.gamma, layer.beta, layer.epsilon)
    if getattr(layer, "fused", False):  # Keras 2 keeps the unbiased variance
        size = sum(tf.size(images) for images in parts) * replicas.here()
        count = tf.cast(size // parts[0].shape[-1], tf.float32)
        variance = variance * count / (count - 1)
    for kept, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        kept.assign(tf.convert_to_tensor(kept) * layer.momentum + value * (1 - layer.momentum))
    return made


def batch_normalization(parts: list[Tensor], gamma: Any, beta: Any, epsilon: float) -> list[Tensor]:
    """Batch normalization (Ioffe and Szegedy 2015) over parts of a batch, each on rows of pixels as ``_Rows`` has them.

    Of several replicas it is that of the whole batch; gamma's and beta's gradients are those of the loss of this one.

    Args:
        parts: float32 (n, height, width, channels), n of each its own.
        gamma, beta: (channels,).
        epsilon: added to the variance.

    Returns:
        The parts, normalized; and the mean and the variance of the whole, (channels,), without a gradient.
    """
    rows = _Rows(parts[0])

    def own(tensors: list[Tensor]) -> Tensor:
        return rows.total(tf.add_n([tf.reduce_sum(each, 0, keepdims=True) for each in tensors]))  # (1, channels)

    def total(tensors: list[Tensor]) -> Tensor:
        return replicas.sum_of(own(tensors))

    @tf.custom_gradient
    def call(gamma: Tensor, beta: Tensor, *parts: Tensor) -> Any:
        count = sum(tf.shape(images)[0] for images in parts) * replicas.here()
        values = tf.cast(count * rows.pixels, gamma.dtype)
        wide = [rows.of(images) for images in parts]
        mean = total(wide) / values
        centred = [each - rows.spread(mean) for each in wide]
        variance = total([tf.square(each) for each in centred]) / values
        inverse = tf.math.rsqrt(variance + epsilon)
        factor = inverse * gamma
        made = [each * rows.spread(factor) + rows.spread(beta[tf.newaxis]) for each in centred]

        def gradients(*of_outputs: Tensor) -> list[Tensor]:
            wide = [rows.of(gradient) for gradient in of_outputs[: len(parts)]]
            own_beta = own(wide)
            own_gamma = own([each * here for each, here in zip(wide, centred, strict=True)]) * inverse
            of_beta, of_gamma = replicas.sum_of(own_beta), replicas.sum_of(own_gamma)
            along, even = rows.spread(factor * inverse * of_gamma / values), rows.spread(factor * of_beta / values)
            of_parts = [
                each * rows.spread(factor) - here * along - even for each, here in zip(wide, centred, strict=True)
            ]
            return [own_gamma[0], own_beta[0], *(rows.back(each) for each in of_parts)]

        return [*(rows.back(each) for each in made), mean[0], variance[0]], gradients

    return call(tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta), *parts)


# --- Operators ---------------------------------------------------------------------------------------------------


def convolution(images: Tensor, kernel: Any, strides: Any, padding: str) -> Tensor:
    """A convolution as ``tf.nn.conv2d`` computes it.

    Args:
        images: float32 (n, height, width, channels).
        kernel: (kernel height, kernel width, channels, filters).
        strides: down and across.
        padding: ``valid`` or ``same``.
    """
    strides, kernel = tuple(strides), tf.convert_to_tensor(kernel)
    if few_filters(kernel, strides, padding):
        return _convolution_with_few_filters(images, kernel)
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

    return call(images, kernel)


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


class _Rows:
    """Images whose rows of pixels are the rows of matrices, so that no operator works along the few channels.

    A number for each channel becomes one for each value of a row, and the other way round, by a product with a matrix
    of zeros and ones, where that is small: those of a network with hundreds of channels take gigabytes.

    Args:
        images: of the size that is meant; a shape (any, height, width, channels) with a number type.
    """

    def __init__(self, images: Tensor) -> None:
        self.height, self.width, self.channels = images.shape[1:]
        self.pixels = self.height * self.width
        self._of_channel = None
        if self.width * self.channels**2 <= LARGEST_MATRIX:
            of_channel = np.tile(np.eye(self.channels), (self.width, 1))  # (width * channels, channels)
            self._of_channel = tf.constant(of_channel, images.dtype)

    def of(self, images: Tensor) -> Tensor:
        """(n, height, width * channels)."""
        return tf.reshape(images, [-1, self.height, self.width * self.channels])

    def back(self, rows: Tensor) -> Tensor:
        """The images of these rows."""
        return tf.reshape(rows, [-1, self.height, self.width, self.channels])

    def total(self, rows: Tensor) -> Tensor:
        """The sum over each map, (n, channels)."""
        of_columns = tf.reduce_sum(rows, 1)
        if self._of_channel is None:
            return tf.reduce_sum(tf.reshape(of_columns, [-1, self.width, self.channels]), 1)
        return of_columns @ self._of_channel

    def spread(self, values: Tensor) -> Tensor:
        """A value for each map, (n, channels), at each of its pixels: (n, 1, width * channels)."""
        if self._of_channel is None:
            return tf.tile(values, [1, self.width])[:, None]
        return tf.matmul(values, self._of_channel, transpose_b=True)[:, None]


def instance_normalization(images: Tensor, gamma: Any, beta: Any, epsilon: float) -> Tensor:
    """Instance normalization (Ulyanov et al. 2016).

    Args:
        images: float32 (n, height, width, channels).
        gamma, beta: (channels,).
        epsilon: added to the variance.
    """
    rows = _Rows(images)

    @tf.custom_gradient
    def call(images: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        wide = rows.of(images)
        centred = wide - rows.spread(rows.total(wide) / rows.pixels)
        inverse = tf.math.rsqrt(rows.total(tf.square(centred)) / rows.pixels + epsilon)
        factor = inverse * gamma
        made = centred * rows.spread(factor) + tf.tile(beta, [rows.width])

        def gradients(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            wide = rows.of(gradient)
            of_beta, of_gamma = rows.total(wide), rows.total(wide * centred) * inverse
            of_images = (
                wide * rows.spread(factor)
                - centred * rows.spread(factor * inverse * of_gamma / rows.pixels)
                - rows.spread(factor * of_beta / rows.pixels)
            )
            return rows.back(of_images), tf.reduce_sum(of_gamma, 0), tf.reduce_sum(of_beta, 0)

        return rows.back(made), gradients

    return call(images, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))
