"""What counts as success: one definition for the loss, the validation and the evaluation.

The methods take integer arrays of shape (n,), NumPy or TensorFlow alike, and return booleans of the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Array = Any
"""A NumPy array or a TensorFlow tensor."""


@dataclass(frozen=True)
class Untargeted:
    """The classifier should answer anything but the true class."""

    margin_sign = -1.0
    """The loss is ``margin_sign * (max_{i != k} s_i - s_k)``, k being ``margin_class``."""

    def eligible(self, labels: Array, clean_predictions: Array) -> Array:
        """Images that enter the success rate: those classified correctly when clean."""
        return clean_predictions == labels

    def reached(self, labels: Array, predictions: Array) -> Array:
        """Whether the prediction on an adversarial image is what the attacker wants."""
        return predictions != labels

    def margin_class(self, labels: Array) -> Array:
        """The class whose score the loss pushes down: the true one."""
        return labels

    def __str__(self) -> str:
        return "untargeted (any wrong class)"


@dataclass(frozen=True)
class Targeted:
    """The classifier should answer ``target_class``, a class index from 0; or another one for each image, (n,)."""

    target_class: int | Array
    margin_sign = 1.0

    def eligible(self, labels: Array, clean_predictions: Array) -> Array:
        """Images that enter the success rate: neither labelled nor classified as the target class when clean."""
        return (labels != self.target_class) & (clean_predictions != self.target_class)

    def reached(self, labels: Array, predictions: Array) -> Array:  # noqa: ARG002
        """Whether the prediction on an adversarial image is what the attacker wants."""
        return predictions == self.target_class

    def margin_class(self, labels: Array) -> Array:
        """The class whose score the loss pushes up: the target class."""
        return labels * 0 + self.target_class

    def __str__(self) -> str:
        return f"targeted (class {self.target_class})"


Goal = Untargeted | Targeted
