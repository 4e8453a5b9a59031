"""A data set before it is divided: what every kind of source comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advgan.data.datasets import AnySplit


@dataclass(frozen=True)
class Source:
    """A data set as its maker divided it."""

    kind: str
    """What it is, in words."""
    digest: str
    training: AnySplit
    test: AnySplit | None = None
    validation: AnySplit | None = None
    class_names: tuple[str, ...] | None = None
    in_classes: bool = False
    """Whether its images lie class after class, so that the first ones are all of one class."""
    resized: str | None = None
    """How the images came to their size, where they had another."""
    listing: Callable[[], str] | None = None
    """Of a folder: a line for each picture, its SHA-256 and its name, as ``sha256sum`` writes them."""

    @property
    def splits(self) -> list[AnySplit]:
        """Those that there are."""
        return [split for split in (self.training, self.validation, self.test) if split is not None]
