"""The classifiers that a run or an evaluation asks: functions from images to logits, each with its name and digest."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.classifiers.interface import as_classifier, float_scores
from advgan.data.batches import in_batches
from advgan.errors import AdvGANError
from advgan.files import file_digest, folder_digest
from advgan.networks.keras_file import load_network, weights_digest

keras = tf.keras
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Classifier:
    """A classifier as attacks see it."""

    name: str
    """What the user calls it."""
    scores: Callable[[Any], Any]
    """From float32 images in [0, 1], shape (n, height, width, channels), to logits (n, classes)."""
    digest: str
    """SHA-256 of what determines its answers."""
    weights: str | None = None
    """SHA-256 of the weights of a Keras network: the same in two files that hold one network; None elsewhere."""

    def answers(self, images: np.ndarray) -> np.ndarray:
        """The class it gives each image, int32 of shape (n,), batch by batch."""
        answers = np.empty(len(images), np.int32)

        def classify(part: slice) -> None:
            batch = tf.constant(images[part].astype(np.float32, copy=False))
            answers[part] = np.argmax(self.scores(batch), axis=-1)

        in_batches(len(images), images.shape[1:], classify)
        return answers


def load_classifier(given: str, shape: Shape) -> Classifier:
    """A classifier as a user names it; files and modules run code of their own, so only those one trusts.

    Args:
        given: a ``.keras`` file, the folder of a SavedModel, or ``module:function``, a function from float32 images in
            [0, 1], shape (n, height, width, channels), to logits (n, classes); modules of the current folder are found.
        shape: of one image.

    Raises:
        AdvGANError: there is no such classifier, or it cannot be loaded, or it does not take the images.
    """
    path = Path(given)
    if path.is_file():
        return network_classifier(path, shape, "give a .keras file written with the Keras that is installed here")
    if path.is_dir():
        return _saved_model(path, shape)
    if re.fullmatch(r"[\w.]+:\w*", given):
        return _function(given, shape)
    raise AdvGANError(f"{given} is no classifier: give a .keras file, the folder of a SavedModel, or module:function")


def _saved_model(folder: Path, shape: Shape) -> Classifier:
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises nearly anything here
        raise AdvGANError(f"{folder} is no SavedModel that can be loaded ({_in_short(error)})") from None
    problems = []
    for way in (_called, _served, _signed):
        scores = _bound(way, loaded, str(folder))
        try:
            _ask(scores, shape)
            return Classifier(str(folder), scores, folder_digest(folder))
        except AdvGANError:
            raise
        except Exception as error:  # another way may do
            problems.append(_in_short(error))
    raise AdvGANError(f"{folder} does not take images of {shape} as a classifier ({problems[-1]})")


def _called(loaded: Any, images: Any) -> Any:
    return loaded(images, training=False)


def _served(loaded: Any, images: Any) -> Any:
    return loaded.serve(images)


def _signed(loaded: Any, images: Any) -> Any:
    signature = loaded.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs ({', '.join(inputs)}); a classifier takes images alone")
    (name,) = inputs
    return signature(**{name: images})


def _bound(way: Callable[[Any, Any], Any], loaded: Any, name: str) -> Callable[[Any], Any]:
    return lambda images: float_scores(way(loaded, images), name)


def find_function(given: str) -> tuple[Callable[[Any], Any], Path | None]:
    """A function named ``module:function``, and the module's file; modules of the current folder are found.

    Raises:
        AdvGANError: there is none.
    """
    module_name, _, name = given.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise AdvGANError(f"{given}: {module_name} cannot be imported ({_in_short(error)})") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise AdvGANError(f"{given}: {module_name} has no function {name or '(none named)'}")
    return function, None if module.__file__ is None else Path(module.__file__)


def _function(given: str, shape: Shape) -> Classifier:
    function, file = find_function(given)
    if isinstance(function, keras.layers.Layer):
        function = partial(function, training=False)

    def scores(images: Any) -> Any:
        return float_scores(function(images), given)

    try:
        answered = _ask(scores, shape)
    except AdvGANError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise AdvGANError(f"{given} fails on images of {shape} ({_in_short(error)})") from None
    content = hashlib.sha256(given.encode())
    content.update(b"" if file is None else file.read_bytes())
    content.update(answered.tobytes())
    return Classifier(given, scores, content.hexdigest())


def _ask(scores: Callable[[Any], Any], shape: Shape) -> np.ndarray:
    """The scores of a few images of noise, which no digest of a file could replace where weights are elsewhere."""
    images = np.random.default_rng(0).random((8, *shape), np.float32)
    answered = np.asarray(scores(tf.constant(images)), np.float32)
    if answered.ndim != 2 or len(answered) != len(images):
        raise ValueError(f"8 images are answered with shape {answered.shape}, it should be (8, classes)")
    return answered


def _in_short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def network_classifier(path: Path, shape: Shape, remedy: str) -> Classifier:
    """A Keras classifier from a ``.keras`` file, frozen, in inference mode and compiled.

    Args:
        path: the file.
        shape: of one image.
        remedy: what the user should do when it cannot be loaded.

    Raises:
        AdvGANError: it cannot be loaded, or does not fit the images.
    """
    network = as_classifier(load_network(path, remedy), shape, str(path))

    def scores(images: Any) -> Any:
        return network(images, training=False)

    compiled = tf.function(scores, input_signature=[tf.TensorSpec([None, *shape], tf.float32)])
    return Classifier(str(path), compiled, file_digest(path), weights_digest(network))
