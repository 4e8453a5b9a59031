"""What a run's folder holds for whoever comes after it, its configuration and its networks; and the run that ships."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.config import Config, load_config, read_yaml
from advgan.errors import AdvGANError

keras = tf.keras
CONFIG, GENERATOR, TARGET = "config.yaml", "generator.keras", "target.keras"
SUMMARY, PROCESSES, TARGET_RECORD = "summary.json", "processes.json", "target.json"
DISTILLED, JOURNAL, ANSWERS = "distilled.keras", "answers.bin", "answers.json"
REFERENCE = Path("checkpoints", "reference")
TRAIN = "python -m advgan.train --config mnist.yaml"
_PLACES = [folder / REFERENCE for folder in Path(__file__).resolve().parents[:2]]  # in a wheel; in a checkout


def reference_run() -> Path:
    """The folder of the run that ships with the package: ``mnist.yaml``, trained and evaluated.

    Raises:
        AdvGANError: it is not there.
    """
    for run in _PLACES:
        if (run / CONFIG).is_file():
            return run
    raise AdvGANError(f"{_PLACES[-1]} is not there; train a run with: {TRAIN}")


def is_reference_run(run: Path) -> bool:
    """Whether this is the folder of the run that ships."""
    return run.resolve() in _PLACES


def load_run_config(run_directory: Path) -> Config:
    """The configuration that a run was started with.

    Raises:
        AdvGANError: the folder holds no run.
    """
    if not (run_directory / CONFIG).is_file():
        raise AdvGANError(
            f"{run_directory} is not a run: it holds no {CONFIG}; a run is a folder such as checkpoints/mnist/0"
        )
    data = read_yaml("--run", run_directory / CONFIG).get("data") or {}
    of_release_0_1 = isinstance(data, dict) and "validation_split" not in data  # it knew one rule, and wrote none
    return load_config(run_directory / CONFIG, ["data.validation_split=last"] if of_release_0_1 else [])


def load_network(path: Path, remedy: str) -> Any:
    """Load a network from a ``.keras`` file, frozen.

    Args:
        path: the file.
        remedy: what the user should do when it cannot be loaded.

    Raises:
        AdvGANError: the file is damaged, or was written by another Keras generation.
    """
    try:
        network = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras, zipfile and h5py raise nearly anything when a file is damaged
        other = _other_keras(path)
        if not other and (layer := _layer_with_code(path)):
            raise AdvGANError(f"{path} cannot be loaded: {layer}") from None
        reason = other or " ".join(str(error).split())[:160]
        raise AdvGANError(f"{path} cannot be loaded ({reason}); {remedy}") from None
    network.trainable = False
    return network


def weights_digest(model: Any) -> str:
    """SHA-256 over the bytes of a model's weights."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def _layer_with_code(path: Path) -> str:
    """The layer of a ``.keras`` file whose code is not Keras's own, and what to do; empty where there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            layers = list(_described(json.loads(archive.read("config.json"))))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError):
        return ""
    for layer in layers:
        if layer["class_name"] == "Lambda":
            return (
                "it has a Lambda layer, whose code Keras does not run from a file; use a layer of Keras instead (such "
                "as Rescaling), then save it again"
            )
    for layer in layers:
        module, registered = layer.get("module"), layer.get("registered_name")
        if registered and (module is None or str(module).split(".")[0] != "keras"):
            return (
                f"it has a layer of class {layer['class_name']}, which Keras does not know; in a script of your own "
                "import the module that registers it with keras.saving.register_keras_serializable, then call the "
                "command's main, such as advgan.train.main(['--config', ...]); or save the classifier without it"
            )
    return ""


def _described(content: Any) -> Iterator[dict[str, Any]]:
    """Every object that a ``.keras`` file's configuration describes, from the outside in."""
    if isinstance(content, dict):
        if isinstance(content.get("class_name"), str):
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _described(part)


def _other_keras(path: Path) -> str:
    """Which Keras wrote a file, if it is of another generation than the one here."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrote = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError):
        return ""
    here = importlib.metadata.version("keras")
    return "" if wrote.split(".")[0] == here.split(".")[0] else f"it was written with Keras {wrote}, here is {here}"
