"""Classifiers as users bring them, trained against, evaluated, transferred to and attacked: taken, or one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import AdvGANAttack, evaluate, train
from advgan.classifiers.checks import check_answers
from advgan.classifiers.loading import load_classifier
from advgan.config.loading import parse_config
from advgan.config.settings import AttackSettings, DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.experiments.train import train_and_evaluate
from advgan.files import read_json
from advgan.records.finding import PASS
from advgan.run_folder import new_run_directory

keras = tf.keras
SHAPE = (28, 28, 1)
TEST = load_dataset(DataSettings(test_images=200)).test
IMAGES = scaled(TEST.images)
SMALL = {"training_images": 320, "validation_images": 50, "test_images": 200}


@pytest.fixture(scope="module")
def trained(small_run: Path) -> Any:
    return keras.models.load_model(small_run / "target.keras", compile=False)


def with_outputs(network: Any, outputs: Callable[[Any], Any]) -> Any:
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, outputs(network(image)))


def in_half(scores: Any, dtype: str) -> Any:
    return keras.layers.Activation("linear", dtype=dtype, name=dtype)(scores)


@pytest.mark.addons
def test_half_precision_logits_under_a_name_are_trained_against(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = with_outputs(trained, lambda scores: {"logits": in_half(scores, "float16")})
    own.save("own.keras")
    config = parse_config(
        {
            "data": SMALL,
            "target": {"file": "own.keras"},
            "generator": {"widths": [4, 8], "residual_blocks": 1},
            "training": {"epochs": 1, "batch_size": 32},
        }
    )
    run = new_run_directory(config)
    summary = train_and_evaluate(config, run).as_json()
    attack = AdvGANAttack.load(run)
    adversarial = attack.generate(IMAGES)
    halved = [
        np.asarray(tf.cast(trained(images), tf.float16), np.float32).argmax(1) for images in (IMAGES, adversarial)
    ]
    right = halved[0] == TEST.labels
    fooled = right & (halved[1] != TEST.labels)
    for key, expected in (("success", fooled), ("clean_accuracy", right)):
        assert summary["test"][key]["successes"] == pytest.approx(expected.sum(), abs=1)  # equal scores may swap
    np.testing.assert_array_equal(attack.classify(IMAGES), AdvGANAttack.load(run, own).classify(IMAGES))


@pytest.mark.addons
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scores_in_half_precision_are_float32_from_the_classifier_on(trained: Any, dtype: str, tmp_path: Path) -> None:
    own = with_outputs(trained, lambda scores: in_half(scores, dtype))
    own.save(tmp_path / "own.keras")
    loaded = load_classifier(str(tmp_path / "own.keras"), SHAPE)
    expected = tf.cast(tf.cast(trained(IMAGES), dtype), tf.float32)
    scores = loaded.logits(tf.constant(IMAGES))
    assert scores.dtype == tf.float32
    np.testing.assert_array_equal(scores, expected)
    assert [finding.status for finding in check_answers(loaded, IMAGES, 10)] == [PASS] * 3
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(1, 3, padding="same", activation="tanh")])
    attack = AdvGANAttack(generator, own, AttackSettings())
    np.testing.assert_array_equal(attack.classify(IMAGES), np.argmax(expected, axis=1))


def two_inputs(trained: Any) -> Any:
    image, more = keras.Input(SHAPE, name="image"), keras.Input((3,), name="meta")
    return keras.Model([image, more], keras.layers.Add()([trained(image), keras.layers.Dense(10)(more)]))


def two_outputs(trained: Any) -> Any:
    return with_outputs(trained, lambda scores: {"digit": scores, "parity": keras.layers.Dense(2)(scores)})


def two_outputs_in_a_list(trained: Any) -> Any:
    return with_outputs(trained, lambda scores: [scores, keras.layers.Dense(3, name="other")(scores)])


def after(layer: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda trained: with_outputs(trained, lambda scores: layer()(scores))


def per_cent(trained: Any) -> Any:
    return with_outputs(trained, lambda scores: keras.layers.Rescaling(100.0)(keras.layers.Softmax()(scores)))


def softmax_then_clipped(trained: Any) -> Any:
    """Probabilities that were changed after the softmax: its logits are no longer theirs."""
    return with_outputs(trained, lambda scores: keras.layers.ReLU(0.9)(keras.layers.Softmax()(scores)))


def maps_in_place_of_scores(_: Any) -> Any:
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(10, 3)])


def lambda_layer(trained: Any) -> Any:
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Lambda(lambda images: images * 1.0), trained])


def unknown_layer(trained: Any) -> Any:
    class Scale(keras.layers.Layer):
        def call(self, images: Any) -> Any:
            return images * 1.0

    Scale.__module__ = "my_layers"
    keras.utils.register_keras_serializable("mine")(Scale)
    network = keras.Sequential([keras.Input(SHAPE), Scale(), trained])
    keras.utils.get_custom_objects().pop("mine>Scale")
    return network


def labels_from_1(trained: Any) -> Any:
    """Class k is the score k + 1; nothing is class 0."""
    return with_outputs(trained, lambda scores: keras.layers.ZeroPadding1D((1, 0))(scores[..., None])[..., 0])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (two_inputs, "has 2 inputs (image (28, 28, 1), meta (3,)); a classifier takes images alone"),
        (
            two_outputs,
            "has 2 outputs (digit (10,), parity (2,)); name the one with the scores, such as target.outp",
        ),
        (two_outputs_in_a_list, "(10,), other (3,)); name the one with the scores, such as target.output="),
        (maps_in_place_of_scores, "returns shape (1, 26, 26, 10) for one image; it should be (1, classes)"),
        (softmax_then_clipped, "returns probabilities, whose gradients vanish"),
        (per_cent, "returns probabilities in per cent, whose gradients vanish"),
        (
            lambda_layer,
            "has a Lambda layer (lambda), whose Python code would run here; use a layer of Keras instead, or set",
        ),
        (unknown_layer, "has a layer of class Scale, which Keras does not know; name the module that defines it: "),
        (labels_from_1, "images its prediction is one above the label, with "),
    ],
)
def test_what_cannot_be_meant_is_one_line_in_every_command(
    make: Callable[[Any], Any],
    expected: str,
    trained: Any,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make(trained).save("own.keras")
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    settings = ["target.file=own.keras", "data.validation_images=200"]
    commands = [
        lambda: train.main(["--config", "mnist.yaml", *(part for text in settings for part in ("--set", text))]),
        lambda: evaluate.main(["--run", str(run), "--target", "own.keras"]),
    ]
    capsys.readouterr()
    for command in commands:
        assert command() == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert expected in line
    assert not Path("checkpoints").exists()
    assert not list(run.glob("evaluation*/evaluation.json"))


def test_a_registered_layer_is_taken_once_its_module_is_imported(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message about an unknown layer says to do."""
    monkeypatch.chdir(tmp_path)
    unknown_layer(trained).save("own.keras")
    dry = [
        "--config",
        "mnist.yaml",
        "--set",
        "target.file=own.keras",
        "--set",
        "data.validation_images=50",
        "--dry-run",
    ]
    assert train.main(dry) == 2

    @keras.utils.register_keras_serializable("mine")
    class Scale(keras.layers.Layer):
        def call(self, images: Any) -> Any:
            return images * 1.0

    try:
        assert train.main(dry) == 0
    finally:
        keras.utils.get_custom_objects().pop("mine>Scale")


FUNCTIONS = """
import tensorflow as tf
network = tf.keras.models.load_model({file!r}, compile=False)
def half(images):
    return {{"logits": tf.cast(network(images), tf.float16)}}
def several(images):
    return [network(images), network(images)[:, :3]]
def shifted(images):
    return {{"logits": tf.cast(tf.roll(network(images), 1, axis=1), tf.float16)}}
"""


@pytest.fixture
def functions(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own."""
    name = f"own_functions_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS.format(file=str(small_run / "target.keras")))
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_may_answer_in_half_precision_by_name(functions: str, trained: Any) -> None:
    expected = np.asarray(tf.cast(trained(IMAGES), tf.float16), np.float32)
    scores = load_classifier(f"{functions}:half", SHAPE).logits(tf.constant(IMAGES))
    assert scores.dtype == tf.float32
    np.testing.assert_array_equal(scores, expected)
    with pytest.raises(AdvGANError, match=r"several has 2 outputs \(output 0 \(10,\), output 1 \(3,\)\)"):
        load_classifier(f"{functions}:several", SHAPE)


def test_a_saved_model_of_several_outputs_is_one_line(trained: Any, tmp_path: Path) -> None:
    tf.saved_model.save(two_outputs(trained), str(tmp_path / "saved"))
    with pytest.raises(AdvGANError, match=r"saved has 2 outputs \((digit \(10,\)|parity \(2,\)), "):
        load_classifier(str(tmp_path / "saved"), SHAPE)


@pytest.mark.parametrize("option", ["--target", "--transfer"])
def test_an_evaluation_stops_at_chance(
    option: str, functions: str, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(small_run, "run"))
    assert evaluate.main(["--run", str(run), option, f"{functions}:shifted"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {functions}:shifted is no better than chance: ")
    assert "the pixels are 0 to 255 of 255, so 0 to 1 before the classifier's own scaling" in line


def test_the_stop_at_chance_may_become_a_warning_in_the_record_and_the_report(
    functions: str, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(small_run, "run"))
    shifted = ["--target", f"{functions}:shifted", "--transfer", f"{functions}:half"]
    shifted += ["--set", "target.check_accuracy=false"]  # what the message says
    assert evaluate.main(["--run", str(run), *shifted, "--images", "100", "--optimized", "2", "--output", "out"]) == 0
    record = read_json(Path("out", "evaluation.json"))
    [warned] = [each for each in record["guards"] if each["guard"] == f"clean accuracy of {functions}:shifted"]
    assert warned["status"] == "warn" and "success would mean nothing" in warned["reason"]
    assert "success would mean nothing" in Path("out", "report.html").read_text()
    printed = capsys.readouterr().out
    assert f"Warning: clean accuracy of {functions}:shifted" in printed
    clean = record["transfer"][0]["clean_accuracy"]["rate"]
    [transfer] = [line for line in printed.splitlines() if line.startswith("  transfer to ")]
    assert transfer.endswith(f"of a clean accuracy of {clean:.2%}")
