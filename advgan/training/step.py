"""The training step of AdvGAN: one update of D (or more), one of G, the target classifier untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from advgan import losses, replicas
from advgan.config.settings import AttackSettings, DiscriminatorSettings, LossSettings
from advgan.data.batch_parts import means_over, split_batch
from advgan.goals import Targeted
from advgan.networks.forward import forward_in_parts
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
        images: float32, shape (batch, height, width, channels), in [0, 1]; of several replicas this one's share.
        labels: int32, shape (batch,).
        step: number of this step, int32 scalar; the noise on D's input is a function of (seed, step).
        settings: threat model, loss weights, how D is trained.

    Returns:
        Float32 scalars: loss terms, what D gets right, gradient norms, the share of the batch that reached the goal.
    """
    generator, discriminator, target = networks
    attack, weights = settings.attack, settings.loss
    generate, judge = forward_in_parts(generator), forward_in_parts(discriminator)
    parts = split_batch(images, labels, settings.parts)
    if attack.wanted_classes is None:
        inputs, goals = [part.images for part in parts], [attack.objective] * len(parts)
    else:
        condition = generator.inputs[1].shape[-1]
        wanted = wanted_classes(labels, attack.wanted_classes, settings.seed, step)
        of_parts = tf.split(wanted, [part.images.shape[0] for part in parts])
        inputs = [[part.images, tf.one_hot(each, condition)] for part, each in zip(parts, of_parts, strict=True)]
        goals = [Targeted(each) for each in of_parts]

    with tf.GradientTape() as generator_tape:
        outputs = generate(inputs, True)
        perturbed = [
            perturb(part.images, output, attack.epsilon, attack.output)
            for part, output in zip(parts, outputs, strict=True)
        ]
        perturbations, adversarial = ([pair[place] for pair in perturbed] for place in (0, 1))

        with generator_tape.stop_recording():
            for repeat in range(settings.discriminator.steps):
                real = _noisy([part.images for part in parts], settings, step, 2 * repeat)
                fake = _noisy(adversarial, settings, step, 2 * repeat + 1)
                with tf.GradientTape() as discriminator_tape:
                    on_real, on_fake = _judge_both(judge, real, fake, settings)
                    found = [
                        {
                            "loss_discriminator": losses.discriminator_loss(here, there),
                            "discriminator_accuracy_real": _share(here > 0.5),
                            "discriminator_accuracy_adversarial": _share(there < 0.5),
                            "discriminator_gap": tf.reduce_mean(here) - tf.reduce_mean(there),
                        }
                        for here, there in zip(on_real, on_fake, strict=True)
                    ]
                    of_discriminator = means_over(parts, found)
                discriminator_norm = _update(
                    discriminator, optimizers.discriminator, discriminator_tape, of_discriminator["loss_discriminator"]
                )

        seen = _noisy(adversarial, settings, step, 2 * settings.discriminator.steps)
        temperature, found = _temperature(weights, step, settings.steps), []
        for part, goal, images, perturbation, on_fake in zip(
            parts, goals, adversarial, perturbations, judge(seen, True), strict=True
        ):
            logits = target(images)
            if weights.divisor != 1:  # no trace of the option in the compiled step where it is not used
                logits = logits / weights.divisor
            loss_adv = losses.adversarial_loss(
                logits, part.labels, goal, weights.kappa, weights.adversarial, temperature
            )
            loss_gan, loss_hinge = losses.gan_loss(on_fake), losses.hinge_loss(perturbation, weights.c)
            predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
            found.append(
                {
                    "loss_adv": loss_adv,
                    "loss_gan": loss_gan,
                    "loss_hinge": loss_hinge,
                    "loss_generator": loss_adv + weights.alpha * loss_gan + weights.beta * loss_hinge,
                    "batch_success": _share(goal.reached(part.labels, predictions)),
                }
            )
        of_generator = means_over(parts, found)
    generator_norm = _update(generator, optimizers.generator, generator_tape, of_generator["loss_generator"])
    return {
        **of_generator,
        **of_discriminator,
        "gradient_norm_generator": generator_norm,
        "gradient_norm_discriminator": discriminator_norm,
    }


def wanted_classes(labels: Tensor, classes: tuple[int, ...], seed: int, step: Tensor) -> Tensor:
    """The class that is wanted of each image: any of them but its own, a function of (seed, step).

    Args:
        labels: int32, shape (n,).
        classes: those to draw from, two or more.
        seed: of the run.
        step: the number of the step.
    """
    listed = tf.constant(classes, tf.int32)
    own = tf.cast(labels[:, tf.newaxis] == listed, tf.int32)  # (n, classes), a 1 at most in each row
    among = tf.reduce_sum(own, 1)
    place = tf.argmax(own, 1, output_type=tf.int32)
    seeds = tf.stack([tf.constant(seed % 2**31, tf.int32), step * 64 + 63])  # noise draws from the 63 before
    share = replicas.share_of(tf.random.stateless_uniform([labels.shape[0] * replicas.here()], seeds))
    drawn = tf.cast(tf.floor(share * tf.cast(len(classes) - among, tf.float32)), tf.int32)
    return tf.gather(listed, drawn + tf.cast((among > 0) & (drawn >= place), tf.int32))


def _judge_both(
    judge: Callable[[list[Tensor], bool], list[Tensor]], real: list[Tensor], fake: list[Tensor], settings: StepSettings
) -> tuple[list[Tensor], list[Tensor]]:
    """D's scores, in one pass; in two where it normalizes over a batch, which then is either clean or adversarial."""
    if settings.discriminator.normalization == "batch":
        return judge(real, True), judge(fake, True)
    both = judge([tf.concat(pair, 0) for pair in zip(real, fake, strict=True)], True)
    halves = [tf.split(scores, 2) for scores in both]
    return [half[0] for half in halves], [half[1] for half in halves]


def _update(network: Any, optimizer: Any, tape: tf.GradientTape, loss: Tensor) -> Tensor:
    gradients = replicas.means_of(tape.gradient(loss, network.trainable_variables))
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    return tf.linalg.global_norm(gradients)


def _temperature(weights: LossSettings, step: Tensor, steps: int) -> Tensor | float:
    if weights.temperature == 0:  # the paper's loss, without a trace of the option in the compiled step
        return 0.0
    return losses.falling_temperature(weights.temperature, weights.cooling, step, steps)


def _noisy(parts: list[Tensor], settings: StepSettings, step: Tensor, draw: int) -> list[Tensor]:
    """With noise that is drawn for the whole batch, so that the parts do not matter."""
    deviation = settings.discriminator.noise
    if deviation == 0:
        return parts
    seed = tf.stack([tf.constant(settings.seed % 2**31, tf.int32), step * 64 + draw])
    sizes = [images.shape[0] for images in parts]
    drawn = tf.random.stateless_normal([sum(sizes) * replicas.here(), *parts[0].shape[1:]], seed)
    noise = deviation * replicas.share_of(drawn)
    return [images + here for images, here in zip(parts, tf.split(noise, sizes), strict=True)]


def _share(condition: Tensor) -> Tensor:
    return tf.reduce_mean(tf.cast(condition, tf.float32))
