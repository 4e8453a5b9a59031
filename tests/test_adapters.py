"""The real Foolbox, ART and CleverHans: AdvGAN runs inside them, and they attack and score our classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import TensorFlowV2Classifier
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from advgan import AdvGANAttack
from advgan.attacks.art_adapter import ARTAttack, art_classifier
from advgan.attacks.foolbox_adapter import foolbox_model
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError

keras = tf.keras
COUNT = 200
EPSILON = 0.15
TEST = load_dataset(DataSettings(test_images=COUNT)).test
IMAGES, LABELS = scaled(TEST.images), TEST.labels


@pytest.fixture(scope="module")
def attack(small_run: Path) -> AdvGANAttack:
    return AdvGANAttack.load(small_run)


@pytest.fixture(scope="module")
def byte_target(attack: AdvGANAttack) -> Any:
    """The run's classifier for pixels from 0 to 255."""
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), attack.target])


def fooled(target: Any, images: np.ndarray) -> int:
    """How many are misclassified, by Keras and NumPy alone."""
    return int(np.count_nonzero(target.predict(images, verbose=0).argmax(axis=1) != LABELS))


def test_foolbox_scores_the_attack_as_the_attack_does(attack: AdvGANAttack) -> None:
    _, projected, success = attack(IMAGES, LABELS)
    model = foolbox_model(attack.target)
    left = foolbox.accuracy(model, tf.constant(projected), tf.constant(LABELS, tf.int64))
    criterion = foolbox.Misclassification(tf.constant(LABELS, tf.int64))
    fooled_by_foolbox = criterion(tf.constant(projected), model(tf.constant(projected))).numpy()
    np.testing.assert_array_equal(fooled_by_foolbox, success)
    assert left == pytest.approx(1 - np.mean(success), abs=1e-6)
    assert 0.2 < np.mean(success) < 1


def test_foolbox_attacks_the_classifier_in_its_own_bounds(attack: AdvGANAttack, byte_target: Any) -> None:
    labels = tf.constant(LABELS, tf.int64)
    _, unit, _ = foolbox.attacks.FGSM()(foolbox_model(attack.target), tf.constant(IMAGES), labels, epsilons=EPSILON)
    bytes_model = foolbox_model(byte_target, (0, 255))
    _, whole, success = foolbox.attacks.FGSM()(bytes_model, tf.constant(IMAGES * 255), labels, epsilons=EPSILON * 255)
    assert fooled(attack.target, unit.numpy()) > fooled(attack.target, IMAGES) + COUNT // 5
    assert abs(fooled(byte_target, whole.numpy()) - fooled(attack.target, unit.numpy())) <= 2
    assert int(success.numpy().sum()) == fooled(byte_target, whole.numpy())


def test_art_runs_the_attack_as_one_of_its_own(attack: AdvGANAttack) -> None:
    estimator = art_classifier(attack.target)
    art_attack = ARTAttack(estimator, attack)
    adversarial = art_attack.generate(x=IMAGES, y=np.eye(10)[LABELS])
    np.testing.assert_array_equal(adversarial, attack.generate(IMAGES))
    np.testing.assert_array_equal(art_attack.generate(IMAGES[:3].tolist()), attack.generate(IMAGES[:3]))
    answers = estimator.predict(adversarial).argmax(axis=1)
    np.testing.assert_array_equal(answers != LABELS, attack(IMAGES, LABELS).success)
    assert art_attack.targeted is False
    with pytest.raises(AdvGANError, match=r"y has classes from 0 to 10"):
        art_attack.generate(IMAGES[:2], np.array([0, 10]))


def test_art_knows_that_an_attack_is_targeted_and_keeps_its_bounds(small_run: Path, byte_target: Any) -> None:
    generator = small_run / "generator.keras"
    targeted = AdvGANAttack.load(generator, byte_target, bounds=(0, 255), epsilon=0.3, goal="targeted", target_class=3)
    art_attack = ARTAttack(art_classifier(byte_target, (0, 255)), targeted)
    assert art_attack.targeted is True
    adversarial = art_attack.generate(IMAGES * 255)
    assert 70 < np.abs(adversarial - IMAGES * 255).max() <= 255 * (0.3 + 1e-6)
    with pytest.raises(AdvGANError, match=r"the estimator's clip_values are .*the attack's \(0.0, 255.0\)"):
        ARTAttack(art_classifier(byte_target), targeted)
    without = TensorFlowV2Classifier(byte_target, nb_classes=10, input_shape=(28, 28, 1))
    np.testing.assert_array_equal(ARTAttack(without, targeted).generate(IMAGES * 255), adversarial)


def test_art_and_cleverhans_attack_the_classifier_as_foolbox_does(attack: AdvGANAttack) -> None:
    target, labels = attack.target, tf.constant(LABELS, tf.int64)
    _, expected, _ = foolbox.attacks.FGSM()(foolbox_model(target), tf.constant(IMAGES), labels, epsilons=EPSILON)
    of_art = FastGradientMethod(art_classifier(target), eps=EPSILON, batch_size=COUNT).generate(IMAGES, LABELS)
    of_cleverhans = fast_gradient_method(
        target, tf.constant(IMAGES), EPSILON, np.inf, y=labels, clip_min=0.0, clip_max=1.0
    ).numpy()
    for adversarial in (of_art, of_cleverhans):
        assert np.mean(np.abs(adversarial - expected.numpy()) > 1e-6) < 1e-3
        assert abs(fooled(target, adversarial) - fooled(target, expected.numpy())) <= 2


def test_iterated_attacks_of_art_and_cleverhans_do_at_least_as_well(attack: AdvGANAttack) -> None:
    target, few = attack.target, slice(0, 60)
    images, labels = IMAGES[few], LABELS[few]
    step = {"eps": EPSILON, "eps_step": EPSILON / 8, "max_iter": 16, "batch_size": 60, "verbose": False}
    of_art = ProjectedGradientDescent(art_classifier(target), **step).generate(images, labels)
    of_cleverhans = projected_gradient_descent(
        target, tf.constant(images), EPSILON, EPSILON / 8, 16, np.inf, y=tf.constant(labels, tf.int64),
        clip_min=0.0, clip_max=1.0,
    ).numpy()  # fmt: skip
    of_one_step = fast_gradient_method(
        target, tf.constant(images), EPSILON, np.inf, y=tf.constant(labels, tf.int64), clip_min=0.0, clip_max=1.0
    ).numpy()
    answers = {
        name: target.predict(made, verbose=0).argmax(axis=1) != labels
        for name, made in {"art": of_art, "cleverhans": of_cleverhans, "one step": of_one_step}.items()
    }
    assert answers["art"].sum() >= answers["one step"].sum()
    assert answers["cleverhans"].sum() >= answers["one step"].sum()
    assert answers["one step"].sum() > 10
