"""Attack success rates, each with its count, its interval and the size of the perturbations."""

from __future__ import annotations

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.classifier import Classifier
from advgan.data.datasets import Split, scaled
from advgan.metrics import Rate, share, success_rate
from advgan.perturbation import measure, to_8_bits
from advgan.records.summary import AttackScore


def accuracy(classifier: Classifier, split: Split) -> Rate:
    """The share of images classified correctly."""
    return share(classifier.predict(scaled(split.images)) == split.labels)


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

    return AttackScore(
        clean_accuracy=share(clean_predictions == labels),
        accuracy_under_attack=share(predictions == labels),
        success=success_rate(goal, labels, clean_predictions, predictions),
        success_8_bit=success_rate(goal, labels, clean_predictions, predictions_8_bit),
        largest_linf=float(norms.linf.max()),
        mean_l2=float(norms.l2[eligible].mean()) if eligible.any() else 0.0,
    )
