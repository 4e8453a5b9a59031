"""The pixels that a classifier takes: its own range, and what it subtracts and divides by. Nothing else scales them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError
from advgan.perturbation import UNIT, Bounds


@dataclass(frozen=True)
class Pixels:
    """What a classifier takes: pixels within bounds, less a mean, divided by a standard deviation."""

    bounds: Bounds = UNIT
    """The smallest and the largest pixel value."""
    mean: tuple[float, ...] = ()
    """One number, or one for each channel, in the units of ``bounds``; none: 0."""
    std: tuple[float, ...] = ()
    """The same; none: 1."""

    def of(self, images: Any, given: Bounds = UNIT) -> Any:
        """Images as the classifier takes them.

        Args:
            images: float32, shape (n, height, width, channels), NumPy or TensorFlow.
            given: the smallest and the largest pixel value of the images.
        """
        if given != self.bounds:
            (low, high), (lowest, highest) = given, self.bounds
            images = (images - low) / (high - low) * (highest - lowest) + lowest
        if self.mean:
            images = images - np.array(self.mean, np.float32)
        if self.std:
            images = images / np.array(self.std, np.float32)
        return images

    def check_channels(self, channels: int) -> None:
        """Raise where there are several means or standard deviations, but not one for each channel.

        Raises:
            AdvGANError: that is so.
        """
        for key, values in (("target.mean", self.mean), ("target.std", self.std)):
            if len(values) not in (0, 1, channels):
                raise AdvGANError(
                    f"{key} has {len(values)} values, the images have {channels} channel{'s' * (channels != 1)}; give "
                    f"one number, or {channels}"
                )

    def __str__(self) -> str:
        parts = [as_text(self.bounds)]
        parts += [f"mean {as_text(self.mean)}"] if self.mean else []
        parts += [f"std {as_text(self.std)}"] if self.std else []
        return ", ".join(parts)


UNSCALED = Pixels()
"""Pixels in [0, 1], as they are."""


def as_text(values: Sequence[float]) -> str:
    """Numbers as a configuration has them: ``[0, 255]``."""
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def pixels_of(settings: TargetSettings) -> Pixels:
    """The pixels that a configuration states; in [0, 1] where they are still to be found."""
    return Pixels(settings.pixel_bounds, settings.mean or (), settings.std or ())
