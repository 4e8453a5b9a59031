"""Classifiers that a user brings to an evaluation: files, SavedModels and functions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import evaluate
from advgan.classifiers.loading import load_classifier
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.files import read_json

keras = tf.keras
SHAPE = (28, 28, 1)
TEST = load_dataset(DataSettings(test_images=60)).test
IMAGES = scaled(TEST.images)
MODULE = """
import tensorflow as tf
network = tf.keras.models.load_model({path!r})
def logits(images):
    return network(images, training=False)
def broken(images):
    raise RuntimeError("out of\\norder")
def one_number(images):
    return tf.reduce_sum(images)
number = 3
"""


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others") / "run"
    return Path(shutil.copytree(small_run, folder, ignore=shutil.ignore_patterns("state", "evaluation")))


@pytest.fixture(scope="module")
def network(run: Path) -> Any:
    return keras.models.load_model(run / "target.keras")


@pytest.fixture(scope="module")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels of the three kinds that are about."""
    folder = tmp_path_factory.mktemp("saved")

    class Served(tf.Module):  # what Keras's export writes
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.float32)])
        def serve(self, images: Any) -> Any:
            return self.network(images, training=False)

    class Called(Served):
        @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.float32), tf.TensorSpec([], tf.bool)])
        def __call__(self, images: Any, training: Any) -> Any:  # noqa: ARG002
            return self.network(images, training=False)

    served, called = Served(), Called()
    tf.saved_model.save(served, str(folder / "served"))
    tf.saved_model.save(called, str(folder / "called"))
    plain = tf.Module()
    plain.network = network
    signature = tf.function(lambda images: {"scores": network(images)}, input_signature=[tf.TensorSpec([None, *SHAPE])])
    tf.saved_model.save(plain, str(folder / "signed"), signatures=signature.get_concrete_function())
    return {kind: folder / kind for kind in ("served", "called", "signed")}


@pytest.mark.parametrize("kind", ["served", "called", "signed"])
def test_a_saved_model_answers_as_its_network_does(saved: dict[str, Path], network: Any, kind: str) -> None:
    classifier = load_classifier(str(saved[kind]), SHAPE)
    np.testing.assert_allclose(classifier.logits(tf.constant(IMAGES)), network(IMAGES), atol=1e-4)
    np.testing.assert_array_equal(classifier.predict(IMAGES), np.argmax(network(IMAGES), axis=1))
    assert classifier.has_gradient
    assert classifier.digest == load_classifier(str(saved[kind]), SHAPE).digest


def test_a_function_answers_as_it_does_and_keeps_its_gradient(
    run: Path, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_a.py").write_text(MODULE.format(path=str(run / "target.keras")))
    (tmp_path / "package_a").mkdir()
    shutil.copy("mine_a.py", "package_a/inside.py")
    for name in ("mine_a:logits", "mine_a:network", "package_a.inside:logits"):
        classifier = load_classifier(name, SHAPE)
        np.testing.assert_array_equal(classifier.predict(IMAGES), np.argmax(network(IMAGES), axis=1))
        assert classifier.has_gradient
    for name, words in {
        "mine_a:broken": r"mine_a:broken fails on images of \(28, 28, 1\) \(out of order\)",
        "mine_a:one_number": r"should be \(8, classes\)|fails on images",
        "mine_a:absent": "mine_a has no function absent",
        "mine_a:": "mine_a has no function",
        "mine_a:number": "mine_a has no function number",
        "absent_module:f": "absent_module cannot be imported",
    }.items():
        with pytest.raises(AdvGANError, match=words) as refused:
            load_classifier(name, SHAPE)
        assert "\n" not in str(refused.value)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.keras").write_text("no network")
    for given, words in {
        "absent.keras": "no such file or folder; give a .keras or .h5 file, the folder of a SavedModel, module",
        str(tmp_path / "empty"): "is not a loadable SavedModel",
        str(tmp_path / "text.keras"): "cannot be loaded",
    }.items():
        with pytest.raises(AdvGANError, match=words) as refused:
            load_classifier(given, SHAPE)
        assert "\n" not in str(refused.value)


def test_a_target_and_transfers_through_the_door(
    run: Path, saved: dict[str, Path], network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = keras.models.clone_model(network)
    other.set_weights([weights * 0.5 for weights in network.get_weights()])
    other.save(tmp_path / "other.keras")
    output = tmp_path / "out"
    command = ["--run", str(run), "--images", "60", "--optimized", "2", "--output", str(output)]
    command += ["--target", str(saved["served"])]
    command += ["--transfer", str(run / "target.keras"), "--transfer", str(tmp_path / "other.keras")]
    assert evaluate.main(command) == 0
    assert "transfer to" in capsys.readouterr().out
    record = read_json(output / "evaluation.json")
    assert record["target"]["name"] == str(saved["served"])
    assert "trained against another classifier" in record["threat_model"]
    same, half = record["transfer"]
    assert same["success"] == record["success"]  # the served network is the run's own
    assert same["clean_accuracy"] == record["clean_accuracy"]
    with np.load(output / "adversarial.npz") as archive:
        clean, answers = (np.argmax(other.predict(archive[name], verbose=0), axis=1) for name in ("x", "x_adv"))
        right = clean == archive["y"]
    assert half["success"]["n"] == right.sum()
    assert half["success"]["successes"] == (right & (answers != TEST.labels)).sum()


def test_a_transfer_that_is_none_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--run", str(run), "--transfer", "absent", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: absent: no such file or folder; give a .keras")
    assert not (tmp_path / "out").exists()
