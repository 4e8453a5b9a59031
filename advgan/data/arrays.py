"""Arrays of images and labels as users have them, converted to the form used here, or an error with the fix."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from advgan.data.batches import slices
from advgan.errors import ConfigurationError
from advgan.perturbation import FLOAT_TOLERANCE

MOST_CLASSES = 100_000
MOST_CHANNELS = 4
"""No image that a network here takes is so low, so a second axis of this size holds channels."""
MOST_STRAY_LABELS = 0.01
"""The share of labels that may be mistakes."""
CHECKED_AT_ONCE = 1000
Arrays = dict[str, np.ndarray]


def checked_arrays(arrays: Arrays, source: str) -> tuple[Arrays, tuple[str, ...] | None]:
    """Arrays x_train, y_train and so on: the images as (n, height, width, channels), the labels as int32.

    Args:
        arrays: x_train and y_train; x_test, y_test, x_val, y_val where there are some. Labels may be text. Images in
            a memory map stay there as they are.
        source: what the user named.

    Returns:
        The arrays, and the names of the classes where the labels were text.

    Raises:
        ConfigurationError: an array cannot be used; the message names it, and the fix for what it holds.
    """

    def refuse(key: str, problem: str) -> ConfigurationError:
        return ConfigurationError("data.dataset", source, f"{key} {problem}")

    for key in arrays:
        if not isinstance(arrays[key], np.ndarray):
            raise refuse(key, "is not an array")
        if arrays[key].size == 0:
            raise refuse(key, "is empty")
    try:
        names = _number_texts(arrays)
    except UnicodeDecodeError:
        raise refuse("y_train", "holds text that is not UTF-8; store it as str") from None
    for key in arrays:
        try:
            arrays[key] = _images(arrays[key]) if key.startswith("x_") else checked_labels(arrays[key])
        except ValueError as problem:
            raise refuse(key, str(problem)) from None
    first = arrays["x_train"]
    for key in [key for key in arrays if key.startswith("x_")]:
        images, of_labels = arrays[key], key.replace("x_", "y_")
        if len(images) != len(arrays[of_labels]):
            raise refuse(
                of_labels,
                f"has {len(arrays[of_labels])} labels for {len(images)} images; there should be one for each",
            )
        if images.shape[1:] != first.shape[1:]:
            raise refuse(key, f"has images of {images.shape[1:]}, x_train of {first.shape[1:]}")
        if (images.dtype == np.uint8) != (first.dtype == np.uint8):
            raise refuse(key, f"is {images.dtype}, x_train {first.dtype}")
    if arrays["y_train"].max() == arrays["y_train"].min():
        raise refuse("y_train", "has one class only; an attack needs two or more")
    if stray := _stray_label(arrays):
        raise refuse(*stray)
    return arrays, names


def _number_texts(arrays: Arrays) -> tuple[str, ...] | None:
    """Where labels are text, number the classes of all arrays together, in alphabetical order; give their names."""
    keys = [key for key in arrays if key.startswith("y_")]
    if not all(arrays[key].dtype.kind in "US" for key in keys):
        return None
    texts = {key: np.char.decode(arrays[key]) if arrays[key].dtype.kind == "S" else arrays[key] for key in keys}
    names = np.unique(np.concatenate([values.ravel() for values in texts.values()]))
    for key in keys:
        arrays[key] = np.searchsorted(names, texts[key])
    return tuple(map(str, names))


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
    if isinstance(images, np.memmap):
        for part in slices(len(images), CHECKED_AT_ONCE):
            checked_pixels(np.asarray(images[part]))
        return images
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


def _stray_label(arrays: Arrays) -> tuple[str, str] | None:
    """The array and the problem where a few labels lie above all others, across a gap such as there is no other of."""
    keys = [key for key in arrays if key.startswith("y_")]
    labels = np.concatenate([arrays[key] for key in keys])
    classes = np.unique(labels)
    widest = int(classes[0])  # run of classes without an image so far
    for below, above in pairwise(classes.tolist()):
        gap = above - below - 1
        if gap >= 2 and gap > 2 * widest and np.mean(labels > below) <= MOST_STRAY_LABELS:
            key = next(key for key in keys if (arrays[key] > below).any())
            index = int(np.argmax(arrays[key] > below))
            problem = f"has class {arrays[key][index]} at index {index}, above a gap: the others are up to {below}"
            return key, f"{problem}; correct or remove it, or number the classes without gaps"
        widest = max(widest, gap)
    return None
