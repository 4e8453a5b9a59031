"""Success against epsilon: the trained perturbation, scaled from nothing to the whole range of a pixel."""

from __future__ import annotations

import numpy as np

from advgan.attacks.baselines import Advance, Arrays
from advgan.classifiers.classifier import Classifier
from advgan.data.batches import images_at_once, slices
from advgan.goals import Goal
from advgan.metrics import success_rate
from advgan.records.evaluation import CurvePoint

POINTS = 20
"""Steps from 0 to 1."""


def epsilons_of_curve(epsilon: float) -> list[float]:
    """From 0 to 1 in steps of 1/20, and the trained epsilon among them."""
    return sorted({number / POINTS for number in range(POINTS + 1)} | {epsilon})


def scaled_attack(images: np.ndarray, raw: np.ndarray, factor: float) -> np.ndarray:
    """``clip(x + factor * p, 0, 1)``, p being what the generator adds.

    Args:
        images: x, float32 in [0, 1], shape (n, height, width, channels).
        raw: x + p, before the pixel box; same shape.
        factor: 1 for the trained epsilon.
    """
    return np.clip(images + np.float32(factor) * (raw - images), 0, 1)


def curve_answers(
    classifier: Classifier, images: np.ndarray, raw: np.ndarray, epsilon: float, advance: Advance
) -> Arrays:
    """What the classifier answers at each epsilon of the curve: ``answers``, int32, shape (epsilons, n)."""
    values = epsilons_of_curve(epsilon)
    answers = np.empty((len(values), len(images)), np.int32)
    for row, value in zip(answers, values, strict=True):
        for part in slices(len(images), images_at_once(images.shape[1:])):
            clean, changed = images[part], raw[part]
            made = np.clip(changed, 0, 1) if value == epsilon else scaled_attack(clean, changed, value / epsilon)
            row[part] = classifier.predict(made)
        advance(len(images))
    return {"answers": answers}


def success_curve(
    goal: Goal, labels: np.ndarray, clean: np.ndarray, answers: np.ndarray, epsilon: float
) -> list[CurvePoint]:
    """Count success at each epsilon.

    Args:
        goal, labels, clean: as for ``success_rate``.
        answers: from ``curve_answers``.
        epsilon: the trained one.
    """
    points: list[CurvePoint] = []
    for value, row in zip(epsilons_of_curve(epsilon), answers, strict=True):
        rate = success_rate(goal, labels, clean, row)
        falls = bool(points) and rate.rate < points[-1].success.rate
        clearly = falls and rate.high < max(point.success.low for point in points)
        points.append(CurvePoint(epsilon=value, success=rate, falls=falls, falls_clearly=clearly))
    return points
