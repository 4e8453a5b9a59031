"""All that training changes.

Data order is a function of (seed, epoch) and noise one of (seed, step), so weights, optimizer slots and a few counters
are the whole state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from advgan.config.settings import Config
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.training.optimizers import adam, distilled_optimizer
from advgan.training.step import Networks, Optimizers

keras = tf.keras


@dataclass
class Position:
    """How far training is. An epoch's number counts from 0; the sums cover the steps of the current epoch so far."""

    step: int = 0
    epoch: int = 0
    best_success: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    round: int = 0
    """Black box: rounds whose distillation is complete."""
    round_step: int = 0
    """Steps of the distilled network in the round under way."""
    distillation_seconds: float = 0.0
    """The part of ``seconds`` that went into queries and distillation."""
    other_changes: int = 0
    """Black box: what changed the state besides G's steps: steps of the distilled network, rounds, epochs' ends."""

    @property
    def number(self) -> int:
        """Grows with every change; names the checkpoint."""
        return self.step + self.other_changes


@dataclass
class TrainingState:
    """All that training changes."""

    networks: Networks
    optimizers: Optimizers
    best_generator: Any
    position: Position
    distilled: Any = None
    """The distilled network, which the target then is; None where the target is frozen."""
    distilled_optimizer: Any = None

    def checkpoint(self) -> Any:
        """The part that TensorFlow saves. A frozen target is kept in the run directory instead."""
        distilled = {"distilled": self.distilled, "distilled_optimizer": self.distilled_optimizer}
        return tf.train.Checkpoint(
            **(distilled if self.distilled is not None else {}),
            generator=self.networks.generator,
            discriminator=self.networks.discriminator,
            generator_optimizer=self.optimizers.generator,
            discriminator_optimizer=self.optimizers.discriminator,
            best_generator=self.best_generator,
        )

    def keep_best(self, success: float) -> None:
        """Remember the generator as it is now, the best so far, with its success on the validation images."""
        self.best_generator.set_weights(self.networks.generator.get_weights())
        self.position.best_success, self.position.best_epoch = success, self.position.epoch

    def close_epoch(self) -> None:
        """Move to the next epoch."""
        self.position.epoch += 1
        self.position.epoch_sums = {}
        if self.distilled is not None:  # queries in the validation may have failed, and this step been saved
            self.position.other_changes += 1


def build_state(
    image_shape: tuple[int, int, int],
    target: Callable[[Any], Any],
    config: Config,
    steps: int,
    distilled: Any = None,
    condition: int | None = None,
) -> TrainingState:
    """Build G, D and their optimizers, initialized from the seed alone.

    Args:
        image_shape: height, width, channels.
        target: the classifier under attack, from images in [0, 1] to logits.
        config: the run's settings.
        steps: optimizer steps in the whole run, for the schedules.
        distilled: the network that the target is, where it learns too.
        condition: for a generator conditioned on the wanted class: how many classes there are.
    """
    dtype = config.training.compute_dtype
    keras.utils.set_random_seed(config.seed)
    generator = build_generator(image_shape, config.generator, dtype, condition)
    discriminator = build_discriminator(image_shape, config.discriminator, dtype)
    best_generator = build_generator(image_shape, config.generator, dtype, condition)
    best_generator.set_weights(generator.get_weights())
    g, d = config.generator, config.discriminator
    optimizers = Optimizers(
        adam(generator, g.learning_rate, g.schedule, steps, g.beta_1),
        adam(discriminator, d.learning_rate, d.schedule, steps * d.steps, d.beta_1),
    )
    learns = None if distilled is None else distilled_optimizer(distilled, config)
    return TrainingState(
        Networks(generator, discriminator, target), optimizers, best_generator, Position(), distilled, learns
    )


class Stopwatch:
    """Adds up time in laps, so that each part is counted once."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, or since the stopwatch was made."""
        begun, self._begun = self._begun, time.monotonic()
        return self._begun - begun
