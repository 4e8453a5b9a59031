"""What a black box is queried on in each round, and what it answered: the data of a distillation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.query_counter import Purpose, QueryCounter
from advgan.config.settings import Config
from advgan.data.batches import images_at_once, slices
from advgan.data.datasets import Split, scaled
from advgan.errors import Interrupted
from advgan.files import write_whole
from advgan.perturbation import to_8_bits
from advgan.progress import Progress
from advgan.training.query_plan import QueryPlan
from advgan.training.validation import judge_black_box

BATCHES_AT_ONCE = 4
"""Batches of images that are attacked and rounded in one go, which bounds the memory."""


class Queries:
    """Chooses images, has them answered, and keeps the adversarial ones with their answers.

    Args:
        counter: the black box, counted.
        attack: the generator against the distilled network.
        images: the attacker's training images.
        config: the run's settings.
        plan: how many images in each round.
        folder: for the adversarial images of each round and their answers; a resumed run finds them there.
    """

    def __init__(
        self, counter: QueryCounter, attack: AdvGANAttack, images: Split, config: Config, plan: QueryPlan, folder: Path
    ) -> None:
        self._counter, self._attack, self._images = counter, attack, images
        self._config, self._plan, self._folder = config, plan, folder

    def of_round(self, number: int, stop_requested: Callable[[], bool]) -> list[tuple[Any, Any]]:
        """Images and answers to learn in a round: the clean ones, then all adversarial ones, as tensors.

        Args:
            number: of the round, counted from 0; the first has no adversarial images.
            stop_requested: whether to stop, which is possible between two requests.

        Raises:
            Interrupted: a stop was requested, or the black box does not answer; the answers are kept.
        """
        clean = self._clean(stop_requested)
        if number == 0:
            return [clean]
        rounds = range(1, number + 1) if self._config.distillation.replay else [number]
        found = [self._adversarial(index, stop_requested) for index in rounds]
        return [clean, tuple(tf.constant(np.concatenate(parts)) for parts in zip(*found, strict=True))]

    def _clean(self, stop_requested: Callable[[], bool]) -> tuple[Any, Any]:
        images, labels = self._images.images, self._images.labels
        if self._config.distillation.clean_answers == "labels":
            return tf.constant(images), tf.one_hot(labels, self._counter.classes)
        chosen = np.sort(_shuffled(len(images), self._config.seed, 0)[: self._plan.clean])
        answers = self._query(scaled(images[chosen]), "clean", stop_requested)
        judge_black_box(self._config, answers.argmax(axis=1), Split(images[chosen], labels[chosen]))
        return tf.constant(images[chosen]), tf.constant(answers)

    def _adversarial(self, number: int, stop_requested: Callable[[], bool]) -> tuple[np.ndarray, np.ndarray]:
        """A round's adversarial images, uint8, and the answers on them; queried where they are not in the folder."""
        path = self._folder / f"{number:03d}.npz"
        if not path.exists():
            images = self._chosen(number)
            answers = self._query(scaled(images), "adversarial", stop_requested)
            self._folder.mkdir(exist_ok=True)
            write_whole(path, lambda temporary: np.savez(temporary, images=images, answers=answers))
        with np.load(path, allow_pickle=False) as archive:
            return archive["images"], archive["answers"]

    def _chosen(self, number: int) -> np.ndarray:
        """A round's adversarial images, rounded to the 256 levels of what can be sent."""
        count, everything = self._plan.adversarial[number - 1], self._images.images
        order = _shuffled(len(everything), self._config.seed, number)
        if self._config.distillation.choose == "uncertain" and count < len(everything):
            adversarial = self._attacked(everything[order])
            unsure = np.argsort(_margins(self._attack.target, adversarial), kind="stable")[:count]
            return adversarial[np.sort(unsure)]
        return self._attacked(everything[np.sort(order[:count])])

    def _attacked(self, images: np.ndarray) -> np.ndarray:
        made = np.empty(images.shape, np.uint8)
        for part in slices(len(images), BATCHES_AT_ONCE * images_at_once(images.shape[1:])):
            clean = scaled(images[part])
            made[part] = to_8_bits(clean, self._attack.generate(clean), self._attack.epsilon)
        return made

    def _query(self, images: np.ndarray, purpose: Purpose, stop_requested: Callable[[], bool]) -> np.ndarray:
        with closing(Progress(f"queries ({purpose})", len(images), unit="image")) as progress:

            def advance(count: int) -> None:
                progress.advance(count, f"{self._counter.spent:,} queries so far")
                if stop_requested() and progress.done < len(images):
                    raise Interrupted("stopped between two requests; the answers are kept")

            return self._counter.query(images, purpose, advance)


def _shuffled(count: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number, 1]).permutation(count)


def _margins(network: Any, images: np.ndarray) -> np.ndarray:
    """How far a network's best class is ahead of its second, in probability, for uint8 images; shape (n,)."""
    margins = np.empty(len(images), np.float32)
    for part in slices(len(images), BATCHES_AT_ONCE * images_at_once(images.shape[1:])):
        probabilities = tf.nn.softmax(network(tf.constant(scaled(images[part])), training=False))
        best = tf.math.top_k(probabilities, 2).values.numpy()
        margins[part] = best[:, 0] - best[:, 1]
    return margins
