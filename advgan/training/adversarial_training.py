"""Adversarial training: a classifier learns its training images as an attack on it changes them.

What it learns of a batch is ``clean_share H(f(x)) + (1 - clean_share) H(f(x_A))``, H the cross-entropy with the labels.
The attacks see f in inference mode: without dropout, and with the moving statistics of batch normalization.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from advgan.attacks.gradient_attacks import fgsm, pgd, random_start
from advgan.config.settings import (
    AdversarialTrainingSettings,
    AttackSettings,
    DiscriminatorSettings,
    GeneratorSettings,
    LossSettings,
)
from advgan.data.batch_parts import by_parts
from advgan.environment import parts_of
from advgan.networks.discriminator import build_discriminator
from advgan.networks.forward import forward
from advgan.networks.generator import build_generator
from advgan.perturbation import perturb
from advgan.records.adversarial_training import OVERFITTED, Defence
from advgan.records.finding import PASS, WARN, Finding
from advgan.training.optimizers import adam
from advgan.training.step import Networks, Optimizers, StepSettings, training_step

Tensor = Any
GENERATOR_SETTINGS = GeneratorSettings(schedule="constant")
"""Of ``advgan``: the default generator; its rate stays, since the classifier never stands still."""
GENERATOR_DEFAULTS = [
    each.model_dump(mode="json")
    for each in (GENERATOR_SETTINGS, DiscriminatorSettings(), LossSettings(), AttackSettings())
]
"""What decides the images of ``advgan``; JSON can hold it."""


class Adversary(ABC):
    """Makes the adversarial images of a training step."""

    def __init__(self, settings: AdversarialTrainingSettings) -> None:
        self.weight_of_clean = settings.weight_of_clean
        """The weight of the loss on the images as they are."""

    @abstractmethod
    def attack(self, network: Any, images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        """Adversarial images.

        Args:
            network: the classifier in training, a Keras model from images to logits.
            images: float32, shape (n, height, width, channels), in [0, 1]; of several replicas this one's share.
            labels: int32, shape (n,).
            number: of the step, int32 scalar, from 1; what is drawn is a function of it and the seed.
        """

    def kept(self) -> dict[str, Any]:
        """What a checkpoint has to hold of it, by name."""
        return {}


class _OfGradients(Adversary):
    def __init__(self, settings: AdversarialTrainingSettings, seed: int, warmup_steps: int) -> None:
        super().__init__(settings)
        self._settings, self._seed, self._warmup_steps = settings, seed % 2**31, warmup_steps

    def _epsilon(self, number: Tensor) -> Tensor | float:
        epsilon = float(self._settings.epsilon or 0.0)
        if not self._warmup_steps:
            return epsilon
        return epsilon * tf.minimum(1.0, tf.cast(number, tf.float32) / self._warmup_steps)

    def attack(self, network: Any, images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        """Each part of the batch is attacked on a core of its own."""
        start = images
        if self._settings.starts_at_random:
            start = random_start(images, self._epsilon(number), tf.stack([tf.constant(self._seed, tf.int32), number]))

        def of_part(images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
            return self._attack(network, images, labels, start, number)

        return by_parts(of_part, images, labels, start)

    @abstractmethod
    def _attack(self, network: Any, images: Tensor, labels: Tensor, start: Tensor, number: Tensor) -> Tensor:
        """Adversarial images of a part of a batch."""


class SingleStep(_OfGradients):
    """FGSM on the classifier itself, or in each batch on one of several, of which it is one."""

    def __init__(
        self, settings: AdversarialTrainingSettings, seed: int, warmup_steps: int, others: Sequence[Any]
    ) -> None:
        super().__init__(settings, seed, warmup_steps)
        self._others = others

    def _attack(self, network: Any, images: Tensor, labels: Tensor, start: Tensor, number: Tensor) -> Tensor:
        epsilon = self._epsilon(number)
        size = epsilon * self._settings.length_of_step

        def along(network: Any) -> Callable[[], Tensor]:
            return lambda: fgsm(forward(network), images, labels, epsilon, start=start, step_size=size)

        if not self._others:
            return along(network)()
        seeds, count = tf.stack([tf.constant(self._seed, tf.int32), -number]), 1 + len(self._others)
        drawn = tf.random.stateless_uniform([], seeds, 0, count, tf.int32)
        return tf.switch_case(drawn, [along(each) for each in (network, *self._others)])


class SeveralSteps(_OfGradients):
    """PGD on the classifier."""

    def _attack(self, network: Any, images: Tensor, labels: Tensor, start: Tensor, number: Tensor) -> Tensor:
        epsilon, steps = self._epsilon(number), self._settings.pgd_steps
        size = epsilon * self._settings.length_of_step
        return pgd(forward(network), images, labels, epsilon, start=start, steps=steps, step_size=size)


class TrainedGenerator(Adversary):
    """An AdvGAN on the classifier, with one step for each of the classifier's; it is never started again."""

    def __init__(
        self, settings: AdversarialTrainingSettings, seed: int, image_shape: tuple[int, int, int], batch_size: int
    ) -> None:
        super().__init__(settings)
        g, d = GENERATOR_SETTINGS, DiscriminatorSettings()
        self._generator, self._discriminator = build_generator(image_shape, g), build_discriminator(image_shape, d)
        self._optimizers = Optimizers(
            adam(self._generator, g.learning_rate, g.schedule, 1, g.beta_1),
            adam(self._discriminator, d.learning_rate, d.schedule, 1, d.beta_1),
        )
        self._attack = AttackSettings(epsilon=settings.epsilon or 0.0)
        self._settings = StepSettings(self._attack, LossSettings(), d, seed, 1, parts_of(batch_size))

    def attack(self, network: Any, images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        """A step of the generator, then its images."""
        networks = Networks(self._generator, self._discriminator, forward(network))
        training_step(networks, self._optimizers, images, labels, number, self._settings)
        made = by_parts(forward(self._generator), images)
        _, adversarial = perturb(images, made, self._attack.epsilon, self._attack.output)
        return adversarial

    def kept(self) -> dict[str, Any]:
        """Networks and optimizers."""
        return {
            "generator": self._generator,
            "discriminator": self._discriminator,
            "generator_optimizer": self._optimizers.generator,
            "discriminator_optimizer": self._optimizers.discriminator,
        }


def build_adversary(
    settings: AdversarialTrainingSettings,
    seed: int,
    image_shape: tuple[int, int, int],
    batch_size: int,
    steps_per_epoch: int,
    others: Sequence[Any],
) -> Adversary | None:
    """The attack that a classifier is trained with; None where it learns clean images alone.

    Args:
        settings: the method and its options.
        seed: of the classifier's training.
        image_shape: height, width, channels.
        batch_size: of a replica.
        steps_per_epoch: of the classifier's training.
        others: of an ensemble the frozen networks besides the classifier.
    """
    if settings.method == "none":
        return None
    if settings.method == "advgan":
        return TrainedGenerator(settings, seed, image_shape, batch_size)
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    if settings.method == "pgd":
        return SeveralSteps(settings, seed, warmup_steps)
    return SingleStep(settings, seed, warmup_steps, others)


def check_overfitting(defence: Defence, settings: AdversarialTrainingSettings) -> Finding:
    """Mark an adversarial training that resisted its own attack and hardly PGD: to its end, or all of a sudden.

    Where that attack is one step of the gradient's sign, it is called catastrophic overfitting (Wong et al. 2020).

    Args:
        defence: what the training came to.
        settings: of the training.
    """
    guard = "adversarial training resists its own attack alone"
    kept = next(each for each in defence.epochs if each.kept)
    found, best = [], 0.0
    for each in defence.epochs:
        if each.overfitted and (each.kept or each.accuracy_pgd < OVERFITTED * best):
            found.append(each)
        best = max(best, each.accuracy_pgd)
    if not found:
        return Finding(guard, PASS, f"under PGD {kept.accuracy_pgd:.2%} is left on validation images")
    worst = min(found, key=lambda each: each.accuracy_pgd)
    single_step = settings.method in ("fgsm", "ensemble")
    known = " (catastrophic overfitting)" if single_step else ""
    reason = (
        f"in epoch {worst.epoch} {worst.accuracy_in_training:.2%} was left under its own attack and "
        f"{worst.accuracy_pgd:.2%} under PGD on validation images{known}; the classifier is that of epoch "
        f"{kept.epoch}, where PGD leaves {kept.accuracy_pgd:.2%}"
    )
    if settings.method == "pgd":
        remedy = "Raise steps, or step_size to 2.5 epsilon / steps."
    elif single_step and not settings.starts_at_random:
        remedy = "Use method pgd, or random_start; or a smaller epsilon."
    else:
        remedy = "Use method pgd."
    return Finding(guard, WARN, reason, remedy)
