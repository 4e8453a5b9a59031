"""The examples for ONNX and PyTorch: the ONNX one answers as the network the file was made of, and is attacked."""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from processes import one_line_error

from advgan import AdvGANAttack, train
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.files import read_json

keras = tf.keras
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def network(small_run: Path) -> Any:
    """A trained classifier that returns probabilities."""
    trained = keras.models.load_model(small_run / "target.keras")
    image = keras.Input((28, 28, 1))
    return keras.Model(image, keras.layers.Softmax()(trained(image)))


def write_onnx(network: Any, path: Path, size: int | None = None, nchw: bool = False) -> None:
    convert = importlib.import_module("tf2onnx.convert")
    image = tf.TensorSpec([size, 28, 28, 1], tf.float32, name="picture")
    function = tf.function(lambda picture: {"softmax": network(picture, training=False)})
    convert.from_function(function, [image], inputs_as_nchw=["picture"] if nchw else None, output_path=str(path))


def copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the example into a folder, as a user does, and go there."""
    shutil.copy(EXAMPLES / "onnx_classifier.py", folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "onnx_classifier", raising=False)


@pytest.mark.parametrize(("size", "nchw"), [(None, False), (None, True), (1, False), (1, True), (4, False)])
def test_the_example_answers_as_the_network_does(
    network: Any, size: int | None, nchw: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(network, tmp_path / "own.onnx", size, nchw)
    copied(tmp_path, monkeypatch)
    monkeypatch.setenv("ONNX_MODEL", "own.onnx")
    images = scaled(load_dataset(DataSettings(test_images=7)).test.images)
    answers = importlib.import_module("onnx_classifier").probabilities(images)
    assert answers.shape == (7, 10) and answers.dtype == np.float32
    np.testing.assert_allclose(answers, network(images).numpy(), atol=1e-5)


def test_an_onnx_file_is_attacked_by_the_command(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_onnx(network, tmp_path / "classifier.onnx")  # what the example takes where ONNX_MODEL is not set
    copied(tmp_path, monkeypatch)
    monkeypatch.delenv("ONNX_MODEL", raising=False)
    settings = [
        "oracle.black_box=onnx_classifier:probabilities",
        "data.training_images=500",
        "data.validation_images=40",
        "data.test_images=200",
        "distillation.architecture=lenet",
        "distillation.rounds=1",
        "distillation.first_epochs=1",
        "generator.widths=[4, 8]",
        "generator.residual_blocks=0",
    ]
    typed = ["--config", "mnist_blackbox.yaml", *(part for setting in settings for part in ("--set", setting))]
    assert train.main(typed) == 0
    assert "onnx_classifier:probabilities" in capsys.readouterr().out
    run = tmp_path / "checkpoints" / "mnist_blackbox" / "0"
    summary = read_json(run / "summary.json")
    test = load_dataset(DataSettings(test_images=200)).test
    right = network.predict(scaled(test.images), verbose=0).argmax(axis=1) == test.labels
    assert summary["test"]["clean_accuracy"]["successes"] == right.sum() > 100
    assert summary["black_box"]["queries"]["clean"] == 500
    attacked = AdvGANAttack.load(run).generate(scaled(test.images))
    fooled = network.predict(attacked, verbose=0).argmax(axis=1) != test.labels
    assert summary["test"]["success"]["successes"] == (fooled & right).sum() > 0


@pytest.mark.parametrize("setting", ["target.file", "oracle.black_box"])
def test_the_file_itself_is_no_classifier_here(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line_error(train.main, capsys, "--config", "mnist.yaml", "--set", f"{setting}=model.onnx")
    assert line.startswith(f"{setting} = 'model.onnx': is an ONNX file, which gives TensorFlow no gradients: attack it")
    assert "oracle.black_box=module:function" in line and "examples/onnx_classifier.py" in line
    line = one_line_error(train.main, capsys, "--config", "mnist.yaml", "--set", f"{setting}=model.pt")
    assert line.startswith(f"{setting} = 'model.pt': is a PyTorch file") and "examples/pytorch_classifier.py" in line


@pytest.mark.parametrize("name", ["onnx_classifier", "pytorch_classifier"])
def test_the_examples_name_their_own_function(name: str) -> None:
    content = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    functions = [node.name for node in ast.parse(content).body if isinstance(node, ast.FunctionDef)]
    assert "probabilities" in functions and f"oracle.black_box={name}:probabilities" in content
