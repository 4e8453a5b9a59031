"""Parts of an evaluation against independent arithmetic: distances, sheets, the challenge's array, stages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import kstest, uniform

from advgan.attacks.baselines import (
    Advance,
    Arrays,
    Baseline,
    foolbox_model,
    noise_baselines,
    pgd_attack,
    run_baseline,
)
from advgan.classifiers.classifier import Classifier
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.curve import epsilons_of_curve, scaled_attack
from advgan.evaluation.distortion import distortion
from advgan.evaluation.image_sheets import challenge_array, read_sheets, write_sheets
from advgan.evaluation.subject import survival
from advgan.goals import Goal, Targeted, Untargeted
from advgan.metrics import Rate, count_matrix, success_by_class, success_rate
from advgan.perturbation import to_8_bits

DIGITS = load_dataset(DataSettings()).test
IMAGES = scaled(DIGITS.images)


def structural_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004: an 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, pixels in [0, 1]; whole windows."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        return (np.lib.stride_tricks.sliding_window_view(image, (11, 11)) * window).sum(axis=(-1, -2))

    mean_a, mean_b = mean(a), mean(b)
    spread = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_a * mean_b + c1) * (2 * together + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return float(ratio.mean())


def test_distances_as_in_numpy() -> None:
    clean = IMAGES[:40]
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, clean.shape).astype(np.float32)
    noise[:3] = 0  # these have no PSNR
    changed = np.clip(clean + noise, 0, 1)
    counted = np.arange(40) < 30
    found = distortion(clean, changed, counted)
    difference = (changed.astype(np.float64) - clean)[counted].reshape(30, 784)
    assert found.mean_l0 == (difference != 0).sum() / 30
    assert found.mean_psnr == pytest.approx((-10 * np.log10(np.square(difference[3:]).mean(axis=1))).mean(), rel=1e-5)
    pairs = zip(clean[counted, ..., 0].astype(np.float64), changed[counted, ..., 0].astype(np.float64), strict=True)
    assert found.mean_ssim == pytest.approx(np.mean([structural_similarity(a, b) for a, b in pairs]), abs=1e-4)
    assert found.largest_linf == pytest.approx(0.2, abs=1e-3)


def test_a_distance_is_a_mean_over_the_images_that_count_and_the_largest_change_is_over_all() -> None:
    clean = np.full((700, 11, 11, 3), 0.5, np.float32)  # two batches
    sizes = np.linspace(0.01, 0.3, 700)
    changed = clean.copy()
    changed[:, 0, :5, 0] += sizes[:, None].astype(np.float32)
    counted = np.arange(700) % 7 == 0
    found = distortion(clean, changed, counted)
    assert found.largest_linf == pytest.approx(0.3, abs=1e-6)
    assert found.mean_l2 == pytest.approx(np.sqrt(5) * sizes[counted].mean(), rel=1e-5)
    assert found.mean_l0 == 5
    decibels = -10 * np.log10(5 * np.square(sizes[counted]) / (11 * 11 * 3))
    assert found.mean_psnr == pytest.approx(decibels.mean(), rel=1e-5)
    similar = structural_similarity(clean[0, ..., 0].astype(np.float64), changed[0, ..., 0].astype(np.float64))
    alone = distortion(clean[:1], changed[:1], np.ones(1, bool)).mean_ssim
    assert alone == pytest.approx((similar + 2) / 3, abs=1e-4)  # the window is as large as the image
    assert distortion(clean, changed, ~counted).mean_l2 == pytest.approx(np.sqrt(5) * sizes[~counted].mean(), rel=1e-5)


def test_distances_where_nothing_can_be_measured() -> None:
    clean = IMAGES[:5]
    none = distortion(clean, clean, np.zeros(5, bool))
    assert (none.largest_linf, none.mean_l2, none.mean_l0, none.mean_ssim, none.mean_psnr) == (0.0, *[None] * 4)
    same = distortion(clean, clean, np.ones(5, bool))
    assert (same.mean_l2, same.mean_l0, same.mean_psnr) == (0.0, 0.0, None)
    assert same.mean_ssim == pytest.approx(1)
    assert distortion(clean[:, :10], clean[:, :10], np.ones(5, bool)).mean_ssim is None


def test_rates_by_class_and_matrices() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    clean = np.array([0, 1, 1, 1, 2])
    answers = np.array([1, 1, 0, 1, 0])
    assert success_rate(Untargeted(), labels, clean, answers) == Rate.of(3, 4)
    by_class = success_by_class(Untargeted(), labels, clean, answers, 4)
    assert [(rate.successes, rate.n) for rate in by_class] == [(1, 1), (1, 2), (1, 1), (0, 0)]
    assert success_rate(Targeted(0), labels, clean, answers) == Rate.of(2, 3)
    assert count_matrix(labels, answers, 3).tolist() == [[0, 2, 0], [1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 40, 41, 1003])
def test_sheets_lose_nothing(tmp_path: Path, channels: int, count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    files = write_sheets(images, tmp_path / "images")
    assert len(files) == -(-count // 1000)
    np.testing.assert_array_equal(read_sheets(files, count, (6, 5, channels)), images)


def test_sheets_of_a_larger_evaluation_go(tmp_path: Path) -> None:
    write_sheets(np.zeros((1001, 2, 2, 1), np.uint8), tmp_path)
    files = write_sheets(np.zeros((5, 2, 2, 1), np.uint8), tmp_path)
    assert sorted(tmp_path.iterdir()) == files


def test_sheets_stay_within_epsilon(tmp_path: Path) -> None:
    clean = DIGITS.images[:50]
    adversarial = np.clip(scaled(clean) + np.float32(0.3), 0, 1)
    files = write_sheets(to_8_bits(scaled(clean), adversarial, 0.3), tmp_path)
    read = read_sheets(files, 50, (28, 28, 1))
    assert np.abs(read.astype(int) - clean).max() == 76 <= 0.3 * 255


def test_the_challenges_array() -> None:
    adversarial = np.clip(IMAGES + np.float32(0.3) * np.sign(0.5 - IMAGES), 0, 1)
    array = challenge_array(IMAGES, adversarial)
    assert (array.shape, array.dtype) == ((10_000, 784), np.float32)
    np.testing.assert_array_equal(array, adversarial.reshape(10_000, 784))
    # The rules of run_attack.py, one after the other.
    assert not (np.amax(array) > 1.0001 or np.amin(array) < -0.0001 or np.isnan(np.amax(array)))
    assert np.amax(np.abs(IMAGES.reshape(10_000, 784) - array)) <= 0.3 + 0.0001


@pytest.mark.parametrize(
    ("count", "add", "words"),
    [
        (9_999, 0.0, r"takes shape \(10000, 784\)"),
        (10_000, 0.301, "largest here is 0.3010"),
        (10_000, np.nan, r"\[0, 1\]"),
    ],
)
def test_what_the_challenge_would_refuse(count: int, add: float, words: str) -> None:
    adversarial = IMAGES[:count].copy()
    adversarial[3, 0, 0] += add
    with pytest.raises(AdvGANError, match=words):
        challenge_array(IMAGES[:count], adversarial)
    if count == 10_000:
        with pytest.raises(AdvGANError, match=r"in \[0, 1\]"):
            challenge_array(IMAGES, IMAGES * 1.001)


def brightness_classifier() -> Classifier:
    """Class 0, 1 or 2 by an image's mean: below 0.4, from there on, from 0.6 on."""

    def scores(images: Any) -> Any:
        mean = tf.reduce_mean(tf.convert_to_tensor(images), axis=(1, 2, 3))
        return tf.stack([0.4 - mean, 0.1 - tf.abs(mean - 0.5), mean - 0.6], axis=1)

    return Classifier("brightness", "0" * 64, (8, 8, 1), scores)


@pytest.mark.parametrize("goal", [Untargeted(), Targeted(2)], ids=str)
def test_an_image_is_attacked_until_a_start_succeeds_and_its_worst_change_is_kept(goal: Goal) -> None:
    """At each start an image is made lighter or darker, and one of its pixels leaves the box."""
    count, restarts = 1100, 3
    random = np.random.default_rng(0)
    images = random.uniform(0.3, 0.4, (count, 8, 8, 1)).astype(np.float32)
    labels = np.zeros(count, np.int32)
    attacked = images + random.uniform(-0.1, 0.35, (restarts, count, 1, 1, 1)).astype(np.float32)
    attacked[:, :, 0, 0, 0] = random.uniform(-0.5, 1.5, (restarts, count))
    places = {image.tobytes(): place for place, image in enumerate(images)}
    starts, draws, clock = np.zeros(count, int), {}, []

    def attack(_model: Any, batch: np.ndarray, _labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if not clock:  # compiled before the clock runs
            clock.append("runs")
            return batch
        here = np.array([places[image.tobytes()] for image in batch])
        (start,) = set(starts[here].tolist())
        draws[start, int(here[0]) // 500] = random.integers(2**31)
        starts[here] += 1
        return attacked[start, here]

    advanced: list[int] = []
    baseline = Baseline("lighter", "noise", {}, attack, restarts=restarts)
    found = run_baseline(baseline, brightness_classifier(), goal, images, labels, 7)(advanced.append)

    means = attacked.mean(axis=(2, 3, 4), dtype=np.float64)
    assert min(np.abs(means - 0.4).min(), np.abs(means - 0.6).min()) > 1e-6
    answers = (means >= 0.4).astype(int) + (means >= 0.6)
    reached = answers != 0 if isinstance(goal, Untargeted) else answers == 2
    last = np.where(reached.any(axis=0), reached.argmax(axis=0), restarts - 1)
    assert set(last.tolist()) == {0, 1, 2} and not reached.any(axis=0).all()
    np.testing.assert_array_equal(starts, last + 1)
    np.testing.assert_array_equal(found["predictions"], answers[last, np.arange(count)])
    made = np.where((np.arange(restarts)[:, None] <= last)[..., None, None, None], attacked, images)
    np.testing.assert_allclose(found["linf"], np.abs(made - images).max(axis=(0, 2, 3, 4)), atol=1e-6)
    np.testing.assert_allclose(found["lowest"], np.minimum(made.min(axis=(0, 2, 3, 4)), 0), atol=1e-6)
    np.testing.assert_allclose(found["highest"], np.maximum(made.max(axis=(0, 2, 3, 4)), 1), atol=1e-6)
    assert sum(advanced) == restarts * count
    assert len(draws) == len(set(draws.values())) == restarts * 3  # each start of each batch has randomness of its own


@pytest.mark.parametrize("name", ["uniform-noise", "sign-noise"])
def test_noise_fills_the_ball_evenly(name: str) -> None:
    (baseline,) = (each for each in noise_baselines(0.1) if each.name == name)
    images = np.full((50, 20, 20, 1), 0.5, np.float32)
    change = baseline.attack(None, images, np.zeros(50, int), np.random.default_rng(0)).astype(np.float64) - images
    if name == "sign-noise":
        np.testing.assert_allclose(np.abs(change), 0.1, atol=1e-6)
        assert (change > 0).mean() == pytest.approx(0.5, abs=0.02)
    else:
        assert kstest(change.ravel(), uniform(-0.1, 0.2).cdf).pvalue > 0.01
    at_the_edge = baseline.attack(None, images * 2, np.zeros(50, int), np.random.default_rng(0))
    assert (at_the_edge == 1).mean() == pytest.approx(0.5, abs=0.02) and at_the_edge.max() == 1


def test_pgd_is_foolboxs_with_its_defaults() -> None:
    images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    classifier, labels = brightness_classifier(), np.ones(20, np.int32)
    made = pgd_attack(Untargeted(), 0.1)(foolbox_model(classifier), images, labels, np.random.default_rng(3))
    tf.random.set_seed(int(np.random.default_rng(3).integers(2**31)))
    model = foolbox.models.TensorFlowModel(classifier.logits, bounds=(0, 1), device="/CPU:0")
    _, expected, _ = foolbox.attacks.LinfPGD()(
        model, tf.constant(images), tf.constant(labels.astype(np.int64)), epsilons=0.1
    )
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert 0.01 < np.mean(np.abs(made - images) < 0.09) < 0.6  # not all at the edge, which any step would reach


def test_scaled_perturbations_stay_in_the_pixel_box() -> None:
    images = np.array([0.0, 0.2, 0.9, 1.0], np.float32).reshape(1, 2, 2, 1)
    raw = np.array([-0.1, 0.3, 1.1, 0.8], np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(scaled_attack(images, raw, 3.0).ravel(), [0, 0.5, 1, 0.4], atol=1e-6)
    np.testing.assert_allclose(scaled_attack(images, raw, 0.5).ravel(), [0, 0.25, 1, 0.9], atol=1e-6)
    np.testing.assert_array_equal(scaled_attack(images, raw, 0.0), images)
    assert epsilons_of_curve(0.3) == pytest.approx(np.linspace(0, 1, 21).tolist())
    assert epsilons_of_curve(0.31) == pytest.approx(sorted([*np.linspace(0, 1, 21).tolist(), 0.31]))


def test_survival_counts_at_each_number_of_queries_the_images_fooled_by_then() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1])
    clean = np.array([0, 0, 0, 0, 0, 0])  # the last does not count
    asked = np.array([1, 5, 5, 9, 12, 2])
    reached = np.array([True, True, True, True, False, True])
    points = survival(Untargeted(), labels, clean, asked, reached)
    assert [(point.queries_per_image, point.success) for point in points] == [
        (1, 0.2),
        (5, 0.6),
        (9, 0.8),
        (12, 0.8),  # in vain
    ]
    late = survival(Untargeted(), labels[:2], clean[:2], asked[1:3], reached[1:3])
    assert [(point.queries_per_image, point.success) for point in late] == [(1, 0.0), (5, 1.0)]
    assert survival(Untargeted(), labels[5:], clean[5:], asked[5:], reached[5:]) == ()


@contextlib.contextmanager
def unwatched(_name: str, _total: int) -> Iterator[Advance]:
    yield lambda _: None


def test_a_stage_is_found_again_only_for_the_same_settings(tmp_path: Path) -> None:
    calls: list[str] = []

    def work(_: Advance) -> Arrays:
        calls.append("worked")
        return {"answers": np.arange(5), "hits": np.array([True, False])}

    def results(weights: str, settings: dict[str, int]) -> Arrays:
        return ResultCache(tmp_path, {"weights": weights}, unwatched).result("attack", settings, 5, work)

    first = results("a", {"steps": 1})
    again = results("a", {"steps": 1})
    assert calls == ["worked"]
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    results("b", {"steps": 1})
    results("a", {"steps": 2})
    assert len(calls) == 3
    results("a", {"steps": 1})  # the others left it where it was
    assert len(calls) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing of the kind"])
def test_a_damaged_stage_is_worked_out_again(tmp_path: Path, content: bytes) -> None:
    stages = ResultCache(tmp_path, {}, unwatched)
    stages.result("attack", {}, 1, lambda _: {"a": np.arange(3)})
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert stages.result("attack", {}, 1, lambda _: {"a": np.arange(4)})["a"].tolist() == [0, 1, 2, 3]
    assert stages.found == []
    assert stages.result("attack", {}, 1, lambda _: {})["a"].tolist() == [0, 1, 2, 3]
    assert stages.found == ["attack"]


def test_a_stage_that_stops_leaves_nothing(tmp_path: Path) -> None:
    def stopped(_: Advance) -> Arrays:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ResultCache(tmp_path / "stages", {}, unwatched).result("attack", {}, 1, stopped)
    assert not (tmp_path / "stages").exists()
