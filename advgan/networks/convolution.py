"""The arithmetic of convolutional networks: output sizes, padding, parameters, operations and memory, layer by layer.

Sizes are whole numbers of pixels along one axis; an image's height and width are worked out separately by the same
functions. Letters in formulas: L or W is the input size of a convolution, i that of a transposed convolution, F or k
the kernel, S or s the stride, P or p a padding on each side. A padding is named as in Keras, ``same`` or ``valid``.

Operations are floating-point operations for one image, and a multiply-add counts as 2, as in TensorFlow's profiler.

Whatever cannot work is a ``ShapeError`` that says why.

Sources: TensorFlow, "Notes on padding" (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2);
Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv:1603.07285); the Keras layers
themselves, against which the tests run every formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from advgan.errors import AdvGANError, ConfigurationError

FLOAT32_BYTES = 4


class ShapeError(AdvGANError):
    """A layer that cannot be built on its input, or sizes that do not fit each other."""


class Sides(NamedTuple):
    """Pixels on the four sides of an image."""

    top: int
    bottom: int
    left: int
    right: int


# --- Convolution and pooling -------------------------------------------------------------------------------------


def same_output_size(size: int, stride: int) -> int:
    """Output size of a convolution or pooling with SAME padding: ``ceil(L / S)``, whatever the kernel.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(size=size, stride=stride)
    return _ceiling_division(size, stride)


def valid_output_size(size: int, kernel: int, stride: int) -> int:
    """Output size of a convolution or pooling without padding (VALID): ``ceil((L - F + 1) / S)``.

    Pixels at the end that do not fill a whole stride are dropped. A kernel larger than the input is an error here
    because TensorFlow itself does not always do so: run eagerly on a CPU (2.15 and 2.21), its convolution may return
    uninitialized memory and its pooling end the process.

    Raises:
        ShapeError: the kernel is larger than the input, or an argument is not a whole number of at least 1.
    """
    _require_at_least_one(size=size, kernel=kernel, stride=stride)
    if kernel > size:
        raise ShapeError(
            f"a kernel of {kernel} does not fit an input of {size} without padding: "
            f"use a kernel of at most {size}, SAME padding or a larger image"
        )
    return _ceiling_division(size - kernel + 1, stride)


def output_size(size: int, kernel: int, stride: int, padding: str) -> int:
    """Output size of a convolution or pooling as Keras builds it.

    Args:
        padding: ``same`` or ``valid``.

    Raises:
        ShapeError: as ``valid_output_size``, or an unknown padding.
    """
    if _is_same(padding):
        _require_at_least_one(kernel=kernel)
        return same_output_size(size, stride)
    return valid_output_size(size, kernel, stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros that SAME puts before (above, left) and after (below, right) the input; an odd pixel goes after.

    Together ``max((ceil(L / S) - 1) S + F - L, 0)``. Unlike a fixed padding it depends on the input's size: kernel 3
    at stride 2 gets (0, 1) on 28 pixels and (1, 1) on 7.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(kernel=kernel)
    total = max((same_output_size(size, stride) - 1) * stride + kernel - size, 0)
    return _halves(total)


def input_padding(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after the input of a convolution or pooling: ``same_padding``, or (0, 0) for ``valid``.

    A pooling leaves these pixels out of its maximum or mean instead of counting them as zeros.

    Raises:
        ShapeError: the layer cannot be built, see ``output_size``.
    """
    if _is_same(padding):
        return same_padding(size, kernel, stride)
    valid_output_size(size, kernel, stride)
    return 0, 0


# --- Transposed convolution --------------------------------------------------------------------------------------


def transposed_output_size(size: int, kernel: int, stride: int, padding: str, output_padding: int | None = None) -> int:
    """Output size of Keras's ``Conv2DTranspose``, for layers that TensorFlow can also run.

    ============  ==========================  ================================================
    padding       output_padding None         output_padding o
    ============  ==========================  ================================================
    ``valid``     ``s i + max(k - s, 0)``     ``s (i - 1) + k + o``
    ``same``      ``s i``                     ``s (i - 1) + (1 for odd k, 0 for even k) + o``
    ============  ==========================  ================================================

    Args:
        padding: ``same`` or ``valid``.
        output_padding: rows added after the output, from 0 to the stride less 1; None is Keras's default.

    Raises:
        ShapeError: output_padding is out of range (Keras refuses it); or the kernel is even, padding is ``same`` and
            output_padding is 0, which Keras builds and TensorFlow fails to run.
    """
    same = _is_same(padding)
    _require_at_least_one(size=size, kernel=kernel, stride=stride)
    if output_padding is None:
        return size * stride if same else size * stride + max(kernel - stride, 0)
    _require_at_least(0, output_padding=output_padding)
    if output_padding >= stride:
        raise ShapeError(
            f"output_padding {output_padding} must be smaller than the stride {stride}: "
            f"{_sizes_within_reach(size, kernel, stride, padding)}"
        )
    output = _size_without_output_padding(size, kernel, stride, same) + output_padding
    if output not in admissible_transposed_sizes(size, kernel, stride, padding):
        raise ShapeError(
            f"TensorFlow cannot run a SAME transposed convolution with an even kernel ({kernel}) and output_padding 0: "
            f"its output of {output} would convolve back to {_ceiling_division(output, stride)}, not to its input of "
            f"{size}; leave output_padding out (output {size * stride}) or use an odd kernel"
        )
    return output


def admissible_transposed_sizes(size: int, kernel: int, stride: int, padding: str) -> range:
    """Every output size that a transposed convolution can have.

    They are the sizes that the forward convolution maps back to the input's size, ``stride`` of them:
    ``s (i - 1) + 1`` to ``s i`` for ``same``, ``s (i - 1) + k`` to ``s i + k - 1`` for ``valid``.
    ``output_padding`` chooses among them. SAME, input 2, stride 2: 3 or 4.

    Raises:
        ShapeError: an argument is not a whole number of at least 1, or an unknown padding.
    """
    same = _is_same(padding)
    _require_at_least_one(size=size, kernel=kernel, stride=stride)
    smallest = stride * (size - 1) + (1 if same else kernel)
    return range(smallest, smallest + stride)


def transposed_cropping(
    size: int, kernel: int, stride: int, padding: str, output_padding: int | None = None
) -> tuple[int, int]:
    """Pixels cut before and after the full transposed convolution, whose size is ``s (i - 1) + k``.

    Before, it is what SAME would pad on an input of the output's size; after, what remains to be cut. A negative number
    after means pixels added there, which receive the bias alone.

    Raises:
        ShapeError: the layer cannot be built or run, see ``transposed_output_size``.
    """
    output = transposed_output_size(size, kernel, stride, padding, output_padding)
    before = same_padding(output, kernel, stride)[0] if _is_same(padding) else 0
    return before, stride * (size - 1) + kernel - output - before


# --- Images ------------------------------------------------------------------------------------------------------


def four_sides(vertical: tuple[int, int], horizontal: tuple[int, int]) -> Sides:
    """Join the (before, after) pixels of an image's height and of its width into its four sides."""
    return Sides(*vertical, *horizontal)


def pad_to_multiple(size: int, multiple: int) -> tuple[int, int]:
    """Zeros before and after that make a size divisible, as even as possible; an odd pixel goes after.

    A generator with two layers of stride 2 pads its input to a multiple of 4 and crops its output by the same numbers.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(size=size, multiple=multiple)
    return _halves(-size % multiple)


def require_normalizable_map(height: int, width: int) -> None:
    """Refuse instance normalization of a 1x1 map: its only value equals its mean, so its output never changes.

    Raises:
        ShapeError: the map is 1x1.
    """
    _require_at_least_one(height=height, width=width)
    if height * width == 1:
        raise ShapeError(
            "instance normalization of a 1x1 map gives the same value for every image: "
            "use a larger image, SAME padding, fewer layers of stride 2, or another normalization"
        )


@contextmanager
def naming_layer(layer: str) -> Iterator[None]:
    """Put the layer's name before the message of any ``ShapeError`` raised inside the ``with`` block."""
    try:
        yield
    except ShapeError as error:
        raise ShapeError(f"{layer}: {error}") from error


# --- Parameters --------------------------------------------------------------------------------------------------


def convolution_parameters(
    kernel_height: int, kernel_width: int, channels_in: int, filters: int, bias: bool = True
) -> int:
    """Trained parameters of a convolution: ``kernel_height * kernel_width * channels_in * filters``, and filters more
    with a bias.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(
        kernel_height=kernel_height, kernel_width=kernel_width, channels_in=channels_in, filters=filters
    )
    return kernel_height * kernel_width * channels_in * filters + (filters if bias else 0)


def transposed_convolution_parameters(
    kernel_height: int, kernel_width: int, channels_in: int, filters: int, bias: bool = True
) -> int:
    """Trained parameters of a transposed convolution: as many as a convolution's, in a kernel stored with its last two
    axes exchanged (filters, then channels_in).

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    return convolution_parameters(kernel_height, kernel_width, channels_in, filters, bias)


def pooling_parameters() -> int:
    """A pooling has no parameters: 0."""
    return 0


def dense_parameters(inputs: int, units: int, bias: bool = True) -> int:
    """Trained parameters of a dense layer: ``inputs * units``, and units more with a bias.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(inputs=inputs, units=units)
    return inputs * units + (units if bias else 0)


def batch_normalization_parameters(channels: int) -> tuple[int, int]:
    """Parameters of batch normalization: trained (scale and shift) and kept (moving mean and variance), 2 per channel
    each. Both are in Keras's total; only the first are in its trainable count.

    Raises:
        ShapeError: channels is not a whole number of at least 1.
    """
    _require_at_least_one(channels=channels)
    return 2 * channels, 2 * channels


def instance_normalization_parameters(channels: int) -> int:
    """Trained parameters of instance normalization: a scale and a shift per channel.

    Raises:
        ShapeError: channels is not a whole number of at least 1.
    """
    _require_at_least_one(channels=channels)
    return 2 * channels


def group_normalization_parameters(channels: int, groups: int) -> int:
    """Trained parameters of group normalization: a scale and a shift per channel, however many groups there are.

    Raises:
        ShapeError: the groups do not divide the channels, or an argument is not a whole number of at least 1.
    """
    _require_at_least_one(channels=channels, groups=groups)
    if channels % groups:
        raise ShapeError(f"{channels} channels cannot be split into {groups} equal groups: use a divisor of {channels}")
    return 2 * channels


# --- Floating-point operations -----------------------------------------------------------------------------------


def convolution_operations(
    output_height: int,
    output_width: int,
    kernel_height: int,
    kernel_width: int,
    channels_in: int,
    filters: int,
    bias: bool = True,
) -> int:
    """Operations of a convolution: 2 per weight at every output pixel, and 1 per output value with a bias.

    The zeros of SAME padding are counted like other pixels.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(output_height=output_height, output_width=output_width)
    weights = convolution_parameters(kernel_height, kernel_width, channels_in, filters, bias=False)
    return output_height * output_width * (2 * weights + (filters if bias else 0))


def transposed_convolution_operations(
    input_height: int,
    input_width: int,
    output_height: int,
    output_width: int,
    kernel_height: int,
    kernel_width: int,
    channels_in: int,
    filters: int,
    bias: bool = True,
) -> int:
    """Operations of a transposed convolution: 2 per weight at every input pixel, and 1 per output value with a bias.

    What SAME crops off the output is counted too. This is what the convolution takes whose gradient it is.
    (TensorFlow's profiler agrees for SAME; for VALID it divides the output's size by the strides and overstates.)

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(
        input_height=input_height, input_width=input_width, output_height=output_height, output_width=output_width
    )
    weights = convolution_parameters(kernel_height, kernel_width, channels_in, filters, bias=False)
    return 2 * weights * input_height * input_width + (filters * output_height * output_width if bias else 0)


def pooling_operations(
    output_height: int, output_width: int, kernel_height: int, kernel_width: int, channels: int
) -> int:
    """Operations of a maximum or average pooling: one per pixel of the window, for every output value.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    sizes = {
        "output_height": output_height,
        "output_width": output_width,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "channels": channels,
    }
    _require_at_least_one(**sizes)
    return math.prod(sizes.values())


def dense_operations(inputs: int, units: int, bias: bool = True) -> int:
    """Operations of a dense layer: 2 per weight, and 1 per unit with a bias.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    return 2 * dense_parameters(inputs, units, bias=False) + (units if bias else 0)


def batch_normalization_operations(height: int, width: int, channels: int) -> int:
    """Operations of batch normalization in use, after training: 2 per value.

    Its moving mean and variance fold into one factor and one term per channel, worked out once, not per image.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(height=height, width=width, channels=channels)
    return 2 * height * width * channels


def measured_normalization_operations(height: int, width: int, channels: int) -> int:
    """Operations of a normalization that measures each image (instance, group, layer): 6 per value.

    One for the mean, one for the deviation from it, two for the variance, one to scale, one to shift. The few per mean
    (square root, division) are left out.

    Raises:
        ShapeError: an argument is not a whole number of at least 1.
    """
    _require_at_least_one(height=height, width=width, channels=channels)
    return 6 * height * width * channels


# --- Memory ------------------------------------------------------------------------------------------------------


def activation_bytes(shape: Sequence[int], bytes_per_value: int = FLOAT32_BYTES) -> int:
    """Bytes that the output of a layer, of whatever kind, takes for one image.

    Training keeps every layer's output for the backward pass, so the outputs of a network add up; temporary memory of
    the computation is not in it.

    Args:
        shape: the output's shape without the batch axis, for example (height, width, channels) or (units,).
        bytes_per_value: 4 for float32, 2 for bfloat16.

    Raises:
        ShapeError: a number is not a whole number of at least 1.
    """
    _require_at_least_one(bytes_per_value=bytes_per_value)
    for size in shape:
        _require_at_least_one(size=size)
    return math.prod(shape) * bytes_per_value


# --- Parts -------------------------------------------------------------------------------------------------------


def _is_same(padding: str) -> bool:
    if padding not in ("same", "valid"):
        raise ShapeError(f"padding {padding!r} is unknown: use 'same' or 'valid'")
    return padding == "same"


def _require_at_least_one(**numbers: int) -> None:
    _require_at_least(1, **numbers)


def _require_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < least:
            raise ShapeError(f"{name.replace('_', ' ')} must be a whole number of at least {least}, not {number!r}")


def _ceiling_division(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _halves(total: int) -> tuple[int, int]:
    """Split pixels over two sides; an odd one goes to the second."""
    return total // 2, total - total // 2


def _size_without_output_padding(size: int, kernel: int, stride: int, same: bool) -> int:
    """Output size of Keras's transposed convolution at output_padding 0, runnable or not."""
    return stride * (size - 1) + (kernel % 2 if same else kernel)


def _sizes_within_reach(size: int, kernel: int, stride: int, padding: str) -> str:
    sizes = [str(admissible) for admissible in admissible_transposed_sizes(size, kernel, stride, padding)]
    if len(sizes) > 4:
        choice = f"{sizes[0]} to {sizes[-1]}"
    else:
        choice = " or ".join([", ".join(sizes[:-1]), sizes[-1]] if len(sizes) > 1 else sizes)
    return (
        f"a {padding.upper()} transposed convolution of an input of {size} with kernel {kernel} and stride {stride} "
        f"gives {choice}"
    )


@contextmanager
def fitting(image_shape: tuple[int, int, int], key: str, value: object, layer: str) -> Iterator[None]:
    """Turn a ``ShapeError`` raised inside the ``with`` block into an error of a setting.

    Args:
        image_shape: height, width, channels; named in the message.
        key: dotted key of the setting at fault.
        value: what it was set to.
        layer: the layer that is worked out inside; named in the message.

    Raises:
        ConfigurationError: the layer does not fit.
    """
    try:
        yield
    except ShapeError as error:
        height, width, _ = image_shape
        raise ConfigurationError(
            key, value, f"does not fit images of {height}x{width}: at layer {layer}: {error}"
        ) from None
