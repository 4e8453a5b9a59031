"""A share of images and its interval, defined once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from advgan.goals import Goal


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
class PairedDifference:
    """How much more often one of two things happens than the other, on the same n images, with its 95 % interval."""

    first: Rate
    second: Rate
    only_first: int
    """On how many images the first happens and the second does not."""
    only_second: int
    difference: float
    low: float
    high: float

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> PairedDifference:
        """From booleans of shape (n,); the interval is Newcombe's (1998, method 10): Wilson's, with their correlation.

        All is 0 where n is 0.
        """
        one, other, n = share(first), share(second), len(first)
        both, neither = int((first & second).sum()), int((~first & ~second).sum())
        only_first, only_second = one.successes - both, other.successes - both
        product = one.successes * (n - one.successes) * other.successes * (n - other.successes)
        excess = both * neither - only_first * only_second
        correlation = 0.0
        if product:
            correlation = (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(product)

        def half(below: float, above: float) -> float:
            return math.sqrt(max(0.0, below**2 - 2 * correlation * below * above + above**2))

        difference = one.rate - other.rate
        low = difference - half(one.rate - one.low, other.high - other.rate)
        high = difference + half(one.high - one.rate, other.rate - other.low)
        return cls(one, other, only_first, only_second, difference, low, high)

    def __str__(self) -> str:
        return f"{100 * self.difference:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}] points"


def share(hits: np.ndarray) -> Rate:
    """How many of all: booleans of shape (n,)."""
    return Rate.of(int(hits.sum()), len(hits))


def success_rate(goal: Goal, labels: np.ndarray, clean: np.ndarray, answers: np.ndarray) -> Rate:
    """The share of the images that count on which the goal was reached.

    Args:
        goal: says which images count, and when it is reached.
        labels, clean, answers: classes, answers on the clean images and under attack; integers of shape (n,).
    """
    return share(goal.reached(labels, answers)[goal.eligible(labels, clean)])


def success_by_class(
    goal: Goal, labels: np.ndarray, clean: np.ndarray, answers: np.ndarray, classes: int
) -> list[Rate]:
    """The success rate on the images of each true class; the arguments are those of ``success_rate``."""
    return [
        success_rate(goal, labels[here], clean[here], answers[here])
        for here in (labels == label for label in range(classes))
    ]


def count_matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each true class (row) got each answer (column): int64, shape (classes, classes)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, answers), 1)
    return matrix
