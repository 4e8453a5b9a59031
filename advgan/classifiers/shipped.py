"""Classifiers that come with the package, weights that every TensorFlow reads; docs/defended.md has their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from advgan.classifiers.adaptation import Shape
from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.classifier import Classifier, classifier_of
from advgan.classifiers.pixels import pixels_of
from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError
from advgan.networks.keras_file import weights_digest

SHIPPED_SHAPE: Shape = (28, 28, 1)
"""Of the images that they take."""


def shipped_network(name: str) -> Any:
    """A new Keras model with the weights that ship, from images in [0, 1], shape (n, 28, 28, 1), to logits (n, 10).

    Args:
        name: one of ``SHIPPED_CLASSIFIERS``.
    """
    network = build_classifier(SHIPPED_SHAPE, 10, TargetSettings(architecture="lenet"))
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as archive:
        network.set_weights([archive[str(place)] for place in range(len(archive.files))])
    network.trainable = False
    return network


def shipped_classifier(
    given: str, shape: Shape, settings: TargetSettings, _: str = "", as_it_answers: bool = False
) -> Classifier:
    """A classifier that ships, by its name.

    Args:
        given: one of ``SHIPPED_CLASSIFIERS``.
        shape: of one image.
        settings: how it is to be read.
        as_it_answers: see ``classifier_of``.

    Raises:
        AdvGANError: it does not take such images.
    """
    if shape != SHIPPED_SHAPE:
        raise AdvGANError(f"{given} takes images of {SHIPPED_SHAPE}, these have {shape}; give data of that shape")
    network = shipped_network(given)
    weights = weights_digest(network)
    return classifier_of(network, shape, given, weights, pixels_of(settings), weights, settings.output, as_it_answers)
