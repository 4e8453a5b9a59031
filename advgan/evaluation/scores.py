"""Attack success rates, each with its count, its interval and the size of the perturbations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.attacks.advgan_attack import BATCH_SIZE, AdvGANAttack
from advgan.data.batches import slices
from advgan.data.datasets import Split, scaled
from advgan.perturbation import measure, to_8_bits


@dataclass(frozen=True)
class Rate:
    """A share of n images, with its Wilson 95 % interval; all 0 where n is 0."""

    successes: int
    n: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, n: int) -> Rate:
        """Build a rate from two counts (Wilson 1927, z = 1.96)."""
        if n == 0:
            return cls(0, 0, 0.0, 0.0, 0.0)
        z = 1.959963984540054
        share = successes / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        # At 0 and at n the interval ends there; the arithmetic misses it by a rounding error.
        low = 0.0 if successes == 0 else max(0.0, centre - half)
        high = 1.0 if successes == n else min(1.0, centre + half)
        return cls(successes, n, share, low, high)

    def __str__(self) -> str:
        return f"{self.rate:.2%} [{self.low:.2%}, {self.high:.2%}] of {self.n:,}"


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


def accuracy(classifier: Any, split: Split) -> Rate:
    """The share of images classified correctly; the last batch counts whatever its size."""
    correct = 0
    for part in slices(len(split), BATCH_SIZE):
        logits = classifier(tf.constant(scaled(split.images[part])), training=False)
        correct += int((np.argmax(logits.numpy(), axis=-1) == split.labels[part]).sum())
    return Rate.of(correct, len(split))


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
