"""What a classifier's answers are: logits, probabilities, per cent, or labels; and all but logits as probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np

from advgan.errors import AdvGANError

SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1 before they count as rounded or cut off."""
MOST_PER_CENT, LEAST_PER_CENT = 105.0, 75.0
"""What a row in per cent sums to at most, rounded to whole numbers, and half of the rows at least, cut off to a few."""
FLOOR = 1e-4
"""The least probability of a class in a row that was rounded or cut off: an answer of 0 there means small, not none."""
Kind = Literal["logits", "probabilities", "per cent"]


def kind_of(scores: np.ndarray) -> Kind:
    """What scores are, by their range: logits are not confined to [0, 1], nor do their rows sum to about 100.

    Rounded, cut off to the largest few, in half precision, or of one sigmoid for each class: all lie in [0, 1].

    Args:
        scores: of several images, shape (n, classes).
    """
    scores = scores.astype(np.float64)
    if not scores.size or not np.isfinite(scores).all() or scores.min() < -SUM_TOLERANCE:
        return "logits"
    if SUM_TOLERANCE < scores.max() <= 1 + SUM_TOLERANCE:  # all about 0 are logits of an untrained network
        return "probabilities"
    sums = scores.sum(axis=1)
    return "per cent" if sums.max() <= MOST_PER_CENT and np.median(sums) >= LEAST_PER_CENT else "logits"


def as_labels(answers: np.ndarray, images: int, classes: int, name: str) -> np.ndarray:
    """The class alone of a black box's answers, as one-hot rows: float32 of shape (images, classes).

    Whatever the scores are, logits too, the largest says the class; see ``as_probabilities``.

    Raises:
        AdvGANError: they are of another shape, or not finite.
    """
    if answers.shape == (images, classes) and np.isfinite(answers.astype(np.float64)).all():
        answers = answers.argmax(axis=1)
    return as_probabilities(answers, images, classes, name)[0]


def as_probabilities(answers: np.ndarray, images: int, classes: int, name: str) -> tuple[np.ndarray, str]:
    """A black box's answers as probabilities, float32 of shape (images, classes), and what had to be done to them.

    Per cent are divided by 100. A row that does not sum to 1 was rounded or cut off: what is missing is shared among
    the classes that were answered with 0, each class gets ``FLOOR`` at least, and the row is divided by its sum.

    Args:
        answers: probabilities or per cent (images, classes), or labels alone: integers of shape (images,).
        images: how many were sent.
        classes: how many the data have.
        name: of the black box.

    Returns:
        The probabilities, and a remark in words, empty where they are what was answered.

    Raises:
        AdvGANError: they are neither.
    """
    if answers.shape == (images,) and answers.dtype.kind in "iu":
        if images and not 0 <= answers.min() <= answers.max() < classes:
            wrong = answers.min() if answers.min() < 0 else answers.max()
            raise AdvGANError(f"{name} answers with class {wrong}; the data have {classes}, from 0")
        return np.eye(classes, dtype=np.float32)[answers], ""
    if answers.shape != (images, classes):
        raise AdvGANError(
            f"{name} answers {images} images with shape {answers.shape}; it should be probabilities "
            f"({images}, {classes}), or class numbers, integers ({images},)"
        )
    remarks, probabilities = [], answers.astype(np.float64)
    kind = kind_of(probabilities)
    if kind == "logits" and images:
        sums = probabilities.sum(axis=1)
        raise AdvGANError(
            f"{name} answers with no probabilities: rows sum to {sums.min():.4g} to {sums.max():.4g}, values from "
            f"{probabilities.min():.4g} to {probabilities.max():.4g}; it should answer with the softmax of its logits"
        )
    if kind == "per cent":
        probabilities /= 100
        remarks.append("are in per cent: divided by 100")
    inexact = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
    if inexact.any():
        probabilities[inexact] = _completed(probabilities[inexact])
        remarks.append("do not sum to 1, as if rounded or cut off: renormalized")
    return probabilities.astype(np.float32), " and ".join(remarks)


def _completed(rows: np.ndarray) -> np.ndarray:
    """Rows of rounded or cut probabilities with the missing share given to the classes at 0; each sums to 1."""
    zero = rows <= 0
    missing = np.maximum(1 - rows.sum(axis=1, keepdims=True), 0) / np.maximum(zero.sum(axis=1, keepdims=True), 1)
    filled = np.maximum(np.where(zero, missing, rows), FLOOR)
    return filled / filled.sum(axis=1, keepdims=True)
