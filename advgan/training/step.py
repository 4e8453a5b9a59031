"""The training step of AdvGAN: one update of D (or more), one of G, the target classifier untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from advgan import losses
from advgan.config.settings import AttackSettings, DiscriminatorSettings, LossSettings
from advgan.perturbation import perturb

Tensor = Any


class Networks(NamedTuple):
    """What takes part in a step."""

    generator: Any
    """A Keras model, as is the discriminator."""
    discriminator: Any
    target: Callable[[Tensor], Tensor]
    """The classifier under attack, from images in [0, 1] to logits, in inference mode; it is not changed."""


class Optimizers(NamedTuple):
    """Keras optimizers, built on their network's variables."""

    generator: Any
    discriminator: Any


@dataclass(frozen=True)
class StepSettings:
    """What the step needs to know of the configuration."""

    attack: AttackSettings
    loss: LossSettings
    discriminator: DiscriminatorSettings
    seed: int
    steps: int
    """In the whole run; what cools over a run is a function of (step, steps)."""


def training_step(
    networks: Networks, optimizers: Optimizers, images: Tensor, labels: Tensor, step: Tensor, settings: StepSettings
) -> dict[str, Tensor]:
    """Minimize ``L_adv + alpha L_GAN + beta L_hinge`` over G and the least-squares loss over D, one batch.

    Args:
        networks, optimizers: updated in place, but for the target.
        images: float32, shape (batch, height, width, channels), in [0, 1].
        labels: int32, shape (batch,).
        step: number of this step, int32 scalar; the noise on D's input is a function of (seed, step).
        settings: threat model, loss weights, how D is trained.

    Returns:
        Float32 scalars: loss terms, what D gets right, gradient norms, the share of the batch that reached the goal.
    """
    generator, discriminator, target = networks
    attack, weights, goal = settings.attack, settings.loss, settings.attack.objective

    with tf.GradientTape() as generator_tape:
        perturbation, adversarial = perturb(images, generator(images, training=True), attack.epsilon, attack.output)

        with generator_tape.stop_recording():
            for repeat in range(settings.discriminator.steps):
                real = _noisy(images, settings, step, 2 * repeat)
                fake = _noisy(adversarial, settings, step, 2 * repeat + 1)
                with tf.GradientTape() as discriminator_tape:
                    on_real, on_fake = discriminator(real, training=True), discriminator(fake, training=True)
                    loss_discriminator = losses.discriminator_loss(on_real, on_fake)
                discriminator_norm = _update(
                    discriminator, optimizers.discriminator, discriminator_tape, loss_discriminator
                )

        logits = target(adversarial)
        if weights.divisor != 1:  # no trace of the option in the compiled step where it is not used
            logits = logits / weights.divisor
        temperature = _temperature(weights, step, settings.steps)
        loss_adv = losses.adversarial_loss(logits, labels, goal, weights.kappa, weights.adversarial, temperature)
        seen_by_discriminator = _noisy(adversarial, settings, step, 2 * settings.discriminator.steps)
        loss_gan = losses.gan_loss(discriminator(seen_by_discriminator, training=True))
        loss_hinge = losses.hinge_loss(perturbation, weights.c)
        loss_generator = loss_adv + weights.alpha * loss_gan + weights.beta * loss_hinge
    generator_norm = _update(generator, optimizers.generator, generator_tape, loss_generator)

    predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return {
        "loss_adv": loss_adv,
        "loss_gan": loss_gan,
        "loss_hinge": loss_hinge,
        "loss_generator": loss_generator,
        "loss_discriminator": loss_discriminator,
        "gradient_norm_generator": generator_norm,
        "gradient_norm_discriminator": discriminator_norm,
        "discriminator_accuracy_real": _share(on_real > 0.5),
        "discriminator_accuracy_adversarial": _share(on_fake < 0.5),
        "discriminator_gap": tf.reduce_mean(on_real) - tf.reduce_mean(on_fake),
        "batch_success": _share(goal.reached(labels, predictions)),
    }


def _update(network: Any, optimizer: Any, tape: tf.GradientTape, loss: Tensor) -> Tensor:
    gradients = tape.gradient(loss, network.trainable_variables)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    return tf.linalg.global_norm(gradients)


def _temperature(weights: LossSettings, step: Tensor, steps: int) -> Tensor | float:
    if weights.temperature == 0:  # the paper's loss, without a trace of the option in the compiled step
        return 0.0
    return losses.falling_temperature(weights.temperature, weights.cooling, step, steps)


def _noisy(images: Tensor, settings: StepSettings, step: Tensor, draw: int) -> Tensor:
    deviation = settings.discriminator.noise
    if deviation == 0:
        return images
    seed = tf.stack([tf.constant(settings.seed % 2**31, tf.int32), step * 64 + draw])
    return images + deviation * tf.random.stateless_normal(tf.shape(images), seed)


def _share(condition: Tensor) -> Tensor:
    return tf.reduce_mean(tf.cast(condition, tf.float32))
