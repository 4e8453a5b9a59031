"""Distillation: a network f learns to answer as a black box b does, which is asked about clean and adversarial images.

Static (one round): ``min_f E H(f(x), b(x))``, then G is trained against f. Dynamic: before each further round, with G
fixed, ``min_f E H(f(x), b(x)) + E H(f(x_A), b(x_A))``, x_A = x + G(x); f, G, D and their optimizers stay warm (Xiao et
al. 2018, section 3.3). f has no dropout while it learns: b's answers are soft already, and a resume stays exact.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan import losses
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.query_counter import CountedOracle
from advgan.config.settings import Config
from advgan.data.batches import gather_batch, images_at_once, slices
from advgan.data.datasets import Dataset, Split, scaled
from advgan.errors import Interrupted, NonFiniteError
from advgan.files import write_whole
from advgan.perturbation import to_8_bits
from advgan.training.metrics_log import MetricsLog
from advgan.training.progress import Progress
from advgan.training.query_plan import query_plan
from advgan.training.state import TrainingState
from advgan.training.validation import judge_black_box

keras = tf.keras
logger = logging.getLogger(__name__)
BATCHES_AT_ONCE = 4
"""Batches of images that are attacked and rounded in one go, which bounds the memory."""
STEPS_PER_REPORT = 10


def build_distilled(image_shape: tuple[int, int, int], number_of_classes: int, config: Config) -> Any:
    """The distilled network, initialized from the seed alone; from images in [0, 1] to logits."""
    keras.utils.set_random_seed(config.seed)
    return build_classifier(image_shape, number_of_classes, config.distilled_settings)


class Distillation:
    """The rounds of a black-box run: before the first epoch of each the black box is asked, and f trained.

    Args:
        state: the run's, f being its target.
        oracle: the black box, counted.
        attack: the state's generator.
        dataset: the attacker's.
        config: the run's settings.
        folder: for what was asked in each round; a resumed run finds it there.
        records: where the numbers go.
    """

    def __init__(
        self,
        state: TrainingState,
        oracle: CountedOracle,
        attack: AdvGANAttack,
        dataset: Dataset,
        config: Config,
        folder: Path,
        records: MetricsLog,
    ) -> None:
        self._state, self._oracle, self._attack, self._config = state, oracle, attack, config
        self._training, self._folder, self._records = dataset.training, folder, records
        self.plan = query_plan(config, len(dataset.training), len(dataset.validation))
        self._step_on = _compiled_step(state)

    def __call__(self, stop_requested: Callable[[], bool], save: Callable[[], None]) -> None:
        """Do what is left of the distillation that belongs before the coming epoch.

        Args:
            stop_requested: whether to stop; what was done is saved then.
            save: writes a checkpoint.

        Raises:
            Interrupted: a stop was requested, or the black box does not answer.
            NonFiniteError: the loss is NaN or infinite.
        """
        position = self._state.position
        due = 1 + position.epoch // self._config.training.epochs
        if position.round >= due:
            return
        begun = time.monotonic()

        def clock() -> None:
            nonlocal begun
            now = time.monotonic()
            position.distillation_seconds, begun = position.distillation_seconds + now - begun, now

        def keep() -> None:
            clock()
            save()

        loss = self._distil(self._asked(position.round, stop_requested), stop_requested, keep)
        position.round, position.round_step = position.round + 1, 0
        position.other_changes += 1
        clock()
        rounds, spent, budget = self._config.distillation.rounds, self._oracle.spent, self._oracle.budget
        values = {"round": position.round, "loss_distillation": loss, "queries": spent}
        self._records.add("distillation", position.epoch + 1, position.step, values)
        ended = ""
        if budget is not None and position.round == rounds:
            rest = " (the rest is for validation)" if self.plan.validation else ""
            ended = f"; nothing more is asked to train with, the budget is {budget:,}{rest}"
        logger.info(f"round {position.round}/{rounds}: distilled, {spent:,} queries so far{ended}")
        save()

    def _asked(self, number: int, stop_requested: Callable[[], bool]) -> list[tuple[Any, Any]]:
        """Images and answers to learn in a round: the clean ones, then all adversarial ones, as tensors."""
        clean = self._clean(stop_requested)
        if number == 0:
            return [clean]
        earlier = range(1, number) if self._config.distillation.replay else ()
        rounds = [*(self._round(index, stop_requested) for index in earlier), self._round(number, stop_requested)]
        return [clean, tuple(tf.constant(np.concatenate(parts)) for parts in zip(*rounds, strict=True))]

    def _clean(self, stop_requested: Callable[[], bool]) -> tuple[Any, Any]:
        images, labels = self._training.images, self._training.labels
        if self._config.distillation.clean_answers == "labels":
            return tf.constant(images), tf.one_hot(labels, self._oracle.classes)
        chosen = np.sort(_shuffled(len(images), self._config.seed, 0)[: self.plan.clean])
        answers = self._ask(scaled(images[chosen]), "clean", stop_requested)
        judge_black_box(self._config, answers.argmax(axis=1), Split(images[chosen], labels[chosen]))
        return tf.constant(images[chosen]), tf.constant(answers)

    def _round(self, number: int, stop_requested: Callable[[], bool]) -> tuple[np.ndarray, np.ndarray]:
        """What was asked about before a round: adversarial images, uint8, and answers; asked where it is not there."""
        path = self._folder / f"{number:03d}.npz"
        if not path.exists():
            images = self._chosen(number)
            answers = self._ask(scaled(images), "adversarial", stop_requested)
            self._folder.mkdir(exist_ok=True)
            write_whole(path, lambda beside: np.savez(beside, images=images, answers=answers))
        with np.load(path, allow_pickle=False) as archive:
            return archive["images"], archive["answers"]

    def _chosen(self, number: int) -> np.ndarray:
        """The adversarial images to ask about, rounded to the 256 levels of what can be sent."""
        count, everything = self.plan.adversarial[number - 1], self._training.images
        order = _shuffled(len(everything), self._config.seed, number)
        if self._config.distillation.choose == "uncertain" and count < len(everything):
            adversarial = self._adversarial(everything[order])
            unsure = np.argsort(_margins(self._state.networks.target, adversarial), kind="stable")[:count]
            return adversarial[np.sort(unsure)]
        return self._adversarial(everything[np.sort(order[:count])])

    def _adversarial(self, images: np.ndarray) -> np.ndarray:
        made = np.empty(images.shape, np.uint8)
        for part in slices(len(images), BATCHES_AT_ONCE * images_at_once(images.shape[1:])):
            clean = scaled(images[part])
            made[part] = to_8_bits(clean, self._attack.generate(clean), self._attack.epsilon)
        return made

    def _ask(self, images: np.ndarray, purpose: Any, stop_requested: Callable[[], bool]) -> np.ndarray:
        progress = Progress(f"asking ({purpose})", len(images), unit="image")

        def advance(count: int) -> None:
            progress.advance(count, f"{self._oracle.spent:,} queries so far")
            if stop_requested() and progress.done < len(images):
                raise Interrupted("stopped between two requests; the answers are kept")

        try:
            return self._oracle.ask(images, purpose, advance)
        finally:
            progress.close()

    def _distil(
        self, data: list[tuple[Any, Any]], stop_requested: Callable[[], bool], save: Callable[[], Any]
    ) -> float:
        """Train f from the position's step on; return the mean loss of the last steps."""
        config, position = self._config, self._state.position
        settings = config.distillation
        per_epoch = max(1, len(self._training) // settings.batch_size)
        total = per_epoch * (settings.first_epochs if position.round == 0 else settings.epochs)
        orders = [
            _batches(len(answers), settings.batch_size, total, [config.seed, position.round, part])
            for part, (_, answers) in enumerate(data)
        ]
        progress = Progress("distilling", total, start=position.round_step)
        waiting: list[Any] = []
        loss = math.nan
        try:
            while position.round_step < total:
                batches = [
                    (images, answers, tf.constant(order[position.round_step]))
                    for (images, answers), order in zip(data, orders, strict=True)
                ]
                waiting.append(self._step_on(batches))
                position.round_step += 1
                position.other_changes += 1
                last = position.round_step == total
                stopping = stop_requested() and not last
                due = position.round_step % config.output.checkpoint_every == 0 and not last
                if len(waiting) == STEPS_PER_REPORT or last or stopping or due:
                    values = [float(value) for value in waiting]
                    for number, value in enumerate(values, start=position.round_step - len(values) + 1):
                        if not math.isfinite(value):
                            raise NonFiniteError("the distillation's loss", number, "distillation.learning_rate")
                    loss = sum(values) / len(values)
                    progress.advance(len(values), f"loss {loss:.3f}")
                    waiting = []
                if due or stopping:
                    save()
                if stopping:
                    raise Interrupted(f"stopped at step {position.round_step} of a distillation; nothing is lost")
        finally:
            progress.close()
        return loss


def distillation_step(network: Any, optimizer: Any, batches: list[tuple[Any, Any]]) -> Any:
    """One update of f: ``H(f(x), b(x))`` on clean images, plus the same on adversarial ones where there are any.

    Args:
        network, optimizer: f and its optimizer, updated in place.
        batches: images, float32 (n, height, width, channels) in [0, 1], and b's answers (n, classes), for each term.

    Returns:
        The loss, a scalar.
    """
    with tf.GradientTape() as tape:
        terms = [losses.distillation_loss(network(images, training=False), answers) for images, answers in batches]
        loss = tf.add_n(terms)
    gradients = tape.gradient(loss, network.trainable_variables)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    return loss


def _compiled_step(state: TrainingState) -> Callable[[list[tuple[Any, Any, Any]]], Any]:
    @tf.function(reduce_retracing=True)
    def step_on(data: list[tuple[Any, Any, Any]]) -> Any:
        batches = [gather_batch(images, answers, indices) for images, answers, indices in data]
        return distillation_step(state.networks.target, state.distilled_optimizer, batches)

    return step_on


def _shuffled(count: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number, 1]).permutation(count)


def _batches(count: int, batch_size: int, steps: int, seed: list[int]) -> np.ndarray:
    """Indices below ``count`` for each step, int32 (steps, batch size): one shuffled pass after the other."""
    random = np.random.default_rng([*seed, 2])
    passes = [random.permutation(count) for _ in range(math.ceil(steps * batch_size / count))]
    return np.concatenate(passes)[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def _margins(network: Any, images: np.ndarray) -> np.ndarray:
    """How far f's best class is ahead of its second, in probability, for uint8 images; shape (n,)."""
    margins = np.empty(len(images), np.float32)
    for part in slices(len(images), BATCHES_AT_ONCE * images_at_once(images.shape[1:])):
        probabilities = tf.nn.softmax(network(tf.constant(scaled(images[part])), training=False))
        best = tf.math.top_k(probabilities, 2).values.numpy()
        margins[part] = best[:, 0] - best[:, 1]
    return margins
