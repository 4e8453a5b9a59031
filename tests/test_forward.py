"""Networks computed by faster operators, against Keras's own layers and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.settings import DiscriminatorSettings, GeneratorSettings
from advgan.networks import forward as module
from advgan.networks.discriminator import build_discriminator
from advgan.networks.forward import (
    batch_normalization,
    convolution,
    forward,
    forward_in_parts,
    instance_normalization,
    leaky_relu,
    transposed_convolution,
)
from advgan.networks.generator import build_generator
from advgan.networks.normalization import normalization

keras = tf.keras
pytestmark = pytest.mark.addons


def drawn(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return tf.constant(np.random.default_rng([seed, *shape]).normal(size=shape), dtype)


def with_drawn_weights(network: Any) -> Any:
    random = np.random.default_rng(0)
    network.set_weights([value + 0.1 * random.normal(size=value.shape) for value in network.get_weights()])
    return network


def value_and_gradients(function: Any, images: Any, variables: Any) -> list[np.ndarray]:
    """What a function makes of images, and the gradients of a weighted sum of it."""

    @tf.function
    def made() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = function(images)
            weights = tf.cast(tf.reshape(tf.range(tf.size(output)) % 7 - 3, tf.shape(output)), output.dtype)
            total = tf.reduce_sum(output * weights)
        return [output, *tape.gradient(total, [images, *variables])]

    return [each.numpy() for each in made()]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-5) -> None:
    for ours, reference in zip(found, expected, strict=True):
        assert np.linalg.norm(ours - reference) <= tolerance * np.linalg.norm(reference)


def layers() -> dict[str, Any]:
    conv, transposed = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    return {
        "3x3": conv(6, 3, padding="same", use_bias=False),
        "3x3 of few filters": conv(1, 3, padding="same"),
        "5x3 of few filters": conv(3, (5, 3), padding="same", activation="tanh"),
        "4x4 of few filters": conv(2, 4, padding="same"),
        "4x4 of stride 2": conv(8, 4, strides=2, padding="same"),
        "3x3 of stride 2": conv(8, 3, strides=2, padding="same"),
        "3x3 of stride 2, VALID": conv(8, 3, strides=2),
        "3x3, dilated": conv(8, 3, dilation_rate=2, padding="same"),
        "transposed 3x3": transposed(4, 3, strides=2, padding="same", use_bias=False),
        "transposed 4x5": transposed(4, (4, 5), strides=2, padding="same", activation="relu"),
        "transposed, VALID": transposed(4, 3, strides=2),
        "instance norm": normalization("instance", 0, "norm"),
        "instance norm, by groups": keras.layers.GroupNormalization(groups=5),
        "layer norm": normalization("layer", 0, "norm"),
        "batch norm": normalization("batch", 0, "norm"),
        "leaky ReLU": keras.layers.LeakyReLU(0.2),
    }


@pytest.mark.parametrize("name", layers())
def test_a_layer_is_that_of_keras(name: str) -> None:
    image = keras.Input((12, 10, 5))
    network = with_drawn_weights(keras.Model(image, layers()[name](image)))
    images, variables = drawn(4, 12, 10, 5), network.trainable_variables
    for training in (False, True):
        ours = forward(network)
        assert ours is not network
        expected = value_and_gradients(lambda at, now=training: network(at, training=now), images, variables)
        found = value_and_gradients(lambda at, now=training, ours=ours: ours(at, training=now), images, variables)
        assert_same(found, expected)


def central_difference(function: Any, arguments: list[Any], which: int, place: int, step: float) -> float:
    def at(sign: float) -> float:
        changed = arguments[which].numpy().copy()
        changed.ravel()[place] += sign * step
        here = [*arguments[:which], tf.constant(changed), *arguments[which + 1 :]]
        output = function(*here)
        weights = np.arange(output.numpy().size).reshape(output.shape) % 7 - 3
        return float((output.numpy() * weights).sum())

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)  # of fourth order


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, w: convolution(x, w, (1, 1), "same"), [(2, 6, 5, 6), (3, 3, 6, 2)]),
        (lambda x, w: convolution(x, w, (2, 2), "same"), [(2, 6, 8, 2), (4, 3, 2, 5)]),
        (lambda x, w: convolution(x, w, (1, 1), "valid"), [(2, 6, 7, 2), (3, 2, 2, 6)]),
        (transposed_convolution, [(2, 3, 4, 5), (3, 4, 2, 5)]),
        (lambda x, g, b: instance_normalization(x, g, b, 1e-5), [(2, 4, 3, 3), (3,), (3,)]),
        (lambda x: leaky_relu(x, 0.2), [(2, 3, 3, 2)]),
        (
            lambda x, y, g, b: tf.concat(batch_normalization([x, y], g, b, 1e-5)[:2], 0),
            [(2, 4, 3, 3), (1, 4, 3, 3), (3,), (3,)],
        ),
        (lambda x, g, b: instance_normalization(x, g, b, 1e-5), [(2, 2, 3, 640), (640,), (640,)]),
        (
            lambda x, y, g, b: tf.concat(batch_normalization([x, y], g, b, 1e-5)[:2], 0),
            [(2, 2, 3, 640), (1, 2, 3, 640), (640,), (640,)],
        ),
    ],
    ids=[
        "few filters",
        "stride 2",
        "few channels",
        "transposed",
        "instance norm",
        "leaky ReLU",
        "batch norm",
        "instance norm of many channels",
        "batch norm of many channels",
    ],
)
def test_gradients_are_those_of_finite_differences(function: Any, shapes: list[tuple[int, ...]]) -> None:
    arguments = [drawn(*shape, dtype=np.float64, seed=number) for number, shape in enumerate(shapes)]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        output = function(*arguments)
        weights = tf.cast(tf.reshape(tf.range(tf.size(output)) % 7 - 3, output.shape), tf.float64)
        total = tf.reduce_sum(output * weights)
    for which, gradient in enumerate(tape.gradient(total, arguments)):
        flat = gradient.numpy().ravel()
        for place in np.random.default_rng(0).choice(flat.size, min(flat.size, 8), replace=False):
            difference = central_difference(function, arguments, which, int(place), 1e-3)
            assert difference == pytest.approx(flat[place], abs=1e-9 * max(1, np.abs(flat).max()), rel=1e-9)


def test_a_map_without_variation_becomes_beta() -> None:
    images = tf.fill([2, 8, 8, 3], 1000.7)
    made = value_and_gradients(
        lambda at: instance_normalization(at, tf.constant([1.0, 2, 3]), tf.constant([4.0, 5, 6]), 1e-5), images, []
    )
    np.testing.assert_allclose(
        made[0][0, 0, 0], [4, 5, 6], atol=0.2
    )  # 1000.7 is rounded to 6e-5, epsilon's root is 3e-3
    assert np.isfinite(made[1]).all()


def convolution_and_norm(bias: bool = False, **options: Any) -> Any:
    image = keras.Input((12, 10, 5))
    maps = keras.layers.Conv2D(8, 3, padding="same", use_bias=bias, **options)(image)
    network = keras.Model(image, keras.layers.ReLU()(normalization("batch", 0, "norm")(maps)))
    random = np.random.default_rng(0)
    network.set_weights([random.uniform(0.5, 1.5, value.shape) for value in network.get_weights()])
    return network


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"strides": 2}, {"activation": "relu"}], ids=str)
def test_batch_normalization_is_part_of_the_convolution_in_inference_mode(options: dict[str, Any]) -> None:
    network, images = convolution_and_norm(**options), drawn(4, 12, 10, 5)
    variables = [each for each in network.trainable_variables if "bias" not in each.name]
    for training in (False, True):
        before = network.get_weights()
        expected = value_and_gradients(lambda at, now=training: network(at, training=now), images, variables)
        after = network.get_weights()
        network.set_weights(before)
        ours = forward(network)
        found = value_and_gradients(lambda at, now=training, ours=ours: ours(at, training=now), images, variables)
        assert_same(found, expected)
        assert_same(network.get_weights(), after)


def test_batch_normalization_of_parts_is_that_of_the_batch() -> None:
    network, images = convolution_and_norm(), drawn(7, 12, 10, 5)
    in_parts, before = forward_in_parts(network), network.get_weights()
    expected = value_and_gradients(lambda at: network(at, training=True), images, network.trainable_variables)
    after = network.get_weights()
    network.set_weights(before)
    found = value_and_gradients(
        lambda at: tf.concat(in_parts([at[:4], at[4:6], at[6:]], True), 0), images, network.trainable_variables
    )
    assert_same(found, expected)
    assert_same(network.get_weights(), after)
    assert np.abs(after[3] - before[3]).max() > 1e-3  # the moving mean
    frozen = convolution_and_norm()
    frozen.trainable = False
    whole = frozen(images, training=True).numpy()
    parts = forward_in_parts(frozen)([images[:4], images[4:]], True)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("instance", (28, 28, 1)), *((kind, (13, 10, 3)) for kind in ("instance", "batch", "layer", "group", "none"))],
)
def test_generators_and_discriminators_are_those_of_keras(shape: tuple[int, int, int], kind: Any) -> None:
    keras.utils.set_random_seed(0)
    generator = GeneratorSettings(widths=(4, 8, 8), residual_blocks=1, normalization=kind)
    discriminator = DiscriminatorSettings(widths=(4, 8), normalization=kind)
    images = drawn(3, *shape)
    for network in (build_generator(shape, generator), build_discriminator(shape, discriminator)):
        network = with_drawn_weights(network)
        variables = network.trainable_variables
        for training in (False, True):
            before = network.get_weights()
            expected = value_and_gradients(lambda at, n=network, now=training: n(at, training=now), images, variables)
            after = network.get_weights()
            network.set_weights(before)
            ours = forward(network)
            found = value_and_gradients(lambda at, now=training, ours=ours: ours(at, training=now), images, variables)
            assert_same(found, expected, 1e-4)  # twelve layers
            assert_same(network.get_weights(), after, 1e-4)  # moving statistics


def test_in_bfloat16_the_convolutions_stay_keras_s() -> None:
    network = with_drawn_weights(build_generator((12, 12, 1), GeneratorSettings(widths=(4, 4)), "bfloat16"))
    images = drawn(3, 12, 12, 1)
    difference = np.abs(forward(network)(images, training=False).numpy() - network(images, training=False).numpy())
    assert difference.mean() < 0.01


class Doubled(keras.layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


class Subclassed(keras.Model):  # type: ignore[misc]
    def call(self, inputs: Any, training: bool = False) -> Any:
        return inputs + (1.0 if training else 0.0)


def unusual() -> dict[str, Any]:
    image = keras.Input((8, 8, 1))
    shared = keras.layers.Conv2D(1, 3, padding="same")
    return {
        "a layer used twice": keras.Model(image, shared(shared(image))),
        "a layer of the user's own": keras.Model(image, Doubled()(image)),
        "two outputs": keras.Model(image, [keras.layers.ReLU()(image), shared(image)]),
        "a subclass": Subclassed(),
    }


def test_any_other_model_sees_the_whole_batch() -> None:
    network, images = Subclassed(), drawn(5, 8, 8, 1)
    one, two = forward_in_parts(network)([images[:3], images[3:]], True)
    np.testing.assert_array_equal(tf.concat([one, two], 0), images + 1)


def test_a_model_in_a_model_is_that_of_keras() -> None:
    image = keras.Input((8, 8, 1))
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")])
    network, images = keras.Model(image, inner(image)), drawn(2, 8, 8, 1)
    np.testing.assert_allclose(forward(network)(images, training=False), network(images), atol=1e-6)


@pytest.mark.parametrize("name", unusual())
def test_any_other_model_is_called_as_it_is(name: str) -> None:
    network = unusual()[name]
    assert forward(network) is network


def test_on_a_gpu_the_network_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    network = build_generator((8, 8, 1), GeneratorSettings(widths=(2,), residual_blocks=0))
    assert forward(network) is network
