"""Networks in files of Keras: loaded, with a one-line error where that fails, and the digest of their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.errors import AdvGANError
from advgan.networks.file_configuration import (
    KERAS,
    FileContent,
    cannot_be_loaded_here,
    code_in,
    read_configuration,
    unknown_in,
)
from advgan.networks.own_code import own_layers

keras = tf.keras
GIVE_ANOTHER = "give a .keras file written with the Keras that is installed here"


def load_network(path: Path, remedy: str = GIVE_ANOTHER, *, module: str | None = None, trust: bool = False) -> Any:
    """Load a network from a ``.keras`` file, or from an HDF5 file (``.h5``, ``.hdf5``) with the whole of it, frozen.

    A file is data: Python code in it, and modules that it names, are errors unless the user trusts it.

    Args:
        path: the file.
        remedy: what the user should do when it cannot be loaded.
        module: a Python module, which is imported first and whose layers are then known; see ``import_module``.
        trust: whether the file's Python code may run: Lambda layers, lambdas, and what needs modules that it names.

    Raises:
        AdvGANError: the file is damaged, was written by another Keras generation, holds weights alone, has code or
            classes that are not Keras's; or the module cannot be imported.
    """
    own = own_layers(module) if module else {}
    try:
        content = read_configuration(path)
    except ValueError as error:
        raise AdvGANError(f"{path} cannot be loaded ({error}); {remedy}") from None
    other = _other_keras(content)
    if not trust:
        if code := code_in(content.configuration):
            raise AdvGANError(f"{path} cannot be loaded: {code}")
        if unknown := unknown_in(content.configuration, own):
            raise AdvGANError(_not_loaded(path, content, other, unknown, remedy))
    try:
        network = keras.models.load_model(path, custom_objects=own, compile=False, safe_mode=not trust)
    except Exception as error:  # Keras, zipfile and h5py raise nearly anything when a file is damaged
        problem = unknown_in(content.configuration, own, failed=True) or cannot_be_loaded_here(content, error)
        reason = other or " ".join(str(error).split())[:160]
        raise AdvGANError(_not_loaded(path, content, reason, problem, remedy)) from None
    network.trainable = False
    return network


def weights_digest(model: Any) -> str:
    """SHA-256 over the bytes of a model's weights."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def _not_loaded(path: Path, content: FileContent, reason: str, problem: str, remedy: str) -> str:
    """The error: the problem with its fix where that helps; of another Keras, Keras 3 reads HDF5 files of Keras 2."""
    if problem and (not _other_keras(content) or (content.is_hdf5 and not KERAS.startswith("2."))):
        return f"{path} cannot be loaded: {problem}"
    return f"{path} cannot be loaded ({reason}); {remedy}"


def _other_keras(content: FileContent) -> str:
    """Which Keras wrote a file, if it is of another generation than the one here."""
    wrote = content.keras_version
    if not wrote or wrote.split(".")[0] == KERAS.split(".")[0]:
        return ""
    return f"it was written with Keras {wrote}, here is {KERAS}"
