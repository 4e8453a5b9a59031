"""How many images are attacked or classified at a time, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.config.settings import AttackSettings
from advgan.data import batches
from advgan.data.batches import gather_batch, images_at_once, in_batches

keras = tf.keras
LINE = "Out of memory: images are attacked and classified half as many at a time"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process."""
    monkeypatch.setattr(batches, "_halved_by", 1)
    yield


def test_the_batch_follows_the_size_of_the_images_alone() -> None:
    assert images_at_once((28, 28, 1)) == images_at_once((8, 8, 1)) == 250
    assert images_at_once((32, 32, 3)) == 65
    assert images_at_once((224, 224, 3)) == images_at_once((1000, 1000, 3)) == 8


def test_every_image_is_worked_on_once() -> None:
    for count in (0, 1, 250, 251, 1234):
        seen = np.zeros(count, int)

        def work(part: slice, seen: np.ndarray = seen) -> None:
            seen[part] += 1

        in_batches(count, (28, 28, 1), work)
        assert (seen == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_batch_has_the_images_and_labels_of_its_indices_in_0_to_1(dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    images[3, 0, 0] = 0, 128, 255
    held = images if dtype is np.uint8 else images.astype(np.float32) / np.float32(255)
    batch, labels = gather_batch(tf.constant(held), tf.constant([10, 11, 12, 13, 14]), tf.constant([3, 0, 3]))
    assert batch.dtype == tf.float32
    np.testing.assert_allclose(batch, images[[3, 0, 3]] / 255.0, rtol=1e-6)
    assert labels.numpy().tolist() == [13, 10, 13]


class SmallMemory:
    """Work that fails, as on a full GPU, where it is given too many images at a time."""

    def __init__(self, most: int, count: int) -> None:
        self.most, self.done = most, np.zeros(count, int)

    def __call__(self, part: slice) -> None:
        if part.stop - part.start > self.most:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        self.done[part] += 1


def test_an_out_of_memory_error_halves_the_batch_once_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    small = SmallMemory(150, 1200)
    in_batches(1200, (28, 28, 1), small)
    assert (small.done == 1).all()
    assert images_at_once((28, 28, 1)) == 125
    assert [record.getMessage() for record in caplog.records] == [LINE]
    with pytest.raises(tf.errors.ResourceExhaustedError):
        in_batches(1200, (28, 28, 1), SmallMemory(100, 1200))
    assert len(caplog.records) == 1


def test_the_attack_goes_on_with_half_as_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = keras.Input((8, 8, 1))
    generator = keras.Model(image, keras.layers.Conv2D(1, 3, padding="same", activation="tanh")(image))
    attack = AdvGANAttack(generator, None, AttackSettings(epsilon=0.1))
    images = np.random.default_rng(0).random((1100, 8, 8, 1), np.float32)
    expected = attack.generate(images)
    perturbed = attack._perturbed

    def in_small_memory(batch: tf.Tensor) -> object:
        if len(batch) > 150:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return perturbed(batch)

    monkeypatch.setattr(attack, "_perturbed", in_small_memory)
    np.testing.assert_allclose(attack.generate(images), expected, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [LINE]
