"""Training images batch by batch: gathered from memory, or read from the disk while the step before is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from advgan import replicas
from advgan.data.batches import gather_batch, unit_range
from advgan.data.datasets import Split, StreamedSplit
from advgan.environment import cores
from advgan.errors import AdvGANError

Tensor = Any
BATCHES_AHEAD = 2


def batches_of(split: Split | StreamedSplit) -> Batches:
    """The batches of images, wherever those are."""
    if isinstance(split, StreamedSplit):
        return FromDisk(split, cores())
    return FromMemory(split.images, split.labels)


class Batches(ABC):
    """What a training step is given, and what it makes of that."""

    @abstractmethod
    def start(self, batches: np.ndarray) -> None:
        """Be ready for these batches, in their order.

        Args:
            batches: indices of images, (steps, batch size).
        """

    @abstractmethod
    def take(self, batches: np.ndarray) -> Any:
        """What the compiled steps are given for the next of the batches: arrays with an item for each step."""

    @abstractmethod
    def batch(self, given: Any) -> tuple[Tensor, Tensor]:
        """Inside the step, from what it was given: images as float32 in [0, 1], and their labels.

        Of several replicas each has its share.
        """


class FromMemory(Batches):
    """All images are in the memory of the device; a step is given indices."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._copies = []
        for device in replicas.devices_here() or ("",):  # each has its own, so that no step copies them
            with tf.device(device or None):
                self._copies.append((tf.constant(images), tf.constant(labels)))

    def start(self, batches: np.ndarray) -> None:
        """There is nothing to do."""

    def take(self, batches: np.ndarray) -> np.ndarray:
        """The indices."""
        return batches

    def batch(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Gathered."""
        images, labels = self._copies[replicas.number_here()]
        return gather_batch(images, labels, replicas.share_of(given))


class FromDisk(Batches):
    """Images are read by other threads, some batches ahead, in the order of the batches."""

    def __init__(self, split: StreamedSplit, threads: int) -> None:
        self._split, self._threads = split, threads
        self._next: Callable[[], np.ndarray] = lambda: np.empty(0)
        self._problem: AdvGANError | None = None

    def start(self, batches: np.ndarray) -> None:
        """Begin to read."""

        def read(indices: np.ndarray) -> np.ndarray:
            try:
                return self._split.reader.read(self._split.places[indices])
            except AdvGANError as problem:
                self._problem = problem
                raise

        kind = tf.as_dtype(self._split.reader.dtype)
        options = tf.data.Options()
        options.threading.private_threadpool_size = self._threads
        stream = (
            tf.data.Dataset.from_tensor_slices(batches)
            .map(lambda indices: tf.numpy_function(read, [indices], kind), self._threads, deterministic=True)
            .prefetch(BATCHES_AHEAD)
            .with_options(options)
            .as_numpy_iterator()
        )
        self._next = lambda: next(stream)

    def take(self, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next images, and their labels.

        Raises:
            AdvGANError: one cannot be read.
        """
        try:
            images = np.stack([self._next() for _ in batches])
        except tf.errors.OpError:
            if self._problem is None:
                raise
            raise self._problem from None
        return images, self._split.labels[batches]

    def batch(self, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As they are, in [0, 1]."""
        images, labels = given
        return unit_range(replicas.share_of(images)), replicas.share_of(labels)
