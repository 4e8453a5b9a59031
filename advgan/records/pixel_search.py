"""``pixels.json``: which pixels a classifier of the user's own takes, by its clean accuracy on validation images."""

from __future__ import annotations

from advgan.metrics import Rate
from advgan.records.record import Part, Record


class TriedPixels(Part):
    """One pixel range that was tried."""

    name: str
    bounds: tuple[float, float]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    accuracy: Rate
    """Over the clean validation images."""


class PixelSearch(Record):
    """The pixel ranges that were tried on a classifier, and the one that was taken."""

    version: int = 1
    classifier: str
    images: int
    """How many validation images."""
    tried: tuple[TriedPixels, ...]
    taken: int
    """The place in ``tried``."""
    decided: bool
    """Whether its interval lies above every other's; else it is [0, 1], or the highest where that is clearly worse."""
    reason: str
    remarks: tuple[str, ...] = ()
    """What else the accuracies show: labels shifted by one, channels in BGR order. Nothing is changed for it."""
