"""Every formula of networks.convolution against the Keras layer it describes, and the worked examples by hand."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from advgan.errors import AdvGANError
from advgan.networks import convolution
from advgan.networks.convolution import ShapeError, Sides

keras = tf.keras
layers = keras.layers

SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 28)
KERNELS = (1, 2, 3, 4, 5, 8)
STRIDES = (1, 2, 3, 4)
PADDINGS = ("same", "valid")


def built_size(layer: Any, size: int) -> int:
    """Output size that Keras works out for a square single-channel image."""
    return int(tuple(layer.compute_output_shape((1, size, size, 1)))[1])


def run_on_ones(layer: Any, size: int) -> np.ndarray:
    return np.asarray(layer(tf.ones((1, size, size, 1))))


def count_parameters(layer: Any, shape: tuple[int, ...]) -> int:
    layer.build((None, *shape))
    return int(layer.count_params())


def count_trained(layer: Any, shape: tuple[int, ...]) -> int:
    layer.build((None, *shape))
    return sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)


def profiled_operations(layer: Any, shape: tuple[int, ...]) -> int:
    """Floating-point operations that TensorFlow's own profiler counts in a layer, for one image."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    layer.build((None, *shape))
    function = tf.function(layer).get_concrete_function(tf.TensorSpec((1, *shape)))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
    graph = convert_variables_to_constants_v2(function).graph
    return int(profiler.profile(graph=graph, options=options).total_float_ops)


# --- Convolution and pooling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", PADDINGS)
def test_output_size_is_that_of_keras_convolution_and_pooling(padding: str) -> None:
    compared = 0
    for size, kernel, stride in itertools.product(SIZES, KERNELS, STRIDES):
        if padding == "valid" and kernel > size:
            continue
        ours = convolution.output_size(size, kernel, stride, padding)
        settings = (size, kernel, stride)
        assert ours == built_size(layers.Conv2D(1, kernel, strides=stride, padding=padding), size), settings
        assert ours == built_size(layers.MaxPooling2D(kernel, strides=stride, padding=padding), size), settings
        assert ours == built_size(layers.AveragePooling2D(kernel, strides=stride, padding=padding), size), settings
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("padding", PADDINGS)
def test_output_size_is_what_tensorflow_computes(padding: str) -> None:
    for size, kernel, stride in itertools.product((5, 6, 7), (1, 2, 3, 4, 5), (1, 2, 3)):
        image = tf.ones((1, size, size, 1))
        ours = convolution.output_size(size, kernel, stride, padding)
        convolved = tf.nn.conv2d(image, tf.ones((kernel, kernel, 1, 1)), stride, padding.upper())
        pooled = tf.nn.max_pool2d(image, kernel, stride, padding.upper())
        assert convolved.shape == pooled.shape == (1, ours, ours, 1), (size, kernel, stride)


def test_kernel_larger_than_input_is_refused_where_keras_refuses_it() -> None:
    for size, kernel, stride in itertools.product((1, 2, 3), (2, 3, 4), (1, 2)):
        if kernel <= size:
            continue
        with pytest.raises(ShapeError, match=f"kernel of {kernel} does not fit an input of {size}"):
            convolution.valid_output_size(size, kernel, stride)
        with pytest.raises(ShapeError, match="does not fit"):
            convolution.input_padding(size, kernel, stride, "valid")
        with pytest.raises(ValueError, match=r"(?i)negative|<= 0"):
            layers.Conv2D(1, kernel, strides=stride)(keras.Input((size, size, 1)))
        with pytest.raises(ValueError, match=r"(?i)negative|<= 0"):
            layers.MaxPooling2D(kernel, strides=stride)(keras.Input((size, size, 1)))
        assert convolution.output_size(size, kernel, stride, "same") == -(-size // stride)


def test_same_padding_is_tensorflows_split() -> None:
    """Padding by hand, then a VALID convolution, gives the values of a SAME convolution: the split is the right one."""
    random = np.random.default_rng(0)
    uneven = 0
    for size, kernel, stride in itertools.product((1, 4, 5, 7, 10), (1, 2, 3, 4, 5), (1, 2, 3)):
        before, after = convolution.same_padding(size, kernel, stride)
        image = random.normal(size=(1, size, size, 1)).astype(np.float32)
        weights = random.normal(size=(kernel, kernel, 1, 1)).astype(np.float32)
        padded = np.pad(image, ((0, 0), (before, after), (before, after), (0, 0)))
        expected = tf.nn.conv2d(image, weights, stride, "SAME")
        np.testing.assert_allclose(tf.nn.conv2d(padded, weights, stride, "VALID"), expected, atol=1e-5)
        assert convolution.input_padding(size, kernel, stride, "same") == (before, after)
        uneven += before != after
    assert uneven > 10


def test_same_padding_depends_on_the_size() -> None:
    assert convolution.same_padding(28, 3, 2) == (0, 1)
    assert convolution.same_padding(7, 3, 2) == (1, 1)
    assert convolution.same_padding(28, 2, 4) == (0, 0)
    assert convolution.input_padding(28, 3, 2, "valid") == (0, 0)


def test_pooling_leaves_padding_out_of_its_mean() -> None:
    assert convolution.same_padding(4, 3, 2) == (0, 1)
    np.testing.assert_array_equal(run_on_ones(layers.AveragePooling2D(3, strides=2, padding="same"), 4), 1.0)


# --- Transposed convolution --------------------------------------------------------------------------------------


def test_transposed_output_size_is_that_of_keras() -> None:
    for size, kernel, stride, padding in itertools.product(SIZES, KERNELS, STRIDES, PADDINGS):
        for output_padding in (None, *range(stride)):
            layer = layers.Conv2DTranspose(1, kernel, strides=stride, padding=padding, output_padding=output_padding)
            settings = (size, kernel, stride, padding, output_padding)
            if padding == "same" and kernel % 2 == 0 and output_padding == 0:
                continue  # the next test's
            assert convolution.transposed_output_size(*settings) == built_size(layer, size), settings


def test_transposed_convolutions_that_tensorflow_cannot_run_are_refused_and_no_others() -> None:
    failed = ran = 0
    for size, kernel, stride, padding in itertools.product((1, 2, 5), (1, 2, 3, 4), (1, 2, 3), PADDINGS):
        for output_padding in (None, *range(stride)):
            layer = layers.Conv2DTranspose(1, kernel, strides=stride, padding=padding, output_padding=output_padding)
            settings = (size, kernel, stride, padding, output_padding)
            try:
                output = run_on_ones(layer, size)
            except (tf.errors.OpError, ValueError):
                output = np.zeros((1, 0, 0, 1))
            if output.size == 0:  # TensorFlow fails, or from one pixel makes an image without pixels
                assert (padding, kernel % 2, output_padding) == ("same", 0, 0), settings
                with pytest.raises(ShapeError, match=rf"TensorFlow cannot run .* even kernel \({kernel}\)"):
                    convolution.transposed_output_size(*settings)
                failed += 1
            else:
                assert convolution.transposed_output_size(*settings) == output.shape[1] == output.shape[2], settings
                ran += 1
    assert failed == 3 * 2 * 3  # every size, even kernel and stride
    assert ran > 100


@pytest.mark.parametrize(("stride", "output_padding"), [(1, 1), (2, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_output_padding_of_the_stride_or_more_is_refused_as_keras_does(
    stride: int, output_padding: int, padding: str
) -> None:
    with pytest.raises(ValueError, match=r"(?i)strides"):
        layers.Conv2DTranspose(1, 3, strides=stride, padding=padding, output_padding=output_padding)
    with pytest.raises(
        ShapeError, match=f"^output_padding {output_padding} must be smaller than the stride {stride}: "
    ):
        convolution.transposed_output_size(5, 3, stride, padding, output_padding)


def test_admissible_sizes_are_those_tensorflow_runs() -> None:
    for size, kernel, stride, padding in itertools.product((1, 2, 4), (1, 2, 3, 4), (1, 2, 3), PADDINGS):
        image, weights = tf.ones((1, size, size, 1)), tf.ones((kernel, kernel, 1, 1))
        admissible = convolution.admissible_transposed_sizes(size, kernel, stride, padding)
        ran = []
        # TensorFlow also accepts some outputs smaller than a VALID kernel and fills them with what it finds in memory.
        for output in range(1 if padding == "same" else kernel, stride * size + kernel + 2):
            try:
                tf.nn.conv2d_transpose(image, weights, (1, output, output, 1), stride, padding.upper())
            except (tf.errors.OpError, ValueError):
                continue
            ran.append(output)
        assert ran == list(admissible), (size, kernel, stride, padding)
        assert all(convolution.output_size(output, kernel, stride, padding) == size for output in admissible)


def test_same_transposed_input_2_stride_2_gives_3_or_4_never_5() -> None:
    for kernel in (2, 3, 4, 5):
        assert list(convolution.admissible_transposed_sizes(2, kernel, 2, "same")) == [3, 4]
    for settings, sizes in {
        (2, 3, 2): "3 or 4",
        (10, 3, 1): "10",
        (5, 3, 8): "33 to 40",
        (2, 3, 3): "4, 5 or 6",
    }.items():
        with pytest.raises(ShapeError, match=f"gives {sizes}$"):
            convolution.transposed_output_size(*settings, "same", output_padding=settings[-1])


def full_transposed_convolution(image: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Each pixel adds its multiple of the kernel to the output, one stride after the previous: no padding, no crop."""
    size, width = len(image), len(kernel)
    full = np.zeros((stride * (size - 1) + width,) * 2, np.float32)
    for row, column in itertools.product(range(size), range(size)):
        top, left = row * stride, column * stride
        full[top : top + width, left : left + width] += image[row, column] * kernel
    return full


def test_transposed_cropping_cuts_the_full_transposed_convolution() -> None:
    random = np.random.default_rng(1)
    added = cut = 0
    for size, kernel, stride, padding in itertools.product((1, 2, 4), (1, 2, 3, 4, 5), (1, 2, 3), PADDINGS):
        for output_padding in (None, *range(stride)):
            if padding == "same" and kernel % 2 == 0 and output_padding == 0:
                continue
            settings = (size, kernel, stride, padding, output_padding)
            before, after = convolution.transposed_cropping(*settings)
            image = random.normal(size=(size, size)).astype(np.float32)
            weights = random.normal(size=(kernel, kernel)).astype(np.float32)
            full = full_transposed_convolution(image, weights, stride)
            end = len(full) - max(after, 0)
            expected = np.pad(full[before:end, before:end], (0, max(-after, 0)))
            layer = layers.Conv2DTranspose(
                1, kernel, strides=stride, padding=padding, output_padding=output_padding, use_bias=False
            )
            layer.build((1, size, size, 1))
            layer.set_weights([weights[:, :, None, None]])
            np.testing.assert_allclose(layer(image[None, :, :, None])[0, :, :, 0], expected, atol=1e-5)
            cut += before + max(after, 0)
            added += max(-after, 0)
    assert cut > 100
    assert added > 20


def test_worked_example_two_by_two_through_a_kernel_of_ones() -> None:
    """[[1, 1], [2, 2]], 3x3 kernel of ones, stride 2, SAME: the full 5x5 result without its last row and column."""
    image = np.array([[1, 1], [2, 2]], np.float32)
    full = full_transposed_convolution(image, np.ones((3, 3), np.float32), 2)
    assert full.tolist() == [[1, 1, 2, 1, 1], [1, 1, 2, 1, 1], [3, 3, 6, 3, 3], [2, 2, 4, 2, 2], [2, 2, 4, 2, 2]]
    assert convolution.transposed_output_size(2, 3, 2, "same") == 4
    assert convolution.transposed_cropping(2, 3, 2, "same") == (0, 1)

    layer = layers.Conv2DTranspose(1, 3, strides=2, padding="same", kernel_initializer="ones", use_bias=False)
    output = np.asarray(layer(image[None, :, :, None]))[0, :, :, 0]
    assert output.tolist() == [[1, 1, 2, 1], [1, 1, 2, 1], [3, 3, 6, 3], [2, 2, 4, 2]]
    np.testing.assert_array_equal(output, full[:4, :4])

    # Cut to 3 rows, the output loses one on each side: the SAME padding of a convolution of 3 pixels is (1, 1).
    assert convolution.transposed_cropping(2, 3, 2, "same", 0) == (1, 1)
    smaller = layers.Conv2DTranspose(
        1, 3, strides=2, padding="same", output_padding=0, kernel_initializer="ones", use_bias=False
    )
    assert np.asarray(smaller(image[None, :, :, None]))[0, :, :, 0].tolist() == [[1, 2, 1], [3, 6, 3], [2, 4, 2]]


def test_worked_example_encoder_decoder_of_valid_layers() -> None:
    """28 pixels shrink to 6 and come back as 27; output_padding 1 in the last layer gives 28 again."""
    first = convolution.valid_output_size(28, 3, 2)
    second = convolution.valid_output_size(first, 3, 2)
    assert (first, second) == (13, 6)
    assert convolution.transposed_output_size(second, 3, 2, "valid") == 13
    assert convolution.transposed_output_size(first, 3, 2, "valid") == 27
    assert convolution.transposed_output_size(first, 3, 2, "valid", 1) == 28
    with pytest.raises(ShapeError, match=r"^output_padding 2 must be smaller than the stride 2: .* gives 27 or 28$"):
        convolution.transposed_output_size(first, 3, 2, "valid", 2)

    def decoded_size(last_output_padding: int | None) -> int:
        image = keras.Input((28, 28, 1))
        hidden = layers.Conv2D(4, 3, strides=2)(layers.Conv2D(4, 3, strides=2)(image))
        hidden = layers.Conv2DTranspose(4, 3, strides=2)(hidden)
        decoded = layers.Conv2DTranspose(1, 3, strides=2, output_padding=last_output_padding)(hidden)
        return int(keras.Model(image, decoded)(tf.ones((1, 28, 28, 1))).shape[1])

    assert decoded_size(None) == 27
    assert decoded_size(1) == 28


def test_mirrored_layer_needs_the_pixels_the_valid_convolution_dropped() -> None:
    for size, kernel, stride in itertools.product(range(8, 33), (2, 3, 4, 5), (1, 2, 3)):
        smaller = convolution.valid_output_size(size, kernel, stride)
        output_padding = (size - kernel) % stride
        assert convolution.transposed_output_size(smaller, kernel, stride, "valid", output_padding) == size


# --- Images ------------------------------------------------------------------------------------------------------


def test_pad_to_multiple_is_the_least_padding_and_cropping_undoes_it() -> None:
    for size, multiple in itertools.product(range(1, 40), (1, 2, 4, 8)):
        before, after = convolution.pad_to_multiple(size, multiple)
        assert (size + before + after) % multiple == 0
        assert 0 <= before + after < multiple
        assert after - before in (0, 1)
    assert convolution.pad_to_multiple(28, 4) == (0, 0)
    assert convolution.pad_to_multiple(29, 4) == (1, 2)

    sides = ((1, 2), (0, 1))  # 29x31 to 32x32
    assert sides == (convolution.pad_to_multiple(29, 4), convolution.pad_to_multiple(31, 4))
    image = np.random.default_rng(2).normal(size=(1, 29, 31, 1)).astype(np.float32)
    padded = layers.ZeroPadding2D(sides)(image)
    assert padded.shape == (1, 32, 32, 1)
    np.testing.assert_array_equal(layers.Cropping2D(sides)(padded), image)


def test_four_sides_are_in_the_order_top_bottom_left_right() -> None:
    sides = convolution.four_sides(convolution.same_padding(28, 3, 2), convolution.same_padding(7, 5, 1))
    assert sides == Sides(top=0, bottom=1, left=2, right=2)


def test_instance_normalization_of_one_pixel_is_refused_with_the_layer() -> None:
    layer = layers.GroupNormalization(groups=-1, epsilon=1e-5)
    images = np.random.default_rng(3).normal(size=(4, 1, 1, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(images), 0.0, atol=1e-4)  # why it is refused
    with (
        pytest.raises(ShapeError, match=r"^discriminator\.c2: instance normalization of a 1x1 map"),
        convolution.naming_layer("discriminator.c2"),
    ):
        convolution.require_normalizable_map(1, 1)
    convolution.require_normalizable_map(1, 2)


def test_naming_layer_adds_the_name_to_shape_errors_only() -> None:
    with (
        pytest.raises(ShapeError, match=r"^classifier\.conv2: a kernel of 5 does not fit an input of 4"),
        convolution.naming_layer("classifier.conv2"),
    ):
        convolution.valid_output_size(4, 5, 1)
    with pytest.raises(KeyError, match=r"^'other'$"), convolution.naming_layer("classifier.conv2"):
        raise KeyError("other")


# --- Parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "channels", "filters"), [((1, 1), 1, 1), ((3, 3), 3, 8), ((3, 5), 4, 6), ((2, 7), 5, 1)]
)
def test_convolution_parameters(kernel: tuple[int, int], channels: int, filters: int, bias: bool) -> None:
    shape = (9, 9, channels)
    forward = layers.Conv2D(filters, kernel, use_bias=bias)
    assert convolution.convolution_parameters(*kernel, channels, filters, bias) == count_parameters(forward, shape)
    backward = layers.Conv2DTranspose(filters, kernel, use_bias=bias)
    ours = convolution.transposed_convolution_parameters(*kernel, channels, filters, bias)
    assert ours == count_parameters(backward, shape)


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (5, 7), (800, 256)])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_parameters(inputs: int, units: int, bias: bool) -> None:
    layer = layers.Dense(units, use_bias=bias)
    assert convolution.dense_parameters(inputs, units, bias) == count_parameters(layer, (inputs,))


@pytest.mark.parametrize("channels", [1, 6])
def test_normalization_parameters(channels: int) -> None:
    shape = (5, 4, channels)
    trained, kept = convolution.batch_normalization_parameters(channels)
    batch = layers.BatchNormalization()
    assert trained + kept == count_parameters(batch, shape) == 4 * channels
    assert trained == count_trained(layers.BatchNormalization(), shape)

    instance = layers.GroupNormalization(groups=-1)
    assert convolution.instance_normalization_parameters(channels) == count_trained(instance, shape)
    for groups in {1, channels}:
        group = layers.GroupNormalization(groups=groups)
        assert convolution.group_normalization_parameters(channels, groups) == count_trained(group, shape)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ShapeError, match="6 channels cannot be split into 4 equal groups"):
        convolution.group_normalization_parameters(6, 4)


def test_pooling_has_no_parameters() -> None:
    assert convolution.pooling_parameters() == count_parameters(layers.MaxPooling2D(2), (8, 8, 3)) == 0


# --- Operations and memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("bias", [True, False])
def test_operations_are_those_tensorflows_profiler_counts(padding: str, bias: bool) -> None:
    height, width, channels, filters = 9, 11, 4, 6
    kernel, stride = (3, 5), 2
    shape = (height, width, channels)
    output_height = convolution.output_size(height, kernel[0], stride, padding)
    output_width = convolution.output_size(width, kernel[1], stride, padding)
    forward = layers.Conv2D(filters, kernel, strides=stride, padding=padding, use_bias=bias)
    ours = convolution.convolution_operations(output_height, output_width, *kernel, channels, filters, bias)
    assert ours == profiled_operations(forward, shape)

    ours = convolution.dense_operations(9, 7, bias)
    assert ours == profiled_operations(layers.Dense(7, use_bias=bias), (9,))


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_operations_are_those_tensorflows_profiler_counts_for_same(bias: bool) -> None:
    layer = layers.Conv2DTranspose(6, (3, 5), strides=2, padding="same", use_bias=bias)
    ours = convolution.transposed_convolution_operations(9, 11, 18, 22, 3, 5, 4, 6, bias)
    assert ours == profiled_operations(layer, (9, 11, 4))


@pytest.mark.parametrize("padding", PADDINGS)
def test_transposed_operations_are_those_of_the_convolution_it_transposes(padding: str) -> None:
    height = convolution.transposed_output_size(9, 3, 2, padding)
    width = convolution.transposed_output_size(11, 5, 2, padding)
    forward = layers.Conv2D(4, (3, 5), strides=2, padding=padding, use_bias=False)
    ours = convolution.transposed_convolution_operations(9, 11, height, width, 3, 5, 4, 6, bias=False)
    assert ours == profiled_operations(forward, (height, width, 6))
    with_bias = convolution.transposed_convolution_operations(9, 11, height, width, 3, 5, 4, 6)
    assert with_bias - ours == 6 * height * width


@pytest.mark.parametrize("layer_class", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_pooling_operations_are_those_tensorflows_profiler_counts(layer_class: Any) -> None:
    ours = convolution.pooling_operations(4, 4, 2, 3, 4)
    assert ours == profiled_operations(layer_class((2, 3), strides=2), (9, 10, 4)) == 384


class Counted:
    """A number that counts the arithmetic done with it."""

    operations = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _operate(self, value: float) -> Counted:
        Counted.operations += 1
        return Counted(value)

    def __add__(self, other: Counted) -> Counted:
        return self._operate(self.value + other.value)

    def __sub__(self, other: Counted) -> Counted:
        return self._operate(self.value - other.value)

    def __mul__(self, other: Counted) -> Counted:
        return self._operate(self.value * other.value)


def total(numbers: list[Counted]) -> Counted:
    result = numbers[0]
    for number in numbers[1:]:
        result = result + number
    return result


def operations_of_normalizing_one_channel(count: int) -> int:
    """Normalize values as written in the definition and count: (x - mean) * (scale / deviation) + shift."""
    Counted.operations = 0
    values = [Counted(float(number)) for number in range(count)]
    reciprocal, shift = Counted(1.0 / count), Counted(0.5)
    mean = total(values) * reciprocal
    deviations = [value - mean for value in values]
    variance = total([deviation * deviation for deviation in deviations]) * reciprocal
    factor = Counted(2.0 / variance.value**0.5)
    normalized = [deviation * factor + shift for deviation in deviations]
    np.testing.assert_allclose(np.std([number.value for number in normalized]), 2.0)
    return Counted.operations


def test_normalization_operations_are_counted_from_the_definition() -> None:
    for height, width in ((2, 3), (7, 5)):
        counted = operations_of_normalizing_one_channel(height * width)
        assert convolution.measured_normalization_operations(height, width, 1) == counted
        assert convolution.measured_normalization_operations(height, width, 8) == 8 * counted
    assert convolution.batch_normalization_operations(7, 5, 8) == 2 * 7 * 5 * 8  # one multiply-add per value


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "layer_of",
    [
        lambda dtype: layers.Conv2D(6, 3, strides=2, dtype=dtype),
        lambda dtype: layers.Conv2DTranspose(6, 3, strides=2, padding="same", dtype=dtype),
        lambda dtype: layers.MaxPooling2D(2, dtype=dtype),
        lambda dtype: layers.BatchNormalization(dtype=dtype),
        lambda dtype: layers.Dense(7, dtype=dtype),
    ],
    ids=["convolution", "transposed", "pooling", "normalization", "dense"],
)
def test_activation_bytes_are_those_of_the_layers_output(layer_of: Any, dtype: str) -> None:
    output = layer_of(dtype)(tf.ones((1, 9, 10, 4), dtype))
    ours = convolution.activation_bytes(tuple(output.shape)[1:], 2 if dtype == "bfloat16" else 4)
    assert ours == np.asarray(output).nbytes


# --- Worked networks ---------------------------------------------------------------------------------------------


def test_worked_example_the_217706_parameter_network() -> None:
    """28x28x1: conv 5x5 of 32, pool 2, conv 3x3 of 32, pool 2, dense 256, dense 10; all VALID."""
    sizes = [28]
    for kernel, stride in ((5, 1), (2, 2), (3, 1), (2, 2)):
        sizes.append(convolution.valid_output_size(sizes[-1], kernel, stride))
    assert sizes == [28, 24, 12, 10, 5]
    parameters = [
        convolution.convolution_parameters(5, 5, 1, 32),
        convolution.pooling_parameters(),
        convolution.convolution_parameters(3, 3, 32, 32),
        convolution.pooling_parameters(),
        0,
        convolution.dense_parameters(5 * 5 * 32, 256),
        convolution.dense_parameters(256, 10),
    ]
    assert parameters == [832, 0, 9_248, 0, 0, 205_056, 2_570]

    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10),
        ]
    )
    assert [layer.count_params() for layer in network.layers] == parameters
    assert [int(layer.output.shape[1]) for layer in network.layers[:4]] == sizes[1:]
    assert sum(parameters) == network.count_params() == 217_706
    assert convolution.activation_bytes((24, 24, 32)) == 73_728
    assert convolution.convolution_operations(24, 24, 5, 5, 1, 32) == 24 * 24 * 32 * (2 * 25 + 1)


@pytest.mark.parametrize(
    ("padding", "convolved", "pooled", "sides"),
    [("valid", 19, 9, Sides(0, 0, 0, 0)), ("same", 20, 10, Sides(2, 2, 2, 2))],
)
def test_worked_example_80x80x4(padding: str, convolved: int, pooled: int, sides: Sides) -> None:
    """80x80x4 through a convolution 8x8, stride 4, 32 filters, and a pooling 2x2, stride 2."""
    assert convolution.output_size(80, 8, 4, padding) == convolved
    assert convolution.output_size(convolved, 2, 2, padding) == pooled
    along_one_axis = convolution.input_padding(80, 8, 4, padding)
    assert convolution.four_sides(along_one_axis, along_one_axis) == sides
    assert convolution.convolution_parameters(8, 8, 4, 32) == 8_224
    assert convolution.activation_bytes((convolved, convolved, 32)) == {19: 46_208, 20: 51_200}[convolved]

    image = keras.Input((80, 80, 4))
    convolve = layers.Conv2D(32, 8, strides=4, padding=padding)
    hidden = convolve(image)
    assert tuple(hidden.shape) == (None, convolved, convolved, 32)
    assert tuple(layers.MaxPooling2D(2, strides=2, padding=padding)(hidden).shape) == (None, pooled, pooled, 32)
    assert convolve.count_params() == 8_224


# --- Refused arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolution.same_output_size(0, 2), "size must be a whole number of at least 1, not 0"),
        (lambda: convolution.same_output_size(28, 0), "stride must be"),
        (lambda: convolution.same_padding(28, 0, 2), "kernel must be"),
        (lambda: convolution.output_size(28, 0, 2, "same"), "kernel must be"),
        (
            lambda: convolution.valid_output_size(cast(Any, 28.0), 3, 1),
            "size must be a whole number of at least 1, not 28.0",
        ),
        (lambda: convolution.valid_output_size(cast(Any, None), 3, 1), "size must be"),
        (lambda: convolution.output_size(28, 3, 1, "full"), "padding 'full' is unknown: use 'same' or 'valid'"),
        (lambda: convolution.transposed_output_size(7, 3, 2, "same", -1), "output padding must be"),
        (lambda: convolution.transposed_output_size(0, 3, 2, "same"), "size must be"),
        (lambda: convolution.admissible_transposed_sizes(7, 3, 2, "SAME"), "padding 'SAME' is unknown"),
        (lambda: convolution.pad_to_multiple(28, 0), "multiple must be"),
        (lambda: convolution.convolution_parameters(3, 3, 0, 8), "channels in must be"),
        (lambda: convolution.dense_parameters(0, 8), "inputs must be"),
        (lambda: convolution.activation_bytes((28, 0, 1)), "size must be"),
    ],
)
def test_meaningless_arguments_are_refused_in_words(call: Any, message: str) -> None:
    with pytest.raises(ShapeError) as refusal:
        call()
    assert str(refusal.value).startswith(message)
    assert isinstance(refusal.value, AdvGANError)
