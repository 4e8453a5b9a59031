"""Success rates counted again in NumPy, and Wilson intervals against published values and their defining equation."""

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binomtest

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.classifier import classifier_of
from advgan.config.settings import AttackSettings, DataSettings
from advgan.data import batches
from advgan.data.datasets import Dataset, Split
from advgan.data.loading import load_dataset
from advgan.evaluation.scores import AttackScore, accuracy, score_attack
from advgan.metrics import PairedDifference, Rate

keras = tf.keras
COUNT = 523  # a full batch of 500 and a partial one
EPSILON = 0.2


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(successes: int, n: int, low: float, high: float) -> None:
    rate = Rate.of(successes, n)
    assert (rate.successes, rate.n, rate.rate) == (successes, n, successes / n)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 500, 10_000])
def test_wilson_intervals_are_scipys(n: int) -> None:
    for successes in sorted({0, 1, n // 7, n // 2, n - 1, n}):
        expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
        rate = Rate.of(successes, n)
        assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 100, 10_000])
def test_wilson_bounds_solve_the_equation_that_defines_them(n: int) -> None:
    z = NormalDist().inv_cdf(0.975)
    for successes in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        share = successes / n
        # (share - p)^2 = z^2 p (1 - p) / n
        low, high = sorted(np.roots([1 + z * z / n, -2 * share - z * z / n, share * share]).real)
        rate = Rate.of(successes, n)
        assert rate.low == pytest.approx(low, abs=1e-7)
        assert rate.high == pytest.approx(high, abs=1e-7)
        assert 0 <= rate.low <= rate.rate <= rate.high <= 1


def test_intervals_end_exactly_at_none_and_all() -> None:
    assert all(Rate.of(0, n).low == 0.0 and Rate.of(n, n).high == 1.0 for n in range(1, 500))


def test_a_rate_of_nothing_is_zero_of_zero() -> None:
    assert Rate.of(0, 0) == Rate(0, 0, 0.0, 0.0, 0.0)


def test_a_rate_says_its_interval_and_count() -> None:
    assert str(Rate.of(5, 10)) == "50.00% [23.66%, 76.34%] of 10"
    assert str(Rate.of(9_980, 10_000)).endswith("] of 10,000")


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_dataset(DataSettings(training_images=5000, test_images=COUNT))


@pytest.fixture(scope="module")
def digits(mnist: Dataset) -> Split:
    return mnist.test


@pytest.fixture(scope="module")
def templates(mnist: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The classifier that answers with the nearest class mean: a linear one, right on about four digits of five."""
    training = mnist.training
    means = np.stack([training.images[training.labels == k].reshape(-1, 784).mean(axis=0) / 255 for k in range(10)])
    return (2 * means.T).astype(np.float32), -np.square(means).sum(axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def classifier(templates: tuple[np.ndarray, np.ndarray]) -> Any:
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.layers[-1].set_weights(list(templates))
    return model


def one_pixel_generator(weight: float, bias: float) -> Any:
    """G(x) = tanh(weight * x + bias), pixel by pixel."""
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(1, 1, activation="tanh")])
    model.layers[-1].set_weights([np.full((1, 1, 1, 1), weight, np.float32), np.full(1, bias, np.float32)])
    return model


def expected_score(
    split: Split, templates: tuple[np.ndarray, np.ndarray], weight: float, bias: float, target: int | None
) -> dict[str, Any]:
    """The whole evaluation once more, in NumPy and in float64."""
    matrix, offset = (array.astype(np.float64) for array in templates)
    clean = split.images.astype(np.float64) / 255
    adversarial = np.clip(clean + EPSILON * np.tanh(weight * clean + bias), 0, 1)
    levels = int(EPSILON * 255)
    whole = np.clip(np.floor(adversarial * 255 + 0.5), split.images - float(levels), split.images + float(levels))

    def answers(images: np.ndarray) -> np.ndarray:
        scores = np.sort(logits := images.reshape(-1, 784) @ matrix + offset, axis=1)
        assert (scores[:, -1] - scores[:, -2]).min() > 1e-4  # no answer hangs on float32 rounding
        return logits.argmax(axis=1)

    on_clean, on_adversarial, on_whole = answers(clean), answers(adversarial), answers(whole / 255)
    labels, difference = split.labels, (adversarial - clean).reshape(-1, 784)
    if target is None:
        eligible, reached, reached_whole = on_clean == labels, on_adversarial != labels, on_whole != labels
    else:
        eligible = (labels != target) & (on_clean != target)
        reached, reached_whole = on_adversarial == target, on_whole == target
    return {
        "n": int(eligible.sum()),
        "clean": int((on_clean == labels).sum()),
        "under_attack": int((on_adversarial == labels).sum()),
        "success": int((reached & eligible).sum()),
        "success_8_bit": int((reached_whole & eligible).sum()),
        "all_reached": int(reached.sum()),
        "linf": np.abs(difference).max(),
        "l2": np.sqrt(np.square(difference).sum(axis=1))[eligible].mean(),
    }


def settings(target: int | None = None) -> AttackSettings:
    goal = {} if target is None else {"goal": "targeted", "target_class": target}
    return AttackSettings(epsilon=EPSILON, **goal)


@pytest.mark.parametrize(
    ("weight", "bias", "target"), [(-3.0, 1.5, None), (-4.0, 0.2, None), (-3.0, 1.5, 1), (-3.0, 1.5, 8)]
)
def test_scores_are_those_counted_in_numpy(
    digits: Split,
    templates: tuple[np.ndarray, np.ndarray],
    classifier: Any,
    weight: float,
    bias: float,
    target: int | None,
) -> None:
    expected = expected_score(digits, templates, weight, bias, target)
    score = score_attack(AdvGANAttack(one_pixel_generator(weight, bias), classifier, settings(target)), digits)
    assert (score.success.successes, score.success.n) == (expected["success"], expected["n"])
    assert (score.success_8_bit.successes, score.success_8_bit.n) == (expected["success_8_bit"], expected["n"])
    assert (score.clean_accuracy.successes, score.clean_accuracy.n) == (expected["clean"], COUNT)
    assert (score.accuracy_under_attack.successes, score.accuracy_under_attack.n) == (expected["under_attack"], COUNT)
    assert score.largest_linf == pytest.approx(expected["linf"], abs=1e-6)
    assert score.largest_linf <= EPSILON + 1e-6
    assert score.mean_l2 == pytest.approx(expected["l2"], rel=1e-6)
    assert 0 < expected["n"] < COUNT
    assert expected["success"] < expected["all_reached"]  # images that do not count would have changed the rate


def test_the_last_partial_batch_counts(digits: Split, classifier: Any) -> None:
    generator = one_pixel_generator(-3.0, 1.5)
    whole = score_attack(AdvGANAttack(generator, classifier, settings()), digits)
    head = score_attack(AdvGANAttack(generator, classifier, settings()), digits.first(500))
    tail = score_attack(
        AdvGANAttack(generator, classifier, settings()), Split(digits.images[500:], digits.labels[500:])
    )
    assert tail.clean_accuracy.n == 23
    assert tail.success.successes > 0
    for name in ("clean_accuracy", "accuracy_under_attack", "success", "success_8_bit"):
        total, first, last = (getattr(score, name) for score in (whole, head, tail))
        assert (total.successes, total.n) == (first.successes + last.successes, first.n + last.n)


@pytest.fixture(scope="module")
def reference_score(digits: Split, classifier: Any) -> Iterator[AttackScore]:
    yield score_attack(AdvGANAttack(one_pixel_generator(-3.0, 1.5), classifier, settings(8)), digits)


@pytest.mark.parametrize("batch_size", [7, 522, 523, 10_000])
def test_scores_do_not_depend_on_the_batch_size(
    digits: Split,
    classifier: Any,
    reference_score: AttackScore,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MOST_AT_ONCE", "FEWEST_AT_ONCE"):
        monkeypatch.setattr(batches, name, batch_size)
    score = score_attack(AdvGANAttack(one_pixel_generator(-3.0, 1.5), classifier, settings(8)), digits)
    assert score.success == reference_score.success
    assert score.success_8_bit == reference_score.success_8_bit
    assert score.accuracy_under_attack == reference_score.accuracy_under_attack
    assert score.largest_linf == pytest.approx(reference_score.largest_linf, abs=1e-7)
    assert score.mean_l2 == pytest.approx(reference_score.mean_l2, rel=1e-6)


@pytest.mark.parametrize("target", [None, 0, 8])
def test_a_generator_of_zeros_never_succeeds(digits: Split, classifier: Any, target: int | None) -> None:
    score = score_attack(AdvGANAttack(one_pixel_generator(0.0, 0.0), classifier, settings(target)), digits)
    assert score.clean_accuracy.rate < 1  # it would, if images already wrong counted
    assert (score.success.successes, score.success_8_bit.successes) == (0, 0)
    assert 0 < score.success.n < COUNT
    assert score.accuracy_under_attack == score.clean_accuracy
    assert (score.largest_linf, score.mean_l2) == (0.0, 0.0)


def test_targeted_scores_leave_out_images_that_already_are_of_the_target_class(digits: Split, classifier: Any) -> None:
    clean = classifier(digits.images.astype(np.float32) / 255).numpy().argmax(axis=1)
    of_class_8 = int(((digits.labels == 8) | (clean == 8)).sum())
    score = score_attack(AdvGANAttack(one_pixel_generator(-3.0, 1.5), classifier, settings(8)), digits)
    assert score.success.n == COUNT - of_class_8
    only_8 = digits.labels == 8
    attack = AdvGANAttack(one_pixel_generator(-3.0, 1.5), classifier, settings(8))
    nothing = score_attack(attack, Split(digits.images[only_8], digits.labels[only_8]))
    assert nothing.success == Rate(0, 0, 0.0, 0.0, 0.0)
    assert nothing.mean_l2 == 0.0
    assert nothing.largest_linf > 0  # over all images


def test_both_networks_are_in_inference_mode(
    digits: Split, templates: tuple[np.ndarray, np.ndarray], classifier: Any
) -> None:
    with_dropout = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.9), keras.layers.Dense(10)]
    )
    with_dropout.layers[-1].set_weights(list(templates))
    generator = one_pixel_generator(-3.0, 1.5)
    forgetful = keras.Sequential([generator, keras.layers.Dropout(0.9)])
    forgetful.build((None, 28, 28, 1))
    plain = score_attack(AdvGANAttack(generator, classifier, settings()), digits)
    assert score_attack(AdvGANAttack(forgetful, with_dropout, settings()), digits) == plain


def test_float_images_score_like_the_same_images_in_8_bits(digits: Split, classifier: Any) -> None:
    generator = one_pixel_generator(-3.0, 1.5)
    floats = Split(digits.images.astype(np.float32) / np.float32(255), digits.labels)
    attack = AdvGANAttack(generator, classifier, settings())
    assert score_attack(attack, floats) == score_attack(attack, digits)


def test_accuracy_counts_every_image(digits: Split, templates: tuple[np.ndarray, np.ndarray], classifier: Any) -> None:
    matrix, offset = templates
    answers = (digits.images.reshape(-1, 784) / 255 @ matrix + offset).argmax(axis=1)
    target = classifier_of(classifier, (28, 28, 1), "the target")
    assert accuracy(target, digits) == Rate.of(int((answers == digits.labels).sum()), COUNT)


def test_a_paired_differences_interval_covers_as_often_as_it_says() -> None:
    """Newcombe 1998: 95 %, roughly, for differences of correlated shares; by simulation."""
    random = np.random.default_rng(0)
    for both, first, second, n in ((0.8, 0.1, 0.02, 200), (0.03, 0.03, 0.01, 1000), (0.5, 0.02, 0.02, 100)):
        covered = []
        for _ in range(1000):
            kind = random.choice(4, n, p=[both, first, second, 1 - both - first - second])
            found = PairedDifference.of((kind == 0) | (kind == 1), (kind == 0) | (kind == 2))
            covered.append(found.low <= first - second <= found.high)
        assert 0.93 < np.mean(covered) < 0.995


def test_a_paired_difference_by_hand() -> None:
    first, second = np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 1, 0, 0], bool)
    found = PairedDifference.of(first, second)
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.difference == pytest.approx(1 / 6) and found.low < 0 < found.difference < found.high < 1
    turned = PairedDifference.of(second, first)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    same = PairedDifference.of(first, first)
    assert same.difference == 0 and same.low <= 0 <= same.high
    apart = PairedDifference.of(np.ones(50, bool), np.zeros(50, bool))
    assert apart.difference == 1 and 0.8 < apart.low < apart.high == 1
    assert PairedDifference.of(first[:0], second[:0]).difference == 0
