"""All that training changes, and its checkpoints, written whole or not at all.

Data order is a function of (seed, epoch) and noise one of (seed, step), so weights, optimizer slots and a few counters
are the whole state. A checkpoint is a folder ``<number>`` (``Position.number``: the step, but for black-box runs) with
TensorFlow's files and ``position.json``; it is made under another name, flushed to disk and renamed, so a folder with a
number for a name is complete.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from advgan.config.settings import Config
from advgan.errors import AdvGANError
from advgan.files import PARTIAL, read_json, whole_directory, write_json
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
    distilled_optimizer: Any = None
    """Of the target, where that is a distilled network; None where the target is frozen."""

    def checkpoint(self) -> Any:
        """The part that TensorFlow saves. A frozen target is kept in the run directory instead."""
        distilled = {"distilled": self.networks.target, "distilled_optimizer": self.distilled_optimizer}
        return tf.train.Checkpoint(
            **(distilled if self.distilled_optimizer is not None else {}),
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
        if self.distilled_optimizer is not None:  # queries in the validation may have failed, and this step been saved
            self.position.other_changes += 1


def build_state(
    image_shape: tuple[int, int, int], target: Any, config: Config, steps: int, target_learns: bool = False
) -> TrainingState:
    """Build G, D and their optimizers, initialized from the seed alone.

    Args:
        image_shape: height, width, channels.
        target: the frozen classifier, or a distilled network.
        config: the run's settings.
        steps: optimizer steps in the whole run, for the schedules.
        target_learns: whether the target needs an optimizer too, being a distilled network.
    """
    dtype = config.training.compute_dtype
    keras.utils.set_random_seed(config.seed)
    generator = build_generator(image_shape, config.generator, dtype)
    discriminator = build_discriminator(image_shape, config.discriminator, dtype)
    best_generator = build_generator(image_shape, config.generator, dtype)
    best_generator.set_weights(generator.get_weights())
    g, d = config.generator, config.discriminator
    optimizers = Optimizers(
        adam(generator, g.learning_rate, g.schedule, steps, g.beta_1),
        adam(discriminator, d.learning_rate, d.schedule, steps * d.steps, d.beta_1),
    )
    learns = distilled_optimizer(target, config) if target_learns else None
    return TrainingState(Networks(generator, discriminator, target), optimizers, best_generator, Position(), learns)


class Stopwatch:
    """Adds up time in laps, so that each part is counted once."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, or since the stopwatch was made."""
        begun, self._begun = self._begun, time.monotonic()
        return self._begun - begun


class Checkpoints:
    """The checkpoints of one run, in ``folder``; the ``keep`` newest stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        for left in folder.glob(f".*{PARTIAL}"):  # by a killed process
            shutil.rmtree(left)

    def numbers(self) -> list[int]:
        """The positions (``Position.number``) that have a complete checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def save(self, state: TrainingState) -> None:
        """Write the state, then delete the oldest checkpoints beyond ``keep``.

        Raises:
            OSError: the disk is full or the folder cannot be written; the checkpoints are then as they were.
        """
        with whole_directory(self.folder / f"{state.position.number:08d}") as folder:
            try:
                state.checkpoint().write(str(folder / "state"))
            except tf.errors.OpError as error:  # TensorFlow's own word for it
                raise OSError(str(error.message).split("; ")[-1].split(" [Op:")[0]) from None
            write_json(folder / "position.json", dataclasses.asdict(state.position))
        for number in self.numbers()[: -self.keep]:
            doomed = self.folder / f".{number:08d}{PARTIAL}"
            (self.folder / f"{number:08d}").replace(doomed)  # a folder that has a number for a name is complete
            shutil.rmtree(doomed)

    def restore_latest(self, state: TrainingState) -> bool:
        """Put the newest checkpoint into the state; False when there is none.

        Raises:
            AdvGANError: the checkpoint does not fit the networks, or is damaged.
        """
        numbers = self.numbers()
        if not numbers:
            return False
        folder = self.folder / f"{numbers[-1]:08d}"
        try:
            state.checkpoint().read(str(folder / "state")).assert_consumed()
            fields = [field.name for field in dataclasses.fields(Position)]
            state.position = Position(**read_json(folder / "position.json", *fields))
        except Exception as error:  # TensorFlow and Keras raise nearly anything when a file is damaged
            reason = " ".join(str(error).split())[:200]
            raise AdvGANError(
                f"the checkpoint {folder} cannot be restored ({reason}); delete it to go on from the one before"
            ) from None
        return True
