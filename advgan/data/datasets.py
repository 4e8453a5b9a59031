"""Images and labels, in memory or on the disk, and the three parts of a data set."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from advgan.data.batches import MOST_AT_ONCE, slices
from advgan.records.data_card import DataCard

GIB = 2**30
Shape = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True)
class Split:
    """Images of shape (n, height, width, channels), uint8 in 0..255 or float32 in [0, 1]; labels int32, shape (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: slice | np.ndarray) -> Split:
        """The images at these places."""
        return Split(self.images[places], self.labels[places])

    def first(self, count: int | None) -> Split:
        """The first ``count`` images, or all."""
        return self.at(slice(count))

    @property
    def image_shape(self) -> Shape:
        """Height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return int(height), int(width), int(channels)

    def digests(self) -> Iterator[bytes]:
        """Of the pixels of each image."""
        return map(pixel_digest, self.images)

    def loaded(self) -> Split:
        """The same in memory: itself."""
        return self


class ImageReader(Protocol):
    """Images of one shape on the disk."""

    shape: Shape
    dtype: np.dtype[Any]
    """uint8, or float32 in [0, 1]."""

    def read(self, places: np.ndarray) -> np.ndarray:
        """The images at these places, (n, height, width, channels).

        Raises:
            AdvGANError: a file is gone, damaged or no longer what it was.
        """

    def digests(self, places: np.ndarray) -> Iterator[bytes]:
        """Of the pixels of each image."""


@dataclass(frozen=True)
class StreamedSplit:
    """Images that are read when they are needed; what a ``Split`` is for images in memory."""

    reader: ImageReader
    places: np.ndarray
    labels: np.ndarray
    """int32, shape (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: slice | np.ndarray) -> StreamedSplit:
        """The images at these places; none is read."""
        return StreamedSplit(self.reader, self.places[places], self.labels[places])

    def first(self, count: int | None) -> StreamedSplit:
        """The first ``count`` images, or all."""
        return self.at(slice(count))

    @property
    def image_shape(self) -> Shape:
        """Height, width, channels."""
        return self.reader.shape

    @property
    def nbytes(self) -> int:
        """What the pixels would take in memory."""
        return len(self) * math.prod(self.reader.shape) * self.reader.dtype.itemsize

    def loaded(self) -> Split:
        """The same in memory."""
        images = np.empty((len(self), *self.reader.shape), self.reader.dtype)
        for part in slices(len(self), MOST_AT_ONCE):
            images[part] = self.reader.read(self.places[part])
        return Split(images, self.labels)

    def digests(self) -> Iterator[bytes]:
        """Of the pixels of each image."""
        return self.reader.digests(self.places)


AnySplit = Split | StreamedSplit


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, disjoint; the digest covers every pixel and label."""

    training: AnySplit
    validation: Split
    test: Split
    number_of_classes: int
    digest: str
    card: DataCard
    listing: Callable[[], str] | None = None
    """Of a folder: a line for each picture, its SHA-256 and its name, as ``sha256sum`` writes them."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, where they have names."""
        return self.card.class_names

    @property
    def classes_in_words(self) -> str:
        """How many classes there are, and those that no training or no test image belongs to."""
        empty = self.card.empty_classes
        return f"{self.number_of_classes} classes" + (f"; {empty}" if empty else "")

    @property
    def image_shape(self) -> Shape:
        """Height, width, channels."""
        return self.training.image_shape


def scaled(images: np.ndarray) -> np.ndarray:
    """Images as float32 in [0, 1]: uint8 is divided by 255, floats are already there."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


def divided(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Two datasets with disjoint training images: the first ``count``, and the others; the rest is the same."""
    training = dataset.training
    return replace(dataset, training=training.first(count)), replace(dataset, training=training.at(slice(count, None)))


def images_in_common(split: AnySplit, others: Iterable[AnySplit]) -> int:
    """How many images of a split are, pixel for pixel, among those of others."""
    there = {digest for other in others for digest in other.digests()}
    return sum(digest in there for digest in split.digests())


def pixel_digest(image: np.ndarray) -> bytes:
    """Of an image's pixels, (height, width, channels); of a grey one the same as of that in red, green and blue."""
    image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else np.ascontiguousarray(image)
    return hashlib.blake2b(image.data, digest_size=16).digest()
