"""A folder of pictures as a data set: a sub-folder for each class, found and checked once, then read batch by batch.

docs/data.md states the rules. What a look at every picture found is kept in a cache, so the next look is at their sizes
and dates alone; whatever is read later is compared with its digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from advgan.config.settings import DataSettings
from advgan.data.datasets import Shape, StreamedSplit, pixel_digest
from advgan.data.pictures import FORMATS, PictureError, find_pictures, printable, read_picture, resized, shape_text
from advgan.data.source import Source
from advgan.environment import cores
from advgan.errors import AdvGANError, ConfigurationError
from advgan.files import write_text
from advgan.progress import Progress

PARTS = {
    "training": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
"""Sub-folders that hold sub-folders of classes, by what they are for."""
LOOKED_AT_ONCE = 64
Problem = Callable[[str], ConfigurationError]


class Picture(NamedTuple):
    """What is known of a picture."""

    name: str
    """Relative to the folder, with ``/`` between parts."""
    size: int
    changed: int
    """When, in nanoseconds; a copy that keeps its date changes it too."""
    sha256: str
    """Of the file."""
    pixels: str
    """The digest of the pixels, in hex, after resizing."""
    shape: Shape
    """As decoded."""


class Labelled(NamedTuple):
    """Pictures of one part, and their classes."""

    places: np.ndarray
    labels: np.ndarray


def open_folder(path: Path, settings: DataSettings) -> Source:
    """Find and check the pictures of a folder.

    Raises:
        ConfigurationError: there are none, or one cannot be used, or they do not fit each other; the message names it.
    """

    def refuse(problem: str) -> ConfigurationError:
        return ConfigurationError("data.dataset", str(path), problem)

    try:
        names, left_out = find_pictures(path)
        folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})") from None
    if not names:
        raise refuse(f"holds no picture ({', '.join(FORMATS)})")
    if strange := [name for name in names if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)]:
        raise refuse(
            f"holds {printable(strange[0])}, a name with a line break or letters that are not UTF-8; rename it"
        )
    of_part = {part: [name for name in folders if name.lower() in known] for part, known in PARTS.items()}
    divided = bool(of_part["training"])
    if not divided and sum(map(len, of_part.values())) == len(folders):
        raise refuse(f"has {' and '.join(folders)}, but no train; add the training images")
    prefixes = {part: f"{found[0]}/" for part, found in of_part.items() if found} if divided else {"training": ""}
    for part, found in of_part.items():
        if divided and len(found) > 1:
            raise refuse(f"has {' and '.join(found)}, which are both for {part} images; keep one")
    if divided and (left := [name for name in folders if f"{name}/" not in prefixes.values()]):
        raise refuse(f"has {', '.join(prefixes.values())} and also {left[0]}/, which is for neither; move it away")
    classes = _classes(path, names, prefixes, refuse)
    pictures = _looked_at(path, names, settings, refuse)
    shape = _shape(pictures, settings, refuse)
    reader = PictureReader(path, pictures, shape)
    parts = {part: _labelled(names, prefix, classes) for part, prefix in prefixes.items()}
    splits = {
        part: StreamedSplit(reader, found.places, found.labels) for part, found in parts.items() if len(found.places)
    }
    if len(np.unique(splits["training"].labels)) < 2:
        raise refuse("has pictures of one class only; an attack needs two or more")
    return Source(
        kind=f"a folder of {len(names):,} pictures" + (f" ({left_out:,} other files are left out)" if left_out else ""),
        digest=hashlib.sha256(reader.listing().encode(errors="surrogateescape")).hexdigest(),
        training=splits["training"],
        test=splits.get("test"),
        validation=splits.get("validation"),
        class_names=tuple(classes),
        in_classes=True,
        resized=None if settings.image_size is None else "each to this size by bicubic interpolation",
        listing=reader.listing,
    )


def _classes(path: Path, names: Sequence[str], prefixes: dict[str, str], refuse: Problem) -> list[str]:
    """The names of the classes, in the order of their indices."""
    found: dict[str, set[str]] = {}
    for name in names:
        part = next((part for part, prefix in prefixes.items() if name.startswith(prefix)), None)
        if part is None:
            raise refuse(f"{printable(name)} is in none of {', '.join(prefixes.values())}; move it")
        folder, slash, _ = name.removeprefix(prefixes[part]).partition("/")
        if not slash:
            raise refuse(f"{printable(name)} is in no class's sub-folder; move it into one")
        found.setdefault(part, set()).add(folder)
    for part, prefix in prefixes.items():
        if part not in found:
            raise refuse(f"has no picture in {prefix}; remove it, or fill it")
        there = {entry.name for entry in (path / prefix).iterdir() if entry.is_dir() and not entry.name.startswith(".")}
        if part == "training" and (empty := sorted(there - found.get(part, set()))):
            raise refuse(f"class {prefix}{empty[0]} has no picture; remove the sub-folder, or fill it")
        if strange := sorted(found.get(part, set()) - found.get("training", set())):
            raise refuse(f"class {strange[0]} is in {prefix} and not in {prefixes['training']}; add it there")
    classes = found["training"]
    if all(re.fullmatch("[0-9]{1,9}", name) for name in classes):
        numbers = sorted(int(name) for name in classes)
        if len(set(numbers)) < len(classes):
            raise refuse("has two sub-folders of one number, such as 1 and 01; keep one")
        if numbers == list(range(len(numbers))):  # they are class indices
            return sorted(classes, key=int)
    return sorted(classes)


def _labelled(names: Sequence[str], prefix: str, classes: Sequence[str]) -> Labelled:
    number = {name: index for index, name in enumerate(classes)}
    places = [place for place, name in enumerate(names) if name.startswith(prefix)]
    labels = [number[names[place].removeprefix(prefix).partition("/")[0]] for place in places]
    return Labelled(np.array(places, np.int64), np.array(labels, np.int32))


def _shape(pictures: Sequence[Picture], settings: DataSettings, refuse: Problem) -> Shape:
    """Of the images: grey where every picture is."""
    channels = max(each.shape[2] for each in pictures)
    if settings.image_size is not None:
        return (*settings.image_size, channels)
    first = pictures[0]
    for each in pictures:
        if each.shape[:2] != first.shape[:2]:
            sizes = f"{printable(each.name)} is {shape_text(each.shape[:2])}, {printable(first.name)} " + shape_text(
                first.shape[:2]
            )
            height, width = first.shape[:2]
            raise refuse(f"{sizes}; set data.image_size, such as [{height}, {width}]")
    return (*first.shape[:2], channels)


# --- What is known of the pictures -------------------------------------------------------------------------------


def _looked_at(path: Path, names: Sequence[str], settings: DataSettings, refuse: Problem) -> list[Picture]:
    """Every picture, decoded once; those that an earlier look found, and that have not changed since, from the cache.

    Raises:
        ConfigurationError: one cannot be read.
    """
    cache = _cache_file(path, settings)
    known = _read_cache(cache)
    pictures: list[Picture] = []
    with ThreadPoolExecutor(cores()) as threads, closing(Progress("pictures", len(names), unit="picture")) as progress:
        for start in range(0, len(names), LOOKED_AT_ONCE):
            some = names[start : start + LOOKED_AT_ONCE]
            try:
                pictures += threads.map(lambda name: _look(path, name, known.get(name), settings.image_size), some)
            except AdvGANError as problem:
                raise refuse(str(problem)) from None
            progress.advance(len(some), "")
    if {each.name: each for each in pictures} != known:
        lines = ["\t".join(map(str, (*each[1:5], shape_text(each.shape), each.name))) for each in pictures]
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_text(cache, "\n".join(lines) + "\n")
        except OSError:  # then the next look is at all of them again
            pass
    return pictures


def _look(path: Path, name: str, known: Picture | None, image_size: tuple[int, int] | None) -> Picture:
    file = path / name
    try:
        status = file.stat()
        if known is not None and (known.size, known.changed) == (status.st_size, status.st_ctime_ns):
            return known
        content = file.read_bytes()
    except OSError as error:
        raise AdvGANError(f"{printable(name)} cannot be read ({error.strerror})") from None
    picture = _decoded(content, name)
    shape = picture.shape
    if image_size is not None and shape[:2] != image_size:
        picture = resized(picture, (*image_size, shape[2]))
    sha256 = hashlib.sha256(content).hexdigest()
    return Picture(name, status.st_size, status.st_ctime_ns, sha256, pixel_digest(picture).hex(), shape)


def _decoded(content: bytes, name: str) -> np.ndarray:
    try:
        return read_picture(io.BytesIO(content))
    except PictureError as problem:
        raise AdvGANError(f"{printable(name)} {problem}") from None


def _cache_file(path: Path, settings: DataSettings) -> Path:
    """One for each folder and size."""
    home = os.environ.get("XDG_CACHE_HOME")
    key = hashlib.sha256(f"{path.resolve()} {settings.image_size}".encode(errors="surrogateescape")).hexdigest()[:16]
    return (Path(home) if home else Path.home() / ".cache") / "advgan" / f"pictures-{key}.tsv"


def _read_cache(cache: Path) -> dict[str, Picture]:
    """What it holds, by name; nothing where it is not there, or damaged."""
    try:
        found = {}
        for line in cache.read_text(encoding="utf-8").splitlines():
            size, changed, sha256, pixels, shape, name = line.split("\t", 5)
            height, width, channels = map(int, shape.split("x"))
            found[name] = Picture(name, int(size), int(changed), sha256, pixels, (height, width, channels))
        return found
    except (OSError, ValueError):
        return {}


class PictureReader:
    """The pictures of a folder, of one shape, decoded when they are needed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, pictures: Sequence[Picture], shape: Shape) -> None:
        self._path, self.shape = path, shape
        self._names = [each.name for each in pictures]  # a hundred thousand pictures in little memory
        self._sha256 = np.array([bytes.fromhex(each.sha256) for each in pictures], "V32")
        self._pixels = np.array([bytes.fromhex(each.pixels) for each in pictures], "V16")

    def listing(self) -> str:
        """A line for each picture, its SHA-256 and its name, as ``sha256sum`` writes them."""
        pairs = zip(self._sha256, self._names, strict=True)
        return "".join(f"{digest.tobytes().hex()}  {name}\n" for digest, name in pairs)

    def read(self, places: np.ndarray) -> np.ndarray:
        """The pictures at these places, each compared with what it was when it was looked at.

        Raises:
            AdvGANError: one has changed or is gone.
        """
        images = np.empty((len(places), *self.shape), np.uint8)
        for index, place in enumerate(places):
            images[index] = self._read(place)
        return images

    def digests(self, places: np.ndarray) -> Iterator[bytes]:
        """Of the pixels of each image."""
        for place in places:
            yield self._pixels[place].tobytes()

    def _read(self, place: int) -> np.ndarray:
        file = self._path / self._names[place]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise AdvGANError(f"{printable(str(file))} cannot be read any more ({error.strerror})") from None
        if hashlib.sha256(content).digest() != self._sha256[place].tobytes():
            raise AdvGANError(
                f"{printable(str(file))} has changed since the run began; put it back, or start a new run"
            )
        picture = _decoded(content, self._names[place])
        if picture.shape[:2] != self.shape[:2]:
            picture = resized(picture, (*self.shape[:2], picture.shape[2]))
        return picture  # a grey one is spread over the colours
