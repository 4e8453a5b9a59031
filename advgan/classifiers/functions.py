"""Classifiers named as ``module:function``: a function of images, or one that returns a Keras network."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.classifiers.adaptation import Shape
from advgan.classifiers.classifier import Classifier, answers_digest, classifier_of, compiled, fixed_images
from advgan.classifiers.files import inlined
from advgan.classifiers.pixels import pixels_of
from advgan.classifiers.source import BlackBoxReading, Source, answers_of, in_short
from advgan.config.settings import TargetSettings
from advgan.data.batches import images_at_once
from advgan.errors import AdvGANError
from advgan.files import file_digest
from advgan.networks.keras_file import weights_digest
from advgan.networks.own_code import import_module

keras = tf.keras
SAME = 1e-4
"""How far probabilities of a function and of its graph may differ."""


def function_classifier(given: str, shape: Shape, settings: TargetSettings, _: str = "") -> Classifier:
    """The classifier that a function is, or returns.

    Its digest is of the module's file and of its answers to eight fixed images: its weights may be elsewhere.

    Args:
        given: ``module:function``; modules of the current folder are found.
        shape: of one image.
        settings: how it is to be read.

    Raises:
        AdvGANError: there is none, or it fails, or does not answer with scores.
    """
    function, file = _found(given)
    pixels, output = pixels_of(settings), settings.output
    try:
        if isinstance(function, keras.layers.Layer):
            classifier = classifier_of(function, shape, given, "", pixels, weights_digest(function), output)
        else:
            classifier = classifier_of(function, shape, given, "", pixels, output=output)
            classifier = _with_logits(classifier, function, output)
        answers = answers_digest(classifier)
    except AdvGANError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise AdvGANError(f"{given} fails on images of {shape} ({in_short(error)})") from None
    content = given.encode() + (b"" if file is None else file.read_bytes()) + answers.encode()
    return replace(classifier, digest=hashlib.sha256(content).hexdigest())


def function_as_black_box(given: str, shape: Shape, box: BlackBoxReading) -> Source:
    """The same of which nothing but the answers is used; no query is made.

    Raises:
        AdvGANError: there is none.
    """
    function, file = _found(given)
    output = box.settings.output
    digest = file_digest(file) if file else hashlib.sha256(given.encode()).hexdigest()
    if isinstance(function, keras.layers.Layer):
        network = classifier_of(function, shape, given, output=output, as_it_answers=True)
        at_once = images_at_once(shape)
        return Source(answers_of(network.function, given, None), digest, images_at_once=at_once)
    return Source(answers_of(function, given, output), digest)


def _found(given: str) -> tuple[Callable[[Any], Any], Path | None]:
    """What ``module:function`` names, or returns where it takes nothing, and the module's file."""
    module_name, _, name = given.partition(":")
    module = import_module(module_name, given)
    function = getattr(module, name, None)
    if not callable(function):
        raise AdvGANError(f"{given}: {module_name} has no function {name or '(none named)'}")
    if not isinstance(function, keras.layers.Layer) and _takes_nothing(function):
        try:
            function = function()
        except Exception as error:  # whatever the user's function raises
            raise AdvGANError(f"{given} takes no images, and fails when called ({in_short(error)})") from None
        if not callable(function):
            raise AdvGANError(
                f"{given} returns {type(function).__name__}; it should take images, or return a Keras model"
            )
    return function, None if module.__file__ is None else Path(module.__file__)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function is to be called without images: it has no place for them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return False
    needed = [each for each in parameters if each.default is each.empty and each.kind != each.VAR_KEYWORD]
    return not needed


def _with_logits(classifier: Classifier, function: Callable[[Any], Any], output: str | None) -> Classifier:
    """The same through a graph that leaves a softmax or sigmoid at its end out, where the function ends with one."""
    shape = classifier.image_shape
    probe = tf.constant(fixed_images(shape))
    try:
        traced = tf.function(function, autograph=False)
        concrete = traced.get_concrete_function(tf.TensorSpec([None, *shape], tf.float32))
        found = compiled(inlined(concrete, function), classifier, (None, *shape), tf.float32, output)
        probabilities = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[found.ends](found.function(probe))
    except Exception:  # it ends with neither, or needs what a graph cannot be made of
        return classifier
    answered = classifier.function(probe)
    # What leaves TensorFlow on its way may be frozen in the graph: then the function stays as it is.
    same = np.abs(np.asarray(probabilities - answered)[:, 1:]).max() <= SAME  # of one unit, only the second is its own
    return found if same else classifier
