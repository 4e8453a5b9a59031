"""``describe --target``: what is found of a classifier, and the lines of configuration that go with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from advgan import describe, train
from advgan.config.loading import load_config
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset

keras = tf.keras


def test_a_classifier_of_ones_own_is_described_with_the_lines_that_go_with_it(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """28x28 pixels to 255 in, a softmax out: found; and the printed lines make a run that passes its checks."""
    monkeypatch.chdir(tmp_path)
    inside = keras.models.load_model(small_run / "target.keras", compile=False)
    layers = [keras.layers.Reshape((28, 28, 1)), keras.layers.Rescaling(1 / 255), inside, keras.layers.Softmax()]
    keras.Sequential([keras.Input((28, 28)), *layers]).save("own.keras")
    own = ["--target", "own.keras", "--data", "mnist"]
    assert describe.main([*own, "--json", "--set", "data.test_images=500"]) == 0
    found = json.loads(capsys.readouterr().out)
    test = load_dataset(DataSettings(test_images=500)).test
    right = int((inside.predict(scaled(test.images), verbose=0).argmax(axis=1) == test.labels).sum())
    assert (found["clean_accuracy"]["successes"], found["clean_accuracy"]["n"]) == (right, 500)
    assert found["pixels"] == "[0, 255]" and found["ends"] == "softmax" and found["scores"] == "logits"
    assert found["classes"] == 10 and found["parameters"] == inside.count_params() and found["has_gradient"]
    assert found["image_shape"] == [28, 28, 1] and "(28, 28)" in found["inputs"] and "(10,)" in found["outputs"]
    assert found["remarks"] == [
        "images go in without the channel axis",
        "its softmax is left out: the logits before it are the scores",
    ]
    assert describe.main([*own, "--set", "data.test_images=500"]) == 0
    printed = capsys.readouterr().out
    lines = printed.partition("# in a configuration\n")[2]
    assert len(lines.splitlines()) == 5
    Path("mine.yaml").write_text(lines)
    config = load_config(Path("mine.yaml"))
    assert config.target.bounds == (0, 255) and config.loss.scale == found["scale"]
    assert train.main(["--config", "mine.yaml", "--dry-run"]) == 0
    assert "images go in without the channel axis" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --config FILE and --target CLASSIFIER"),
        (["--config", "mnist.yaml", "--data", "mnist"], "--data is for --target"),
        (["--target", "own.keras", "--classes", "3"], "--classes is for --config"),
        (["--target", "own.keras", "--config", "mnist.yaml"], "give one of --config FILE and --target CLASSIFIER"),
        (["--target", "absent.keras", "--data", "mnist"], "absent.keras: no such file or folder; give a .keras"),
        (["--target", "mine:f"], "--target = 'mine:f': does not state its input shape; give --data, or --image"),
        (["--target", "http://here/v1/models/m:predict", "--data", "mnist"], "gives no gradients; give"),
        (["--target", "own.keras", "--set", "attack.epsilon=0.1"], "describes neither the classifier nor the data"),
        (["--target", "own.keras", "--set", "target.bounds=[1, 0]"], "target.bounds = [1, 0]: should be auto, or the"),
    ],
)
def test_what_cannot_be_described_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        assert describe.main(arguments) == 2
    except SystemExit as stop:  # what argparse finds
        assert stop.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
