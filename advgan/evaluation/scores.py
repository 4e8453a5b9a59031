"""Attack success rates, each with its count, its interval and the size of the perturbations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.classifier import Classifier
from advgan.data.datasets import Split, scaled
from advgan.metrics import Rate
from advgan.perturbation import measure, to_8_bits


@dataclass(frozen=True)
class AttackScore:
    """How an attack does on a set of images (the goal says which images count)."""

    clean_accuracy: Rate
    accuracy_under_attack: Rate
    success: Rate
    """Over the images that the goal counts."""
    success_8_bit: Rate
    """The same after rounding the adversarial images to 8 bits within the epsilon ball."""
    largest_linf: float
    """Over all images, in pixel units, measured in float64."""
    mean_l2: float
    """Over the images that the goal counts, in pixel units."""


def accuracy(classifier: Classifier, split: Split) -> Rate:
    """The share of images classified correctly."""
    correct = classifier.predict(scaled(split.images)) == split.labels
    return Rate.of(int(correct.sum()), len(correct))


def score_attack(attack: AdvGANAttack, split: Split) -> AttackScore:
    """Attack every image of a split once and count.

    Args:
        attack: a generator against a classifier, with its goal and epsilon.
        split: images and labels; the last batch counts whatever its size.
    """
    goal, labels, clean_images = attack.goal, split.labels, scaled(split.images)
    adversarial = attack.generate(clean_images)
    clean_predictions, predictions = attack.classify(clean_images), attack.classify(adversarial)
    predictions_8_bit = attack.classify(scaled(to_8_bits(clean_images, adversarial, attack.epsilon)))
    eligible = goal.eligible(labels, clean_predictions)
    norms = measure(clean_images, adversarial)

    def success(answers: np.ndarray) -> Rate:
        return Rate.of(int(goal.reached(labels, answers)[eligible].sum()), int(eligible.sum()))

    return AttackScore(
        clean_accuracy=Rate.of(int((clean_predictions == labels).sum()), len(labels)),
        accuracy_under_attack=Rate.of(int((predictions == labels).sum()), len(labels)),
        success=success(predictions),
        success_8_bit=success(predictions_8_bit),
        largest_linf=float(norms.linf.max()),
        mean_l2=float(norms.l2[eligible].mean()) if eligible.any() else 0.0,
    )
