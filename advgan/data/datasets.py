"""Datasets as arrays in memory, checked before anything is trained on them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from advgan.config import DataSettings
from advgan.errors import AdvGANError, ConfigurationError

MNIST_FILE = Path(__file__).parent / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
MOST_CLASSES = 100_000
KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Split:
    """Images of shape (n, height, width, channels), uint8 in 0..255 or float32 in [0, 1]; labels int32, shape (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first ``count`` images, or all."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, disjoint; the digest covers every pixel and label."""

    training: Split
    validation: Split
    test: Split
    number_of_classes: int
    digest: str

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
    images, labels = dataset.training.images, dataset.training.labels
    return (
        replace(dataset, training=Split(images[:count], labels[:count])),
        replace(dataset, training=Split(images[count:], labels[count:])),
    )


def images_in_common(split: Split, other: Split) -> int:
    """How many images of a split are, pixel for pixel, among those of another."""
    there = {image.tobytes() for image in other.images}
    return sum(image.tobytes() in there for image in split.images)


def load_dataset(settings: DataSettings) -> Dataset:
    """Load a dataset and split the validation images off the end of its training set.

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
    return Dataset(
        training=Split(everything.images[:split], everything.labels[:split]).first(settings.training_images),
        validation=Split(everything.images[split:], everything.labels[split:]),
        test=test.first(settings.test_images),
        number_of_classes=int(max(everything.labels.max(), test.labels.max())) + 1,
        digest=digest,
    )


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
            missing = [key for key in KEYS if key not in archive]
            arrays = {} if missing else {key: archive[key] for key in KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds objects, not numbers" if "pickle" in str(error) else error
        raise ConfigurationError("data.dataset", str(path), f"is not a readable .npz file: {reason}") from None
    if missing:
        raise ConfigurationError(
            "data.dataset", str(path), f"lacks {', '.join(missing)}; it should hold {', '.join(KEYS)}"
        )
    return _checked(arrays, str(path)), hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The arrays as (n, height, width, channels) and int32 labels, or a refusal that names the array at fault."""

    def refuse(key: str, problem: str) -> ConfigurationError:
        return ConfigurationError("data.dataset", source, f"{key} {problem}")

    for key in KEYS:
        if not isinstance(arrays[key], np.ndarray):
            raise refuse(key, "is not an array")
        if arrays[key].size == 0:
            raise refuse(key, "is empty")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.ndim == 3:
            images = images[..., np.newaxis]
        if images.ndim != 4:
            raise refuse(f"x_{part}", f"has shape {images.shape}; it should be (n, height, width, channels)")
        if images.dtype != np.uint8:
            if images.dtype.kind != "f":
                raise refuse(f"x_{part}", f"is {images.dtype}; it should be uint8 in 0..255 or floats in [0, 1]")
            if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
                raise refuse(f"x_{part}", "holds values outside [0, 1]; divide by 255, or store uint8")
            images = images.astype(np.float32)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0:
            raise refuse(f"y_{part}", f"should be {len(images)} class indices, integers from 0")
        if labels.max() >= MOST_CLASSES:
            raise refuse(f"y_{part}", f"has class {labels.max()}; class indices should be below {MOST_CLASSES:,}")
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images, labels.astype(np.int32)
    if arrays["y_train"].max() == arrays["y_train"].min():
        raise refuse("y_train", "has one class only; an attack needs two or more")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise refuse("x_test", f"has images of {arrays['x_test'].shape[1:]}, x_train of {arrays['x_train'].shape[1:]}")
    if arrays["x_train"].dtype != arrays["x_test"].dtype:
        raise refuse("x_test", f"is {arrays['x_test'].dtype}, x_train {arrays['x_train'].dtype}")
    return arrays
