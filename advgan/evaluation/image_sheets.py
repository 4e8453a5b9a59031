"""Images in files: PNG sheets that lose nothing, and the MadryLab MNIST challenge's array.

A sheet holds up to 25 x 40 images, row after row, side by side without a gap; the rest of the last one is black.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from advgan.data.batches import slices
from advgan.errors import AdvGANError
from advgan.files import write_whole

ROWS, COLUMNS = 25, 40
MOST_CHANNELS = 4
"""A PNG holds grey, grey and alpha, RGB, or RGB and alpha."""
CHALLENGE_EPSILON, CHALLENGE_IMAGES, CHALLENGE_PIXELS = 0.3, 10_000, 784
CHALLENGE_TOLERANCE = 1e-4
"""What ``run_attack.py`` of MadryLab/mnist_challenge allows beyond epsilon and beyond [0, 1]."""


def write_sheets(images: np.ndarray, folder: Path) -> list[Path]:
    """Write uint8 images of shape (n, height, width, 1 to 4) as PNG sheets; return the files in order.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for part in slices(len(images), ROWS * COLUMNS):
        files.append(folder / f"adversarial-{part.start:06d}.png")
        content: bytes = tf.io.encode_png(_side_by_side(images[part])).numpy()
        write_whole(files[-1], partial(_write_bytes, content))
    for stale in set(folder.glob("adversarial-*.png")) - set(files):  # of an evaluation of more images
        stale.unlink()
    return files


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def read_sheets(files: list[Path], count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Read ``count`` images of a shape back from sheets: uint8, shape (count, height, width, channels)."""
    height, width, channels = shape
    images = []
    for file in files:
        sheet = tf.io.decode_png(file.read_bytes()).numpy()  # with the channels of the file
        parts = sheet.reshape(len(sheet) // height, height, COLUMNS, width, channels)
        images.append(parts.transpose(0, 2, 1, 3, 4).reshape(-1, height, width, channels))
    return np.concatenate(images)[:count]


def _side_by_side(images: np.ndarray) -> np.ndarray:
    count, height, width, channels = images.shape
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, height, width, channels), np.uint8)
    sheet[:count] = images
    parts = sheet.reshape(rows, COLUMNS, height, width, channels).transpose(0, 2, 1, 3, 4)
    return parts.reshape(rows * height, COLUMNS * width, channels)


def challenge_array(images: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """Adversarial MNIST test images as the MadryLab challenge takes them, checked as its ``run_attack.py`` does.

    Args:
        images: the 10,000 test images in their order, in [0, 1].
        adversarial: the same under attack.

    Returns:
        float32 of shape (10000, 784).

    Raises:
        AdvGANError: the challenge would not take them; the message says which of its rules is broken.
    """
    submission = adversarial.reshape(len(adversarial), -1).astype(np.float32)
    if submission.shape != (CHALLENGE_IMAGES, CHALLENGE_PIXELS):
        raise AdvGANError(
            f"the challenge takes shape ({CHALLENGE_IMAGES}, {CHALLENGE_PIXELS}), these are {submission.shape}"
        )
    smallest, largest = float(submission.min()), float(submission.max())
    if not (smallest >= -CHALLENGE_TOLERANCE and largest <= 1 + CHALLENGE_TOLERANCE):  # NaN fails too
        raise AdvGANError(f"the challenge takes pixels in [0, 1], these are in [{smallest}, {largest}]")
    change = float(np.abs(images.reshape(submission.shape).astype(np.float32) - submission).max())
    if not change <= CHALLENGE_EPSILON + CHALLENGE_TOLERANCE:
        raise AdvGANError(f"the challenge allows changes up to {CHALLENGE_EPSILON}, the largest here is {change:.4f}")
    return submission
