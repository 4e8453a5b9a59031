"""FGSM and PGD: by hand on a linear classifier, and beside Foolbox's on a trained one."""

from __future__ import annotations

from typing import Any

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from margin_pgd import MarginPGD

from advgan.attacks.foolbox_adapter import foolbox_model
from advgan.attacks.gradient_attacks import fgsm, pgd, random_start
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset

keras = tf.keras
COUNT = 1000


@pytest.fixture(scope="module")
def classifier() -> Any:
    """A small network, right on about nine digits of ten."""
    training = load_dataset(DataSettings(training_images=5000)).training
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 5, strides=3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(scaled(training.images), training.labels, batch_size=32, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def images() -> Any:
    return tf.constant(scaled(load_dataset(DataSettings(test_images=COUNT)).test.images))


@pytest.fixture(scope="module")
def labels() -> Any:
    return tf.constant(load_dataset(DataSettings(test_images=COUNT)).test.labels, tf.int64)


def linear(weights: np.ndarray) -> Any:
    """A classifier whose logits are ``weights`` times the pixels."""
    shape = (len(weights), 1, 1)
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(weights.shape[1], use_bias=False)]
    )
    model.layers[-1].set_weights([weights])
    return model


def pgd_from(seed: Any, classifier: Any, images: Any, labels: Any, epsilon: float, **options: Any) -> Any:
    """PGD from the random start that a seed gives."""
    return pgd(classifier, images, labels, epsilon, start=random_start(images, epsilon, seed), **options)


def robust(classifier: Any, images: Any, labels: Any) -> float:
    """The share classified correctly, by Keras and NumPy alone."""
    return float(np.mean(classifier.predict(images, verbose=0).argmax(axis=1) == np.asarray(labels)))


def test_fgsm_by_hand_on_a_linear_classifier() -> None:
    # Two classes with logits -w x and w x, of class 0: the loss rises along w.
    w = np.array([2.0, -1.0, 0.5, -3.0, 0.0], np.float32)
    model = linear(np.stack([-w, w], axis=1))
    x = np.array([0.5, 0.5, 0.95, 0.05, 0.5], np.float32).reshape(1, 5, 1, 1)
    adversarial = fgsm(model, tf.constant(x), tf.constant([0]), 0.1)
    np.testing.assert_allclose(np.ravel(adversarial), [0.6, 0.4, 1.0, 0.0, 0.5], atol=1e-7)
    back = fgsm(model, tf.constant(x), tf.constant([1]), 0.1)
    np.testing.assert_allclose(np.ravel(back), [0.4, 0.6, 0.85, 0.15, 0.5], atol=1e-7)


def test_pgd_walks_to_the_corner_of_the_ball_on_a_linear_classifier() -> None:
    random = np.random.default_rng(0)
    w = random.normal(size=784).astype(np.float32)
    model = linear(np.stack([-w, w], axis=1) / 100)
    x = random.random((3, 784, 1, 1), np.float32)
    adversarial = pgd_from([0, 0], model, tf.constant(x), tf.constant([0, 0, 1]), 0.1, steps=60)
    direction = np.sign(w).reshape(1, 784, 1, 1) * np.array([1, 1, -1]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(adversarial, np.clip(x + 0.1 * direction, 0, 1), atol=1e-6)


def test_fgsm_is_foolboxs(classifier: Any, images: Any, labels: Any) -> None:
    _, expected, _ = foolbox.attacks.FGSM()(foolbox_model(classifier), images, labels, epsilons=0.15)
    ours = fgsm(classifier, images, labels, 0.15)
    # Where a gradient is zero to the last bits, the two may take another sign.
    assert np.mean(np.abs(ours.numpy() - expected.numpy()) > 1e-6) < 1e-3
    assert abs(robust(classifier, ours, labels) - robust(classifier, expected, labels)) <= 0.005
    assert robust(classifier, ours, labels) < robust(classifier, images, labels) - 0.2


def test_pgd_leaves_the_robust_accuracy_that_foolbox_leaves(classifier: Any, images: Any, labels: Any) -> None:
    epsilon = 0.1
    tf.random.set_seed(0)
    _, expected, _ = foolbox.attacks.LinfPGD()(foolbox_model(classifier), images, labels, epsilons=epsilon)
    ours = pgd_from([0, 0], classifier, images, labels, epsilon)
    left = robust(classifier, ours, labels)
    assert abs(left - robust(classifier, expected, labels)) <= 0.005
    assert 0.1 < left < robust(classifier, fgsm(classifier, images, labels, epsilon), labels) - 0.005


def test_both_stay_within_epsilon_and_the_pixels(classifier: Any, images: Any, labels: Any) -> None:
    clean = images[:100].numpy().astype(np.float64)
    for epsilon in (0.3, 8 / 255, 1.0):
        for made in (
            fgsm(classifier, images[:100], labels[:100], epsilon),
            pgd_from([1, 2], classifier, images[:100], labels[:100], epsilon, steps=3),
        ):
            assert np.abs(made.numpy().astype(np.float64) - clean).max() <= epsilon + 1e-6
            assert made.numpy().min() >= 0 and made.numpy().max() <= 1


def test_the_seed_alone_determines_the_random_start(classifier: Any, images: Any, labels: Any) -> None:
    def start(seed: list[int]) -> np.ndarray:
        return pgd_from(seed, classifier, images[:5], labels[:5], 0.1, steps=0).numpy()

    tf.random.set_seed(1)
    first = start([3, 4])
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, start([3, 4]))
    for other in ([3, 5], [4, 4]):
        assert np.abs(first - start(other)).max() > 0.1
    inside = images[:5].numpy() == 0
    shares = (first[inside] / 0.1).reshape(-1)  # clipped at 0: half of them stay there, the rest is uniform
    assert abs(np.mean(shares == 0) - 0.5) < 0.03
    assert abs(np.mean(shares[shares > 0]) - 0.5) < 0.03
    np.testing.assert_allclose(shares.max(), 1.0, atol=1e-2)


def test_a_pixel_that_does_not_matter_stays_where_it_is() -> None:
    model = linear(np.zeros((4, 2), np.float32))
    x = tf.fill([1, 4, 1, 1], 0.5)
    np.testing.assert_array_equal(fgsm(model, x, tf.constant([0]), 0.2), x)


def test_both_work_inside_a_compiled_step_with_batches_of_any_size(classifier: Any, images: Any, labels: Any) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([None], tf.int64), tf.TensorSpec([])])
    def both(batch: Any, classes: Any, step: Any) -> tuple[Any, Any]:
        seed = tf.stack([7, tf.cast(step, tf.int32)])
        return fgsm(classifier, batch, classes, 0.1), pgd_from(seed, classifier, batch, classes, 0.1, steps=5)

    for count in (1, 20):
        one_step, many = both(images[:count], labels[:count], tf.constant(3.0))
        np.testing.assert_allclose(one_step, fgsm(classifier, images[:count], labels[:count], 0.1), atol=0.2)
        again = pgd_from([7, 3], classifier, images[:count], labels[:count], 0.1, steps=5)
        assert np.mean(np.abs(many - again) > 1e-6) < 1e-2
    assert both.experimental_get_tracing_count() == 1


def test_the_classifier_is_in_inference_mode_and_is_not_changed(images: Any, labels: Any) -> None:
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    before = [value.copy() for value in model.get_weights()]
    first, second = (fgsm(model, images[:20], labels[:20], 0.1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    pgd_from([0, 0], model, images[:20], labels[:20], 0.1, steps=2)
    for here, there in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_pgd_along_the_margin_leaves_what_foolbox_leaves(
    classifier: Any, images: Any, labels: Any, scale: float
) -> None:
    """With logits times 1,000 the cross-entropy's gradient vanishes, the margin's does not."""
    scaled_up = keras.Sequential([keras.Input((28, 28, 1)), classifier, keras.layers.Rescaling(scale)])
    images, labels = images[:400], labels[:400]
    tf.random.set_seed(0)
    _, expected, _ = MarginPGD()(foolbox_model(scaled_up), images, labels, epsilons=0.1)
    ours = pgd_from([0, 0], scaled_up, images, labels, 0.1, loss="margin")
    left = robust(classifier, ours, labels)
    assert abs(left - robust(classifier, expected, labels)) <= 0.015
    along_cross_entropy = robust(classifier, pgd_from([0, 0], scaled_up, images, labels, 0.1), labels)
    assert abs(along_cross_entropy - left) < 0.03 if scale == 1 else along_cross_entropy > left + 0.2
