"""``AdvGANAttack``: what it returns, counted again with Keras and NumPy, and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import advgan
from advgan import AdvGANAttack
from advgan.config.loading import dump_config, parse_config
from advgan.config.settings import AttackSettings, DataSettings
from advgan.data.batches import MOST_AT_ONCE as BATCH_SIZE
from advgan.data.datasets import Split, scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError

keras = tf.keras
COUNT = 600  # a full batch and a partial one
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_dataset(DataSettings(test_images=COUNT)).test


@pytest.fixture(scope="module")
def images(digits: Split) -> np.ndarray:
    return scaled(digits.images)


@pytest.fixture(scope="module")
def attack(small_run: Path) -> AdvGANAttack:
    return AdvGANAttack.load(small_run)


@pytest.fixture(scope="module")
def outputs(small_run: Path, images: np.ndarray) -> np.ndarray:
    """G(x), by Keras alone."""
    return keras.models.load_model(small_run / "generator.keras").predict(images, batch_size=77, verbose=0)


@pytest.fixture(scope="module")
def target(small_run: Path) -> Any:
    return keras.models.load_model(small_run / "target.keras")


def answers(target: Any, images: np.ndarray) -> np.ndarray:
    """The target's predictions, by Keras alone."""
    return target.predict(images, batch_size=77, verbose=0).argmax(axis=1)


def one_pixel_generator(weight: float, bias: float) -> Any:
    """G(x) = tanh(weight * x + bias), pixel by pixel."""
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(1, 1, activation="tanh")])
    model.layers[-1].set_weights([np.full((1, 1, 1, 1), weight, np.float32), np.full(1, bias, np.float32)])
    return model


def taking(low: float, high: float, target: Any) -> Any:
    """The same classifier for pixels from low to high."""
    rescale = keras.layers.Rescaling(1 / (high - low), -low / (high - low))
    return keras.Sequential([keras.Input((28, 28, 1)), rescale, target])


def test_importing_the_package_does_not_import_tensorflow() -> None:
    code = "import sys, advgan; assert 'tensorflow' not in sys.modules; from advgan import AdvGANAttack as A; print(A)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "<class 'advgan.attacks.advgan_attack.AdvGANAttack'>\n"


def test_the_package_has_no_other_names_by_accident() -> None:
    assert not hasattr(advgan, "AdvGanAttack")
    assert advgan.AdvGANAttack is AdvGANAttack


def test_a_run_brings_its_threat_model_and_its_target(
    attack: AdvGANAttack, images: np.ndarray, digits: Split, outputs: np.ndarray, target: Any
) -> None:
    raw, projected, success = attack(images, digits.labels)
    assert raw.dtype == projected.dtype == np.float32
    np.testing.assert_allclose(raw, images + 0.3 * outputs, atol=2e-5)
    np.testing.assert_array_equal(projected, np.clip(raw, 0, 1))
    assert success is not None and success.dtype == bool
    np.testing.assert_array_equal(success, answers(target, projected) != digits.labels)
    assert 0.3 < success.mean() < 1  # the attack works, and the count is not of everything
    assert (attack.epsilon, attack.bounds, str(attack.goal)) == (0.3, (0.0, 1.0), "untargeted (any wrong class)")


def test_without_labels_success_is_another_answer_than_on_the_clean_image(
    attack: AdvGANAttack, images: np.ndarray, digits: Split, target: Any
) -> None:
    clean = answers(target, images)
    assert (clean != digits.labels).any()  # else the two rules could not be told apart
    _, projected, success = attack(images)
    np.testing.assert_array_equal(success, answers(target, projected) != clean)


@pytest.mark.parametrize("labelled", [True, False])
def test_targeted_success_is_the_target_class_whatever_the_label(
    small_run: Path, images: np.ndarray, digits: Split, target: Any, labelled: bool
) -> None:
    generator = small_run / "generator.keras"
    attack = AdvGANAttack.load(generator, target, epsilon=0.3, goal="targeted", target_class=np.int64(8))
    _, projected, success = attack(images, digits.labels if labelled else None)
    np.testing.assert_array_equal(success, answers(target, projected) == 8)
    assert 0 < np.count_nonzero(success) < COUNT


def test_without_a_target_there_is_no_success_and_nobody_to_ask(
    small_run: Path, attack: AdvGANAttack, images: np.ndarray
) -> None:
    alone = AdvGANAttack.load(small_run / "generator.keras", epsilon="0.3")
    raw, projected, success = alone(images, np.zeros(COUNT, int))
    assert success is None
    np.testing.assert_array_equal(raw, attack(images).raw)
    np.testing.assert_array_equal(projected, attack(images).projected)
    with pytest.raises(AdvGANError, match=r"no target; load it with target="):
        alone.classify(images)


def test_generate_returns_the_projected_images_and_leaves_the_input_alone(
    attack: AdvGANAttack, images: np.ndarray, digits: Split
) -> None:
    given = images.copy()
    adversarial = attack.generate(given, digits.labels)
    np.testing.assert_array_equal(adversarial, attack(images).projected)
    np.testing.assert_array_equal(given, images)
    backwards = images[:10, ::-1]  # a view
    np.testing.assert_array_equal(attack.generate(backwards), attack.generate(backwards.copy()))


def test_labels_may_be_indices_columns_lists_or_one_hot(
    attack: AdvGANAttack, images: np.ndarray, digits: Split
) -> None:
    expected = attack(images, digits.labels).success
    one_hot = np.eye(10)[digits.labels]
    forms = (digits.labels.astype(np.uint8), digits.labels[:, np.newaxis], digits.labels.tolist(), one_hot)
    for labels in (*forms, one_hot.astype(np.float32), one_hot.astype(int), one_hot.astype(bool)):
        np.testing.assert_array_equal(attack(images, labels).success, expected)


@pytest.mark.parametrize("count", [0, 1, 2, BATCH_SIZE, BATCH_SIZE + 1])
def test_batches_of_any_size_are_attacked_alike(
    attack: AdvGANAttack, images: np.ndarray, digits: Split, count: int
) -> None:
    whole, part = attack(images, digits.labels), attack(images[:count], digits.labels[:count])
    assert part.raw.shape == part.projected.shape == attack.generate(images[:count]).shape == (count, 28, 28, 1)
    assert whole.success is not None and part.success is not None
    assert part.success.shape == (count,)
    np.testing.assert_allclose(part.projected, whole.projected[:count], atol=1e-5)
    assert np.count_nonzero(part.success != whole.success[:count]) <= 1
    assert attack(images[:count]).success.shape == (count,)  # type: ignore[union-attr]


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (-0.4242, 2.8215)])
def test_images_come_back_in_the_bounds_they_came_in(
    small_run: Path, attack: AdvGANAttack, images: np.ndarray, digits: Split, target: Any, low: float, high: float
) -> None:
    stretched = AdvGANAttack.load(small_run, taking(low, high, target), bounds=(low, high))
    unit = attack(images, digits.labels)
    there = low + images.astype(np.float64) * (high - low)
    raw, projected, success = stretched(there, digits.labels)
    np.testing.assert_allclose((raw - low) / (high - low), unit.raw, atol=2e-5)
    np.testing.assert_allclose((projected - low) / (high - low), unit.projected, atol=2e-5)
    assert projected.min() >= np.float32(low) and projected.max() <= np.float32(high)
    assert np.abs(projected - there).max() <= (0.3 + 1e-6) * (high - low)
    assert unit.success is not None and success is not None
    assert np.count_nonzero(success != unit.success) <= 1


def test_whole_numbers_from_0_to_255_are_taken_as_they_are(small_run: Path, digits: Split, target: Any) -> None:
    attack = AdvGANAttack.load(small_run / "generator.keras", taking(0, 255, target), bounds=(0, 255), epsilon=8 / 255)
    from_integers = attack(digits.images, digits.labels)
    from_floats = attack(digits.images.astype(np.float64), digits.labels)
    for one, other in zip(from_integers, from_floats, strict=True):
        np.testing.assert_array_equal(one, other)
    change = np.abs(from_integers.projected.astype(np.float64) - digits.images)
    assert from_integers.projected.dtype == np.float32
    assert 7 < change.max() <= 8 + 255e-6


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255), (-1, 1)])
@pytest.mark.parametrize("output", ["tanh", "clipped"])
@pytest.mark.parametrize("epsilon", [0.3, 8 / 255, 0.01, 1])
def test_the_bound_holds_in_float64_to_a_millionth_and_is_used_up(
    images: np.ndarray, epsilon: float, output: str, bounds: tuple[float, float]
) -> None:
    low, high = bounds
    settings = AttackSettings(epsilon=epsilon, output=output)
    attack = AdvGANAttack(one_pixel_generator(200.0, -100.0), None, settings, bounds)  # -1 below 0.5, +1 above
    for kind in (np.float32, np.float64, np.float16):
        there = (low + images[:50] * (high - low)).astype(kind)
        raw, projected, _ = attack(there)
        for made in (raw, projected):
            change = np.abs(made.astype(np.float64) - there.astype(np.float64)).max() / (high - low)
            assert change <= epsilon + 1e-6
        assert np.abs(raw.astype(np.float64) - there).max() / (high - low) >= epsilon - 1e-6
        assert projected.min() >= low and projected.max() <= high
        assert raw.min() < low - epsilon * (high - low) / 2


def test_any_function_may_be_the_target(
    small_run: Path, attack: AdvGANAttack, images: np.ndarray, digits: Split, target: Any
) -> None:
    expected = attack(images, digits.labels).success

    def served(batch: Any) -> np.ndarray:
        """A black box: NumPy in, probabilities out."""
        pixels = np.asarray(batch)
        assert pixels.dtype == np.float32
        scores = np.exp(target.predict(pixels, verbose=0))
        return scores / scores.sum(axis=1, keepdims=True)

    for function in (served, lambda batch: tf.nn.softmax(target(batch)), tf.function(lambda batch: target(batch))):
        success = AdvGANAttack.load(small_run, function)(images, digits.labels).success
        assert np.count_nonzero(success != expected) <= 1


def test_both_networks_are_in_inference_mode(images: np.ndarray) -> None:
    forgetful = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Dropout(0.9)])
    generator = keras.Sequential([keras.Input((28, 28, 1)), one_pixel_generator(-3.0, 1.5), keras.layers.Dropout(0.9)])
    classifier = keras.Sequential([forgetful, keras.layers.Flatten(), keras.layers.Dense(10)])
    attack = AdvGANAttack(generator, classifier, AttackSettings())
    plain = AdvGANAttack(one_pixel_generator(-3.0, 1.5), None, AttackSettings())
    np.testing.assert_array_equal(attack.generate(images), plain.generate(images))
    flat, (kernel, bias) = images.reshape(COUNT, -1), classifier.layers[-1].get_weights()
    assert np.count_nonzero(attack.classify(images) != (flat @ kernel + bias).argmax(axis=1)) <= 1


def test_memory_beyond_input_and_output_does_not_grow_with_the_images() -> None:
    """NumPy's side of it; ``benchmarks/attack_speed.py`` measures the process."""
    attack = AdvGANAttack(one_pixel_generator(1.0, 0.0), None, AttackSettings())

    def beyond(count: int) -> int:
        images = np.full((count, 28, 28, 1), 0.5)
        tracemalloc.start()
        try:
            adversarial = attack.generate(images)
            return tracemalloc.get_traced_memory()[1] - adversarial.nbytes
        finally:
            tracemalloc.stop()

    beyond(1000)
    batch = BATCH_SIZE * 28 * 28 * 4
    assert beyond(20_000) < 6 * batch  # 5 MB; all images are 63 MB as float32


def with_nan(images: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[-1, 5, 5] = np.nan
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"x has shape \(28, 28, 1\); the generator takes \(n, 28, 28, 1\); .*x\[np.newaxis\]"),
        (lambda x: x[..., 0], r"x has shape \(3, 28, 28\); .*pass x\[..., np.newaxis\]"),
        (lambda x: x.transpose(0, 3, 1, 2), r"x has shape \(3, 1, 28, 28\); the generator takes \(n, 28, 28, 1\)"),
        (lambda x: np.repeat(x, 3, axis=-1), r"x has shape \(3, 28, 28, 3\)"),
        (lambda x: x[:, :27], r"x has shape \(3, 27, 28, 1\)"),
        (lambda _: None, r"x has shape \(\)"),
        (lambda _: [[1.0], [2.0, 3.0]], "x is not an array: its rows differ in length"),
        (lambda x: (x * 255).astype(np.uint8), "x is uint8; .* from 0 to 1; divide it by 255"),
        (lambda x: x.astype(int), "x is int64; it should be floats from 0 to 1"),
        (lambda x: x.astype(bool), "x is bool"),
        (lambda x: x.astype(complex), "x is complex128"),
        (lambda x: x.astype(object), "x is object"),
        (lambda x: x.astype(str), "x is <U"),
        (lambda x: x * 255, "x has values from 0 to 255; the attack's bounds are 0 and 1: scale x, or"),
        (lambda x: x - 0.5, r"x has values from -0.5 to 0.5"),
        (with_nan, "x holds NaN"),
        (lambda x: np.where(x > 0.5, np.inf, x), "x has values from 0 to inf"),
    ],
)
def test_images_that_cannot_be_meant_are_refused_in_one_line(
    attack: AdvGANAttack, images: np.ndarray, change: Callable[[np.ndarray], Any], message: str
) -> None:
    given = change(images[:3])
    for call in (attack, attack.generate, attack.classify):
        with pytest.raises(AdvGANError, match=message) as refusal:
            call(given)
        assert "\n" not in str(refusal.value)


def test_images_a_rounding_error_outside_the_bounds_are_taken(attack: AdvGANAttack, images: np.ndarray) -> None:
    adversarial = attack.generate(images[:3] * (1 + 1e-7) - 1e-8)
    assert adversarial.min() >= 0 and adversarial.max() <= 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2], r"y has shape \(2,\); 3 images need 3 class indices or one-hot rows"),
        (7, r"y has shape \(\)"),
        ([[[1]], [[2]], [[3]]], r"y has shape \(3, 1, 1\)"),
        ([0, 1, 10], r"y has classes from 0 to 10 \(allowed: 0 to 9\)"),
        ([0, -1, 1], r"y has classes from -1 to 1 \(allowed: 0 to 9\)"),
        ([0.0, 1.0, 2.0], "y is float64; class indices should be integers"),
        ([True, False, True], "y is bool"),
        (["0", "1", "2"], "y is <U1"),
        ([[1], [2, 3], [4]], "y is not an array"),
        (np.eye(3), "y has one-hot rows of 3; the target has 10 classes"),
        (np.zeros((3, 10)), "y has rows that are not one-hot"),
        (np.full((3, 10), 0.1), "y has rows that are not one-hot"),
        (np.eye(10)[:3] * 2 - np.eye(10)[1:4], "y has rows that are not one-hot"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_in_one_line(
    attack: AdvGANAttack, images: np.ndarray, labels: Any, message: str
) -> None:
    for call in (attack, attack.generate):
        with pytest.raises(AdvGANError, match=message) as refusal:
            call(images[:3], labels)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("nothing", {}, r"nothing does not exist; pass the folder of a run, or the .keras file of a generator"),
        ("..", {}, "is not a run directory: it has no config.yaml"),
        ("config.yaml", {"epsilon": 0.3}, r"config.yaml cannot be loaded \(.*; use a run, or a .keras file"),
        ("target.keras", {"epsilon": 0.3}, r"maps \(None, 28, 28, 1\) to \(None, 10\); it should map images"),
        ("generator.keras", {}, r"generator.keras does not say its epsilon; pass it, such as epsilon=0.3"),
        ("generator.keras", {"epsilon": 2}, r"attack.epsilon = 2: .*\(allowed: > 0, <= 1\)"),
        ("generator.keras", {"epsilon": 0}, "attack.epsilon = 0"),
        ("generator.keras", {"epsilon": "much"}, "attack.epsilon = 'much': should be a number, such as 0.3"),
        ("generator.keras", {"epsilon": 0.3, "goal": "targeted"}, "a targeted attack needs a class index"),
        ("generator.keras", {"epsilon": 0.3, "target_class": 3}, "only for attack.goal: targeted"),
        ("generator.keras", {"epsilon": 0.3, "bounds": (1, 0)}, r"bounds = \(1, 0\): should be the smallest"),
        ("generator.keras", {"epsilon": 0.3, "bounds": (0, float("inf"))}, "bounds = "),
        ("generator.keras", {"epsilon": 0.3, "bounds": 255}, "bounds = 255"),
        ("generator.keras", {"epsilon": 0.3, "target": lambda x: x}, r"returns shape \(1, 28, 28, 1\) for one image"),
        (
            "generator.keras",
            {"epsilon": 0.3, "target": lambda _: [[[0.5]] * 2]},
            r"returns shape \(1, 2, 1\) for one image",
        ),
        ("generator.keras", {"epsilon": 0.3, "target": "absent.keras"}, r"absent\.keras: no such file or folder; give"),
        (".", {"epsilon": 0.2}, r"epsilon is set in .*config.yaml; for another load .*generator.keras"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(
    small_run: Path, file: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdvGANError, match=message) as refusal:
        AdvGANAttack.load(small_run / file, **arguments)
    assert "\n" not in str(refusal.value)


def test_a_run_that_is_not_finished_says_how_to_go_on(small_run: Path, tmp_path: Path) -> None:
    shutil.copy(small_run / "config.yaml", tmp_path)
    with pytest.raises(
        AdvGANError, match=rf"is not finished: it has no generator\.keras; continue it with: .* --resume {tmp_path}"
    ):
        AdvGANAttack.load(str(tmp_path))


def test_a_target_for_other_images_is_refused(small_run: Path) -> None:
    colours = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(AdvGANError, match=r"the target takes images of \(32, 32, 3\), the run's are \(28, 28, 1\)"):
        AdvGANAttack.load(small_run, colours)


def test_colour_images_and_a_targeted_run_of_the_users_own(tmp_path: Path) -> None:
    """What a run writes down is what ``load`` reads: a targeted goal, another epsilon, the clipped form, 3 channels."""
    settings = {"goal": "targeted", "target_class": 2, "epsilon": "8/255", "output": "clipped"}
    (tmp_path / "config.yaml").write_text(dump_config(parse_config({"attack": settings})))
    generator = keras.Sequential(
        [keras.Input((9, 10, 3)), keras.layers.Conv2D(3, 3, padding="same", activation="tanh")]
    )
    classifier = keras.Sequential([keras.Input((9, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    generator.save(tmp_path / "generator.keras")
    classifier.save(tmp_path / "target.keras")
    attack = AdvGANAttack.load(tmp_path)
    images = np.random.default_rng(0).random((6, 9, 10, 3))
    expected = np.clip(images + np.clip(generator.predict(images, verbose=0), -8 / 255, 8 / 255), 0, 1)
    _, projected, success = attack(images)
    np.testing.assert_allclose(projected, expected, atol=1e-6)
    np.testing.assert_array_equal(success, classifier.predict(projected, verbose=0).argmax(axis=1) == 2)


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def trained(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in where checkpoints/mnist/0 is a finished run, as for a reader of the pages."""
    (tmp_path / "checkpoints" / "mnist").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mnist" / "0").symlink_to(small_run)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("trained")
def test_the_example_of_the_readme_runs(digits: Split, images: np.ndarray) -> None:
    [block] = python_blocks("README.md")
    names: dict[str, Any] = {"images": images, "labels": digits.labels}
    exec(block, names)  # the reader's session
    np.testing.assert_array_equal(names["adversarial"], names["projected"])
    assert names["success"].shape == (COUNT,)


@pytest.mark.usefixtures("trained")
def test_the_examples_of_the_page_run() -> None:
    blocks = python_blocks("docs/python.md")
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # the reader's session
    np.testing.assert_array_equal(names["adversarial"], names["projected"])
    assert names["left"] == pytest.approx(1 - names["success"].mean(), abs=1e-6)
    assert 7.9 < np.abs(names["projected_255"] - 255 * names["images"]).max() < 8.001
