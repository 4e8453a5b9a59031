"""Distillation: a network f learns to answer as a black box b does, by queries with clean and adversarial images.

Static (one round): ``min_f E H(f(x), b(x))``, then G is trained against f. Dynamic: before each further round, with G
fixed, ``min_f E H(f(x), b(x)) + E H(f(x_A), b(x_A))``, x_A = x + G(x); f, G, D and their optimizers stay warm (Xiao et
al. 2018, section 3.3). f has no dropout while it learns: b's answers are soft already, and a resume stays exact.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan import losses, replicas
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.query_counter import QueryCounter
from advgan.config.settings import AdversarialTrainingSettings, Config
from advgan.config.values import WITH_A_CHOICE_OF_NORMALIZATION
from advgan.data.batch_parts import means_over, split_batch
from advgan.data.batches import gather_batch
from advgan.data.datasets import Dataset
from advgan.environment import parts_of
from advgan.errors import ConfigurationError
from advgan.networks.forward import forward_in_parts
from advgan.progress import Progress
from advgan.training.adversarial_training import SeveralSteps
from advgan.training.loop import Trainer, means, run_steps, several_steps
from advgan.training.metrics_log import MetricsLog
from advgan.training.queries import Queries
from advgan.training.query_plan import query_plan
from advgan.training.state import Stopwatch, TrainingState

keras = tf.keras
logger = logging.getLogger(__name__)
LOSS = "the distillation's loss"
Data = list[tuple[Any, Any]]
"""Images and the black box's answers on them, as tensors: clean ones, and adversarial ones where there are any."""


def build_distilled(image_shape: tuple[int, int, int], number_of_classes: int, config: Config) -> Any:
    """The distilled network, initialized from the seed alone; from images in [0, 1] to logits.

    Raises:
        ConfigurationError: its architecture cannot be built, or has batch normalization: f learns in inference mode,
            where moving statistics stay as they began, and a deep network then hardly learns.
    """
    keras.utils.set_random_seed(config.seed)
    key, settings = "distillation.architecture", config.distilled_settings
    network = build_classifier(image_shape, number_of_classes, settings, key)
    if network.non_trainable_weights:
        raise ConfigurationError(
            key,
            settings.architecture,
            "has batch normalization, whose statistics a distilled network does not learn (allowed: "
            f"{', '.join(WITH_A_CHOICE_OF_NORMALIZATION)}, or one of keras.applications without it, such as VGG16)",
        )
    return network


class Distillation:
    """The rounds of a black-box run: before the first epoch of each the black box is queried, and f trained.

    Args:
        state: the run's, f being its target.
        counter: the black box, counted.
        attack: the state's generator against f.
        dataset: the attacker's.
        config: the run's settings.
        folder: for the adversarial images of each round and their answers; a resumed run finds them there.
        log: where the numbers go.
    """

    def __init__(
        self,
        state: TrainingState,
        counter: QueryCounter,
        attack: AdvGANAttack,
        dataset: Dataset,
        config: Config,
        folder: Path,
        log: MetricsLog,
    ) -> None:
        self._state, self._counter, self._config, self._log = state, counter, config, log
        self.plan = query_plan(config, len(dataset.training), len(dataset.validation))
        self._queries = Queries(counter, attack, dataset.training.loaded(), config, self.plan, folder)
        self._steps_per_epoch = max(1, len(dataset.training) // config.distillation.batch_size)
        self._compiled_steps = _compiled_steps(state, config)

    def __call__(self, stop_requested: Callable[[], bool], save: Callable[[], None]) -> None:
        """Do what is left of the round that belongs before the coming epoch.

        Args:
            stop_requested: whether to stop; what was done is saved then.
            save: writes a checkpoint.

        Raises:
            Interrupted: a stop was requested, or the black box does not answer.
            NonFiniteError: the loss is NaN or infinite.
        """
        position, stopwatch = self._state.position, Stopwatch()
        if position.round > position.epoch // self._config.training.epochs:
            return
        data = self._queries.of_round(position.round, stop_requested)
        settings = self._config.distillation
        total = self._steps_per_epoch * (settings.first_epochs if position.round == 0 else settings.epochs)
        batches = self._batches(data, total)[position.round_step :]
        with closing(Progress("distilling", total, start=position.round_step)) as progress:
            every = self._config.output.checkpoint_every
            trainer = DistilledTrainer(self._state, data, self._compiled_steps, progress, every, save, stopwatch)
            run_steps(trainer, position.round_step + 1, batches, stop_requested)
        position.round, position.round_step = position.round + 1, 0
        position.other_changes += 1
        self._report(trainer.loss)
        trainer.save()

    def _batches(self, data: Data, total: int) -> np.ndarray:
        """The indices of each step of the round in each part of the data, int32 (steps, parts, batch size)."""
        seed = [self._config.seed, self._state.position.round]
        orders = [
            _batches(len(answers), self._config.distillation.batch_size, total, [*seed, part])
            for part, (_, answers) in enumerate(data)
        ]
        return np.stack(orders, axis=1)

    def _report(self, loss: float) -> None:
        """Log what the round came to."""
        position, spent, budget = self._state.position, self._counter.spent, self._counter.budget
        values = {"round": position.round, "loss_distillation": loss, "queries": spent}
        self._log.add("distillation", position.epoch + 1, position.step, values)
        rounds, ended = self._config.distillation.rounds, ""
        if budget is not None and position.round == rounds:
            rest = " (the rest is for validation)" if self.plan.validation else ""
            ended = f"; no training queries remain, the budget is {budget:,}{rest}"
        logger.info(f"round {position.round}/{rounds}: distilled, {spent:,} queries so far{ended}")


class DistilledTrainer(Trainer):
    """Trains f in one round.

    Args:
        state: the run's, f being its target.
        data: images and answers, one pair or more.
        compiled_steps: makes updates of f on the images with some indices.
        progress: what the user sees.
        checkpoint_every: steps between two checkpoints.
        save: writes a checkpoint.
        stopwatch: its time counts as the distillation's.
    """

    setting_at_fault = "distillation.learning_rate"
    step_name = "step {} of a distillation"

    def __init__(
        self,
        state: TrainingState,
        data: Data,
        compiled_steps: Callable[..., dict[str, np.ndarray]],
        progress: Progress,
        checkpoint_every: int,
        save: Callable[[], None],
        stopwatch: Stopwatch,
    ) -> None:
        self._position, self._data, self._compiled_steps, self._progress = (
            state.position,
            data,
            compiled_steps,
            progress,
        )
        self._save, self._stopwatch = save, stopwatch
        self.checkpoint_every = checkpoint_every
        self.loss = math.nan
        """The mean over the steps of the last report."""

    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Updates on the images with these indices in each part of the data."""
        values = self._compiled_steps(batches, first, self._data)
        self._position.round_step = first + len(batches) - 1
        self._position.other_changes += len(batches)
        return values

    def report(self, rows: list[dict[str, float]]) -> None:
        """Show the mean loss."""
        self.loss = means(rows)[LOSS]
        self._progress.advance(len(rows), f"loss {self.loss:.3f}")

    def save(self) -> None:
        """Write a checkpoint."""
        self._position.distillation_seconds += self._stopwatch.lap()
        self._save()


def distillation_step(
    network: Any,
    optimizer: Any,
    batches: list[tuple[Any, Any]],
    changed: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """One update of f: ``H(f(x), b(x))`` on clean images, plus the same on adversarial ones where there are any.

    Args:
        network, optimizer: f and its optimizer, updated in place.
        batches: images, float32 (n, height, width, channels) in [0, 1], and b's answers (n, classes), for each term.
        changed: what f learns in the place of the clean images, from these and the answers.

    Returns:
        The loss, a scalar.
    """
    answer, terms = forward_in_parts(network), []
    if changed is not None:
        (clean, of_clean), *others = batches
        batches = [(changed(clean, of_clean), of_clean), *others]
    with tf.GradientTape() as tape:
        for images, answers in batches:
            parts = split_batch(images, answers, parts_of(images.shape[0] or 0))
            scores = answer([part.images for part in parts], False)
            found = [
                {LOSS: losses.distillation_loss(logits, part.labels)}
                for part, logits in zip(parts, scores, strict=True)
            ]
            terms.append(means_over(parts, found)[LOSS])
        loss = tf.add_n(terms)
    gradients = replicas.means_of(tape.gradient(loss, network.trainable_variables))
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    return loss


def _compiled_steps(state: TrainingState, config: Config) -> Callable[..., dict[str, np.ndarray]]:
    epsilon = config.distillation.pgd_epsilon
    adversary = SeveralSteps(AdversarialTrainingSettings(method="pgd", epsilon=epsilon or 1.0), config.seed, 0)

    def step_on(indices: Any, number: Any, data: Data) -> dict[str, Any]:
        def changed(images: Any, answers: Any) -> Any:
            return adversary.attack(state.distilled, images, tf.argmax(answers, 1, tf.int32), number)

        batches = [gather_batch(*pair, replicas.share_of(indices[part])) for part, pair in enumerate(data)]
        learned = changed if epsilon else None
        return {LOSS: distillation_step(state.distilled, state.distilled_optimizer, batches, learned)}

    return several_steps(step_on)


def _batches(count: int, batch_size: int, steps: int, seed: list[int]) -> np.ndarray:
    """Indices below ``count`` for each step, int32 (steps, batch size): one shuffled pass after the other."""
    random = np.random.default_rng([*seed, 2])
    passes = [random.permutation(count) for _ in range(math.ceil(steps * batch_size / count))]
    return np.concatenate(passes)[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)
