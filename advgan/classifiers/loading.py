"""The one way to name a classifier: ``KINDS`` is the table of what a user may give, and the place for one more kind."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from advgan.classifiers.classifier import Classifier, Shape, classifier_of, only_output
from advgan.classifiers.served import check_served, served_black_box
from advgan.data.batches import images_at_once
from advgan.errors import AdvGANError, BlackBoxFailed
from advgan.files import file_digest, folder_digest
from advgan.networks.keras_file import GIVE_ANOTHER, load_network, weights_digest

keras = tf.keras


class Source(NamedTuple):
    """A black box before its answers are read: NumPy arrays go in and come out, so no gradient passes through."""

    answer: Callable[[np.ndarray], np.ndarray]
    """From float32 images in [0, 1], shape (n, height, width, channels), to whatever it answers."""
    digest: str
    """SHA-256 of what determines its answers, as far as that can be seen: of a served model, its URL."""
    may_give_logits: bool = True
    """Whether scores that are no probabilities are logits; else they are an error."""
    images_at_once: int | None = None
    """The most images in a request, whatever the user allows; None for no limit of its own."""
    weights: str | None = None
    """See ``Classifier.weights``."""
    check: Callable[[], None] = lambda: None
    """Raises an ``AdvGANError`` where it is not there; costs no query."""


@dataclass(frozen=True)
class Kind:
    """A kind of classifier: how it is named, and how it is made where the whole of it, or its answers alone, serve."""

    words: str
    """What to give, as error messages say it."""
    is_named_by: Callable[[str], bool]
    load: Callable[[str, Shape, str], Classifier] | None = None
    """From the name, the shape of one image and a remedy (see ``load_network``); None where it is a black box only."""
    connect: Callable[[str, Shape, float, int, Mapping[str, str]], Source] | None = None
    """From the name, the shape, timeout, retries and headers; None where it cannot be a black box."""


def load_classifier(given: str | Path, shape: Shape, remedy: str = GIVE_ANOTHER) -> Classifier:
    """A classifier as a user names it; files and modules run code of their own, so only those one trusts.

    Args:
        given: a ``.keras`` file, the folder of a SavedModel, or ``module:function``, a function from float32 images in
            [0, 1], shape (n, height, width, channels), to logits (n, classes); modules of the current folder are found.
        shape: of one image: height, width, channels.
        remedy: what the user should do where a ``.keras`` file cannot be loaded.

    Raises:
        AdvGANError: there is no such classifier, or it cannot be loaded, or it does not take the images.
    """
    for kind in KINDS:
        if kind.load is not None and kind.is_named_by(str(given)):
            return kind.load(str(given), shape, remedy)
    raise AdvGANError(f"{given} is no classifier: give {_one_of(kind.words for kind in KINDS if kind.load)}")


def black_box_source(given: str, shape: Shape, timeout: float, retries: int, headers: Mapping[str, str] = {}) -> Source:
    """A black box as a user names it; nothing is sent to it.

    Args:
        given: a ``.keras`` file, ``module:function``, or the URL of a served model.
        shape: of one image.
        timeout, retries: seconds, and how often a request to a served model is sent again.
        headers: of such a request; see ``served_black_box``.

    Raises:
        AdvGANError: there is no such black box, or it cannot be loaded, or it does not take the images.
    """
    for kind in KINDS:
        if kind.connect is not None and kind.is_named_by(given):
            return kind.connect(given, shape, timeout, retries, headers)
    raise AdvGANError(f"{given} is no black box: give {_one_of(kind.words for kind in KINDS if kind.connect)}")


def _one_of(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)}, or {last}"


# --- .keras files ------------------------------------------------------------------------------------------------


def _keras_file(given: str, shape: Shape, remedy: str = GIVE_ANOTHER) -> Classifier:
    network = load_network(Path(given), remedy)
    if not (getattr(network, "inputs", None) and getattr(network, "outputs", None)):
        raise AdvGANError(
            f"{given} does not say what images it takes; build it on keras.Input{shape} and save it again"
        )
    return classifier_of(network, shape, given, file_digest(Path(given)), weights=weights_digest(network))


def _keras_file_as_black_box(given: str, shape: Shape, *_: object) -> Source:
    classifier = _keras_file(given, shape)
    answer = _answers_of(classifier.logits, given)
    at_once = images_at_once(shape)  # its memory is this process's
    return Source(answer, classifier.digest, images_at_once=at_once, weights=classifier.weights)


# --- SavedModels -------------------------------------------------------------------------------------------------


def _saved_model(given: str, shape: Shape, _: str) -> Classifier:
    try:
        loaded = tf.saved_model.load(given)
    except Exception as error:  # TensorFlow raises nearly anything here
        raise AdvGANError(f"{given} is no SavedModel that can be loaded ({_in_short(error)})") from None
    problems = []
    for way in (_called, _served, _signed):
        classifier = classifier_of(partial(way, loaded), shape, given)
        try:
            _logits_of_noise(classifier)
            return replace(classifier, digest=folder_digest(Path(given)))
        except AdvGANError:
            raise
        except Exception as error:  # another way may do
            problems.append(_in_short(error))
    raise AdvGANError(f"{given} does not take images of {shape} as a classifier ({problems[-1]})")


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


# --- Functions ---------------------------------------------------------------------------------------------------


def _is_function(given: str) -> bool:
    return re.fullmatch(r"[\w.]+:\w*", given) is not None


def _function(given: str, shape: Shape, _: str) -> Classifier:
    function, file = _find_function(given)
    if isinstance(function, keras.layers.Layer):
        function = partial(function, training=False)
    classifier = classifier_of(function, shape, given)
    try:
        logits = _logits_of_noise(classifier)
    except AdvGANError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise AdvGANError(f"{given} fails on images of {shape} ({_in_short(error)})") from None
    content = hashlib.sha256(given.encode())
    content.update(b"" if file is None else file.read_bytes())
    content.update(logits.tobytes())  # its weights may be elsewhere
    return replace(classifier, digest=content.hexdigest())


def _function_as_black_box(given: str, *_: object) -> Source:
    function, file = _find_function(given)
    digest = file_digest(file) if file else hashlib.sha256(given.encode()).hexdigest()
    return Source(_answers_of(function, given), digest)


def _find_function(given: str) -> tuple[Callable[[Any], Any], Path | None]:
    """A function named ``module:function``, and the module's file; modules of the current folder are found."""
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


# --- Served models -----------------------------------------------------------------------------------------------


def _served_model(given: str, _: Shape, timeout: float, retries: int, headers: Mapping[str, str]) -> Source:
    digest, answer = served_black_box(given, timeout, retries, headers)
    return Source(answer, digest, may_give_logits=False, check=partial(check_served, given, timeout, headers))


KINDS = (
    Kind("a .keras file", lambda given: Path(given).is_file(), _keras_file, _keras_file_as_black_box),
    Kind("the folder of a SavedModel", lambda given: Path(given).is_dir(), load=_saved_model),
    Kind("module:function", _is_function, _function, _function_as_black_box),
    Kind("the URL of a served model", lambda given: "://" in given, connect=_served_model),
)
"""The first that a name fits is taken."""


def _logits_of_noise(classifier: Classifier) -> np.ndarray:
    """The logits of eight images of noise, float32 of shape (8, classes).

    Raises:
        ValueError: they have another shape.
    """
    images = np.random.default_rng(0).random((8, *classifier.image_shape), np.float32)
    logits = np.asarray(classifier.logits(tf.constant(images)), np.float32)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(f"8 images are answered with shape {logits.shape}, it should be (8, classes)")
    return logits


def _answers_of(function: Callable[[Any], Any], name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function here as one from images to the arrays it answers with.

    Raises:
        BlackBoxFailed: the function does, where the user's code raises.
    """

    def answer(images: np.ndarray) -> np.ndarray:
        try:
            answers = np.asarray(only_output(function(images), name))
            answers.astype(np.float64)  # raises where they are no numbers
        except AdvGANError:  # a function of the user's own may say that it is not available
            raise
        except Exception as error:  # whatever the user's code raises
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise BlackBoxFailed(f"{name} fails on images of shape {images.shape} ({problem})") from None
        return answers

    return answer


def _in_short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
