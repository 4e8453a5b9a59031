"""Adversarial training: each method's images, the loss, exact resumes, and a classifier that resists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.config.loading import parse_config
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, scaled
from advgan.data.loading import load_dataset
from advgan.environment import prepare_environment
from advgan.errors import Interrupted
from advgan.networks.keras_file import weights_digest
from advgan.progress import Progress
from advgan.records.adversarial_training import TrainingEpoch
from advgan.records.finding import PASS, WARN
from advgan.training import classifier
from advgan.training.adversarial_training import check_overfitting
from advgan.training.classifier import (
    ACCURACY,
    LOSS,
    ClassifierTrainer,
    build_classifier_state,
    load_or_train_target,
    other_target,
)

keras = tf.keras
METHODS = {
    "fgsm": {"method": "fgsm", "epsilon": 0.2},
    "fast fgsm": {"method": "fgsm", "epsilon": 0.2, "random_start": True},
    "ensemble": {"method": "ensemble", "epsilon": 0.2, "others": [{"architecture": "lenet", "seed": 3, "epochs": 1}]},
    "pgd": {"method": "pgd", "epsilon": 0.2, "steps": 2, "warmup_epochs": 1},
    "advgan": {"method": "advgan", "epsilon": 0.2},
}


def configuration(method: str, output: Path = Path("checkpoints"), **target: Any) -> Config:
    """A small target that is trained by a method."""
    content = {
        "seed": 5,
        "data": {"training_images": 96, "validation_images": 40, "test_images": 40},
        "target": {"batch_size": 32, "epochs": 2, **target, "adversarial_training": METHODS[method]},
        "output": {"directory": str(output), "checkpoint_every": 2},
    }
    return parse_config(content)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(configuration("pgd").data)


class Batch:
    """A few images, and the state of a network that is to learn them."""

    def __init__(self, dataset: Dataset, method: str, **target: Any) -> None:
        config = configuration(method, **target)
        self.images = tf.constant(scaled(dataset.training.images[:32]))
        self.labels = tf.constant(dataset.training.labels[:32])
        self.others = [
            build_classifier(dataset.image_shape, 10, other_target(config, other).target)
            for other in config.target.adversarial_training.others or ()
        ]
        self.state = build_classifier_state(config, dataset, 6, self.others)
        self.model, self.adversary = self.state.model, self.state.adversary

    def attacked(self, number: int) -> np.ndarray:
        """The adversarial images of a step."""
        assert self.adversary is not None
        attack = tf.function(self.adversary.attack, autograph=False)
        return attack(self.model, self.images, self.labels, tf.constant(number)).numpy()

    def single_step(self, network: Any, epsilon: float) -> np.ndarray:
        """FGSM, by Keras and NumPy."""
        with tf.GradientTape() as tape:
            tape.watch(self.images)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(self.labels, network(self.images))
        sign = np.sign(tape.gradient(loss, self.images).numpy())
        return np.clip(self.images.numpy() + np.float32(epsilon) * sign, 0, 1)


def unlike(first: np.ndarray, second: np.ndarray) -> float:
    """The share of the pixels that differ; where a gradient is 0 to its last bits, signs may."""
    return float(np.mean(np.abs(first - second) > 1e-5))


def test_a_step_learns_clean_and_adversarial_images_as_keras_does(dataset: Dataset) -> None:
    batch = Batch(dataset, "fgsm")
    reference = build_classifier(dataset.image_shape, 10, configuration("fgsm").target)
    reference.set_weights(batch.model.get_weights())
    adversarial = batch.single_step(reference, 0.2)
    right = np.mean(np.asarray(reference(adversarial)).argmax(axis=1) == batch.labels.numpy())
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        losses = [cross_entropy(batch.labels, reference(each)) for each in (batch.images, adversarial)]
        loss = 0.5 * losses[0] + 0.5 * losses[1]
    variables = reference.trainable_variables
    keras.optimizers.SGD(1.0).apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    batch.state.optimizer = keras.optimizers.SGD(1.0)
    trainer = ClassifierTrainer(batch.state, dataset.training, Progress("target", 1))
    values = trainer.steps(1, np.arange(32, dtype=np.int32)[np.newaxis])
    np.testing.assert_allclose(values[LOSS], [loss], rtol=1e-4)
    np.testing.assert_allclose(values[ACCURACY], [right], atol=1e-6)
    for ours, theirs in zip(batch.model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_epsilon_rises_over_the_first_epochs(dataset: Dataset) -> None:
    batch = Batch(dataset, "pgd")  # three steps make an epoch
    changes = [float(np.abs(batch.attacked(number) - batch.images.numpy()).max()) for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(changes, [0.2 / 3, 0.4 / 3, 0.2, 0.2], rtol=1e-4)


def test_pgd_finds_more_than_one_step(dataset: Dataset) -> None:
    batch = Batch(dataset, "pgd")

    def loss(images: np.ndarray) -> float:
        return float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(batch.labels, batch.model(images)))

    assert loss(batch.attacked(9)) > loss(batch.images.numpy())
    assert unlike(batch.attacked(9), batch.attacked(9)) == 0 < unlike(batch.attacked(9), batch.attacked(10))


def test_an_ensemble_draws_a_network_for_each_batch(dataset: Dataset) -> None:
    batch = Batch(dataset, "ensemble")
    along = [batch.single_step(network, 0.2) for network in (batch.model, *batch.others)]
    drawn = []
    for number in range(1, 9):
        distances = [unlike(batch.attacked(number), each) for each in along]
        assert min(distances) < 0.01 < max(distances)
        drawn.append(int(np.argmin(distances)))
    assert set(drawn) == {0, 1}


def test_a_generator_learns_along_and_leaves_the_classifier_alone(dataset: Dataset) -> None:
    batch = Batch(dataset, "advgan")
    before = [weights.copy() for weights in batch.model.get_weights()]
    first, later = batch.attacked(1), batch.attacked(2)
    assert np.abs(later - batch.images.numpy()).max() <= 0.2 + 1e-6
    assert unlike(first, later) > 0.1
    for here, there in zip(before, batch.model.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.addons
@pytest.mark.parametrize(
    "method", [name if name in ("ensemble", "pgd") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_stopped_training_goes_on_exactly(
    method: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(method, architecture="model_c")  # it has dropout
    environment = prepare_environment(config.training)
    whole = load_or_train_target(config, dataset, environment, tmp_path / "whole")
    for stop_at in (1, 4):  # within an epoch, after one
        with monkeypatch.context() as patched:
            patched.setattr(classifier, "run_steps", stopping_after(stop_at))
            with pytest.raises(Interrupted, match=rf"stopped at step {stop_at} of the target's training"):
                load_or_train_target(config, dataset, environment, tmp_path / "parts")
    parts = load_or_train_target(config, dataset, environment, tmp_path / "parts")
    assert weights_digest(whole.model) == weights_digest(parts.model)
    timeless = [[epoch.model_copy(update={"seconds": 0}) for epoch in each.epochs] for each in (whole, parts)]
    assert timeless[0] == timeless[1]
    assert len(parts.epochs) == 2 and sum(epoch.kept for epoch in parts.epochs) == 1
    assert not list((tmp_path / "parts").glob("*.training"))
    assert load_or_train_target(config, dataset, environment, tmp_path / "parts").epochs == parts.epochs


def stopping_after(step: int) -> Callable[..., None]:
    """``run_steps``, which saves and stops after a step."""
    real = classifier.run_steps

    def run(trainer: Any, first: int, batches: np.ndarray, stop_requested: Any) -> None:
        if step - first + 1 > len(batches):
            return real(trainer, first, batches, stop_requested)
        real(trainer, first, batches[: step - first + 1])
        trainer.save()
        raise Interrupted(f"stopped at {trainer.step_name.format(step)}; nothing is lost")

    return run


def epoch(number: int, in_training: float, under_pgd: float, kept: bool = False) -> TrainingEpoch:
    return TrainingEpoch(
        epoch=number,
        loss=1.0,
        accuracy_in_training=in_training,
        accuracy_clean=0.9,
        accuracy_pgd=under_pgd,
        kept=kept,
        seconds=1.0,
    )


def test_catastrophic_overfitting_is_marked() -> None:
    sound = [epoch(1, 0.2, 0.05), epoch(2, 0.5, 0.45), epoch(3, 0.6, 0.5, kept=True)]
    assert check_overfitting(sound, warmup_epochs=1).status == PASS
    assert check_overfitting(sound, warmup_epochs=0).status == WARN
    found = check_overfitting([epoch(1, 0.5, 0.45, kept=True), epoch(2, 0.9, 0.02)], 0)
    assert found.status == WARN
    assert "in epoch 2 90.00% was left under its own attack and 2.00% under PGD" in found.reason
    assert "the classifier is that of epoch 1" in found.reason
