"""A classifier of the user's own, from a ``.keras`` file: attacked as it is, or refused before any work."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from log_lines import logged

from advgan import AdvGANAttack, describe, train
from advgan.config.loading import parse_config
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.experiments.train import train_and_evaluate
from advgan.files import read_json
from advgan.run_folder import load_run_config, new_run_directory

keras = tf.keras
SMALL = {"training_images": 320, "validation_images": 50, "test_images": 200}


@keras.utils.register_keras_serializable("tests")
class Noisy(keras.layers.Layer):
    """Adds noise in inference too."""

    def call(self, images: Any) -> Any:
        return images + tf.random.normal(tf.shape(images))


@keras.utils.register_keras_serializable("tests")
class Rounded(keras.layers.Layer):
    """Rounds pixels, which has no gradient."""

    def call(self, images: Any) -> Any:
        return tf.round(images)


def linear(
    *before: Any, shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10, after: tuple[Any, ...] = ()
) -> Any:
    """A linear classifier with random weights, and layers around it."""
    layers = [*before, keras.layers.Flatten(), keras.layers.Dense(classes), *after]
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.addons
def test_a_run_attacks_the_users_own_classifier_and_leaves_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path
) -> None:
    """Pixels in [-1, 1] and a width that no target of advgan has: a network that advgan could not have built."""
    monkeypatch.chdir(tmp_path)
    inside = keras.models.load_model(small_run / "target.keras", compile=False)
    own = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(2.0, -1.0), keras.layers.Rescaling(0.5, 0.5), inside]
    )
    own.save("own.keras")
    content = Path("own.keras").read_bytes()
    config = parse_config(
        {
            "data": SMALL,
            "target": {"file": "own.keras"},
            "generator": {"widths": [4, 8, 16], "residual_blocks": 1},
            "training": {"epochs": 1, "batch_size": 32},
        }
    )
    run = new_run_directory(config).absolute()
    with logged() as lines:
        summary = train_and_evaluate(config, run).as_json()

    assert Path("own.keras").read_bytes() == (run / "target.keras").read_bytes() == content
    assert read_json(run / "target.json") == {"digest": hashlib.sha256(content).hexdigest(), "seconds": 0.0}
    assert not Path("checkpoints", "targets").exists()  # nothing was trained in its place
    test = load_dataset(DataSettings(test_images=200)).test
    right = np.argmax(own.predict(scaled(test.images), verbose=0), axis=-1) == test.labels
    assert summary["test"]["clean_accuracy"]["successes"] == right.sum() > 150
    attacked = AdvGANAttack.load(run).generate(scaled(test.images))
    fooled = np.argmax(own.predict(attacked, verbose=0), axis=-1) != test.labels
    assert summary["test"]["success"]["successes"] == (fooled & right).sum()
    assert fooled.sum() > (~right).sum()  # it is attacked at all
    assert any(line.startswith("Target ") and "own.keras" in line for line in lines)

    (run / "summary.json").unlink()  # as if it had been killed before its end
    monkeypatch.chdir("/")  # resumed from anywhere
    again = train_and_evaluate(load_run_config(run), run).as_json()
    assert again["generator_weights_sha256"] == summary["generator_weights_sha256"]
    (run / "summary.json").unlink()
    (run / "target.keras").unlink()
    with pytest.raises(AdvGANError, match=r"target\.keras is missing; delete .*target\.json to restore it"):
        train_and_evaluate(load_run_config(run), run)
    inside.save(tmp_path / "own.keras")
    with pytest.raises(AdvGANError, match=r"own\.keras has changed since .* was started; put it back"):
        train_and_evaluate(load_run_config(run), run)


@pytest.mark.parametrize(
    ("own", "setting", "expected"),
    [
        (
            None,
            "file=absent.keras",
            "target.file = 'absent.keras': no such file or folder; give a .keras or .h5 file, the folder",
        ),
        (
            None,
            "file=own.onnx",
            "target.file = 'own.onnx': is an ONNX file, which gives TensorFlow no gradients: attack",
        ),
        (linear, "epochs=5", "target.epochs = 5: is for a target that is trained here"),
        (
            lambda: linear(after=(keras.layers.Softmax(), keras.layers.ReLU(0.9))),
            "",
            "returns probabilities, whose gradients vanish (its scores lie in",
        ),
        (lambda: linear(Noisy()), "", "is random: its answers on the same images differ"),
        (lambda: linear(Rounded()), "", "has no gradient"),
        (lambda: linear(shape=(32, 32, 3)), "", "takes images of (32, 32, 3), the run's are (28, 28, 1)"),
        (
            lambda: linear(classes=9),
            "",
            "answers with 9 scores, the data have 10 classes; do labels start at 0?",
        ),
        (lambda: linear(keras.layers.Lambda(lambda images: 2 * images)), "", "cannot be loaded: it has a Lambda layer"),
    ],
)
def test_a_classifier_that_cannot_be_attacked_is_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: Callable[[], Any] | None,
    setting: str,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "data.validation_images=50"]
    if own is not None:
        own().save("own.keras")
        settings += ["--set", "target.file=own.keras"]
    if setting:
        settings += ["--set", f"target.{setting}"]
    before = sorted(tmp_path.rglob("*"))
    assert train.main(["--config", "mnist.yaml", *settings]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: target.")
    assert expected in line
    assert sorted(tmp_path.rglob("*")) == before


def test_layers_that_advgan_does_not_know_are_no_obstacle_to_a_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    linear(keras.layers.Rescaling(2.0, -1.0)).save("own.keras")
    own = ["--config", "mnist.yaml", "--set", "target.file=own.keras", "--set", "target.check_accuracy=false"]
    assert train.main([*own, "--dry-run"]) == 0
    assert "# target: 7,850 parameters: own.keras" in capsys.readouterr().out
    assert describe.main([*own, "--image", "28x28x1"]) == 0
    assert "# target: 7,850 parameters: own.keras; its layers are not shown" in capsys.readouterr().out


TINY = {
    "data": SMALL,
    "generator": {"widths": [4, 8], "residual_blocks": 1},
    "training": {"epochs": 1, "batch_size": 32},
}
FUNCTION = """
import tensorflow as tf
network = tf.keras.models.load_model({path!r}, compile=False)
def probabilities(images):
    return tf.nn.softmax({factor} * network(images / 255.0))
"""


@pytest.mark.parametrize("kind", [".h5", "SavedModel", "function"])
def test_a_run_keeps_what_it_attacks_and_goes_on_with_nothing_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path
) -> None:
    """The same network as a file of Keras 2, as a folder and as a function: pixels to 255, a softmax at the end."""
    monkeypatch.chdir(tmp_path)
    inside = keras.models.load_model(small_run / "target.keras", compile=False)
    own = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), inside, keras.layers.Softmax()])
    module = f"mine_{abs(hash(tmp_path))}"
    given = {".h5": "own.h5", "SavedModel": "own_folder", "function": f"{module}:probabilities"}[kind]
    inside.save("inside.keras")
    text = FUNCTION.format(path=str(tmp_path / "inside.keras"), factor=1)
    Path(f"{module}.py").write_text(text)
    if kind == ".h5":
        own.save("own.h5")
    else:
        tf.saved_model.save(own, "own_folder")
    config = parse_config({**TINY, "data": {**SMALL, "validation_images": 300}, "target": {"file": given}})
    run = new_run_directory(config).absolute()
    with logged() as lines:
        summary = train_and_evaluate(config, run).as_json()
    test = load_dataset(DataSettings(test_images=200)).test
    images = scaled(test.images)
    right = np.argmax(inside.predict(images, verbose=0), axis=-1) == test.labels
    assert summary["test"]["clean_accuracy"]["successes"] == right.sum()
    assert summary["target_remarks"] == ["its softmax is left out: the logits before it are the scores"]
    text_of_log = "\n".join(lines)
    assert "softmax is left out" in text_of_log and "[0, 255]" in text_of_log
    found = load_run_config(run)
    assert found.target.bounds == (0, 255) and isinstance(found.loss.scale, float)
    searched = read_json(run / "pixels.json")
    assert searched["tried"][searched["taken"]]["name"] == "[0, 255]" and summary["pixels"] == searched
    attack = AdvGANAttack.load(run)
    np.testing.assert_array_equal(attack.classify(images), inside.predict(images, verbose=0).argmax(axis=-1))
    fooled = np.argmax(inside.predict(attack.generate(images), verbose=0), axis=-1) != test.labels
    assert summary["test"]["success"]["successes"] == pytest.approx((fooled & right).sum(), abs=1)
    in_bytes = AdvGANAttack.load(run, bounds=(0, 255))  # its target knows what it takes
    np.testing.assert_array_equal(in_bytes.classify(test.images), attack.classify(images))

    (run / "summary.json").unlink()  # as if it had been killed before its end
    again = train_and_evaluate(found, run).as_json()
    assert again["generator_weights_sha256"] == summary["generator_weights_sha256"]
    (run / "summary.json").unlink()
    copy = {".h5": "target.h5", "SavedModel": "target"}.get(kind)
    if copy is None:
        assert not [path for path in run.iterdir() if path.name.startswith("target") and path.suffix != ".json"]
        Path(f"{module}.py").write_text(FUNCTION.format(path=str(tmp_path / "inside.keras"), factor=2))
        sys.modules.pop(module)
        changed = f"{module}:probabilities has changed since"
    else:
        assert (run / copy).exists()
        other = keras.Sequential([keras.Input((28, 28, 1)), *own.layers[:-1]])  # the same without its softmax
        other.save("own.h5")
        tf.saved_model.save(other, "own_folder")
        changed = f"{given} has changed since"
    with pytest.raises(AdvGANError, match=rf"{changed} .* was started; put it back, or start a new run"):
        train_and_evaluate(found, run)


def test_the_scale_of_logits_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path) -> None:
    """Logits times 1,000 give the same run: undivided, Adam's epsilon and kappa would make it another."""
    monkeypatch.chdir(tmp_path)
    inside = keras.models.load_model(small_run / "target.keras", compile=False)
    inside.save("plain.keras")
    keras.Sequential([keras.Input((28, 28, 1)), inside, keras.layers.Rescaling(1000.0)]).save("large.keras")
    weights, scales = [], []
    for name in ("plain", "large"):
        config = parse_config({**TINY, "target": {"file": f"{name}.keras", "bounds": [0, 1]}, "name": name})
        run = new_run_directory(config)
        train_and_evaluate(config, run)
        weights.append(keras.models.load_model(run / "generator.keras", compile=False).get_weights())
        scales.append(load_run_config(run).loss.divisor)
    assert 0.1 < scales[0] < 10 and scales[1] == pytest.approx(1000 * scales[0], rel=1e-6)
    assert max(np.abs(plain - large).max() for plain, large in zip(*weights, strict=True)) < 1e-3


def test_a_run_of_an_earlier_release_against_ones_own_classifier_stays_as_it_was(tmp_path: Path) -> None:
    """Its configuration names no bounds and no scale: pixels in [0, 1] and undivided logits, as they were then."""
    (tmp_path / "config.yaml").write_text("target: {file: own.keras}\ndata: {validation_split: by_class}\n")
    config = load_run_config(tmp_path)
    assert config.target.bounds == (0, 1) and config.loss.scale == 1
    (tmp_path / "config.yaml").write_text("target: {architecture: lenet}\ndata: {validation_split: last}\n")
    assert load_run_config(tmp_path) == parse_config({"name": load_run_config(tmp_path).name})
