"""The classifiers that an evaluation asks: functions from images to logits, each with its name and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.data.batches import slices
from advgan.errors import AdvGANError
from advgan.runs import load_network

BATCH_SIZE = 500
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Classifier:
    """A classifier as attacks see it."""

    name: str
    """What the user calls it."""
    scores: Callable[[Any], Any]
    """From float32 images in [0, 1], shape (n, height, width, channels), to logits (n, classes)."""
    digest: str
    """SHA-256 of what determines its answers."""

    def answers(self, images: np.ndarray) -> np.ndarray:
        """The class it gives each image, int32 of shape (n,), batch by batch."""
        answers = np.empty(len(images), np.int32)
        for part in slices(len(images), BATCH_SIZE):
            batch = tf.constant(images[part].astype(np.float32, copy=False))
            answers[part] = np.argmax(self.scores(batch), axis=-1)
        return answers


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def network_classifier(path: Path, shape: Shape, remedy: str) -> Classifier:
    """A Keras classifier from a ``.keras`` file, frozen, in inference mode and compiled.

    Args:
        path: the file.
        shape: of one image.
        remedy: what the user should do when it cannot be loaded.

    Raises:
        AdvGANError: it cannot be loaded, or does not fit the images.
    """
    network = load_network(path, remedy)
    takes = tuple(getattr(network, "input_shape", None) or ())
    if len(takes) != 4 or any(size not in (None, here) for size, here in zip(takes[1:], shape, strict=True)):
        raise AdvGANError(f"{path} takes images of {takes[1:]}, the run's are {shape}; give a classifier of such images")

    def scores(images: Any) -> Any:
        return network(images, training=False)

    compiled = tf.function(scores, input_signature=[tf.TensorSpec([None, *shape], tf.float32)])
    return Classifier(str(path), compiled, file_digest(path))
