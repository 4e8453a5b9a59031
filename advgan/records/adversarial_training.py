"""What an adversarial training came to, epoch by epoch, and how the classifier then resists."""

from __future__ import annotations

from advgan.metrics import Rate
from advgan.records.record import Part

OVERFITTED = 0.5
"""With less than this share of its accuracy under the attack of its training left under PGD, it resists that alone."""


class TrainingEpoch(Part):
    """An epoch of an adversarial training; accuracies are shares in [0, 1]."""

    epoch: int
    """Counted from 1."""
    loss: float
    accuracy_in_training: float
    """On the adversarial images that it learned, as it was when it learned each."""
    accuracy_clean: float
    """On validation images, as is the next."""
    accuracy_pgd: float
    kept: bool
    """Whether the classifier is the one after this epoch."""
    seconds: float
    """Of the training so far."""

    @property
    def overfitted(self) -> bool:
        """Whether it resists the attack of its training, and PGD far less."""
        return self.accuracy_pgd < OVERFITTED * self.accuracy_in_training

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy_in_training:.2%} under the attack it is trained with; on validation images "
            f"{self.accuracy_clean:.2%} clean, {self.accuracy_pgd:.2%} under PGD"
        )


class Robustness(Part):
    """Accuracy that attacks at the epsilon of its training leave a classifier on the first test images."""

    epsilon: float
    clean: Rate
    fgsm: Rate
    pgd_cross_entropy: Rate
    """PGD with 40 steps of epsilon / 30 from a random start."""
    pgd_margin: Rate
    """The same along the margin of logits."""
    pgd: Rate
    """Of the images that neither of the two changes the answer on."""

    def __str__(self) -> str:
        return (
            f"clean {self.clean.rate:.2%}, FGSM {self.fgsm.rate:.2%}, PGD-40 {self.pgd_cross_entropy.rate:.2%} "
            f"(cross-entropy), {self.pgd_margin.rate:.2%} (margin), {self.pgd} (both)"
        )


class Defence(Part):
    """Of a target that was trained to resist."""

    method: str
    epochs: tuple[TrainingEpoch, ...]
    robustness: Robustness
