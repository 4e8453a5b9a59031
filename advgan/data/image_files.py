"""The images a user brings to an attack, a folder of pictures or an array, and the files that the attack writes."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from advgan.data.arrays import checked_labels, checked_pixels
from advgan.data.image_source import Advance, Batch, ImageSource, Labels
from advgan.data.pictures import (
    FORMATS,
    SUFFIXES,
    PictureError,
    Shape,
    UnlikeRunError,
    find_pictures,
    output_names,
    printable,
    read_fitted,
    read_picture,
    shape_text,
    write_png,
)
from advgan.errors import AdvGANError, ConfigurationError
from advgan.files import write_whole

CHECKED_AT_ONCE = 4_000_000
"""Values of an array that are checked at a time."""


class PictureFiles(ImageSource):
    """A picture, or a folder of them whose sub-folders may name their classes.

    Raises:
        ConfigurationError: there is no picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path if path.is_dir() else path.parent
        self._names, self.others = find_pictures(path) if path.is_dir() else ([path.name], 0)
        if not self._names:
            raise ConfigurationError("INPUT", str(path), f"holds no picture ({', '.join(SUFFIXES)})")
        self._outputs = output_names(self._names, reserved=("attack.png",))

    def __len__(self) -> int:
        return len(self._names)

    def __str__(self) -> str:
        others = f" ({self.others:,} other files are left out)" if self.others else ""
        return f"{len(self):,} {'picture' if len(self) == 1 else 'pictures'} in {self.path}{others}"

    @override
    def name(self, index: int) -> str:
        return self._names[index]

    @override
    def output(self, index: int) -> str:
        return self._outputs[index]

    @override
    def check(self, shape: Shape, resize: bool, advance: Advance) -> str:
        if shape[2] not in (1, 3):
            problem = f"pictures have 1 or 3 channels, the run takes {shape_text(shape)}; give an array (.npy, .npz)"
            raise ConfigurationError("INPUT", str(self.path), problem)
        digest = hashlib.sha256()
        for name in self._names:
            path = self._root / name
            try:
                with path.open("rb") as file:
                    content = hashlib.sha256()
                    while block := file.read(1 << 20):
                        content.update(block)
                    if not resize:  # otherwise any picture will do
                        file.seek(0)
                        read_fitted(file, shape, resize)
            except UnlikeRunError as problem:
                raise ConfigurationError("INPUT", str(path), str(problem)) from None
            except (OSError, PictureError):  # reported when its turn comes
                pass
            digest.update(f"{name!a} {content.hexdigest()}\n".encode())
            advance(1)
        return digest.hexdigest()

    @override
    def labels(self, classes: int, names: Sequence[str] | None = None) -> Labels | None:
        folders = [name.partition("/")[0] if "/" in name else "" for name in self._names]
        found = sorted(set(folders))
        if found == [""]:
            return None
        key, value = "INPUT", str(self.path)
        if found[0] == "":
            name = self._names[folders.index("")]
            problem = f"has sub-folders, which name classes, and also {name}; move that into a sub-folder"
            raise ConfigurationError(key, value, problem)
        if names is not None and set(found) <= set(names):
            index = {name: number for number, name in enumerate(names)}
            return Labels(np.array([index[name] for name in folders]), tuple(names), "sub-folders, by the run's names")
        numbers = all(re.fullmatch(r"[0-9]{1,9}", name) for name in found)
        if names is not None and not numbers:
            strange = next(name for name in found if name not in names)
            listed = ", ".join(map(printable, names[:10])) + (", ..." if len(names) > 10 else "")
            problem = f"sub-folder {printable(strange)} is none of the run's classes ({listed}); rename it"
            raise ConfigurationError(key, value, problem)
        if numbers:
            if wrong := [name for name in found if int(name) >= classes]:
                problem = f"sub-folder {wrong[0]} is no class index (the classifier has classes 0 to {classes - 1})"
                raise ConfigurationError(key, value, problem)
            return Labels(np.array([int(name) for name in folders]), None, "sub-folders, which are class indices")
        if len(found) != classes:
            problem = (
                f"has pictures in {len(found)} sub-folders, the classifier has {classes} classes; give one sub-folder "
                f"for each class, or name them by class index (0 to {classes - 1})"
            )
            raise ConfigurationError(key, value, problem)
        index = {name: number for number, name in enumerate(found)}
        return Labels(np.array([index[name] for name in folders]), tuple(found), "sub-folders, in alphabetical order")

    @override
    def read(self, part: slice, shape: Shape, resize: bool) -> Batch:
        pictures, indices, problems = [], [], {}
        for index in range(part.start, part.stop):
            try:
                pictures.append(read_fitted(self._root / self._names[index], shape, resize))
                indices.append(index)
            except PictureError as problem:
                problems[index] = str(problem)
        return Batch(np.stack(pictures) if pictures else np.empty((0, *shape), np.uint8), indices, problems)

    @override
    def start(self, folder: Path) -> bool:
        return True

    @override
    def write(self, folder: Path, indices: list[int], images: np.ndarray) -> np.ndarray:
        partial = folder / ".partial.png"
        for index, image in zip(indices, images, strict=True):
            path = folder / self._outputs[index]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image, partial)
            partial.replace(path)
        if hasattr(os, "sync"):  # not on Windows; far faster than to flush each file
            os.sync()
        return np.stack([self.read_back(folder, index) for index in indices])

    @override
    def read_back(self, folder: Path, index: int) -> np.ndarray:
        try:
            return read_picture(folder / self._outputs[index])
        except PictureError as problem:
            raise AdvGANError(f"{folder / self._outputs[index]} {problem}") from None

    @override
    def finish(self, folder: Path) -> None:
        pass  # each file is

    @override
    def clean(self, folder: Path) -> None:
        (folder / ".partial.png").unlink(missing_ok=True)


class ImageArray(ImageSource):
    """An array of images in an ``.npy`` file, or in an ``.npz`` file with or without its labels.

    An ``.npy`` file is read from the disk as needed; an ``.npz`` file is read into memory.

    Raises:
        ConfigurationError: the file holds no images.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key, self._labels_key = "", "y"
        try:
            images, self._labels = self._loaded()
        except OSError as error:
            raise self._invalid(f"cannot be read ({error.strerror or error})") from None
        except (ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            reason = "it holds objects, not numbers" if re.search("pickle|object", str(error)) else error
            raise self._invalid(f"cannot be read ({reason})") from None
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise self._invalid(f"is {images.dtype}; it should be uint8 in 0..255 or floats in [0, 1]")
        if images.size == 0:
            raise self._invalid(f"is empty: its shape is {images.shape}")
        self._images: np.ndarray = images

    def _invalid(self, problem: str) -> ConfigurationError:
        return ConfigurationError("INPUT", str(self.path), f"array {self._key} {problem}" if self._key else problem)

    def _loaded(self) -> tuple[Any, Any]:
        if self.path.suffix.lower() == ".npy":
            images = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if not isinstance(images, np.ndarray):
                raise ValueError("it is an .npz file by its content")
            return images, None
        if not zipfile.is_zipfile(self.path):
            raise ValueError("it is not an .npz file")
        with np.load(self.path, allow_pickle=False) as archive:
            key = next((key for key in ("x", "x_test") if key in archive), None)
            if key is None and len(archive.files) != 1:
                raise ValueError(f"it holds {', '.join(archive.files) or 'nothing'}, and no array x or x_test")
            self._key = key or archive.files[0]
            self._labels_key = "y_test" if key == "x_test" else "y"
            labels = archive[self._labels_key] if key and self._labels_key in archive else None
            return archive[self._key], labels

    def __len__(self) -> int:
        return len(self._images)

    def __str__(self) -> str:
        return f"{len(self):,} images in {self.path}"

    @override
    def name(self, index: int) -> str:
        return f"{self.path.name}[{index}]"

    @override
    def output(self, index: int) -> str:
        return self.path.name

    @override
    def check(self, shape: Shape, resize: bool, advance: Advance) -> str:
        found = self._images.shape
        if found[1:] != shape and (*found[1:], 1) != shape:
            hint = "--resize is for pictures: resize the array"
            if found == shape or (*found, 1) == shape:
                hint = "for a single image store x[np.newaxis]"
            elif found[1:] == (shape[2], *shape[:2]):
                hint = "channels come first: store numpy.moveaxis(x, 1, -1)"
            wanted = f"(n, {', '.join(map(str, shape))})"
            raise self._invalid(f"has shape {found}, the run takes {wanted}; {hint}")
        if resize:
            raise ConfigurationError("--resize", str(self.path), "is for pictures; leave it out")
        digest = hashlib.sha256(f"{self.path.name!a} {self._key} {self._images.dtype.str} {found}".encode())
        step = max(1, CHECKED_AT_ONCE // max(1, int(np.prod(found[1:]))))
        for start in range(0, len(self), step):
            images = np.ascontiguousarray(self._images[start : start + step])
            try:
                checked_pixels(images)
            except ValueError as problem:
                raise self._invalid(str(problem)) from None
            digest.update(images.tobytes())
            advance(len(images))
        if self._labels is not None:
            digest.update(f"{self._labels.dtype.str} {self._labels.shape}".encode() + self._labels.tobytes())
        return digest.hexdigest()

    @override
    def labels(self, classes: int, names: Sequence[str] | None = None) -> Labels | None:
        if self._labels is None:
            return None
        key = f"array {self._labels_key}"
        try:
            labels = checked_labels(self._labels)
        except ValueError as reason:
            raise ConfigurationError("INPUT", str(self.path), f"{key} {reason}") from None
        if len(labels) != len(self):
            raise ConfigurationError("INPUT", str(self.path), f"{key} has {len(labels)} labels for {len(self)} images")
        if labels.max() >= classes:
            found = f"has class {labels.max()} at index {int(labels.argmax())}"
            problem = f"{key} {found}, the classifier has classes 0 to {classes - 1}"
            raise ConfigurationError("INPUT", str(self.path), problem)
        return Labels(labels.astype(np.int64), None, key)

    @override
    def read(self, part: slice, shape: Shape, resize: bool) -> Batch:
        images = checked_pixels(np.asarray(self._images[part])).reshape(-1, *shape)
        return Batch(images, list(range(part.start, part.stop)), {})

    @override
    def start(self, folder: Path) -> bool:
        partial, kind = self._partial(folder), self._images.dtype if self._images.dtype == np.uint8 else np.float32
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False}
        if partial.is_file():
            return True
        temporary = partial.with_suffix(".new")
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": self._images.shape})
            file.truncate(file.tell() + self._images.size * np.dtype(kind).itemsize)
        temporary.replace(partial)
        return False

    @override
    def write(self, folder: Path, indices: list[int], images: np.ndarray) -> np.ndarray:
        partial = self._partial(folder)
        part = slice(indices[0], indices[-1] + 1)
        content = images.tobytes()
        start = np.load(partial, mmap_mode="r", allow_pickle=False).offset
        with partial.open("r+b") as file:  # not through a memory map, where a full disk would kill the process
            file.seek(start + part.start * (len(content) // len(images)))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return np.array(np.load(partial, mmap_mode="r", allow_pickle=False)[part]).reshape(images.shape)

    @override
    def read_back(self, folder: Path, index: int) -> np.ndarray:
        image = np.array(np.load(self._partial(folder), mmap_mode="r", allow_pickle=False)[index])
        return image[..., np.newaxis] if image.ndim == 2 else image

    @override
    def finish(self, folder: Path) -> None:
        images = np.load(self._partial(folder), mmap_mode="r", allow_pickle=False)
        if self.path.suffix.lower() == ".npy":
            write_whole(folder / self.path.name, lambda temporary: np.save(temporary, images))
            return
        arrays = {self._key: images, **({} if self._labels is None else {self._labels_key: self._labels})}
        write_whole(folder / self.path.name, lambda temporary: np.savez(temporary, **arrays))

    @override
    def clean(self, folder: Path) -> None:
        self._partial(folder).unlink(missing_ok=True)

    def _partial(self, folder: Path) -> Path:
        return folder / ".adversarial.partial.npy"


def open_images(path: Path) -> ImageSource:
    """What a user named: a picture, a folder of pictures, an ``.npy`` or an ``.npz`` file.

    Raises:
        ConfigurationError: there is nothing that can be attacked.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise ConfigurationError("INPUT", str(path), "does not exist")
    if not path.is_dir() and suffix in (".npy", ".npz"):
        return ImageArray(path)
    if not path.is_dir() and suffix not in SUFFIXES:
        kinds = f"a picture ({', '.join(FORMATS)}), a folder of pictures, or an .npy or .npz file"
        raise ConfigurationError("INPUT", str(path), f"is not {kinds}")
    return PictureFiles(path)
