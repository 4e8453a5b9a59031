"""Attack success rates, each with its count, its interval and the size of the perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.classifier import Classifier
from advgan.data.datasets import Split, scaled
from advgan.goals import Goal, Targeted
from advgan.metrics import Rate, share, success_by_class, success_rate
from advgan.perturbation import Norms, measure, to_8_bits
from advgan.records.summary import AttackScore, TowardsClass


def accuracy(classifier: Classifier, split: Split) -> Rate:
    """The share of images classified correctly."""
    return share(classifier.predict(scaled(split.images)) == split.labels)


class Answers(NamedTuple):
    """What the classifier makes of the images of an attack; integers of shape (n,)."""

    adversarial: np.ndarray
    rounded: np.ndarray
    """After rounding to 8 bits."""
    norms: Norms


def score_attack(attack: AdvGANAttack, split: Split) -> AttackScore:
    """Attack every image of a split once and count.

    Args:
        attack: a generator against a classifier, with its goal and epsilon.
        split: images and labels; the last batch counts whatever its size.
    """
    images = scaled(split.images)
    clean = attack.classify(images)
    return _counted(attack.goal, split.labels, clean, _attacked(attack, images))


def score_each_class(
    attack: AdvGANAttack, classes: Sequence[int], split: Split
) -> tuple[AttackScore, tuple[TowardsClass, ...]]:
    """Attack every image once towards each class.

    Args:
        attack: a generator conditioned on the wanted class, against a classifier.
        classes: those that are wanted.
        split: images and labels.

    Returns:
        The score over all pairs of an image and another class than its own (clean accuracy: over the images), and what
        each class comes to.
    """
    images, labels = scaled(split.images), split.labels
    clean, number = attack.classify(images), attack.number_of_classes
    found, towards = [], []
    for wanted in classes:
        led = attack.towards(wanted)
        answers = _attacked(led, images)
        found.append(answers)
        towards.append(
            TowardsClass(
                wanted=wanted,
                success=success_rate(led.goal, labels, clean, answers.adversarial),
                success_8_bit=success_rate(led.goal, labels, clean, answers.rounded),
                by_source=tuple(success_by_class(led.goal, labels, clean, answers.adversarial, number)),
            )
        )
    pairs = Targeted(np.repeat(classes, len(labels)))
    together = Answers(
        np.concatenate([each.adversarial for each in found]),
        np.concatenate([each.rounded for each in found]),
        Norms(
            *(
                np.concatenate(norms)
                for norms in zip(*((each.norms.linf, each.norms.l2, each.norms.l0) for each in found), strict=True)
            )
        ),
    )
    times = len(classes)
    score = _counted(pairs, np.tile(labels, times), np.tile(clean, times), together)
    others = [labels != wanted for wanted in classes]
    left = [(each.adversarial == labels)[here] for each, here in zip(found, others, strict=True)]
    score = replace(score, clean_accuracy=share(clean == labels), accuracy_under_attack=share(np.concatenate(left)))
    return score, tuple(towards)


def _attacked(attack: AdvGANAttack, images: np.ndarray) -> Answers:
    adversarial = attack.generate(images)
    rounded = scaled(to_8_bits(images, adversarial, attack.epsilon))
    return Answers(attack.classify(adversarial), attack.classify(rounded), measure(images, adversarial))


def _counted(goal: Goal, labels: np.ndarray, clean: np.ndarray, answers: Answers) -> AttackScore:
    eligible, norms = goal.eligible(labels, clean), answers.norms
    return AttackScore(
        clean_accuracy=share(clean == labels),
        accuracy_under_attack=share(answers.adversarial == labels),
        success=success_rate(goal, labels, clean, answers.adversarial),
        success_8_bit=success_rate(goal, labels, clean, answers.rounded),
        largest_linf=float(norms.linf.max()),
        mean_l2=float(norms.l2[eligible].mean()) if eligible.any() else 0.0,
    )
