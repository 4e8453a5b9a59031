"""Validation: success on held-out images chooses the best generator; and the discriminator's health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.checks import check_accuracy
from advgan.classifiers.query_counter import QueryCounter
from advgan.config.settings import Config
from advgan.data.datasets import Split, scaled
from advgan.errors import AdvGANError
from advgan.goals import Goal
from advgan.metrics import share
from advgan.perturbation import to_8_bits

DEAD = "the discriminator is dead"
DEAD_GAP = 0.02
"""D is called dead when its mean outputs on clean and adversarial images differ by less than this over an epoch."""
OVERWHELMING_ACCURACY = 0.995
"""D dominates when it is right this often, on clean and on adversarial images, over an epoch."""


class Validation(Protocol):
    """Measures the generator after each epoch; called with nothing."""

    within_first_epoch: bool
    """Whether it is to measure in the course of the first epoch too: where it is free, and its figures compare."""

    def __call__(self) -> dict[str, float]:
        """The generator's present ``validation_success``, in [0, 1], and what else is to be logged."""

    @staticmethod
    def improves(success: float, best: float) -> bool:
        """Whether a generator with this success is to be kept in the place of the best before it (-1 if none)."""


class TargetValidation:
    """The success rate on the validation images; the target's answers on the clean ones are computed once."""

    within_first_epoch = True

    def __init__(self, attack: AdvGANAttack, split: Split) -> None:
        self._attack, self._goal = attack, attack.goal
        self._images, self._labels = scaled(split.images), split.labels
        self._eligible = check_some_count(self._goal, self._labels, attack.classify(self._images))

    def __call__(self) -> dict[str, float]:
        """The generator's present success rate, in [0, 1]."""
        answers = self._attack.classify(self._attack.generate(self._images))
        return {"validation_success": share(self._goal.reached(self._labels, answers)[self._eligible]).rate}

    @staticmethod
    def improves(success: float, best: float) -> bool:
        """The earlier generator stays on a tie."""
        return success > best


class EachClassValidation:
    """The success rate of a generator conditioned on the wanted class: each validation image towards one of them.

    The classes take turns, so that the images of a class are led towards all the others.
    """

    within_first_epoch = True

    def __init__(self, attack: AdvGANAttack, classes: Sequence[int], split: Split) -> None:
        images, labels = scaled(split.images), split.labels
        clean = attack.classify(images)
        self._turns = []
        for place, wanted in enumerate(classes):
            led = attack.towards(wanted)
            mine = np.arange(place, len(labels), len(classes))
            counted = mine[led.goal.eligible(labels[mine], clean[mine])]
            if len(counted):
                self._turns.append((led, images[counted], labels[counted]))
        if not self._turns:
            raise AdvGANError("no validation image counts towards any of the classes; raise data.validation_images")

    def __call__(self) -> dict[str, float]:
        """The generator's present success rate, in [0, 1]."""
        found = [led.goal.reached(labels, led.classify(led.generate(images))) for led, images, labels in self._turns]
        return {"validation_success": share(np.concatenate(found)).rate}

    @staticmethod
    def improves(success: float, best: float) -> bool:
        """The earlier generator stays on a tie."""
        return success > best


class DistilledValidation:
    """The success rate on the validation images as the distilled network answers, without a query."""

    within_first_epoch = False

    def __init__(self, attack: AdvGANAttack, split: Split) -> None:
        self._attack, self._split = attack, split

    def __call__(self) -> dict[str, float]:
        """The generator's present success rate, in [0, 1], over the images that count for the network as it is now."""
        found = TargetValidation(self._attack, self._split)()
        return {**found, "validation_success_distilled": found["validation_success"]}

    @staticmethod
    def improves(success: float, best: float) -> bool:  # noqa: ARG004
        """Always: rates on a network that changes do not compare, and a later one knows the black box better."""
        return True


def check_some_count(goal: Goal, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Which validation images count for the success rate, given the classes that a target sees in the clean ones.

    Raises:
        AdvGANError: none does.
    """
    eligible = goal.eligible(labels, predictions)
    if not eligible.any():
        raise AdvGANError(
            f"none of the {len(labels)} validation images counts for a goal that is {goal}; "
            "set data.validation_split: by_class, or raise data.validation_images"
        )
    return eligible


def discriminator_health(values: dict[str, float]) -> str:
    """Say in words whether D has died or has won outright; empty when neither. Thresholds: the module's constants."""
    if abs(values["discriminator_gap"]) < DEAD_GAP:
        return (
            f"{DEAD}: its outputs on clean and adversarial images differ by less than {DEAD_GAP}; "
            "raise discriminator.learning_rate or discriminator.steps"
        )
    if min(values["discriminator_accuracy_real"], values["discriminator_accuracy_adversarial"]) > OVERWHELMING_ACCURACY:
        return (
            "the discriminator dominates: it separates clean from adversarial images more than "
            f"{OVERWHELMING_ACCURACY:.1%} of the time. Success is unaffected; for less visible changes raise "
            "loss.alpha and loss.beta and lower loss.c, as mnist_quiet.yaml does"
        )
    return ""


class BlackBoxValidation:
    """The generator's success on a few validation images, as the black box itself answers, within its allowance.

    Args:
        counter: the black box, counted.
        attack: the generator against the distilled network.
        split: the validation images.
        count: how many of them are queried.
        config: the run's settings.

    Raises:
        AdvGANError: none of them counts for the goal, or the black box does no better on them than chance.
    """

    within_first_epoch = False

    def __init__(self, counter: QueryCounter, attack: AdvGANAttack, split: Split, count: int, config: Config) -> None:
        self._counter, self._attack, self._goal = counter, attack, attack.goal
        self._images, self._labels = scaled(split.images[:count]), split.labels[:count]
        self._clean = counter.query(self._images, "validation").argmax(axis=1)
        judge_black_box(config, self._clean, split.first(count))
        self._eligible = self._goal.eligible(self._labels, self._clean)
        if not self._eligible.any():
            raise AdvGANError(
                f"the black box answers none of {count} validation images as the goal ({self._goal}) needs; does it "
                "take pixels in [0, 1], and number the classes as the labels do? Else raise oracle.validation_queries"
            )

    def __call__(self) -> dict[str, float]:
        """Success on the black box and on the distilled network, where they agree, and the queries so far."""
        clean = self._images
        adversarial = scaled(to_8_bits(clean, self._attack.generate(clean), self._attack.epsilon))
        answers = self._counter.query(adversarial, "validation").argmax(axis=1)
        distilled = self._attack.classify(adversarial)

        def success(predictions: np.ndarray) -> float:
            return share(self._goal.reached(self._labels, predictions)[self._eligible]).rate

        return {
            "validation_success": success(answers),
            "validation_success_distilled": success(distilled),
            "agreement_clean": share(self._attack.classify(clean) == self._clean).rate,
            "agreement_adversarial": share(distilled == answers).rate,
            "queries": self._counter.spent,
        }

    @staticmethod
    def improves(success: float, best: float) -> bool:
        """The later generator wins a tie: the network it was trained on knows the black box better."""
        return success >= best


def judge_black_box(config: Config, answers: np.ndarray, clean: Split) -> None:
    """Stop where a black box does no better than chance, by answers on clean images that were bought anyway.

    Args:
        config: the run's settings.
        answers: its classes, integers of shape (n,).
        clean: the n images.

    Raises:
        AdvGANError: it does not; unless ``target.check_accuracy`` is off.
    """
    check_accuracy(
        str(config.black_box), share(answers == clean.labels), clean.labels, clean.images, config.target.check_accuracy
    )
