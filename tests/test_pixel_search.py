"""``bounds: auto``: which pixels a classifier takes; labels shifted by one, BGR; and the scale of its logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.classifier import Classifier, classifier_of
from advgan.classifiers.margin_scale import USUAL_MARGIN, margin_scale
from advgan.classifiers.pixel_search import RANGES, USUAL_OF_COLOUR, USUAL_OF_GREY, find_pixels, pixels_taken
from advgan.classifiers.pixels import Pixels
from advgan.config.settings import DataSettings
from advgan.data.datasets import Split
from advgan.data.loading import load_dataset

keras = tf.keras
COLOUR = (4, 4, 3)


def colours(count: int = 400) -> Split:
    """Six classes, by what is bright and by what is red, neither or blue."""
    random = np.random.default_rng(0)
    level = random.choice([0.3, 0.7], count)
    red = random.choice([-0.2, 0.0, 0.2], count)
    images = np.stack([level + red, level, level - red], -1)[:, None, None] + random.normal(0, 0.02, (count, *COLOUR))
    labels = (level > 0.5) + 2 * np.rint(5 * red + 1)
    return Split(np.clip(images, 0, 1).astype(np.float32), labels.astype(np.int32))


def six_scores(bright: Any, red: Any) -> Any:
    """Logits by how much brighter an image is than the middle, and how much redder than blue."""
    return tf.stack([b * 50 * bright - 100 * (red - 0.4 * r) ** 2 for r in (-1, 0, 1) for b in (-1, 1)], -1)


def taking(pixels: Pixels, bgr: bool = False, shift: int = 0) -> Classifier:
    """A classifier of these colours for pixels of its own, written out in TensorFlow."""
    low, high = pixels.bounds

    def scores(images: Any) -> Any:
        images = images * (pixels.std or 1.0) + (pixels.mean or 0.0)
        means = tf.reduce_mean((images - low) / (high - low), [1, 2])
        means = means[:, ::-1] if bgr else means
        six = six_scores(tf.reduce_mean(means, -1) - 0.5, means[:, 0] - means[:, 2])
        return tf.pad(six, [[0, 0], [shift, 0]], constant_values=-1e4)

    return classifier_of(scores, COLOUR, "own")


@pytest.mark.parametrize("name", [*RANGES, *USUAL_OF_COLOUR])
def test_each_usual_pixel_range_is_found(name: str) -> None:
    pixels = {**RANGES, **USUAL_OF_COLOUR}[name]
    split, own = colours(), taking(pixels)
    search = find_pixels(own, split)
    rates = {tried.name: tried.accuracy for tried in search.tried}
    right = np.mean(replace(own, pixels=pixels).predict(split.images) == split.labels)
    assert rates[name].rate == pytest.approx(right) == max(rate.rate for rate in rates.values())
    others = [rate.high for other, rate in rates.items() if other != name]
    assert search.decided == (rates[name].low > max(others))
    assert pixels_taken(search) == pixels or (not search.decided and "mean and std" in search.reason)
    assert search.remarks == ()


def test_the_interval_must_lie_above_every_other() -> None:
    """Two that do equally well, both clearly better than [0, 1]: none is taken, and the reason says what to do."""
    split = colours()

    def scores(images: Any) -> Any:  # of means alone, in any range above [0, 1]
        means = tf.reduce_mean(images, [1, 2])
        bright = tf.reduce_mean(means, -1)
        wide = tf.cast(tf.reduce_max(bright) > 2, tf.float32)
        level = tf.where(wide > 0, bright / 255.0, bright)
        return six_scores((level - 0.5) * wide, (means[:, 0] - means[:, 2]) / tf.where(wide > 0, 255.0, 1.0))

    search = find_pixels(classifier_of(scores, COLOUR, "own"), split)
    assert search.decided and search.tried[search.taken].name == "[0, 255]"

    def any_range(images: Any) -> Any:
        means = tf.reduce_mean(images, [1, 2])
        span = tf.reduce_max(means) - tf.reduce_min(means)
        bright = tf.reduce_mean(means, -1) - tf.reduce_mean(means)
        return six_scores(bright / span, 0.8 * (means[:, 0] - means[:, 2]) / span)

    search = find_pixels(classifier_of(any_range, COLOUR, "own"), split)
    assert not search.decided and search.taken == 0 and "as the images do not decide" in search.reason


def test_of_equals_that_are_clearly_better_than_the_first_the_highest_is_taken() -> None:
    split = colours()

    def negative_helps(images: Any) -> Any:  # knows colours wherever some pixels are below 0
        means = tf.reduce_mean(images, [1, 2])
        span = tf.reduce_max(means) - tf.reduce_min(means)
        bright = tf.reduce_mean(means, -1) - tf.reduce_mean(means)
        six = six_scores(bright / span, 0.8 * (means[:, 0] - means[:, 2]) / span)
        return tf.where(tf.reduce_min(means) < 0, six, -six)

    search = find_pixels(classifier_of(negative_helps, COLOUR, "own"), split)
    assert not search.decided and search.tried[search.taken].name == "[-1, 1]"
    assert search.tried[0].accuracy.rate < 0.1
    assert "and [0, 1] is clearly worse; state it with target.bounds" in search.reason


@pytest.mark.parametrize("step", [1, -1])
def test_labels_shifted_by_one_are_reported(step: int) -> None:
    split = colours()
    own = taking(RANGES["[0, 255]"], shift=max(step, 0))
    if step < 0:
        split = Split(split.images, split.labels + 1)
    search = find_pixels(own, split)
    [remark] = search.remarks
    where = "above" if step > 0 else "below"
    assert f"its prediction is one {where} the label, with [0, 255]" in remark
    assert remark.startswith("for 100.00%")


def test_bgr_is_reported() -> None:
    search = find_pixels(taking(RANGES["[-1, 1]"], bgr=True), colours())
    [remark] = search.remarks
    assert "blue, green, red it classifies 100.00%" in remark and "it takes BGR" in remark
    assert find_pixels(taking(RANGES["[-1, 1]"]), colours()).remarks == ()


@pytest.mark.parametrize("name", [*RANGES, *USUAL_OF_GREY])
def test_a_trained_network_behind_its_normalization_is_recognized(name: str, small_run: Path) -> None:
    pixels = {**RANGES, **USUAL_OF_GREY}[name]
    inside = keras.models.load_model(small_run / "target.keras", compile=False)
    low, high = pixels.bounds
    mean, std = (pixels.mean or (0.0,))[0], (pixels.std or (1.0,))[0]
    scale = keras.layers.Rescaling(std / (high - low), (mean - low) / (high - low))
    own = keras.Sequential([keras.Input((28, 28, 1)), scale, inside])
    validation = load_dataset(DataSettings()).validation
    search = find_pixels(classifier_of(own, (28, 28, 1), "own"), validation)
    assert search.images == 500
    rates = {tried.name: tried.accuracy for tried in search.tried}
    own_rate = rates[name]
    assert own_rate.rate > 0.85
    if search.decided:
        assert search.tried[search.taken].name == name
    else:
        assert max(rate.high for other, rate in rates.items() if other != name) >= own_rate.low
    again = keras.Sequential([keras.Input((28, 28, 1)), inside])
    unit = find_pixels(classifier_of(again, (28, 28, 1), "own"), validation)
    assert own_rate == unit.tried[0].accuracy  # as the network without a normalization


def test_the_scale_is_the_median_clean_margin_in_units_of_the_usual_one() -> None:
    split = colours()
    own = taking(Pixels())
    logits = np.sort(np.asarray(own.logits(split.images)), axis=1)
    expected = np.median(logits[:, -1] - logits[:, -2]) / USUAL_MARGIN
    for factor in (1.0, 10.0, 1000.0):
        scaled = classifier_of(lambda images, factor=factor: factor * own.logits(images), COLOUR, "own")  # type: ignore[misc]
        assert margin_scale(scaled, split) == pytest.approx(factor * expected, rel=0.006)
    wrong = Split(split.images, (split.labels + 1) % 6)
    assert margin_scale(own, wrong) == 1.0  # nothing to measure
