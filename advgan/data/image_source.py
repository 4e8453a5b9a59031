"""What an attack needs of images in files, whatever files hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from advgan.data.pictures import Shape

Advance = Callable[[int], None]


class Labels(NamedTuple):
    """The true classes of all images."""

    indices: np.ndarray
    """Class indices, shape (n,)."""
    names: tuple[str, ...] | None
    """The name of each class, in the order of their indices; None where classes have no names."""
    origin: str
    """Where they come from, in words."""


class Batch(NamedTuple):
    """Some consecutive images."""

    images: np.ndarray
    """Those that can be used: uint8, or floats in [0, 1], shape (n, height, width, channels)."""
    indices: list[int]
    """Which images these are."""
    problems: dict[int, str]
    """Which cannot be used, and why."""


class ImageSource(ABC):
    """Images in files, read a batch at a time, and the place of each in the output folder."""

    path: Path
    """What the user named."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What an image is called in the results."""

    @abstractmethod
    def output(self, index: int) -> str:
        """Where its adversarial image is, relative to the output folder."""

    @abstractmethod
    def check(self, shape: Shape, resize: bool, advance: Advance) -> str:
        """Look at every image before any work.

        Args:
            shape: height, width, channels of the run's images.
            resize: whether pictures of other shapes are converted.
            advance: receives how many images were looked at since the last call.

        Returns:
            SHA-256, in hex, of names and contents.

        Raises:
            ConfigurationError: the images do not fit the run.
        """

    @abstractmethod
    def labels(self, classes: int, names: Sequence[str] | None = None) -> Labels | None:
        """The true classes, or None where nothing tells them.

        Args:
            classes: how many classes the classifier tells apart.
            names: of these, where they are known.

        Raises:
            ConfigurationError: they do not fit the classifier.
        """

    @abstractmethod
    def read(self, part: slice, shape: Shape, resize: bool) -> Batch:
        """Read consecutive images."""

    @abstractmethod
    def start(self, folder: Path) -> bool:
        """Make the output folder ready; return whether what an earlier process wrote into it can be kept."""

    @abstractmethod
    def write(self, folder: Path, indices: list[int], images: np.ndarray) -> np.ndarray:
        """Write adversarial images; return them as read back from the files.

        Raises:
            OSError: they cannot be written.
        """

    @abstractmethod
    def read_back(self, folder: Path, index: int) -> np.ndarray:
        """One adversarial image as it is in the files, shape (height, width, channels)."""

    @abstractmethod
    def finish(self, folder: Path) -> None:
        """Put the output in its final place, whole; it may be called again."""

    @abstractmethod
    def clean(self, folder: Path) -> None:
        """Remove what only an unfinished output holds."""
