"""What can be named as a data set: one that ships, one of Keras's, an .npz file, a folder of pictures, one of TFDS."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from advgan.config.settings import DataSettings
from advgan.config.values import KERAS_DATASETS, TFDS_PREFIX
from advgan.data import keras_datasets
from advgan.data.arrays import checked_arrays, checked_pixels
from advgan.data.batches import MOST_AT_ONCE, slices
from advgan.data.datasets import GIB, AnySplit, Shape, Split, StreamedSplit, pixel_digest
from advgan.data.folders import open_folder
from advgan.data.keras_datasets import KEYS
from advgan.data.pictures import resized, shape_text
from advgan.data.source import Source
from advgan.errors import AdvGANError, ConfigurationError
from advgan.files import file_digest, whole_directory
from advgan.progress import Progress

MNIST_FILE = Path(__file__).parent / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
OWN_VALIDATION = ("x_val", "y_val")
MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels")
"""The keys of MedMNIST, in the order of the two above."""


def open_source(settings: DataSettings) -> Source:
    """Find what a configuration names.

    Raises:
        ConfigurationError: it is not there, or cannot be used; the message names the array or the file, and the fix.
        AdvGANError: a file that ships with the package or that Keras keeps is damaged.
    """
    named = settings.dataset
    if named == "mnist":
        return _mnist(settings)
    if named in KERAS_DATASETS:
        arrays, digest = keras_datasets.load(named)
        return replace(
            _from_arrays(arrays, named, "a data set of Keras", digest, settings),
            class_names=keras_datasets.CLASS_NAMES[named],
        )
    if named.startswith(TFDS_PREFIX):
        return _tfds(named.removeprefix(TFDS_PREFIX), settings)
    path = Path(named)
    if path.is_dir():
        return open_folder(path, settings)
    return _archive(path, settings)


def _mnist(settings: DataSettings) -> Source:
    content = MNIST_FILE.read_bytes() if MNIST_FILE.exists() else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_SHA256:
        raise AdvGANError(f"{MNIST_FILE} is missing or damaged (its SHA-256 differs); install the package again")
    with np.load(MNIST_FILE, allow_pickle=False) as archive:
        found = {key: archive[key] for key in KEYS}
    return _from_arrays(found, str(MNIST_FILE), "MNIST, which ships with the package", digest, settings)


def _from_arrays(
    found: Mapping[str, Any], source: str, kind: str, digest: str, settings: DataSettings, names: Any = None
) -> Source:
    """A source of checked arrays, resized where that is wanted."""
    held, names = checked_arrays(dict(found), source)
    shapes = {key: shape_text(images.shape[1:]) for key, images in held.items() if key.startswith("x_")}
    resized = None
    if settings.image_size is not None and held["x_train"].shape[1:3] != settings.image_size:
        resized = f"from {shapes['x_train']} by bicubic interpolation"
    splits = {}
    for part in ("train", "test", "val"):
        if f"x_{part}" in held:
            splits[part] = _split(held[f"x_{part}"], held[f"y_{part}"], settings)
    return Source(kind, digest, splits["train"], splits["test"], splits.get("val"), names, resized=resized)


def _split(images: np.ndarray, labels: np.ndarray, settings: DataSettings) -> AnySplit:
    shape = (*(settings.image_size or images.shape[1:3]), images.shape[3])
    resized_bytes = len(images) * math.prod(shape) * images.itemsize
    if isinstance(images, np.memmap) or (images.shape[1:] != shape and resized_bytes > settings.memory * GIB):
        return StreamedSplit(ArrayReader(images, shape), np.arange(len(labels)), labels)
    return Split(_resized(images, shape), labels)


def _resized(images: np.ndarray, shape: Shape) -> np.ndarray:
    if images.shape[1:] == shape:
        return images
    return np.stack([resized(image, shape) for image in images])


class ArrayReader:
    """Images in a file that is mapped into memory, or in memory where they would be too large when resized."""

    def __init__(self, images: np.ndarray, shape: Shape) -> None:
        self._images, self.shape = images, shape
        self.dtype = np.dtype(np.uint8 if images.dtype == np.uint8 else np.float32)
        self._file = Path(str(images.filename)) if isinstance(images, np.memmap) else None
        self._state = self._state_of_file()

    def _state_of_file(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError as error:
            raise AdvGANError(f"{self._file} cannot be read any more ({error.strerror})") from None
        return status.st_size, status.st_ctime_ns

    def read(self, places: np.ndarray) -> np.ndarray:
        """The images at these places, of the shape that is wanted.

        Raises:
            AdvGANError: the file has changed or is gone.
        """
        if self._state_of_file() != self._state:
            raise AdvGANError(f"{self._file} has changed since the run began; put it back, or start a new run")
        return _resized(checked_pixels(np.asarray(self._images[places])), self.shape)

    def digests(self, places: np.ndarray) -> Iterator[bytes]:
        """Of the pixels of each image."""
        for place in places:
            yield pixel_digest(self.read(place[np.newaxis])[0])


# --- Archives ----------------------------------------------------------------------------------------------------


def _archive(path: Path, settings: DataSettings) -> Source:
    if not path.is_file():
        kinds = f"mnist, {', '.join(KERAS_DATASETS)}, {TFDS_PREFIX}NAME, an .npz file or a folder of pictures"
        raise ConfigurationError("data.dataset", str(path), f"is not there; it should be {kinds}")
    try:
        if not zipfile.is_zipfile(path):
            raise ConfigurationError("data.dataset", str(path), "is not an .npz file (numpy.savez makes one)")
        with np.load(path, allow_pickle=False) as archive:
            there = set(archive.files)
            keys = MEDMNIST if MEDMNIST[0] in there and KEYS[0] not in there else KEYS + OWN_VALIDATION
            named = dict(zip(keys, KEYS + OWN_VALIDATION, strict=True))
            missing = [key for key in keys[: len(KEYS)] if key not in there]
            found = {}
            for key in [] if missing else [key for key in keys if key in there]:
                mapped = _mapped(path, key, settings)
                found[named[key]] = archive[key] if mapped is None else mapped
            held = ", ".join(archive.files[:8]) or "nothing"
    except ConfigurationError:
        raise
    except Exception as error:  # zipfile and NumPy raise nearly anything when a file is damaged
        reason = "it holds objects, not numbers" if "pickle" in str(error) else error
        raise ConfigurationError("data.dataset", str(path), f"is not a readable .npz file: {reason}") from None
    if missing:
        lacks = f"lacks {', '.join(missing)} (it holds {held})"
        raise ConfigurationError("data.dataset", str(path), f"{lacks}; it should hold {', '.join(KEYS)}")
    if ("x_val" in found) != ("y_val" in found):
        raise ConfigurationError("data.dataset", str(path), "holds one of x_val and y_val; it should hold both or none")
    return _from_arrays(found, str(path), "an .npz file", file_digest(path), settings)


def _mapped(path: Path, key: str, settings: DataSettings) -> np.memmap | None:
    """An array of images that is larger than ``data.memory``, as a memory map; None for any other.

    Raises:
        ConfigurationError: it is compressed.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        if info.file_size <= settings.memory * GIB:
            return None
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, in_columns, kind = read_header[version](member)
            length_of_header = member.tell()
    if kind.hasobject:
        raise ValueError("pickle")
    if info.compress_type != zipfile.ZIP_STORED or in_columns:
        size = f"{key} takes {info.file_size / GIB:.1f} GiB, more than data.memory = {settings.memory:g}"
        fix = "and is compressed: store it by numpy.savez, so that it can be read in parts, or raise data.memory"
        raise ConfigurationError("data.dataset", str(path), f"{size}, {fix}")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # where the lengths of the name and of what else is before the data stand
        lengths = np.frombuffer(file.read(4), "<u2")
    start = info.header_offset + 30 + int(lengths.sum()) + length_of_header
    return np.memmap(path, kind, "r", start, shape)


# --- TensorFlow Datasets -----------------------------------------------------------------------------------------


def _tfds(name: str, settings: DataSettings) -> Source:
    given = f"{TFDS_PREFIX}{name}"

    def refuse(problem: str) -> ConfigurationError:
        return ConfigurationError("data.dataset", given, problem)

    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise refuse("needs TensorFlow Datasets: pip install -e '.[tfds]'") from None
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as error:  # what it raises depends on where it fails
        raise refuse(f"cannot be loaded ({' '.join(str(error).split())[:160]})") from None
    features, there = builder.info.features, builder.info.splits
    keys = []
    for kind in ("Image", "ClassLabel"):
        of_kind = [key for key, feature in features.items() if type(feature).__name__ == kind]
        supervised = [key for key in of_kind if key in (builder.info.supervised_keys or ())]
        if len(supervised or of_kind) != 1:
            raise refuse(f"should give one feature that is a {kind}; it has {', '.join(of_kind) or 'none'}")
        keys += supervised or of_kind
    if "train" not in there:
        raise refuse(f"has no split train (it has {', '.join(there)})")
    found: dict[str, np.ndarray] = {}
    for part, key in (("train", "train"), ("test", "test"), ("validation", "val")):
        if part in there:
            images, labels = _read_tfds(builder, part, keys, settings, refuse)
            found |= {f"x_{key}": images, f"y_{key}": labels}
    digest = hashlib.sha256()
    for array in found.values():
        for piece in slices(len(array), MOST_AT_ONCE):
            digest.update(np.ascontiguousarray(array[piece]).tobytes())
    source = _from_arrays(found, given, f"TensorFlow Datasets {builder.info.full_name}", digest.hexdigest(), settings)
    resized = None if settings.image_size is None else "each to this size by bicubic interpolation"
    return replace(source, class_names=tuple(features[keys[1]].names), resized=resized)


def _read_tfds(
    builder: Any, part: str, keys: list[str], settings: DataSettings, refuse: Callable[[str], ConfigurationError]
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a split, in its own order; images that are larger than ``data.memory`` are decoded
    once into a file beside the data set's own, and mapped into memory."""
    from tensorflow_datasets import ReadConfig

    feature = builder.info.features[keys[0]]
    height, width, channels = feature.shape
    height, width = settings.image_size or (height, width)
    if None in (height, width):
        raise refuse("has images of several sizes; set data.image_size, such as [224, 224]")
    if feature.np_dtype != np.uint8:
        raise refuse(f"has images of {feature.np_dtype}; they should be uint8")
    count, shape = int(builder.info.splits[part].num_examples), (height, width, channels)
    examples = builder.as_dataset(part, read_config=ReadConfig(interleave_cycle_length=1))

    def fill(images: np.ndarray, labels: np.ndarray) -> None:
        with closing(Progress(f"{part} images", count, unit="image")) as progress:
            for place, example in enumerate(examples.as_numpy_iterator()):
                images[place] = _resized(example[keys[0]][np.newaxis], shape)[0]
                labels[place] = example[keys[1]]
                progress.advance(1, "")

    labels = np.empty(count, np.int64)
    if count * math.prod(shape) <= settings.memory * GIB:
        images = np.empty((count, *shape), np.uint8)
        fill(images, labels)
        return images, labels
    folder = Path(builder.data_dir) / f"advgan-{part}-{shape_text(shape)}"
    if not folder.exists():
        with whole_directory(folder) as temporary:
            fill(np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, (count, *shape)), labels)
            np.save(temporary / "labels.npy", labels)
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
