"""Picture files: found in a folder, decoded to 8-bit grey or RGB, fitted to a run's images, written without loss.

docs/attack.md states the rule for each kind of picture.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from advgan.errors import AdvGANError

Shape = tuple[int, int, int]
"""Height, width, channels."""
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
GREY = ("1", "L", "LA")
"""Pillow's modes of grey pictures of up to 8 bits."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")


class PictureError(AdvGANError):
    """A picture that cannot be used; the message goes on after its name."""


class UnlikeRunError(PictureError):
    """A picture of another size, or with other channels, than the run's images."""


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as height x width x channels, such as ``28x28x1``."""
    return "x".join(map(str, shape))


def printable(name: str) -> str:
    """A file's name on one line, whatever bytes it is made of."""
    return " ".join(name.encode(errors="replace").decode().splitlines())


def find_pictures(folder: Path) -> tuple[list[str], int]:
    """The pictures in a folder and its sub-folders, in an order that repeats; hidden ones are left out.

    Returns:
        Their names relative to the folder, with ``/`` between parts; and how many other files there are.

    Raises:
        OSError: a folder cannot be read.
    """
    found = list(_files(folder, "", frozenset()))
    names = [name for name in found if name.lower().endswith(SUFFIXES)]
    return names, len(found) - len(names)


def _files(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder that holds it
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/", above | {here})
        else:
            yield prefix + entry.name


def output_names(names: list[str], reserved: tuple[str, ...] = ()) -> list[str]:
    """For each picture the name of its PNG: ``a.jpg`` becomes ``a.png``, or ``a.jpg.png`` where two would collide.

    A PNG keeps its name. Names that differ in case only collide too: some file systems take them for one.

    Args:
        names: as ``find_pictures`` returns them.
        reserved: names that are taken already.
    """
    short = [f"{name.rpartition('.')[0]}.png" for name in names]
    wanted = Counter(name.casefold() for name in short)
    taken = {name.casefold() for name in reserved}
    outputs = [""] * len(names)
    is_png = [name.lower().endswith(".png") for name in names]
    for index in sorted(range(len(names)), key=lambda index: not is_png[index]):
        name = names[index]
        output = short[index] if is_png[index] or wanted[short[index].casefold()] == 1 else f"{name}.png"
        while output.casefold() in taken:
            output = f"{name}.png" if output == short[index] else f"{output}.png"
        taken.add(output.casefold())
        outputs[index] = output
    return outputs


def read_picture(source: Path | BinaryIO) -> np.ndarray:
    """Decode a picture: uint8 of shape (height, width, 1) for a grey one, (height, width, 3) for any other.

    Raises:
        PictureError: it is no picture, or it is damaged.
    """
    return _opened(source, None)


def read_fitted(source: Path | BinaryIO, shape: Shape, resize: bool) -> np.ndarray:
    """Decode a picture and fit it to the run's images: uint8 of the given shape.

    Grey becomes RGB by repetition, RGB of three equal channels becomes grey; other changes need ``resize``.

    Args:
        source: a file.
        shape: height, width and channels (1 or 3) of the run's images.
        resize: whether a picture of another size, or a coloured one for a grey run, is converted.

    Raises:
        PictureError: it is no picture, or it is damaged.
        UnlikeRunError: it is of another size, or coloured, and ``resize`` is not set.
    """
    picture = _opened(source, None if resize else shape)
    channels = shape[2]
    if picture.shape[2] < channels:
        picture = np.repeat(picture, channels, axis=2)
    elif picture.shape[2] > channels and (picture == picture[..., :1]).all():
        picture = picture[..., :1]
    if picture.shape != shape and resize:
        picture = resized(picture, shape)
    if picture.shape != shape:
        raise _unlike(picture.shape, shape)
    return picture


def _unlike(found: tuple[int, ...], shape: Shape) -> UnlikeRunError:
    return UnlikeRunError(f"is {shape_text(found)}, the run takes {shape_text(shape)}; add --resize to convert it")


def _opened(source: Path | BinaryIO, shape: Shape | None) -> np.ndarray:
    """Decode a picture; with a shape, one whose header already shows another size is not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata, and on pictures that are merely large
            with Image.open(source, formats=FORMATS) as image:
                if shape is not None and sorted(image.size) != sorted(shape[:2]):
                    width, height = image.size
                    raise _unlike((height, width, 1 if image.mode in GREY or _is_deep(image) else 3), shape)
                return _decoded(image)
    except PictureError:
        raise
    except Exception as error:  # Pillow raises nearly anything when a file is damaged
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise PictureError(f"cannot be read ({reason})") from None


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _decoded(image: Image.Image) -> np.ndarray:
    """The first frame, turned upright, as uint8 with 1 or 3 channels."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if _is_deep(image):
        values = np.asarray(image).astype(np.int64)
        values[values == image.info.get("transparency", -1)] = 0
        return ((values + 128) // 257).astype(np.uint8)[..., np.newaxis]  # 65535 = 255 * 257
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        values = np.asarray(image.convert("RGBA")).astype(np.int64)
        composed = (values[..., :3] * values[..., 3:] + 127) // 255  # onto black, to the nearest level
        return composed.astype(np.uint8)[..., : 1 if image.mode in GREY else 3]
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., np.newaxis]
    return np.asarray(image.convert("RGB"))


def resized(picture: np.ndarray, shape: Shape) -> np.ndarray:
    """A picture of another size, by bicubic interpolation; its proportions are not kept.

    Args:
        picture: uint8, or floats in [0, 1], shape (height, width, channels).
        shape: height, width, channels; 1 channel makes a coloured picture grey.
    """
    height, width, channels = shape
    if picture.dtype == np.uint8 and picture.shape[2] in (1, 3):
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        image = image.convert("L") if channels == 1 else image
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, channels)
    made = [
        np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC))
        for values in np.moveaxis(picture.astype(np.float32), -1, 0)
    ]
    if picture.dtype == np.uint8:
        return np.clip(np.rint(np.stack(made, -1)), 0, 255).astype(np.uint8)
    return np.clip(np.stack(made, -1), 0, 1)


def write_png(picture: np.ndarray, path: Path) -> None:
    """Write a uint8 picture of shape (height, width, 1 or 3) as a PNG, which loses nothing.

    Raises:
        OSError: the file cannot be written.
    """
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(path, format="PNG")
