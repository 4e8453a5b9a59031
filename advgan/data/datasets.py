"""Datasets as arrays in memory, checked before anything is trained on them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from advgan.config.settings import DataSettings
from advgan.errors import AdvGANError, ConfigurationError
from advgan.perturbation import FLOAT_TOLERANCE

MNIST_FILE = Path(__file__).parent / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
MOST_CLASSES = 100_000
MOST_CHANNELS = 4
"""No image that a network here takes is so low, so a second axis of this size holds channels."""
MOST_STRAY_LABELS = 0.01
"""The share of labels that may be mistakes."""
KEYS = ("x_train", "y_train", "x_test", "y_test")


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

    def joined(self, other: Split) -> Split:
        """These images, then those of another split."""
        return Split(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))

    def first(self, count: int | None) -> Split:
        """The first ``count`` images, or all."""
        return self.at(slice(count))


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, disjoint; the digest covers every pixel and label."""

    training: Split
    validation: Split
    test: Split
    number_of_classes: int
    digest: str

    @property
    def classes_in_words(self) -> str:
        """How many classes there are, and those that no training or no test image belongs to."""
        counts = [np.bincount(split.labels, minlength=self.number_of_classes) for split in (self.training, self.test)]
        found = f"{self.number_of_classes} classes"
        for name, count in zip(("training", "test"), counts, strict=True):
            if len(empty := np.flatnonzero(count == 0)):
                listed = ", ".join(map(str, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
                found += f"; no {name} image of class {listed}"
        return found

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.training.images.shape[1:]
        return int(height), int(width), int(channels)


def scaled(images: np.ndarray) -> np.ndarray:
    """Images as float32 in [0, 1]: uint8 is divided by 255, floats are already there."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


def divided(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Two datasets with disjoint training images: the first ``count``, and the others; the rest is the same."""
    training = dataset.training
    return replace(dataset, training=training.first(count)), replace(dataset, training=training.at(slice(count, None)))


def images_in_common(split: Split, others: Iterable[Split]) -> int:
    """How many images of a split are, pixel for pixel, among those of others."""
    there = {_image_digest(image) for other in others for image in other.images}
    return sum(_image_digest(image) in there for image in split.images)


def _image_digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def load_dataset(settings: DataSettings, first_apart: int = 0) -> Dataset:
    """Load a dataset and take the validation images out of its training set.

    Args:
        settings: of the data.
        first_apart: so many images, the first of the file, stay the first of the training images, and none of them
            validates: those that a black box of the user's own was trained on.

    Raises:
        ConfigurationError: the file is missing, or its arrays cannot be used, or there are too few images.
        AdvGANError: the MNIST file that ships with the package is damaged.
    """
    arrays, digest = _mnist() if settings.dataset == "mnist" else _archive(Path(settings.dataset))
    everything = Split(arrays["x_train"], arrays["y_train"])
    test = Split(arrays["x_test"], arrays["y_test"])
    split = len(everything) - settings.validation_images
    if split < 1:
        raise ConfigurationError(
            "data.validation_images",
            settings.validation_images,
            f"leaves nothing to train on; the training set has {len(everything)} images (allowed: 1 to "
            f"{len(everything) - 1})",
        )
    for key, wanted, available in (
        ("training_images", settings.training_images, split),
        ("test_images", settings.test_images, len(test)),
    ):
        if wanted is not None and wanted > available:
            raise ConfigurationError(f"data.{key}", wanted, f"there are {available} (allowed: 1 to {available})")
    training, validation = everything.at(slice(None, split)), everything.at(slice(split, None))
    if settings.validation_split == "by_class":
        first_apart = min(first_apart, split - 1)  # else too few are left, which is said where the data are divided
        drawn = _by_class(everything.labels[first_apart:], len(validation), settings.split_seed)
        training, validation = (everything.at(first_apart + places) for places in drawn)
        if first_apart:
            training = everything.first(first_apart).joined(training)
    return Dataset(
        training=training.first(settings.training_images),
        validation=validation,
        test=test.first(settings.test_images),
        number_of_classes=int(max(everything.labels.max(), test.labels.max())) + 1,
        digest=digest,
    )


def _by_class(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the validation images: of each class the same share, all in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    counts = np.bincount(labels)
    wanted = counts * (count / len(labels))
    chosen = np.floor(wanted).astype(int)
    # One more of the classes with the largest remainders; last of those that would have no training image then.
    chosen[np.lexsort((chosen - wanted, chosen + 1 >= counts))[: count - chosen.sum()]] += 1
    validation = np.zeros(len(labels), bool)
    for label in np.flatnonzero(chosen):
        validation[order[labels[order] == label][: chosen[label]]] = True
    return order[~validation[order]], order[validation[order]]


def _mnist() -> tuple[dict[str, np.ndarray], str]:
    content = MNIST_FILE.read_bytes() if MNIST_FILE.exists() else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_SHA256:
        raise AdvGANError(f"{MNIST_FILE} is missing or damaged (its SHA-256 differs); install the package again")
    with np.load(MNIST_FILE, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in KEYS}
    return _checked(arrays, str(MNIST_FILE)), digest


def _archive(path: Path) -> tuple[dict[str, np.ndarray], str]:
    if not path.is_file():
        raise ConfigurationError("data.dataset", str(path), "is neither mnist nor an .npz file that exists")
    try:
        if not zipfile.is_zipfile(path):
            raise ConfigurationError("data.dataset", str(path), "is not an .npz file (numpy.savez makes one)")
        with np.load(path, allow_pickle=False) as archive:
            missing, there = [key for key in KEYS if key not in archive], ", ".join(archive.files[:8])
            arrays = {} if missing else {key: archive[key] for key in KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds objects, not numbers" if "pickle" in str(error) else error
        raise ConfigurationError("data.dataset", str(path), f"is not a readable .npz file: {reason}") from None
    if missing:
        lacks = f"lacks {', '.join(missing)} (it holds {there or 'nothing'})"
        raise ConfigurationError("data.dataset", str(path), f"{lacks}; it should hold {', '.join(KEYS)}")
    return _checked(arrays, str(path)), hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The arrays as (n, height, width, channels) and int32 labels.

    Raises:
        ConfigurationError: an array cannot be used; the message names it, and the fix for what it holds.
    """

    def refuse(key: str, problem: str) -> ConfigurationError:
        return ConfigurationError("data.dataset", source, f"{key} {problem}")

    for key in KEYS:
        if not isinstance(arrays[key], np.ndarray):
            raise refuse(key, "is not an array")
        if arrays[key].size == 0:
            raise refuse(key, "is empty")
        try:
            arrays[key] = _images(arrays[key]) if key.startswith("x_") else checked_labels(arrays[key])
        except ValueError as problem:
            raise refuse(key, str(problem)) from None
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(images) != len(labels):
            raise refuse(
                f"y_{part}", f"has {len(labels)} labels for {len(images)} images; there should be one for each"
            )
    if arrays["y_train"].max() == arrays["y_train"].min():
        raise refuse("y_train", "has one class only; an attack needs two or more")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise refuse("x_test", f"has images of {arrays['x_test'].shape[1:]}, x_train of {arrays['x_train'].shape[1:]}")
    if arrays["x_train"].dtype != arrays["x_test"].dtype:
        raise refuse("x_test", f"is {arrays['x_test'].dtype}, x_train {arrays['x_train'].dtype}")
    if stray := _stray_label(arrays):
        raise refuse(*stray)
    return arrays


def _images(images: np.ndarray) -> np.ndarray:
    """Images as uint8 or float32 in [0, 1], shape (n, height, width, channels).

    Raises:
        ValueError: they cannot be meant; the message says what they are and how to store them.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise ValueError(f"has shape {images.shape}; it should be (n, height, width, channels)")
    if images.shape[1] <= MOST_CHANNELS < images.shape[3]:
        raise ValueError(f"has shape {images.shape}: channels come first; store numpy.moveaxis(images, 1, -1)")
    return checked_pixels(images)


def checked_pixels(images: np.ndarray) -> np.ndarray:
    """Images of any shape as uint8, or as float32 in [0, 1].

    Raises:
        ValueError: they cannot be meant; the message says what they are and how to store them.
    """
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"is {images.dtype}; it should be uint8 in 0..255 or floats in [0, 1]")
    if not np.isfinite(images).all():
        raise ValueError("holds NaN or infinity; every pixel should be a number from 0 to 1")
    low, high = float(images.min()), float(images.max())
    if low < -FLOAT_TOLERANCE or high > 1 + FLOAT_TOLERANCE:
        fix = "store the pixels as they were before they were standardized, in [0, 1] or as uint8"
        if low >= 0 and high <= 255:
            fix = "divide by 255, or store uint8"
        elif -1 - FLOAT_TOLERANCE <= low < -0.5 and high <= 1 + FLOAT_TOLERANCE:
            fix = "store (images + 1) / 2"
        raise ValueError(f"holds values outside [0, 1], from {low:.4g} to {high:.4g}; {fix}")
    return np.clip(images.astype(np.float32), 0, 1)  # a rounding error of a division is none of the user's


def checked_labels(labels: np.ndarray) -> np.ndarray:
    """Class indices, int32 of shape (n,).

    Raises:
        ValueError: they are none; the message says how to make them.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    should = "it should hold class indices, integers from 0"
    if labels.ndim == 2 and labels.dtype.kind in "iufb" and (np.count_nonzero(labels, axis=1) == 1).all():
        raise ValueError(f"has one-hot rows; {should}: store labels.argmax(axis=1)")
    if labels.ndim != 1:
        raise ValueError(f"has shape {labels.shape}; {should}, one for each image")
    if labels.dtype.kind in "US":
        raise ValueError(
            f"holds text; {should}: number the classes of y_train and y_test together, such as by "
            "numpy.searchsorted(numpy.unique(y_train), labels)"
        )
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        raise ValueError(f"is {labels.dtype}; {should}: store labels.astype(int)")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"is {labels.dtype}; {should}")
    if labels.min() < 0:
        raise ValueError(f"has class {labels.min()} at index {int(labels.argmin())}; {should}")
    if labels.max() >= MOST_CLASSES:
        raise ValueError(f"has class {labels.max()} at index {int(labels.argmax())}; the most is {MOST_CLASSES - 1:,}")
    return labels.astype(np.int32)


def _stray_label(arrays: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """The array and the problem where a few labels lie above all others, across a gap such as there is no other of."""
    labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
    classes = np.unique(labels)
    widest = int(classes[0])  # run of classes without an image so far
    for below, above in pairwise(classes.tolist()):
        gap = above - below - 1
        if gap >= 2 and gap > 2 * widest and np.mean(labels > below) <= MOST_STRAY_LABELS:
            key = "y_train" if (arrays["y_train"] > below).any() else "y_test"
            index = int(np.argmax(arrays[key] > below))
            problem = f"has class {arrays[key][index]} at index {index}, above a gap: the others are up to {below}"
            return key, f"{problem}; correct or remove it, or number the classes without gaps"
        widest = max(widest, gap)
    return None
