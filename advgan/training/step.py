"""The training step of AdvGAN: one update of D (or more), one of G, the target classifier untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from advgan import losses
from advgan.config.settings import AttackSettings, DiscriminatorSettings, LossSettings
from advgan.data.batch_parts import Part, mean_over, split_batch
from advgan.networks.forward import forward
from advgan.perturbation import perturb
from advgan.training.optimizers import update

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
    parts: int = 1
    """How many parts of a batch are worked on side by side, one for each core."""


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
    generate, judge = forward(generator), forward(discriminator)
    parts = split_batch(images, labels, settings.parts)
    tapes = [tf.GradientTape() for _ in parts]  # of G: one for each part, which depends on no other
    perturbations, adversarials = [], []
    for part, tape in zip(parts, tapes, strict=True):
        with tape:
            output = generate(part.images, training=True)
            perturbation, adversarial = perturb(part.images, output, attack.epsilon, attack.output)
        perturbations.append(perturbation)
        adversarials.append(adversarial)

    for repeat in range(settings.discriminator.steps):
        noise_real, noise_fake = (_noise(images, parts, settings, step, 2 * repeat + draw) for draw in (0, 1))
        found_d, gradients = [], []
        for place, part in enumerate(parts):
            real, fake = noise_real[place](part.images), noise_fake[place](adversarials[place])
            with tf.GradientTape() as discriminator_tape:
                on_real, on_fake = _judge_both(judge, real, fake, settings)
                loss_discriminator = losses.discriminator_loss(on_real, on_fake)
            gradients.append(discriminator_tape.gradient(loss_discriminator, discriminator.trainable_variables))
            found_d.append(
                {
                    "loss_discriminator": loss_discriminator,
                    "discriminator_accuracy_real": _share(on_real > 0.5),
                    "discriminator_accuracy_adversarial": _share(on_fake < 0.5),
                    "discriminator_gap": tf.reduce_mean(on_real) - tf.reduce_mean(on_fake),
                }
            )
        discriminator_norm = update(discriminator, optimizers.discriminator, parts, gradients)

    noise = _noise(images, parts, settings, step, 2 * settings.discriminator.steps)
    temperature = _temperature(weights, step, settings.steps)
    found_g, gradients = [], []
    for place, (part, tape) in enumerate(zip(parts, tapes, strict=True)):
        adversarial = adversarials[place]
        with tape:
            logits = target(adversarial)
            if weights.divisor != 1:  # no trace of the option in the compiled step where it is not used
                logits = logits / weights.divisor
            loss_adv = losses.adversarial_loss(
                logits, part.labels, goal, weights.kappa, weights.adversarial, temperature
            )
            loss_gan = losses.gan_loss(judge(noise[place](adversarial), training=True))
            loss_hinge = losses.hinge_loss(perturbations[place], weights.c)
            loss_generator = loss_adv + weights.alpha * loss_gan + weights.beta * loss_hinge
        gradients.append(tape.gradient(loss_generator, generator.trainable_variables))
        predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
        found_g.append(
            {
                "loss_adv": loss_adv,
                "loss_gan": loss_gan,
                "loss_hinge": loss_hinge,
                "loss_generator": loss_generator,
                "batch_success": _share(goal.reached(part.labels, predictions)),
            }
        )
    generator_norm = update(generator, optimizers.generator, parts, gradients)
    found = [{**of_g, **of_d} for of_g, of_d in zip(found_g, found_d, strict=True)]
    return {
        **{name: mean_over(parts, [each[name] for each in found]) for name in found[0]},
        "gradient_norm_generator": generator_norm,
        "gradient_norm_discriminator": discriminator_norm,
    }


def _judge_both(judge: Callable[..., Tensor], real: Tensor, fake: Tensor, settings: StepSettings) -> list[Tensor]:
    """D's scores, in one pass; in two where it normalizes over a batch, which then is either clean or adversarial."""
    if settings.discriminator.normalization == "batch":
        return [judge(real, training=True), judge(fake, training=True)]
    return tf.split(judge(tf.concat([real, fake], 0), training=True), 2)


def _temperature(weights: LossSettings, step: Tensor, steps: int) -> Tensor | float:
    if weights.temperature == 0:  # the paper's loss, without a trace of the option in the compiled step
        return 0.0
    return losses.falling_temperature(weights.temperature, weights.cooling, step, steps)


def _noise(
    batch: Tensor, parts: Sequence[Part], settings: StepSettings, step: Tensor, draw: int
) -> list[Callable[[Tensor], Tensor]]:
    """For each part what adds noise to its images; drawn for the whole batch, so that the parts do not matter."""
    deviation = settings.discriminator.noise
    if deviation == 0:
        return [lambda images: images] * len(parts)
    seed = tf.stack([tf.constant(settings.seed % 2**31, tf.int32), step * 64 + draw])
    noise = deviation * tf.random.stateless_normal(tf.shape(batch), seed)
    pieces = tf.split(noise, [part.images.shape[0] for part in parts]) if len(parts) > 1 else [noise]
    return [lambda images, piece=piece: images + piece for piece in pieces]  # type: ignore[misc]


def _share(condition: Tensor) -> Tensor:
    return tf.reduce_mean(tf.cast(condition, tf.float32))
