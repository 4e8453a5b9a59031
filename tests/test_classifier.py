"""``Classifier``: pixels scaled to its bounds, predictions in batches, gradients, what is known of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import AdvGANAttack
from advgan.classifiers.classifier import Classifier, classifier_of
from advgan.classifiers.pixels import Pixels
from advgan.config.settings import AttackSettings
from advgan.data import batches
from advgan.errors import AdvGANError

keras = tf.keras
SHAPE = (9, 8, 3)
IMAGES = np.random.default_rng(0).random((23, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def network() -> Any:
    """Logits of images in [0, 1]; dropout gives it away where it is not in inference mode."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input(SHAPE), *layers])


def taking(low: float, high: float, network: Any) -> Any:
    """The same network for pixels from low to high."""
    rescale = keras.layers.Rescaling(1 / (high - low), -low / (high - low))
    return keras.Sequential([keras.Input(SHAPE), rescale, network])


def expected_logits(network: Any) -> np.ndarray:
    kernel, bias = network.layers[-1].get_weights()
    return IMAGES.reshape(len(IMAGES), -1) @ kernel + bias


@pytest.mark.addons
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_pixels_are_scaled_to_the_bounds_and_nowhere_else(network: Any, bounds: tuple[float, float]) -> None:
    low, high = bounds
    own = taking(low, high, network)
    classifier = classifier_of(own, SHAPE, "own", pixels=Pixels(bounds))
    assert classifier.network is own and classifier.number_of_classes == 4
    logits = classifier.logits(tf.constant(IMAGES))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, expected_logits(network), atol=1e-5)
    stretched = low + IMAGES * (high - low)
    np.testing.assert_allclose(classifier.logits(tf.constant(stretched), bounds), logits, atol=1e-5)
    np.testing.assert_array_equal(classifier.logits(tf.constant(stretched), bounds), own(stretched))  # as they are


def test_predictions_are_made_in_batches(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_AT_ONCE", 8)
    sizes = []

    def function(images: Any) -> Any:
        sizes.append(len(images))
        return network(images, training=False)

    predictions = classifier_of(function, SHAPE, "own").predict(IMAGES.astype(np.float64))
    np.testing.assert_array_equal(predictions, expected_logits(network).argmax(axis=1))
    assert predictions.dtype == np.int32 and sizes == [8, 8, 7]
    assert classifier_of(function, SHAPE, "own").predict(IMAGES[:0]).shape == (0,)


def test_a_gradient_is_there_or_not(network: Any) -> None:
    classifier = classifier_of(taking(0, 255, network), SHAPE, "own", pixels=Pixels((0.0, 255.0)))
    assert classifier.has_gradient
    batch = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        first = tf.reduce_sum(classifier.logits(batch)[:, 0])
    kernel = network.layers[-1].get_weights()[0][:, 0]
    np.testing.assert_allclose(tape.gradient(first, batch)[5].numpy().ravel(), kernel, atol=1e-5)
    assert not classifier_of(lambda images: network(tf.round(images)), SHAPE, "rounds").has_gradient
    assert not classifier_of(lambda images: np.asarray(network(images)), SHAPE, "in NumPy").has_gradient

    def never(_: Any) -> Any:
        raise AssertionError("a black box is not queried for its gradient")

    assert not Classifier("box", "", SHAPE, never, is_black_box=True).has_gradient


def test_classes_are_counted_or_refused() -> None:
    assert classifier_of(lambda images: np.zeros((len(images), 7)), SHAPE, "own").number_of_classes == 7
    for answer in (np.zeros(1), np.zeros((1, 1))):  # one unit for two classes
        assert classifier_of(lambda _, answer=answer: answer, SHAPE, "own").number_of_classes == 2  # type: ignore[misc]
    for answer in (np.zeros((2, 5)), np.zeros((1, 2, 2))):
        with pytest.raises(AdvGANError, match=r"^own returns shape \(.*\) for one image; it should be \(1, classes\)$"):
            _ = classifier_of(lambda _, answer=answer: answer, SHAPE, "own").number_of_classes  # type: ignore[misc]


@pytest.mark.parametrize("images", ["floats", "levels"])
def test_an_attack_takes_a_classifier_of_other_bounds_than_its_images(network: Any, images: str) -> None:
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 3, padding="same", activation="tanh")])
    classifier = classifier_of(taking(-1, 1, network), SHAPE, "own", pixels=Pixels((-1.0, 1.0)))
    bounds, x = ((0, 1), IMAGES) if images == "floats" else ((0, 255), np.rint(255 * IMAGES).astype(np.uint8))
    attack = AdvGANAttack(generator, classifier, AttackSettings(), bounds)
    assert attack.classifier is classifier
    _, projected, success = attack(x)
    high = bounds[1]
    clean = network(x.astype(np.float32) / high).numpy().argmax(axis=1)
    np.testing.assert_array_equal(attack.classify(x), clean)
    np.testing.assert_array_equal(success, network(projected / high).numpy().argmax(axis=1) != clean)
