"""The one place that bounds a perturbation: epsilon ball, pixel box, 8-bit rounding, and their norms.

Images are float32 in [0, 1], shape (n, height, width, channels), unless other bounds are given. Epsilon is a share of
the pixel range: 8/255 is 8 levels of 255 whatever the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any
Bounds = tuple[float, float]
"""The smallest and the largest value of a pixel."""
UNIT: Bounds = (0.0, 1.0)
FLOAT_TOLERANCE = 1e-6
"""How far |x_A - x| may exceed epsilon through float32 rounding, measured in float64, as a share of the pixel range."""


def perturb(
    images: Tensor, generator_output: Tensor, epsilon: float, form: str = "tanh", bounds: Bounds = UNIT
) -> tuple[Tensor, Tensor]:
    """Apply a generator's output to images: ``x_A = clip(x + p, 0, 1)``, or between other bounds.

    Args:
        images: clean images x, shape (n, height, width, channels), within the bounds.
        generator_output: G(x) after its tanh, same shape, in [-1, 1].
        epsilon: the largest change of a pixel (L_inf), a share of the pixel range.
        form: ``tanh`` scales, ``p = epsilon * G(x)``; ``clipped`` cuts, ``p = clip(G(x), -epsilon, epsilon)``; p is
            then stretched from [0, 1] to the pixel range.
        bounds: of the images.

    Returns:
        p before the pixel box, and x_A, both in the images' units.
    """
    low, high = bounds
    if form == "tanh":
        perturbation = epsilon * (high - low) * generator_output
    else:
        perturbation = (high - low) * tf.clip_by_value(generator_output, -epsilon, epsilon)
    return perturbation, tf.clip_by_value(images + perturbation, low, high)


def project(images: Tensor, candidates: Tensor, epsilon: float) -> Tensor:
    """The nearest point to each candidate in the L_inf ball of radius epsilon around its image; all in [0, 1] units."""
    return images + tf.clip_by_value(candidates - images, -epsilon, epsilon)


def to_8_bits(images: np.ndarray, adversarial: np.ndarray, epsilon: float) -> np.ndarray:
    """Round adversarial images to the 256 levels of a picture file without leaving the epsilon ball.

    Each pixel goes to its nearest level, then to within ``floor(255 epsilon)`` levels of the clean image's nearest
    level (at epsilon 0.3 that is 76 levels, never 77).

    Args:
        images: clean images, in [0, 1].
        adversarial: adversarial images of the same shape, in [0, 1].

    Returns:
        uint8 images of the same shape.
    """
    levels = math.floor(255 * epsilon + 1e-6)  # 255 * (8 / 255) must be 8, whatever its last bit
    whole = np.empty(np.shape(images), np.uint8)
    for index, (image, changed) in enumerate(zip(images, adversarial, strict=True)):  # little float64 at a time
        clean = np.rint(np.asarray(image, np.float64) * 255).astype(np.int16)
        rounded = np.rint(np.asarray(changed, np.float64) * 255).astype(np.int16)
        whole[index] = np.clip(np.clip(rounded, clean - levels, clean + levels), 0, 255)
    return whole


@dataclass(frozen=True)
class Norms:
    """The size of each image's perturbation, float64 arrays of shape (n,), in pixel units."""

    linf: np.ndarray
    l2: np.ndarray
    l0: np.ndarray
    """How many pixel values, each channel for itself, differ at all."""


def measure(images: np.ndarray, adversarial: np.ndarray) -> Norms:
    """Measure ``x_A - x`` in float64, image by image."""
    norms = Norms(*(np.zeros(len(images)) for _ in range(3)))
    for index, (image, changed) in enumerate(zip(images, adversarial, strict=True)):  # little float64 at a time
        difference = (np.asarray(changed, np.float64) - np.asarray(image, np.float64)).reshape(-1)
        norms.linf[index] = np.abs(difference).max(initial=0.0)
        norms.l2[index] = np.sqrt(np.square(difference).sum())
        norms.l0[index] = np.count_nonzero(difference)
    return norms
