"""Input gradients of convolutions and poolings, against TensorFlow's own and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.networks import input_gradients
from advgan.networks.input_gradients import convolution_input_gradient, fast_gradients, pooling_input_gradient

pytestmark = pytest.mark.addons

CONVOLUTIONS = [  # size, channels, kernel, filters, stride, padding
    ((28, 28), 1, (5, 5), 20, 1, "valid"),
    ((9, 7), 3, (3, 4), 8, 1, "same"),
    ((6, 5), 4, (2, 3), 5, 1, "valid"),
    ((12, 14), 8, (3, 3), 16, 2, "same"),
    ((14, 10), 1, (4, 4), 8, 2, "same"),
    ((8, 6), 2, (5, 2), 3, 2, "same"),
    ((4, 4), 2, (1, 1), 3, 2, "same"),
    ((10, 8), 2, (7, 6), 3, 2, "same"),
]


def drawn(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return tf.constant(np.random.default_rng([seed, *shape]).normal(size=shape), dtype)


def input_gradient(function: Callable[[Any], Any], images: Any, of_output: Any) -> np.ndarray:
    """The gradient of a function that another one calls."""

    @tf.function
    def called(images: Any) -> Any:
        with fast_gradients():
            return function(images)

    @tf.function
    def differentiated() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            made = called(images)
        return tape.gradient(made, images, output_gradients=of_output)

    return differentiated().numpy()


@pytest.mark.parametrize(("size", "channels", "kernel", "filters", "stride", "padding"), CONVOLUTIONS)
def test_of_convolutions(
    size: tuple[int, int], channels: int, kernel: tuple[int, int], filters: int, stride: int, padding: str
) -> None:
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-12)):
        images, weights = drawn(3, *size, channels, dtype=dtype), drawn(*kernel, channels, filters, dtype=dtype)
        output = tf.nn.conv2d(images, weights, stride, padding.upper())
        of_output = drawn(*output.shape, dtype=dtype, seed=1)
        expected = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=weights,
            out_backprop=of_output,
            strides=[1, stride, stride, 1],
            padding=padding.upper(),
        ).numpy()
        made = convolution_input_gradient(size, weights, of_output, (stride, stride), padding)
        assert made is not None
        assert np.linalg.norm(made - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(("size", "channels", "kernel", "filters", "stride", "padding"), CONVOLUTIONS)
def test_of_convolutions_by_finite_differences(
    size: tuple[int, int], channels: int, kernel: tuple[int, int], filters: int, stride: int, padding: str
) -> None:
    """A convolution is linear, so that a difference is exact but for rounding."""
    images = drawn(1, *size, channels, dtype=np.float64)
    weights = drawn(*kernel, channels, filters, dtype=np.float64)
    of_output = drawn(*tf.nn.conv2d(images, weights, stride, padding.upper()).shape, dtype=np.float64, seed=1)

    def total(images: Any) -> float:
        return float(tf.reduce_sum(tf.nn.conv2d(images, weights, stride, padding.upper()) * of_output))

    made = np.asarray(convolution_input_gradient(size, weights, of_output, (stride, stride), padding)).ravel()
    for place in np.random.default_rng(0).choice(made.size, min(made.size, 20), replace=False):
        step = np.zeros(made.size)
        step[place] = 0.5
        step = step.reshape(images.shape)
        assert total(images + step) - total(images - step) == pytest.approx(made[place], abs=1e-9)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [((9, 8), 2, "same"), ((8, 8), 2, "valid"), ((8, 8), 3, "same"), ((8, None), 2, "same")],
)
def test_others_are_left_to_tensorflow(size: tuple[int, Any], stride: int, padding: str) -> None:
    assert convolution_input_gradient(size, drawn(3, 3, 8, 16), drawn(1, 4, 4, 16), (stride, stride), padding) is None


@pytest.mark.parametrize(
    ("size", "padding"), [((8, 6), "SAME"), ((8, 6), "VALID"), ((9, 7), "VALID"), ((9, 7), "SAME")]
)
def test_of_max_pooling(size: tuple[int, int], padding: str) -> None:
    """Equal values, as a ReLU leaves them, included: the first of the largest has it all."""
    images = tf.round(2 * drawn(4, *size, 3))
    output = tf.nn.max_pool2d(images, 2, 2, padding)
    of_output = drawn(*output.shape, seed=1)
    expected = tf.raw_ops.MaxPoolGrad(
        orig_input=images,
        orig_output=output,
        grad=of_output,
        ksize=[1, 2, 2, 1],
        strides=[1, 2, 2, 1],
        padding=padding,
    ).numpy()
    np.testing.assert_array_equal(
        input_gradient(lambda at: tf.nn.max_pool2d(at, 2, 2, padding), images, of_output), expected
    )
    if padding == "VALID" or size == (8, 6):
        np.testing.assert_array_equal(pooling_input_gradient(images, output, of_output), expected)


def test_they_are_those_of_a_classifier_traced_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for name in ("by_products", "by_phases", "pooling_input_gradient"):
        original = getattr(input_gradients, name)
        monkeypatch.setattr(
            input_gradients,
            name,
            lambda *arguments, name=name, original=original: used.append(name) or original(*arguments),
        )
    first, second = drawn(3, 3, 1, 8), drawn(3, 3, 8, 16)

    def classifier(images: Any) -> Any:
        maps = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(images, first, 1, "SAME")), 2, 2, "VALID")
        return tf.nn.conv2d(maps, second, 2, "SAME", dilations=1)

    images = drawn(2, 12, 12, 1)
    of_output = drawn(2, 3, 3, 16, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(images)
        made = classifier(images)
    expected = tape.gradient(made, images, output_gradients=of_output).numpy()
    found = input_gradient(classifier, images, of_output)
    assert sorted(used) == ["by_phases", "by_products", "pooling_input_gradient"]
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda images: tf.nn.conv2d(images, drawn(3, 3, 2, 9), 1, "SAME", dilations=2),
        lambda images: tf.nn.conv2d(images, drawn(3, 3, 2, 9), 2, [[0, 0], [2, 1], [0, 1], [0, 0]]),
        lambda images: tf.nn.conv2d(images, drawn(3, 3, 2, 9), [1, 2], "SAME"),
        lambda images: tf.nn.max_pool2d(images, 3, 2, "SAME"),
        lambda images: tf.nn.max_pool2d(images, 2, 2, [[0, 0], [1, 1], [0, 0], [0, 0]]),
    ],
    ids=["dilated", "explicit padding", "uneven strides", "3x3 pooling", "padded pooling"],
)
def test_what_is_unusual_has_the_gradient_of_tensorflow(function: Callable[[Any], Any]) -> None:
    images = drawn(2, 10, 8, 2)
    of_output = drawn(*function(images).shape, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(images)
        made = function(images)
    expected = tape.gradient(made, images, output_gradients=of_output).numpy()
    np.testing.assert_allclose(input_gradient(function, images, of_output), expected, rtol=1e-5, atol=1e-6)
