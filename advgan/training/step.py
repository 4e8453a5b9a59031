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
    parts = split_batch(images, labels, settings.parts)
    tapes = [tf.GradientTape() for _ in parts]  # of G; one for each part, so that the parts are independent
    attacked = []
    for tape, part in zip(tapes, parts, strict=True):
        with tape:
            output = generator(part.images, training=True)
            attacked.append(perturb(part.images, output, attack.epsilon, attack.output))

    def noisy(image_parts: list[Tensor], draw: int) -> list[Tensor]:
        return _noisy(image_parts, images, settings, step, draw)

    for repeat in range(settings.discriminator.steps):
        real = noisy([part.images for part in parts], 2 * repeat)
        fake = noisy([adversarial for _, adversarial in attacked], 2 * repeat + 1)
        seen = []
        gradients = []
        for part, part_real, part_fake in zip(parts, real, fake, strict=True):
            with tf.GradientTape() as tape:
                on_real, on_fake = discriminator(part_real, training=True), discriminator(part_fake, training=True)
                loss = losses.discriminator_loss(on_real, on_fake)
            gradients.append(tape.gradient(loss, discriminator.trainable_variables))
            seen.append({
                "loss_discriminator": loss,
                "discriminator_accuracy_real": _share(on_real > 0.5),
                "discriminator_accuracy_adversarial": _share(on_fake < 0.5),
                "discriminator_gap": tf.reduce_mean(on_real) - tf.reduce_mean(on_fake),
            })
        discriminator_norm = _update(discriminator, optimizers.discriminator, parts, gradients)

    adversarial_seen = noisy([adversarial for _, adversarial in attacked], 2 * settings.discriminator.steps)
    found, gradients = [], []
    for tape, part, (perturbation, adversarial), seen_by_discriminator in zip(
        tapes, parts, attacked, adversarial_seen, strict=True
    ):
        with tape:
            if settings.discriminator.noise:
                seen_by_discriminator = adversarial + tf.stop_gradient(seen_by_discriminator - adversarial)
            logits = target(adversarial) / weights.divisor if weights.divisor != 1 else target(adversarial)
            temperature = _temperature(weights, step, settings.steps)
            loss_adv = losses.adversarial_loss(
                logits, part.labels, goal, weights.kappa, weights.adversarial, temperature
            )
            loss_gan = losses.gan_loss(discriminator(seen_by_discriminator, training=True))
            loss_hinge = losses.hinge_loss(perturbation, weights.c)
            loss_generator = loss_adv + weights.alpha * loss_gan + weights.beta * loss_hinge
        gradients.append(tape.gradient(loss_generator, generator.trainable_variables))
        predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
        found.append({
            "loss_adv": loss_adv,
            "loss_gan": loss_gan,
            "loss_hinge": loss_hinge,
            "loss_generator": loss_generator,
            "batch_success": _share(goal.reached(part.labels, predictions)),
        })
    generator_norm = _update(generator, optimizers.generator, parts, gradients)
    return {
        **_mean(parts, found),
        **_mean(parts, seen),
        "gradient_norm_generator": generator_norm,
        "gradient_norm_discriminator": discriminator_norm,
    }


class Part(NamedTuple):
    """A part of a batch, and its share of it."""

    images: Tensor
    labels: Tensor
    share: float


def split_batch(images: Tensor, labels: Tensor, count: int) -> list[Part]:
    """A batch in so many parts, as equal as can be; one where its size is not known or there are fewer images."""
    size = images.shape[0]
    if count == 1 or size is None or size < count:
        return [Part(images, labels, 1.0)]
    sizes = [size // count + (place < size % count) for place in range(count)]
    split = zip(tf.split(images, sizes), tf.split(labels, sizes), sizes, strict=True)
    return [Part(*some, here / size) for *some, here in split]


def _mean(parts: list[Part], values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        name: tf.add_n([part.share * value[name] for part, value in zip(parts, values, strict=True)])
        for name in values[0]
    }


def _update(network: Any, optimizer: Any, parts: list[Part], gradients: list[list[Tensor]]) -> Tensor:
    mean = [
        tf.add_n([part.share * gradient for part, gradient in zip(parts, of_variable, strict=True)])
        for of_variable in zip(*gradients, strict=True)
    ]
    optimizer.apply_gradients(zip(mean, network.trainable_variables, strict=True))
    return tf.linalg.global_norm(mean)


def _temperature(weights: LossSettings, step: Tensor, steps: int) -> Tensor | float:
    if weights.temperature == 0:  # the paper's loss, without a trace of the option in the compiled step
        return 0.0
    return losses.falling_temperature(weights.temperature, weights.cooling, step, steps)


def _noisy(parts: list[Tensor], batch: Tensor, settings: StepSettings, step: Tensor, draw: int) -> list[Tensor]:
    deviation = settings.discriminator.noise
    if deviation == 0:
        return parts
    seed = tf.stack([tf.constant(settings.seed % 2**31, tf.int32), step * 64 + draw])
    noise = deviation * tf.random.stateless_normal(tf.shape(batch), seed)  # of the whole batch, whatever its parts
    pieces = tf.split(noise, [part.shape[0] for part in parts]) if len(parts) > 1 else [noise]
    return [part + piece for part, piece in zip(parts, pieces, strict=True)]


def _share(condition: Tensor) -> Tensor:
    return tf.reduce_mean(tf.cast(condition, tf.float32))
