"""Training images mirrored and shifted: each a crop of the bordered image, drawn by seed and step alone."""

import numpy as np
import pytest
import tensorflow as tf

from advgan.data.augmentation import flipped_and_shifted

pytestmark = pytest.mark.addons


def test_every_image_is_a_shifted_crop_mirrored_or_not() -> None:
    images = np.random.default_rng(0).random((60, 16, 24, 3), np.float32)
    changed = tf.function(lambda step: flipped_and_shifted(tf.constant(images), 3, step))
    made = changed(tf.constant(5)).numpy()
    bordered = np.pad(images, [(0, 0), (2, 2), (3, 3), (0, 0)])
    found = set()
    for place, image in enumerate(made):
        crops = {
            (row, column, flipped): bordered[place, row : row + 16, column : column + 24][:, :: -1 if flipped else 1]
            for row in range(5)
            for column in range(7)
            for flipped in (False, True)
        }
        [found_here] = [how for how, crop in crops.items() if (crop == image).all()]
        found.add(found_here)
    assert len(found) > 30
    assert {row for row, _, _ in found} == set(range(5))
    assert {column for _, column, _ in found} == set(range(7))
    assert (changed(tf.constant(5)).numpy() == made).all()
    assert (changed(tf.constant(6)).numpy() != made).any()
    assert (flipped_and_shifted(tf.constant(images), 4, tf.constant(5)).numpy() != made).any()
