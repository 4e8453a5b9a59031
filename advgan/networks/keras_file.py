"""Networks in ``.keras`` files: loaded, with a one-line error where that fails, and the digest of their weights."""

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

from advgan.errors import AdvGANError

keras = tf.keras
GIVE_ANOTHER = "give a .keras file written with the Keras that is installed here"


def load_network(path: Path, remedy: str = GIVE_ANOTHER, *, module: str | None = None, trust: bool = False) -> Any:
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
