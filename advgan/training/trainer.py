"""The training loop: epochs of steps, validation, checkpoints. It knows arrays and settings, not files of settings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from advgan.config.settings import Config
from advgan.data.batches import epoch_order, gather_batch, steps_per_epoch
from advgan.data.datasets import Dataset, Split
from advgan.errors import BlackBoxFailed, Interrupted, NonFiniteError, OracleUnavailable
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.training.interruption import stop_requests
from advgan.training.metrics_log import MetricsLog
from advgan.training.optimizers import adam, distilled_optimizer
from advgan.training.progress import Progress
from advgan.training.state import Checkpoints, Position, TrainingState
from advgan.training.step import Networks, Optimizers, StepSettings, training_step
from advgan.training.validation import discriminator_health

keras = tf.keras
BeforeEpoch = Callable[[Callable[[], bool], Callable[[], None]], None]
"""Given a function that tells whether a stop was requested, and one that saves the state."""


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


def build_state(image_shape: tuple[int, int, int], target: Any, config: Config, steps: int) -> TrainingState:
    """Build G, D and their optimizers, initialized from the seed alone.

    Args:
        image_shape: height, width, channels.
        target: the frozen classifier, or a distilled network.
        config: the run's settings.
        steps: optimizer steps in the whole run, for the schedules.
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
    learns = None if config.black_box is None else distilled_optimizer(target, config)
    return TrainingState(Networks(generator, discriminator, target), optimizers, best_generator, Position(), learns)


def total_steps(training_images: int, config: Config) -> int:
    """Optimizer steps of G in the whole run."""
    return config.generator_epochs * steps_per_epoch(training_images, config.training.batch_size)


def train(
    state: TrainingState,
    dataset: Dataset,
    config: Config,
    checkpoints: Checkpoints,
    records: MetricsLog,
    progress: Progress,
    validate: Callable[[], dict[str, float]],
    on_epoch: Callable[[EpochReport], None],
    before_epoch: BeforeEpoch = lambda stop_requested, save: None,  # noqa: ARG005
) -> None:
    """Train from the state's position to the end, or to the chosen success rate; the state is changed in place.

    Args:
        state: networks, optimizers and position, fresh or restored.
        dataset: the training images are used.
        config: the run's settings.
        checkpoints: where the state goes.
        records: where the numbers go.
        progress: what the user sees.
        validate: measures the generator as it is: ``validation_success`` in [0, 1], and what else is to be recorded.
        on_epoch: called after each epoch, before its checkpoint.
        before_epoch: called before each epoch, also before one that is resumed in its middle; distils.

    Raises:
        NonFiniteError: a loss term or gradient is NaN or infinite.
        Interrupted: Ctrl-C, SIGTERM, or a black box that does not answer; a checkpoint was written first.
    """
    position = state.position
    step_on = _compiled_step(state, dataset.training, config)
    per_epoch = steps_per_epoch(len(dataset.training), config.training.batch_size)
    last_success = position.best_success
    clock = time.monotonic()

    def save() -> None:
        nonlocal clock
        now = time.monotonic()
        position.seconds, clock = position.seconds + now - clock, now
        checkpoints.save(state)

    def epoch(stop_requested: Callable[[], bool]) -> None:
        nonlocal last_success
        before_epoch(stop_requested, save)
        order = epoch_order(len(dataset.training), config.seed, position.epoch)
        window, last_step = _Window(position), (position.epoch + 1) * per_epoch
        while position.step < last_step:
            start = (position.step - position.epoch * per_epoch) * config.training.batch_size
            indices = tf.constant(order[start : start + config.training.batch_size])
            window.add(step_on(indices, tf.constant(position.step + 1)))
            position.step += 1
            checkpoint_due = position.step % config.output.checkpoint_every == 0 and position.step < last_step
            stopping = stop_requested() and position.step < last_step  # else once the epoch is closed
            if position.step % config.output.log_every == 0 or checkpoint_due or stopping:
                steps, means = window.flush()
                records.add("steps", position.epoch + 1, position.step, means)
                progress.advance(steps, _status(means, last_success))
            if checkpoint_due or stopping:
                save()
            if stopping:
                raise Interrupted(f"stopped at step {position.step}; nothing is lost")
        steps, means = window.flush()
        if steps:
            records.add("steps", position.epoch + 1, position.step, means)
            progress.advance(steps, _status(means, last_success))

        found = validate()
        last_success = found["validation_success"]
        report = _close_epoch(state, config, per_epoch, found, time.monotonic() - clock)
        records.add("epoch", report.epoch, report.step, report.values)
        on_epoch(report)
        save()
        if stop_requested() and not position.finished:
            raise Interrupted(f"stopped after epoch {report.epoch}; nothing is lost")

    with stop_requests() as stop_requested:
        try:
            while not position.finished:
                epoch(stop_requested)
        except (OracleUnavailable, BlackBoxFailed):
            save()
            raise


class _Window:
    """Collects the metrics of steps, and looks at them (which waits for the device) only when flushed."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._rows: list[dict[str, Any]] = []

    def add(self, metrics: dict[str, Any]) -> None:
        self._rows.append(metrics)

    def flush(self) -> tuple[int, dict[str, float]]:
        """The number of steps and their means; adds them to the epoch's sums."""
        rows = [{name: float(value) for name, value in row.items()} for row in self._rows]
        self._rows = []
        first_step = self._position.step - len(rows) + 1
        for number, row in enumerate(rows, start=first_step):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise NonFiniteError(name, number)
        sums = self._position.epoch_sums
        for row in rows:
            for name, value in row.items():
                sums[name] = sums.get(name, 0.0) + value
        return len(rows), {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}


def _compiled_step(state: TrainingState, split: Split, config: Config) -> Callable[[Any, Any], dict[str, Any]]:
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    settings = StepSettings(
        config.attack, config.loss, config.discriminator, config.seed, total_steps(len(split), config)
    )

    @tf.function(jit_compile=config.training.xla)
    def step_on(indices: Any, step: Any) -> dict[str, Any]:
        batch = gather_batch(images, labels, indices)
        return training_step(state.networks, state.optimizers, *batch, step, settings)

    return step_on


def _close_epoch(
    state: TrainingState, config: Config, per_epoch: int, found: dict[str, float], seconds_since_save: float
) -> EpochReport:
    """Keep the best generator, move the position to the next epoch, say what the epoch came to."""
    position, success = state.position, found["validation_success"]
    means = {name: total / per_epoch for name, total in position.epoch_sums.items()}
    improved = success > position.best_success
    if config.black_box is not None:  # later generators know the black box better
        improved = success >= position.best_success or config.oracle.validation_allowance == 0
        position.other_changes += 1
    if improved:
        state.keep_best()
        position.best_success, position.best_epoch = success, position.epoch
    position.epoch += 1
    position.epoch_sums = {}
    enough = config.training.stop_at_success is not None and success >= config.training.stop_at_success
    position.finished = enough or position.epoch >= config.generator_epochs
    values = {**means, **found, "seconds": position.seconds + seconds_since_save}
    return EpochReport(position.epoch, position.step, values, discriminator_health(means), improved)


def _status(means: dict[str, float], success: float) -> str:
    validated = f"  validation {success:.2%}" if success >= 0 else ""
    return (
        f"L_adv {means['loss_adv']:+.3f}  L_GAN {means['loss_gan']:.3f}  L_hinge {means['loss_hinge']:.3f}  "
        f"L_D {means['loss_discriminator']:.3f}  success {means['batch_success']:.1%}{validated}"
    )
