"""What every layer of a network gives, worked out by ``networks.convolution`` and compared with what Keras built."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advgan.networks import convolution
from advgan.networks.convolution import ShapeError, Sides

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerDescription:
    """One layer, for one image."""

    name: str
    kind: str
    """In words: convolution, transposed convolution, max pooling, instance normalization, ..."""
    kernel: Pair | None
    """Height and width, in pixels; None where there is none, as is the stride."""
    stride: Pair | None
    padding: Sides | None
    """Pixels added around the layer's input; around the output, for a transposed convolution. Negative: cut off."""
    output_shape: Shape
    """Without the batch axis."""
    trained_parameters: int
    kept_parameters: int
    """Moving statistics, which training updates without a gradient."""
    operations: int
    """Floating-point operations for one image; a multiply-add counts as 2."""
    activation_bytes: int
    """Bytes of the layer's output for one image."""


@dataclass(frozen=True)
class NetworkDescription:
    """A network layer by layer, for one image."""

    name: str
    input_shape: Shape
    layers: tuple[LayerDescription, ...]

    @property
    def trained_parameters(self) -> int:
        """Parameters that gradients change."""
        return sum(layer.trained_parameters for layer in self.layers)

    @property
    def kept_parameters(self) -> int:
        """Moving statistics."""
        return sum(layer.kept_parameters for layer in self.layers)

    @property
    def operations(self) -> int:
        """Floating-point operations of a forward pass."""
        return sum(layer.operations for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layers' outputs together, which training keeps for the backward pass."""
        return sum(layer.activation_bytes for layer in self.layers)


def describe(network: Any) -> NetworkDescription:
    """Work out a network's shapes, parameters and operations, layer by layer, and compare them with Keras's.

    Shapes go from layer to layer as this module works them out; of Keras it takes only how the layers are connected and
    their hyperparameters.

    Args:
        network: a Keras model made of the layers that advgan's networks are made of; its first input is the image.

    Raises:
        ShapeError: Keras built something else than was worked out (a mistake of advgan), or a layer's kind is unknown
            here.
    """
    image = network.inputs[0]
    shapes: dict[int, Shape] = {id(tensor): _without_batch(tensor) for tensor in network.inputs}
    layers = []
    for layer in network.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        inputs = [shapes[id(tensor)] for tensor in _listed(layer.input)]
        with convolution.naming_layer(f"{network.name}.{layer.name}"):
            described = _describe_layer(layer, inputs)
            _compare(described, layer)
        shapes[id(layer.output)] = described.output_shape
        layers.append(described)
    return NetworkDescription(network.name, _without_batch(image), tuple(layers))


@dataclass(frozen=True)
class _Worked:
    """What a kind of layer comes to; the rest of a ``LayerDescription`` is the same for all kinds."""

    kind: str
    output_shape: Shape
    trained: int = 0
    kept: int = 0
    operations: int = 0
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: Sides | None = None


def _describe_layer(layer: Any, inputs: list[Shape]) -> LayerDescription:
    kind = type(layer).__name__
    if kind not in _KINDS:
        raise ShapeError(f"layers of type {kind} are not known here; known: {', '.join(_KINDS)}")
    worked = _KINDS[kind](layer, *inputs)
    bytes_per_value = 2 if layer.compute_dtype in ("bfloat16", "float16") else convolution.FLOAT32_BYTES
    return LayerDescription(
        layer.name,
        worked.kind,
        worked.kernel,
        worked.stride,
        worked.padding,
        worked.output_shape,
        worked.trained,
        worked.kept,
        worked.operations,
        convolution.activation_bytes(worked.output_shape, bytes_per_value),
    )


def _compare(described: LayerDescription, layer: Any) -> None:
    """Raise where Keras built something else."""
    built = {
        "output shape": _without_batch(layer.output),
        "parameters": layer.count_params(),
    }
    worked = {
        "output shape": described.output_shape,
        "parameters": described.trained_parameters + described.kept_parameters,
    }
    for name, value in worked.items():
        if value != built[name]:
            raise ShapeError(f"{name} worked out as {value}, built by Keras as {built[name]}: this is a bug of advgan")


def _convolution(layer: Any, shape: Shape) -> _Worked:
    channels, filters, bias = shape[2], layer.filters, layer.use_bias
    kernel, stride, output, padding = _window(layer, layer.kernel_size, shape)
    return _Worked(
        "convolution",
        (*output, filters),
        trained=convolution.convolution_parameters(*kernel, channels, filters, bias),
        operations=convolution.convolution_operations(*output, *kernel, channels, filters, bias)
        + _activation_operations(layer, (*output, filters)),
        kernel=kernel,
        stride=stride,
        padding=padding,
    )


def _transposed_convolution(layer: Any, shape: Shape) -> _Worked:
    height, width, channels = shape
    filters, bias = layer.filters, layer.use_bias
    (kernel, stride), padding = (_pair(layer.kernel_size), _pair(layer.strides)), layer.padding
    output_padding = layer.output_padding or (None, None)
    vertical = (height, kernel[0], stride[0], padding, output_padding[0])
    horizontal = (width, kernel[1], stride[1], padding, output_padding[1])
    output = convolution.transposed_output_size(*vertical), convolution.transposed_output_size(*horizontal)
    cropping = convolution.four_sides(
        convolution.transposed_cropping(*vertical), convolution.transposed_cropping(*horizontal)
    )
    return _Worked(
        "transposed convolution",
        (*output, filters),
        trained=convolution.transposed_convolution_parameters(*kernel, channels, filters, bias),
        operations=convolution.transposed_convolution_operations(
            height, width, *output, *kernel, channels, filters, bias
        )
        + _activation_operations(layer, (*output, filters)),
        kernel=kernel,
        stride=stride,
        padding=_negative(cropping),
    )


def _max_pooling(layer: Any, shape: Shape) -> _Worked:
    kernel, stride, output, padding = _window(layer, layer.pool_size, shape)
    return _Worked(
        "max pooling",
        (*output, shape[2]),
        trained=convolution.pooling_parameters(),
        operations=convolution.pooling_operations(*output, *kernel, shape[2]),
        kernel=kernel,
        stride=stride,
        padding=padding,
    )


def _global_average_pooling(layer: Any, shape: Shape) -> _Worked:  # noqa: ARG001
    height, width, channels = shape
    return _Worked(
        "global average pooling",
        (channels,),
        trained=convolution.pooling_parameters(),
        operations=convolution.pooling_operations(1, 1, height, width, channels),
    )


def _dense(layer: Any, shape: Shape) -> _Worked:
    [inputs] = shape
    return _Worked(
        "dense",
        (layer.units,),
        trained=convolution.dense_parameters(inputs, layer.units, layer.use_bias),
        operations=convolution.dense_operations(inputs, layer.units, layer.use_bias)
        + _activation_operations(layer, (layer.units,)),
    )


def _batch_normalization(layer: Any, shape: Shape) -> _Worked:  # noqa: ARG001
    trained, kept = convolution.batch_normalization_parameters(shape[-1])
    operations = convolution.batch_normalization_operations(*shape)
    return _Worked("batch normalization", shape, trained, kept, operations)


def _group_normalization(layer: Any, shape: Shape) -> _Worked:
    channels = shape[-1]
    operations = convolution.measured_normalization_operations(*shape)
    if layer.groups in (-1, channels):
        return _instance_normalization(layer, shape)
    kind = "layer normalization" if layer.groups == 1 else f"group normalization, {layer.groups} groups"
    return _Worked(
        kind, shape, convolution.group_normalization_parameters(channels, layer.groups), operations=operations
    )


def _instance_normalization(layer: Any, shape: Shape) -> _Worked:  # noqa: ARG001
    trained = convolution.instance_normalization_parameters(shape[-1])
    return _Worked(
        "instance normalization", shape, trained, operations=convolution.measured_normalization_operations(*shape)
    )


def _zero_padding(layer: Any, shape: Shape) -> _Worked:
    if layer.data_format == "channels_first":  # of an image with its channels last: it pads width and channels
        (left, right), (before, after) = layer.padding
        padded = shape[0], left + shape[1] + right, before + shape[2] + after
        return _Worked(f"padding with zeros, {before} + {after} channels", padded, padding=Sides(0, 0, left, right))
    sides = convolution.four_sides(*layer.padding)
    return _Worked("padding with zeros", _padded(shape, sides), padding=sides)


def _cropping(layer: Any, shape: Shape) -> _Worked:
    sides = _negative(convolution.four_sides(*layer.cropping))
    return _Worked("cropping", _padded(shape, sides), padding=sides)


def _resizing(layer: Any, shape: Shape) -> _Worked:
    height, width = layer.size
    return _Worked("nearest-neighbour resizing", (shape[0] * height, shape[1] * width, shape[2]))


def _rescaling(layer: Any, shape: Shape) -> _Worked:  # noqa: ARG001
    return _Worked("rescaling", shape, operations=2 * math.prod(shape))


def _flatten(layer: Any, shape: Shape) -> _Worked:  # noqa: ARG001
    return _Worked("flattening", (math.prod(shape),))


def _dropout(layer: Any, shape: Shape) -> _Worked:
    return _Worked(f"dropout {layer.rate:g} (in training)", shape)


def _addition(layer: Any, *shapes: Shape) -> _Worked:  # noqa: ARG001
    if any(each != shapes[0] for each in shapes):
        raise ShapeError(f"inputs of different shapes: {', '.join(map(str, shapes))}")
    return _Worked("addition", shapes[0], operations=math.prod(shapes[0]))


def _joining(layer: Any, *shapes: Shape) -> _Worked:  # noqa: ARG001
    height, width, _ = shapes[0]
    if any(each[:2] != (height, width) for each in shapes):
        raise ShapeError(f"maps of different sizes: {', '.join(map(str, shapes))}")
    return _Worked("joining of channels", (height, width, sum(each[2] for each in shapes)))


def _reshaping(layer: Any, shape: Shape) -> _Worked:
    if math.prod(layer.target_shape) != math.prod(shape):
        raise ShapeError(f"{shape} cannot take the shape {layer.target_shape}")
    return _Worked("reshaping", tuple(layer.target_shape))


def _activation(layer: Any, shape: Shape) -> _Worked:
    if type(layer).__name__ == "Activation" and layer.activation.__name__ == "linear":
        return _Worked(f"conversion to {layer.compute_dtype}", shape)
    name = {"ReLU": "ReLU", "LeakyReLU": "leaky ReLU"}.get(type(layer).__name__) or layer.activation.__name__
    return _Worked(name, shape, operations=math.prod(shape))


_KINDS: dict[str, Callable[..., _Worked]] = {
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed_convolution,
    "MaxPooling2D": _max_pooling,
    "GlobalAveragePooling2D": _global_average_pooling,
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "UpSampling2D": _resizing,
    "Rescaling": _rescaling,
    "Flatten": _flatten,
    "Dropout": _dropout,
    "Add": _addition,
    "Concatenate": _joining,
    "Reshape": _reshaping,
    "ReLU": _activation,
    "LeakyReLU": _activation,
    "Activation": _activation,
}


def _activation_operations(layer: Any, shape: Shape) -> int:
    """One per value for an activation that a layer has built in."""
    return 0 if layer.activation.__name__ == "linear" else math.prod(shape)


def _window(layer: Any, size: Any, shape: Shape) -> tuple[Pair, Pair, Pair, Sides]:
    """Kernel, stride, output height and width, and padding of a convolution or pooling."""
    kernel, stride = _pair(size), _pair(layer.strides)
    vertical = (shape[0], kernel[0], stride[0], layer.padding)
    horizontal = (shape[1], kernel[1], stride[1], layer.padding)
    output = convolution.output_size(*vertical), convolution.output_size(*horizontal)
    padding = convolution.four_sides(convolution.input_padding(*vertical), convolution.input_padding(*horizontal))
    return kernel, stride, output, padding


def _pair(sizes: Any) -> Pair:
    height, width = sizes
    return height, width


def _negative(sides: Sides) -> Sides:
    return Sides(*(-pixels for pixels in sides))


def _padded(shape: Shape, sides: Sides) -> Shape:
    return shape[0] + sides.top + sides.bottom, shape[1] + sides.left + sides.right, shape[2]


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _without_batch(tensor: Any) -> Shape:
    return tuple(int(size) for size in tensor.shape[1:])
