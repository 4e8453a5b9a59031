"""What a classifier's answers are: logits, probabilities, per cent, or labels; and a black box's as probabilities."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from advgan.errors import AdvGANError
from advgan.files import read_json, write_json

SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1 before they count as rounded or cut off."""
MOST_PER_CENT, LEAST_PER_CENT = 105.0, 75.0
"""What a row in per cent sums to at most, rounded to whole numbers, and half of the rows at least, cut off to a few."""
FLOOR = 1e-4
"""The probability of a class that a rounded or cut row gives as 0, where nothing is missing: small, not none."""
DECIDED_BY = 100
"""Rows that decide what a black box answers with."""
Kind = Literal["logits", "probabilities", "per cent"]
IN_PER_CENT = "are in per cent: divided by 100"
INEXACT = "do not sum to 1, as if rounded or cut off: renormalized"


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


class AnswerReader:
    """A black box's answers as probabilities.

    Its first 100 rows decide for good whether it answers with probabilities, per cent or logits; until then those so
    far do. Per cent are divided by 100. A row that does not sum to 1 was rounded or cut off: what is missing is shared
    among the classes with 0, and the row is divided by its sum.

    Args:
        name: of the black box.
        classes: how many the data have.
        logits: whether it may answer with logits, which are then taken through a softmax.
        labels_only: whether of its scores only the class is used, whatever they are.
        file: where what was decided is kept, and found again; None for nowhere.
        writes: whether the file may be written.

    Raises:
        AdvGANError: the file is damaged.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        logits: bool,
        labels_only: bool = False,
        file: Path | None = None,
        writes: bool = True,
    ) -> None:
        self._name, self._classes, self._logits, self._labels_only = name, classes, logits, labels_only
        self._file, self._writes = file, writes
        self._kind: Kind | None = None
        self._one_unit_is_probability = True
        self._first = np.empty((0, classes))
        self.remarks: list[str] = []
        """What had to be done to the answers, in words."""
        if file is not None and file.is_file():
            kept = read_json(file, "kind", "remarks")
            self._kind, self.remarks = kept["kind"], list(kept["remarks"])
            self._one_unit_is_probability = self._kind != "logits"

    def read(self, answers: np.ndarray, images: int) -> np.ndarray:
        """Answers as probabilities: float32 of shape (images, classes).

        Args:
            answers: scores (images, classes), where there are two perhaps of class 1 alone, floats of shape (images,)
                or (images, 1); or labels alone: integers of these shapes.
            images: how many were sent.

        Raises:
            AdvGANError: they are neither.
        """
        name, classes = self._name, self._classes
        if answers.shape == (images, 1) and answers.dtype.kind in "iu":
            answers = answers[:, 0]
        if answers.shape == (images,) and answers.dtype.kind in "iu":
            return self._one_hot(answers)
        one_unit = classes == 2 and answers.dtype.kind == "f" and answers.shape in ((images,), (images, 1))
        if answers.shape != (images, classes) and not one_unit:
            raise AdvGANError(
                f"{name} returns shape {answers.shape} for {images} images; it should return probabilities "
                f"({images}, {classes}), or class numbers, integers ({images},)"
            )
        scores = answers.astype(np.float64)
        if one_unit:
            scores = self._of_one_unit(scores.reshape(-1, 1))
        if self._labels_only and np.isfinite(scores).all():
            return self._one_hot(scores.argmax(axis=1))
        kind = self._decided(scores)
        if kind == "logits" and self._logits:
            exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        elif images:
            probabilities = self._scaled(scores, kind)
        else:
            probabilities = scores
        if not np.isfinite(probabilities).all():
            raise self._no_probabilities(scores)
        return probabilities.astype(np.float32)

    def _one_hot(self, labels: np.ndarray) -> np.ndarray:
        if len(labels) and not 0 <= labels.min() <= labels.max() < self._classes:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise AdvGANError(f"{self._name} returns class {wrong} (allowed: 0 to {self._classes - 1})")
        return np.eye(self._classes, dtype=np.float32)[labels]

    def _of_one_unit(self, scores: np.ndarray) -> np.ndarray:
        """Scores of two classes where one is answered: the probability of class 1, or its logit."""
        within = scores.min(initial=0) >= -SUM_TOLERANCE and scores.max(initial=1) <= 1 + SUM_TOLERANCE
        self._one_unit_is_probability = self._one_unit_is_probability and bool(within)
        first = 1 - scores if self._one_unit_is_probability else np.zeros_like(scores)
        return np.concatenate([first, scores], axis=1)

    def _decided(self, scores: np.ndarray) -> Kind:
        if self._kind is not None:
            return self._kind
        self._first = np.concatenate([self._first, scores])
        kind = kind_of(self._first)
        if len(self._first) >= DECIDED_BY:
            self._kind = kind
            self._keep()
        return kind

    def _scaled(self, scores: np.ndarray, kind: Kind) -> np.ndarray:
        """Probabilities, or per cent, as probabilities whose rows sum to 1."""
        most = MOST_PER_CENT if kind == "per cent" else 1 + SUM_TOLERANCE
        if kind == "logits" or not (scores.min() >= -SUM_TOLERANCE and scores.max() <= most):
            raise self._no_probabilities(scores)
        if kind == "per cent":
            scores = scores / 100
            self._remark(IN_PER_CENT)
        inexact = np.abs(scores.sum(axis=1) - 1) > SUM_TOLERANCE
        if inexact.any():
            scores = scores.copy()
            scores[inexact] = _completed(scores[inexact])
            self._remark(INEXACT)
        return scores

    def _no_probabilities(self, scores: np.ndarray) -> AdvGANError:
        sums = scores.sum(axis=1)
        return AdvGANError(
            f"{self._name} does not return probabilities: rows sum to {sums.min():.4g} to {sums.max():.4g}, values "
            f"from {scores.min():.4g} to {scores.max():.4g}; it should answer with the softmax of its logits"
        )

    def _remark(self, remark: str) -> None:
        if remark not in self.remarks:
            self.remarks.append(remark)
            logging.getLogger(__name__).warning("The answers of %s %s", self._name, remark)
            self._keep()

    def _keep(self) -> None:
        if self._file is not None and self._writes:
            write_json(self._file, {"kind": self._kind, "remarks": self.remarks})


def _completed(rows: np.ndarray) -> np.ndarray:
    """Rows of rounded or cut probabilities with the missing share given to the classes at 0; each sums to 1.

    A class at 0 stays well below the smallest of the others, so the answer stays the same.
    """
    zero = rows <= 0
    missing = np.maximum(1 - rows.sum(axis=1, keepdims=True), 0) / np.maximum(zero.sum(axis=1, keepdims=True), 1)
    smallest = np.where(zero, np.inf, rows).min(axis=1, keepdims=True)
    share = np.where(np.isinf(smallest), 1.0, np.minimum(np.maximum(missing, FLOOR), smallest / 2))
    filled = np.where(zero, share, rows)
    return filled / filled.sum(axis=1, keepdims=True)
