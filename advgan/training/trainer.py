"""The generator's training: epochs of steps, each validated and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from advgan import replicas
from advgan.config.settings import Config
from advgan.data.batches import epoch_batches, steps_per_epoch
from advgan.data.datasets import AnySplit
from advgan.data.streams import Batches, batches_of
from advgan.environment import compiles_step, parts_of
from advgan.errors import BlackBoxFailed, BlackBoxUnavailable, Interrupted
from advgan.progress import Progress
from advgan.training.checkpoints import Checkpoints
from advgan.training.interruption import stop_requests
from advgan.training.loop import Trainer, means, run_steps, several_steps
from advgan.training.metrics_log import MetricsLog
from advgan.training.state import Stopwatch, TrainingState
from advgan.training.step import StepSettings, training_step
from advgan.training.validation import Validation, discriminator_health

BeforeEpoch = Callable[[Callable[[], bool], Callable[[], None]], None]
"""Takes a function that says whether a stop was requested, and one that saves the state."""
VALIDATIONS_IN_FIRST_EPOCH = 4
ROUNDING = 10**9


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to."""

    epoch: int
    """Counted from 1."""
    step: int
    values: dict[str, float]
    """Means over the epoch's steps, what the validation found, ``seconds`` of training so far."""
    discriminator_health: str
    """Empty when there is nothing to say."""
    improved: bool


def total_steps(training_images: int, config: Config) -> int:
    """Optimizer steps of G in the whole run."""
    return config.generator_epochs * steps_per_epoch(training_images, config.training.batch_size)


class GeneratorTrainer(Trainer):
    """Trains G and D; ``train`` does all, the other methods are its parts.

    Args:
        state: networks, optimizers and position, fresh or restored; changed in place.
        images: the training images.
        config: the run's settings.
        checkpoints: where the state goes.
        log: where the numbers go.
        progress: what the user sees.
        validation: measures the generator after each epoch, and within the first, and says which is the best.
        on_epoch: called after each epoch, before its checkpoint.
        before_epoch: called before each epoch, also before one that is resumed in its middle.
    """

    setting_at_fault = "generator.learning_rate or discriminator.learning_rate"

    def __init__(
        self,
        state: TrainingState,
        images: AnySplit,
        config: Config,
        checkpoints: Checkpoints,
        log: MetricsLog,
        progress: Progress,
        validation: Validation,
        on_epoch: Callable[[EpochReport], None],
        before_epoch: BeforeEpoch | None = None,
    ) -> None:
        self._state, self._config, self._checkpoints = state, config, checkpoints
        self._log, self._progress, self._validation = log, progress, validation
        self._on_epoch, self._before_epoch = on_epoch, before_epoch
        self._image_count, self._steps_per_epoch = len(images), steps_per_epoch(len(images), config.training.batch_size)
        self._batches = batches_of(images)
        self._compiled_steps = _compiled_steps(state, self._batches, total_steps(len(images), config), config)
        self._validated = state.position.best_success
        self._stopwatch = Stopwatch()
        self.checkpoint_every = config.output.checkpoint_every

    def train(self) -> None:
        """Go on from the state's position to the last epoch, or to the chosen success rate.

        Raises:
            NonFiniteError: a loss term or gradient is NaN or infinite.
            Interrupted: Ctrl-C, SIGTERM, or a black box that does not answer; a checkpoint was written first.
            BlackBoxFailed: its code raised; a checkpoint was written first.
        """
        position = self._state.position
        with stop_requests() as requested_here:

            def stop_requested() -> bool:  # of any machine; all ask at the same steps
                return bool(replicas.of_workers(requested_here()).any())

            try:
                while not position.finished:
                    if self._before_epoch is not None:
                        self._before_epoch(stop_requested, self.save)
                    self._train_epoch(stop_requested)
            except (BlackBoxUnavailable, BlackBoxFailed):
                self.save()
                raise

    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Updates of D (or more) and of G on the images with these indices."""
        values = self._compiled_steps(self._batches.take(batches), first)
        self._state.position.step = first + len(batches) - 1
        return values

    def report_due(self, number: int, unreported: int) -> bool:  # noqa: ARG002
        """Every ``output.log_every`` steps of the run."""
        return number % self._config.output.log_every == 0

    def report(self, rows: list[dict[str, float]]) -> None:
        """Add the values to the epoch's sums; log and show their means."""
        position, values = self._state.position, means(rows)
        for row in rows:
            for name, value in row.items():
                position.epoch_sums[name] = position.epoch_sums.get(name, 0.0) + value
        self._log.add("steps", position.epoch + 1, position.step, values)
        self._progress.advance(len(rows), _status(values, self._validated))

    def save(self) -> None:
        """Write a checkpoint."""
        self._state.position.seconds += self._stopwatch.lap()
        self._checkpoints.save(self._state)

    def _train_epoch(self, stop_requested: Callable[[], bool]) -> None:
        """Make the steps that are left of the epoch, and validate; the first epoch is validated in its course too.

        Raises:
            Interrupted: a stop was requested; a checkpoint was written.
        """
        position, config = self._state.position, self._config
        batches = epoch_batches(self._image_count, config.training.batch_size, config.seed, position.epoch)
        before, epoch = position.epoch * self._steps_per_epoch, position.epoch
        self._batches.start(batches[position.step - before :])
        for end in self._validated_steps():
            if position.step - before < end and not position.finished:
                run_steps(self, position.step + 1, batches[position.step - before : end], stop_requested)
                self._validate(end == len(batches))
                self.save()
                if stop_requested() and not position.finished:
                    where = f"after epoch {position.epoch}" if position.epoch > epoch else f"at step {position.step}"
                    raise Interrupted(f"stopped {where}; nothing is lost")

    @staticmethod
    def _agreed(success: float) -> float:
        """Of several machines that of the first: what follows from it is the same on all."""
        return (
            float(replicas.of_workers(round(success * ROUNDING))[0, 0]) / ROUNDING
            if replicas.worker()[1] > 1
            else success
        )

    def _validated_steps(self) -> list[int]:
        """After how many steps of the epoch the generator is validated."""
        count = self._steps_per_epoch
        if self._state.position.epoch > 0 or not self._validation.within_first_epoch:
            return [count]
        return sorted(
            {max(1, count * place // VALIDATIONS_IN_FIRST_EPOCH) for place in range(1, 1 + VALIDATIONS_IN_FIRST_EPOCH)}
        )

    def _validate(self, epoch_ends: bool) -> None:
        """Validate, and keep the generator if it is the best; at its end close the epoch: log and show what it was."""
        state, position, training = self._state, self._state.position, self._config.training
        found = self._validation()
        self._validated = self._agreed(found["validation_success"])
        improved = self._validation.improves(self._validated, position.best_success)
        if improved:
            state.keep_best(self._validated)
        enough = training.stop_at_success is not None and self._validated >= training.stop_at_success
        position.seconds += self._stopwatch.lap()
        found = {**found, "seconds": position.seconds}
        if not (epoch_ends or enough):
            self._log.add("validation", position.epoch + 1, position.step, found)
            return
        steps = position.step - position.epoch * self._steps_per_epoch
        averages = {name: total / steps for name, total in position.epoch_sums.items()}
        state.close_epoch()
        position.finished = enough or position.epoch >= self._config.generator_epochs
        values = {**averages, **found}
        self._log.add("epoch", position.epoch, position.step, values)
        health = discriminator_health(averages)
        self._on_epoch(EpochReport(position.epoch, position.step, values, health, improved))


def step_settings(config: Config, steps: int) -> StepSettings:
    """What the step needs to know of a configuration, in a run of so many steps."""
    parts = parts_of(config.training.batch_size // replicas.count())
    return StepSettings(config.attack, config.loss, config.discriminator, config.seed, steps, parts)


def _compiled_steps(
    state: TrainingState, batches: Batches, steps: int, config: Config
) -> Callable[..., dict[str, np.ndarray]]:
    settings = step_settings(config, steps)

    def step_on(given: Any, step: Any) -> dict[str, Any]:
        return training_step(state.networks, state.optimizers, *batches.batch(given), step, settings)

    return several_steps(step_on, compiles_step(config.training))


def _status(values: dict[str, float], success: float) -> str:
    validated = f"  validation {success:.2%}" if success >= 0 else ""
    return (
        f"L_adv {values['loss_adv']:+.3f}  L_GAN {values['loss_gan']:.3f}  L_hinge {values['loss_hinge']:.3f}  "
        f"L_D {values['loss_discriminator']:.3f}  success {values['batch_success']:.1%}{validated}"
    )
