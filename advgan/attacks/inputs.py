"""What an attack accepts: arrays of images and labels, with one line of error where they cannot be meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from advgan.errors import AdvGANError
from advgan.perturbation import FLOAT_TOLERANCE, UNIT, Bounds

Shape = tuple[int, int, int]
"""Height, width, channels."""


def checked_bounds(bounds: Any) -> Bounds:
    """The smallest and the largest pixel value, as floats.

    Raises:
        AdvGANError: they are not two finite numbers in rising order.
    """
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise AdvGANError(f"bounds = {bounds}: should be the smallest and the largest pixel value, such as (0, 255)")
    return low, high


def checked_images(x: Any, shape: Shape, bounds: Bounds) -> np.ndarray:
    """The images as an array, not copied: floats within the bounds, or uint8 where the bounds are 0 and 255.

    Args:
        x: an array of shape (n, height, width, channels), n being 0 or more.
        shape: of the images that the generator takes.
        bounds: the smallest and the largest pixel value.

    Raises:
        AdvGANError: another shape or type, NaN, or values outside the bounds.
    """
    images = _array(x, "x")
    if images.shape[1:] != shape:
        hint = ""
        if images.shape == shape:
            hint = "; for a single image pass x[np.newaxis]"
        elif images.shape[1:] == shape[:2] and shape[2] == 1:
            hint = "; pass x[..., np.newaxis]"
        wanted = f"(n, {', '.join(map(str, shape))})"
        raise AdvGANError(f"x has shape {images.shape}; the generator takes {wanted}{hint}")
    if images.dtype != np.uint8 or bounds != (0, 255):
        _check_values(images, *bounds)
    return images


def class_indices(y: Any, count: int, classes: int | None) -> np.ndarray:
    """Labels as class indices, int64 of shape (count,).

    Args:
        y: class indices, integers of shape (count,) or (count, 1), or one-hot rows of shape (count, classes).
        count: how many images there are.
        classes: how many classes there are; None where nobody knows.

    Raises:
        AdvGANError: another length, type or number of classes, or a class that does not exist.
    """
    labels = _array(y, "y")
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise AdvGANError(f"y has shape {labels.shape}; {count} images need {count} class indices or one-hot rows")
    if labels.ndim == 2 and labels.shape[1] != 1:
        if classes not in (None, labels.shape[1]):
            raise AdvGANError(f"y has one-hot rows of {labels.shape[1]}; the target has {classes} classes")
        if not np.array_equal(labels.sum(axis=1), np.ones(count)) or not np.isin(labels, (0, 1)).all():
            raise AdvGANError("y has rows that are not one-hot: each should hold a single 1, the rest 0")
        return labels.argmax(axis=1)
    if labels.dtype.kind not in "iu":
        raise AdvGANError(f"y is {labels.dtype}; class indices should be integers")
    labels = labels.reshape(count).astype(np.int64)
    if count and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
        allowed = "0 or above" if classes is None else f"0 to {classes - 1}"
        raise AdvGANError(f"y has classes from {labels.min()} to {labels.max()} (allowed: {allowed})")
    return labels


def _check_values(images: np.ndarray, low: float, high: float) -> None:
    if images.dtype.kind != "f":
        hint = "; divide it by 255" if images.dtype == np.uint8 and (low, high) == UNIT else ""
        raise AdvGANError(f"x is {images.dtype}; it should be floats from {low:g} to {high:g}{hint}")
    smallest, largest = (images.min(), images.max()) if images.size else (low, high)
    if math.isnan(smallest):
        raise AdvGANError("x holds NaN; every pixel should be a number")
    slack = FLOAT_TOLERANCE * (high - low)
    if smallest < low - slack or largest > high + slack:
        raise AdvGANError(
            f"x has values from {smallest:g} to {largest:g}; the attack's bounds are {low:g} and {high:g}: "
            "scale x, or load the attack with other bounds"
        )


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        raise AdvGANError(f"{name} is not an array: its rows differ in length") from None
