"""One generator for several target classes: what it is trained for, how it is scored, used and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import attack as attack_command
from advgan import evaluate as evaluate_command
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.config.loading import override_config, parse_config
from advgan.config.settings import GeneratorSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, ConfigurationError
from advgan.experiments.export import export_run
from advgan.experiments.plan import check
from advgan.experiments.train import train_and_evaluate
from advgan.networks.forward import forward_in_parts
from advgan.networks.generator import build_generator
from advgan.records.summary import Summary, mean_success
from advgan.reports.terminal import run_results
from advgan.run_folder import RunFolder, load_run_config, new_run_directory
from advgan.training.step import wanted_classes

pytestmark = pytest.mark.addons
keras = tf.keras
WANTED = (3, 5, 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run for three classes, on a slice of MNIST."""
    config = parse_config(
        {
            "data": {"training_images": 3000, "validation_images": 300, "test_images": 300},
            "target": {"epochs": 2, "batch_size": 32},
            "attack": {"goal": "targeted", "target_class": list(WANTED), "epsilon": 0.4},
            "generator": {"widths": [4, 8, 16], "residual_blocks": 1, "normalization": "batch"},
            "training": {"epochs": 2, "batch_size": 64},
            "output": {"directory": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    folder = new_run_directory(config)
    train_and_evaluate(config, folder)
    return folder


def test_any_class_but_its_own_is_wanted_of_an_image_each_as_often() -> None:
    labels = tf.constant(np.arange(20_000) % 10, tf.int32)
    classes = (1, 4, 7)
    drawn = wanted_classes(labels, classes, 3, tf.constant(7)).numpy()
    assert (drawn != labels.numpy()).all()
    for label in range(10):
        others = [each for each in classes if each != label]
        found = np.bincount(drawn[labels.numpy() == label], minlength=10)
        assert sorted(np.flatnonzero(found)) == others
        assert found[others] == pytest.approx(2000 / len(others), rel=0.15)
    assert (drawn == wanted_classes(labels, classes, 3, tf.constant(7)).numpy()).all()
    assert (drawn != wanted_classes(labels, classes, 3, tf.constant(8)).numpy()).any()
    assert (drawn != wanted_classes(labels, classes, 4, tf.constant(7)).numpy()).any()


@pytest.mark.parametrize("normalization", ["instance", "batch"])
def test_a_generator_that_is_told_a_class_is_computed_as_keras_computes_it(normalization: str) -> None:
    settings = GeneratorSettings.model_validate(
        {"widths": [4, 8], "residual_blocks": 1, "normalization": normalization, "skips": True}
    )
    keras.utils.set_random_seed(0)
    generator = build_generator((12, 12, 1), settings, classes=4)
    images = tf.random.stateless_uniform([6, 12, 12, 1], [3, 4])
    wanted = tf.one_hot([0, 1, 2, 3, 0, 1], 4)
    parts = [[images[:2], wanted[:2]], [images[2:], wanted[2:]]]
    for training in (False, True):
        made = tf.concat(tf.function(forward_in_parts(generator))(parts, training), 0)
        np.testing.assert_allclose(made, generator([images, wanted], training=training), atol=2e-5)
    same = tf.tile(images[:1], [4, 1, 1, 1])
    outputs = generator([same, tf.eye(4)], training=False).numpy().reshape(4, -1)
    assert len(np.unique(outputs, axis=0)) == 4


def test_success_is_counted_towards_each_class(run: Path) -> None:
    """By hand, from Keras's own answers."""
    folder, summary = RunFolder(run), Summary.read(RunFolder(run).summary)
    test = load_dataset(load_run_config(run).data).test
    images, labels = scaled(test.images), test.labels
    generator, target = (keras.models.load_model(file, compile=False) for file in (folder.generator, folder.target))
    clean = target.predict(images, verbose=0).argmax(1)
    assert summary.towards is not None
    assert [each.wanted for each in summary.towards] == list(WANTED)
    correct = clean == labels
    assert (summary.test.clean_accuracy.successes, summary.test.clean_accuracy.n) == (correct.sum(), len(labels))
    hits = total = kept = 0
    for each in summary.towards:
        condition = np.tile(np.eye(10, dtype=np.float32)[each.wanted], (len(images), 1))
        adversarial = np.clip(images + 0.4 * generator.predict([images, condition], verbose=0), 0, 1)
        answers = target.predict(adversarial, verbose=0).argmax(1)
        reached = answers == each.wanted
        kept += ((answers == labels) & (labels != each.wanted)).sum()
        counts = (labels != each.wanted) & (clean != each.wanted)
        assert (each.success.successes, each.success.n) == ((reached & counts).sum(), counts.sum())
        assert [rate.n for rate in each.by_source] == np.bincount(labels[counts], minlength=10).tolist()
        assert sum(rate.successes for rate in each.by_source) == each.success.successes
        hits, total = hits + each.success.successes, total + each.success.n
    assert (summary.test.success.successes, summary.test.success.n) == (hits, total)
    assert summary.test.accuracy_under_attack.successes == kept
    assert summary.test.success.rate > 0.2  # it learnt something: chance is far below
    assert summary.test.largest_linf <= 0.4 + 1e-6
    mean = np.mean([each.success.rate for each in summary.towards])
    assert mean_success(summary.towards) == pytest.approx(mean)
    lines = "\n".join(run_results(summary, run))
    assert lines.count("--to 3") == 2
    assert str(folder.matrix) in lines
    assert f"mean over 3 target classes {' ' * 14}" in lines
    assert f"{mean:.2%}" in lines
    assert folder.matrix.is_file()


def test_the_attack_is_led_towards_a_class(run: Path) -> None:
    test = load_dataset(load_run_config(run).data).test.first(50)
    attack = AdvGANAttack.load(run, target_class=5)
    assert attack.goal.target_class == 5  # type: ignore[union-attr]
    eights = attack.towards(8).generate(scaled(test.images))
    assert (AdvGANAttack.load(run, target_class=8).generate(scaled(test.images)) == eights).all()
    assert (attack.generate(scaled(test.images)) != eights).any()
    _, projected, success = attack.towards(8)(scaled(test.images), test.labels)
    assert (projected == eights).all()
    assert success is not None
    assert (success == (attack.classify(eights) == 8)).all()
    with pytest.raises(AdvGANError, match=r"targeted at class 4 \(allowed: 3, 5, 8\)"):
        AdvGANAttack.load(run, target_class=4)
    with pytest.raises(AdvGANError, match="allowed: 3, 5, 8"):
        attack.towards(4)


@pytest.mark.parametrize("given", [{}, {"goal": "targeted", "target_class": 12}])
def test_a_bare_generator_needs_a_class(run: Path, given: dict[str, Any]) -> None:
    with pytest.raises(AdvGANError, match='pass goal="targeted" and a target_class from 0 to 9'):
        AdvGANAttack.load(RunFolder(run).generator, epsilon=0.4, **given)
    bare = AdvGANAttack.load(RunFolder(run).generator, epsilon=0.4, goal="targeted", target_class=8)
    images = scaled(load_dataset(load_run_config(run).data).test.images[:3])
    assert (bare.generate(images) == AdvGANAttack.load(run, target_class=8).generate(images)).all()


def test_the_commands_want_to_know_towards_which_class(
    run: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--run", str(run), "--images", "40", "--optimized", "2"]
    assert evaluate_command.main(chosen) == 2
    assert "--to = None: the generator of" in capsys.readouterr().err
    assert evaluate_command.main([*chosen, "--to", "4"]) == 2
    assert "attack.target_class is [3, 5, 8]" in capsys.readouterr().err
    assert evaluate_command.main([*chosen, "--to", "5"]) == 0
    assert evaluate_command.main(["--compare", str(small_run), str(run)]) == 2
    assert "its generator is for several target classes; take runs with one goal" in capsys.readouterr().err
    record = json.loads((run / "evaluation-to-5-first-40" / "evaluation.json").read_text())
    assert (record["goal"], record["target_class"]) == ("targeted", 5)
    np.savez(tmp_path / "images.npz", x=load_dataset(load_run_config(run).data).test.images[:20])
    written = ["--run", str(run), "--output", str(tmp_path / "made"), "--to", "8"]
    assert attack_command.main([str(tmp_path / "images.npz"), *written]) == 0
    with np.load(tmp_path / "images.npz") as clean, np.load(tmp_path / "made" / "images.npz") as made:
        expected = AdvGANAttack.load(run, target_class=8).generate(scaled(clean["x"]))
        assert np.abs(made["x"] / 255.0 - expected).max() <= 0.5 / 255 + 1e-6


def test_a_run_with_one_goal_takes_no_class(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_command.main(["--run", str(small_run), "--to", "3"]) == 2
    assert "has one goal; leave it out" in capsys.readouterr().err


def test_exported_it_takes_the_class_as_an_input(run: Path) -> None:
    """Each file is run by ``export_run`` and compared with the attack, image by image; here one of them by hand."""
    assert len(export_run(run, ("keras", "savedmodel", "onnx", "tflite"))) == 4
    model = keras.models.load_model(run / "export" / "attack.keras", compile=False)
    images = scaled(load_dataset(load_run_config(run).data).test.images[:3])
    made = model([images, np.array([8, 3, 5], np.int32)])
    for place, wanted in enumerate((8, 3, 5)):
        expected = AdvGANAttack.load(run, target_class=wanted).generate(images[place : place + 1])
        np.testing.assert_allclose(made[place], expected[0], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"attack.target_class": "every"}, "should be a class index from 0, or all, or a list of different ones"),
        ({"attack.target_class": [3]}, "should be a class index from 0, or all, or a list of different ones"),
        ({"attack.target_class": [3, 3]}, "should be a class index from 0, or all, or a list of different ones"),
        ({"attack.target_class": [3, 10]}, r"attack.target_class = 10: the data has 10 classes"),
        ({"attack.target_class": "all", "oracle.black_box": "target"}, "a black-box attack is towards one class"),
    ],
)
def test_bad_settings_are_named_in_one_line(settings: dict[str, Any], problem: str) -> None:
    content: dict[str, Any] = {"attack": {"goal": "targeted"}}
    for key, value in settings.items():
        section, name = key.split(".")
        content.setdefault(section, {})[name] = value
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        check(override_config(content, []))
    assert "\n" not in str(refusal.value)
