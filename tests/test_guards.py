"""Each guard against a wrong evaluation: a classifier that triggers it, and one that does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binomtest

from advgan import evaluate
from advgan.attacks.baselines import Baseline, baselines, pgd_attack, run_baseline
from advgan.attacks.square import run_square
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import load_classifier
from advgan.config.settings import DataSettings
from advgan.data.datasets import Split, scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.evaluation import checks
from advgan.evaluation.curve import curve_answers, epsilons_of_curve, success_curve
from advgan.evaluation.subject import EvaluationRequest
from advgan.experiments.evaluate import evaluate_run
from advgan.goals import Untargeted
from advgan.metrics import PairedDifference, Rate, success_rate
from advgan.records.finding import NOT_CHECKED, PASS, WARN

keras = tf.keras
COUNT, EPSILON = 120, 0.3
MNIST = load_dataset(DataSettings(training_images=5000, test_images=COUNT))
IMAGES, LABELS = scaled(MNIST.test.images), MNIST.test.labels
TRAINING = scaled(MNIST.training.images).reshape(-1, 784)
MEANS = np.stack([TRAINING[MNIST.training.labels == k].mean(axis=0) for k in range(10)]).astype(np.float32)


def nearest_mean(images: Any) -> Any:
    """The logits of the classifier that answers with the nearest class mean: right on about four digits of five."""
    return 2 * tf.reshape(images, (-1, 784)) @ MEANS.T - np.square(MEANS).sum(axis=1)


def classifier(scores: Callable[[Any], Any]) -> Classifier:
    return Classifier("the target", "0" * 64, (28, 28, 1), scores)


SOUND = classifier(nearest_mean)


def network(*layers: Any) -> Any:
    """A Keras classifier that ends in the nearest mean."""
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(10)])
    model.layers[-1].set_weights([2 * MEANS.T, -np.square(MEANS).sum(axis=1)])
    return model


def masked(honest: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The nearest mean with its gradient turned round wherever ``honest`` is false of the images."""

    @tf.custom_gradient
    def turned(images: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:
            true = tf.reshape(2 * upstream @ MEANS, tf.shape(images))
            return tf.where(honest(images), true, -true)

        return nearest_mean(images), gradient

    return turned


def never(_: Any) -> Any:
    return tf.constant(False)


def on_the_levels(images: Any) -> Any:
    """Whether images are what a camera gives: whole levels of 255."""
    return tf.reduce_max(tf.abs(images * 255 - tf.round(images * 255))) < 1e-3


# --- Answers -----------------------------------------------------------------------------------------------------


def test_a_sound_target_passes() -> None:
    findings = classifier_checks.check_answers(SOUND, IMAGES, 10)
    assert [finding.status for finding in findings] == [PASS] * 3


def test_probabilities_are_refused() -> None:
    with pytest.raises(AdvGANError, match=r"the target returns probabilities, .*without its softmax"):
        classifier_checks.check_answers(classifier(lambda images: tf.nn.softmax(nearest_mean(images))), IMAGES, 10)


@pytest.mark.parametrize("make", ["noise", "dropout"])
def test_a_random_target_is_refused(make: str) -> None:
    forgetful = network(keras.layers.Dropout(0.3))
    targets = {
        "noise": lambda images: nearest_mean(images + tf.random.normal(tf.shape(images), stddev=0.1)),
        "dropout": lambda images: forgetful(images, training=True),
    }
    tf.random.set_seed(0)
    with pytest.raises(AdvGANError, match=r"the target is random: .*inference mode"):
        classifier_checks.check_answers(classifier(targets[make]), IMAGES, 10)
    inference = classifier(lambda images: forgetful(images, training=False))
    assert classifier_checks.check_answers(inference, IMAGES, 10)[1].status == PASS


def test_a_target_in_training_mode_is_refused() -> None:
    normalized = network(keras.layers.BatchNormalization(momentum=1.0))
    with pytest.raises(AdvGANError, match=r"the target is in training mode: .*training=False"):
        classifier_checks.check_answers(classifier(lambda images: normalized(images, training=True)), IMAGES, 10)
    assert classifier_checks.check_answers(classifier(lambda images: normalized(images, training=False)), IMAGES, 10)


@pytest.mark.parametrize(
    "scores",
    [
        lambda images: tf.sigmoid(nearest_mean(images)),
        lambda images: tf.cast(tf.nn.softmax(nearest_mean(images)), tf.bfloat16),
        lambda images: 100 * tf.nn.softmax(nearest_mean(images)),
    ],
    ids=["sigmoids", "bfloat16", "per cent"],
)
def test_probabilities_in_disguise_are_refused(scores: Callable[[Any], Any]) -> None:
    with pytest.raises(AdvGANError, match=r"the target returns probabilities"):
        classifier_checks.check_answers(classifier(scores), IMAGES, 10)


@pytest.mark.parametrize("counts", [[10] * 10, [90, 10], [1, 2, 97], [50, 50]])
@pytest.mark.parametrize("n", [99, 100, 5000])
def test_an_accuracy_whose_interval_reaches_chance_stops(counts: list[int], n: int) -> None:
    labels = np.resize(np.repeat(np.arange(len(counts)), counts), n)
    chance = np.bincount(labels).max() / n
    images = np.array([0, 1], np.uint8)
    for right in range(0, n + 1, max(1, n // 50)):
        low = binomtest(right, n).proportion_ci(method="wilson").low

        def found(stop: bool, right: int = right) -> checks.Finding:
            return classifier_checks.check_accuracy("box", Rate.of(right, n), labels, images, stop)

        if low > chance:
            assert found(stop=True).status == (WARN if right / n < 0.5 else PASS)
            continue
        assert found(stop=False).status == WARN
        if n < 100:
            assert found(stop=True).status == WARN
        else:
            with pytest.raises(AdvGANError, match=r"box is no better than chance: .* the pixels are 0 to 1 of 255"):
                found(stop=True)


def test_chance_among_images_of_one_class_is_not_judged() -> None:
    found = classifier_checks.check_accuracy("box", Rate.of(200, 200), np.full(200, 7), IMAGES, stop=True)
    assert found.status == NOT_CHECKED


def test_scores_of_another_shape_or_not_finite_are_refused() -> None:
    with pytest.raises(AdvGANError, match=r"shape \(100, 5\) for 100 images; it should be .* with 10"):
        classifier_checks.check_answers(classifier(lambda images: nearest_mean(images)[:, :5]), IMAGES, 10)
    with pytest.raises(AdvGANError, match=r"shape \(100,\) for"):
        classifier_checks.check_answers(classifier(lambda images: tf.argmax(nearest_mean(images), axis=1)), IMAGES, 10)
    with pytest.raises(AdvGANError, match="NaN or infinity"):
        classifier_checks.check_answers(classifier(lambda images: nearest_mean(images) / 0.0), IMAGES, 10)


# --- Gradients ---------------------------------------------------------------------------------------------------


def test_vanishing_and_missing_gradients_are_marked() -> None:
    assert classifier_checks.check_gradients(SOUND, IMAGES, LABELS).status == PASS
    saturated = classifier(lambda images: 1e4 * nearest_mean(images))
    found = classifier_checks.check_gradients(saturated, IMAGES, LABELS)
    assert found.status == WARN
    assert "below 1e-12 on" in found.reason
    in_numpy = classifier(lambda images: tf.constant(np.asarray(nearest_mean(images))))
    assert "no gradient" in classifier_checks.check_gradients(in_numpy, IMAGES, LABELS).reason
    assert SOUND.has_gradient
    assert not in_numpy.has_gradient


def attacked(target: Classifier, name: str) -> Rate:
    (baseline,) = (b for b in baselines(Untargeted(), EPSILON, 1, 10) if b.name == name)
    answers = run_baseline(baseline, target, Untargeted(), IMAGES, LABELS, 0)(lambda _: None)["predictions"]
    return success_rate(Untargeted(), LABELS, target.predict(IMAGES), answers)


def test_more_steps_of_pgd_are_an_attack_of_their_own() -> None:
    names = [each.name for each in baselines(Untargeted(), EPSILON, 1, 10, 100)]
    assert names[3:5] == ["pgd-100", "pgd-100 margin"]
    found = next(each for each in baselines(Untargeted(), EPSILON, 1, 10, 100) if each.name == "pgd-100")
    assert (found.settings["steps"], found.settings["step"], found.gradients) == (100, EPSILON / 30, 100)


def test_a_single_step_that_beats_many_is_marked() -> None:
    fine = checks.check_iterative(attacked(SOUND, "fgsm"), attacked(SOUND, "pgd-40"))
    assert fine.status == PASS
    lattice = classifier(masked(on_the_levels))  # the random start of PGD leaves the levels, FGSM starts on them
    found = checks.check_iterative(attacked(lattice, "fgsm"), attacked(lattice, "pgd-40"))
    assert found.status == WARN
    assert found.reason.startswith("FGSM ")
    assert checks.check_iterative(None, Rate.of(1, 2)).status == NOT_CHECKED


def test_noise_that_beats_the_gradient_is_marked() -> None:
    assert checks.check_white_box(attacked(SOUND, "sign-noise"), attacked(SOUND, "pgd-40")).status == PASS
    turned = classifier(masked(never))
    noise, white_box = attacked(turned, "sign-noise"), attacked(turned, "pgd-40")
    assert noise.rate > white_box.rate
    assert checks.check_white_box(noise, white_box).status == WARN
    assert checks.check_generator(noise, Rate.of(0, noise.n)).status == WARN
    assert checks.check_generator(noise, Rate.of(noise.n, noise.n)).status == PASS


def trained(temperature: float, learned: np.ndarray) -> Any:
    """A small network that learns labels, or probabilities, by its logits divided by a temperature."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    cooled = keras.Sequential([keras.Input((28, 28, 1)), model, keras.layers.Rescaling(1 / temperature)])
    cooled.compile(keras.optimizers.Adam(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
    cooled.fit(TRAINING.reshape(-1, 28, 28, 1), learned, batch_size=50, epochs=5, verbose=0)
    return model


def along_both_losses(target: Classifier) -> tuple[Rate, Rate]:
    """PGD's success along the cross-entropy, and with the margin's help."""
    found, before = [], None
    for baseline in baselines(Untargeted(), EPSILON, 1, 10):
        if baseline.kind == "iterative":
            work = run_baseline(baseline, target, Untargeted(), IMAGES, LABELS, 0, before=before)
            before = work(lambda _: None)
            found.append(success_rate(Untargeted(), LABELS, target.predict(IMAGES), before["predictions"]))
    first, second = found
    return first, second


@pytest.mark.parametrize("masks", ["logits times 1,000", "defensive distillation"])
def test_a_network_that_only_hides_its_gradient_is_marked(masks: str) -> None:
    labels = np.eye(10, dtype=np.float32)[MNIST.training.labels]
    if masks == "defensive distillation":  # Papernot et al. 2016, at temperature 100
        teacher = trained(100.0, labels)
        soft = tf.nn.softmax(teacher(TRAINING.reshape(-1, 28, 28, 1)) / 100.0).numpy()
        target = classifier(trained(100.0, soft))
    else:
        plain = trained(1.0, labels)
        assert classifier_checks.check_gradients(classifier(plain), IMAGES, LABELS).status == PASS
        assert checks.check_losses(*along_both_losses(classifier(plain))).status == PASS
        target = classifier(lambda images: 1000 * plain(images))
    assert np.mean(target.predict(IMAGES) == LABELS) > 0.85
    assert classifier_checks.check_gradients(target, IMAGES, LABELS).status == WARN
    cross_entropy, margin = along_both_losses(target)
    assert margin.rate > 0.99
    found = checks.check_losses(cross_entropy, margin)
    assert found.status == WARN and found.reason.startswith("PGD along the cross-entropy ")


def test_a_classifier_that_resists_is_not_marked() -> None:
    target = load_classifier("robust_mnist", (28, 28, 1))
    cross_entropy, margin = along_both_losses(target)
    assert margin.rate < 0.2
    for finding in (
        classifier_checks.check_gradients(target, IMAGES, LABELS),
        checks.check_losses(cross_entropy, margin),
        checks.check_iterative(attacked(target, "fgsm"), margin),
        checks.check_white_box(attacked(target, "sign-noise"), margin),
    ):
        assert finding.status == PASS, finding
    assert checks.check_losses(None, None).status == NOT_CHECKED


def test_square_that_finds_more_than_gradients_is_marked() -> None:
    """On the nearest mean with its gradient turned round, and on it as it is."""
    for honest, status in ((True, PASS), (False, WARN)):
        target = SOUND if honest else classifier(masked(never))
        clean = target.predict(IMAGES)
        square = run_square(target, Untargeted(), IMAGES, LABELS, clean, EPSILON, 50, 0, True)(lambda _: None)
        followed = np.zeros(COUNT, bool)
        for baseline in baselines(Untargeted(), EPSILON, 1, 10):
            if baseline.kind in ("single step", "iterative") and baseline.continues is None:
                found = run_baseline(baseline, target, Untargeted(), IMAGES, LABELS, 0)(lambda _: None)
                followed |= found["predictions"] != LABELS
        counted = clean == LABELS
        gap = PairedDifference.of(square["reached"][counted], followed[counted])
        assert checks.check_square(gap).status == status, gap
    assert checks.check_square(None).status == NOT_CHECKED


def test_accuracy_that_survives_the_full_range_is_marked() -> None:
    def left(target: Classifier) -> Rate:
        pgd = Baseline("full-range", "iterative", {}, pgd_attack(Untargeted(), 1.0))
        answers = run_baseline(pgd, target, Untargeted(), IMAGES, LABELS, 0)(lambda _: None)["predictions"]
        return Rate.of(int((answers == LABELS).sum()), COUNT)

    assert checks.check_full_range(left(SOUND), 10).status == PASS
    found = checks.check_full_range(left(classifier(masked(never))), 10)
    assert found.status == WARN
    assert "chance is 10.0%" in found.reason
    assert checks.check_full_range(None, 10).status == NOT_CHECKED


def test_a_lead_within_the_interval_is_no_mark() -> None:
    """Of 100 images 50 are 40.4 % to 59.6 %; of 10,000 they would be 49.0 % to 51.0 %."""
    weak = Rate.of(59, 100)
    assert checks.check_iterative(weak, Rate.of(50, 100)).status == PASS
    assert checks.check_iterative(Rate.of(60, 100), Rate.of(50, 100)).status == WARN
    assert checks.check_iterative(weak, Rate.of(5000, 10_000)).status == WARN
    assert checks.check_white_box(Rate.of(1, 100), Rate.of(50, 100), transferred=Rate.of(60, 100)).status == WARN
    assert checks.check_white_box(Rate.of(60, 100), Rate.of(50, 100), transferred=Rate.of(1, 100)).status == WARN
    assert checks.check_white_box(weak, Rate.of(50, 100), transferred=weak).status == PASS
    assert checks.check_full_range(Rate.of(15, 100), 10).status == PASS  # 9.3 % to 23.3 %
    assert checks.check_full_range(Rate.of(150, 1000), 10).status == WARN


def test_a_success_falls_where_it_is_below_the_one_before_and_clearly_where_the_intervals_are_apart() -> None:
    labels, clean = np.zeros(100, np.int32), np.zeros(100, np.int32)
    successes = [0, 40, 90, 90, 89, 85, 81, 78, 78, 74, 70, 70, 70, 71, 70, 100, 99, 95, 95, 92, 90]
    assert len(successes) == len(epsilons_of_curve(0.3))
    answers = np.array([[1] * count + [0] * (100 - count) for count in successes], np.int32)
    points = success_curve(Untargeted(), labels, clean, answers, 0.3)
    intervals = [binomtest(count, 100).proportion_ci(method="wilson") for count in successes]
    falls = [k > 0 and successes[k] < successes[k - 1] for k in range(21)]
    clearly = [falls[k] and intervals[k].high < max(earlier.low for earlier in intervals[:k]) for k in range(21)]
    assert [point.falls for point in points] == falls
    assert [point.falls_clearly for point in points] == clearly
    assert [k for k in range(21) if clearly[k]] == [9, 10, 14, 19, 20]


# --- Budget ------------------------------------------------------------------------------------------------------


def test_images_beyond_epsilon_or_the_box_are_refused() -> None:
    none, ones = np.zeros(3), np.ones(3)
    assert checks.check_bounds("a", np.full(3, 0.3 + 9e-7), none, ones, 0.3).status == PASS
    with pytest.raises(AdvGANError, match=r"a changes a pixel by 0.300002, epsilon is 0.3"):
        checks.check_bounds("a", np.array([0.1, 0.300002]), none, ones, 0.3)
    with pytest.raises(AdvGANError, match=r"a changes a pixel by nan"):
        checks.check_bounds("a", np.array([0.1, np.nan]), none, ones, 0.3)
    for low, high in ((none - 0.01, ones), (none, ones + 0.01)):
        with pytest.raises(AdvGANError, match=r"a makes pixels from .*clip its images"):
            checks.check_bounds("a", none, low, high, 0.3)


def test_a_success_that_falls_as_epsilon_grows_is_marked() -> None:
    def finding(scores: Callable[[Any], Any]) -> checks.Finding:
        target, images, labels = classifier(scores), np.zeros((40, 9, 9, 1), np.float32), np.zeros(40, np.int32)
        raw = images + np.float32(0.3)
        answers = curve_answers(target, images, raw, 0.3, lambda _: None)["answers"]
        points = success_curve(Untargeted(), labels, target.predict(images), answers, 0.3)
        assert [point.epsilon for point in points] == epsilons_of_curve(0.3)
        assert points[0].success == Rate.of(0, 40)
        falls = [point.epsilon for point in points if point.falls]
        return checks.check_curve(falls, [point.epsilon for point in points if point.falls_clearly])

    def brightness(images: Any) -> Any:
        return tf.reduce_mean(images, axis=(1, 2, 3))

    def rising(images: Any) -> Any:  # answers 1 above a brightness of 0.2
        return tf.stack([0.2 - brightness(images), brightness(images) - 0.2], axis=1)

    def window(images: Any) -> Any:  # answers 1 between 0.2 and 0.6 only
        middle = 0.2 - tf.abs(brightness(images) - 0.41)
        return tf.stack([-middle, middle], axis=1)

    assert finding(rising).status == PASS
    found = finding(window)
    assert found.status == WARN
    assert "0.65" in found.reason


# --- Data --------------------------------------------------------------------------------------------------------


def test_training_images_are_refused_and_a_few_marked() -> None:
    used = [MNIST.training, MNIST.validation]
    assert checks.check_held_out(MNIST.test, used).status == PASS
    with pytest.raises(AdvGANError, match="120 of 120 scored images are among the training and validation images"):
        checks.check_held_out(MNIST.validation.first(120), used)
    mixed = Split(
        np.concatenate([MNIST.test.images, MNIST.training.images[:1]]),
        np.append(MNIST.test.labels, MNIST.training.labels[0]),
    )
    found = checks.check_held_out(mixed, used)
    assert found.status == WARN
    assert found.reason.startswith("1 of 121 ")


def test_one_image_in_a_hundred_may_be_a_training_image_and_each_copy_counts() -> None:
    other, used = MNIST.test.first(100), [MNIST.training]
    for copies, status in ((1, WARN), (2, None)):
        places = np.arange(100)
        places[[3, 50][:copies]] = 0
        images, labels = other.images[places].copy(), other.labels[places]
        images[[3, 50][:copies]] = MNIST.training.images[0]  # the same image twice
        if status is not None:
            assert checks.check_held_out(Split(images, labels), used).status == status
        else:
            with pytest.raises(AdvGANError, match=r"^2 of 100 scored images"):
                checks.check_held_out(Split(images, labels), used)


# --- Through the door --------------------------------------------------------------------------------------------


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("state", "evaluation")))


def test_a_generator_that_leaves_epsilon_is_refused_before_anything_is_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(1, 1)])
    loud.layers[-1].set_weights([np.full((1, 1, 1, 1), -2.0, np.float32), np.full(1, 2.0, np.float32)])
    loud.save(run / "generator.keras")
    assert evaluate.main(["--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert "advgan changes a pixel by 0.6, epsilon is 0.3" in error
    assert len(error.splitlines()) == 1
    assert not (run / "evaluation").exists()


def test_a_target_of_probabilities_is_refused_before_anything_is_written(run: Path) -> None:
    """Cut after its softmax: what went into that is no longer what it answers."""
    target = keras.models.load_model(run / "target.keras")
    layers = [target, keras.layers.Softmax(), keras.layers.ReLU(0.9)]
    keras.Sequential([keras.Input((28, 28, 1)), *layers]).save(run / "target.keras")
    with pytest.raises(AdvGANError, match="returns probabilities"):
        evaluate_run(EvaluationRequest(run))
    assert not (run / "evaluation").exists()
