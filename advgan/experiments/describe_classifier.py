"""What can be found of a classifier of the user's own before a run: ``describe_classifier`` serves the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.classifiers.answers import kind_of
from advgan.classifiers.classifier import Classifier, fixed_images
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.margin_scale import margin_scale
from advgan.classifiers.pixel_search import SEARCH_IMAGES, with_found_pixels
from advgan.classifiers.pixels import as_text
from advgan.classifiers.shipped import SHIPPED_SHAPE
from advgan.config.settings import TargetSettings
from advgan.config.values import SHIPPED_CLASSIFIERS, is_path_of_classifier
from advgan.data.datasets import Dataset
from advgan.errors import ConfigurationError
from advgan.evaluation.scores import accuracy
from advgan.networks.keras_file import load_network
from advgan.records.classifier import ClassifierDescription
from advgan.reports.terminal import pixel_lines

Shape = tuple[int, int, int]


def describe_classifier(
    given: str, settings: TargetSettings, dataset: Dataset | None = None, shape: Shape | None = None
) -> ClassifierDescription:
    """Try a classifier.

    Args:
        given: as ``load_classifier`` takes it.
        settings: how it is to be read.
        dataset: labelled images: validation images decide its pixels, test images its accuracy.
        shape: of one image, where there are no data; by default what a file of Keras says that it takes.

    Raises:
        AdvGANError: it cannot be used, or does not say what images it takes.
    """
    if dataset is not None:
        shape = dataset.image_shape
    classifier = load_classifier(given, shape or _shape_of(given, settings), settings)
    search, clean, scale = None, None, None
    if dataset is not None:
        if settings.bounds_are_to_be_found:
            classifier, search = with_found_pixels(classifier, dataset.validation)
        clean = accuracy(classifier, dataset.test)
        scale = margin_scale(classifier, dataset.validation.first(SEARCH_IMAGES))
    known = dataset is not None or not settings.bounds_are_to_be_found
    logits = np.asarray(classifier.logits(tf.constant(fixed_images(classifier.image_shape))), np.float64)
    return ClassifierDescription(
        name=given,
        sha256=classifier.digest,
        image_shape=classifier.image_shape,
        inputs=classifier.inputs,
        outputs=classifier.outputs,
        ends=classifier.ends,
        scores=kind_of(logits),
        remarks=tuple(classifier.remarks),
        classes=classifier.number_of_classes,
        parameters=None if classifier.network is None else classifier.network.count_params(),
        has_gradient=classifier.has_gradient,
        pixels=str(classifier.pixels) if known else "not known: give --data",
        pixel_search=search,
        clean_accuracy=clean,
        scale=scale,
        configuration=_configuration(classifier, given, settings, scale, known),
    )


def description_lines(found: ClassifierDescription) -> list[str]:
    """The description for the terminal."""
    height, width, channels = found.image_shape
    rows = [
        ("classifier", found.name),
        ("images", f"{height}x{width}x{channels}"),
        ("inputs", found.inputs or "taken from a trial"),
        ("outputs", found.outputs or "taken from a trial"),
        ("ends with", found.ends if found.outputs else "not seen"),
        ("scores", found.scores if found.scores == "logits" else f"{found.scores}: they have no use for a white box"),
        *(("", remark) for remark in found.remarks),
        ("classes", f"{found.classes:,}"),
        ("parameters", "not known" if found.parameters is None else f"{found.parameters:,}"),
        ("gradient", "yes" if found.has_gradient else "none: it can be attacked as a black box only"),
        ("pixels", found.pixels),
        *([] if found.clean_accuracy is None else [("clean accuracy", f"{found.clean_accuracy} test images")]),
    ]
    table = [] if found.pixel_search is None else ["", *pixel_lines(found.pixel_search)]
    return [*(f"{name:<16}{value}" for name, value in rows), *table, "", "# in a configuration", found.configuration]


def _shape_of(given: str, settings: TargetSettings) -> Shape:
    """The images that a Keras network says it takes.

    Raises:
        ConfigurationError: it does not.
    """
    if given in SHIPPED_CLASSIFIERS:
        return SHIPPED_SHAPE
    sizes: tuple[Any, ...] = ()
    if is_path_of_classifier(given) and Path(given).is_file():
        network = load_network(Path(given), module=settings.module, trust=settings.trust)
        inputs = list(getattr(network, "inputs", None) or [])
        sizes = tuple(inputs[0].shape)[1:] if len(inputs) == 1 else ()
    if len(sizes) == 2:
        sizes = (*sizes, 1)
    if len(sizes) == 3 and sizes[0] in (1, 3) and sizes[2] not in (1, 3):
        sizes = (*sizes[1:], sizes[0])
    if len(sizes) != 3 or None in sizes:
        raise ConfigurationError(
            "--target", given, "does not state its input shape; give --data, or --image such as 32x32x3"
        )
    return sizes[0], sizes[1], sizes[2]


def _configuration(
    classifier: Classifier, given: str, settings: TargetSettings, scale: float | None, known: bool
) -> str:
    """The lines of YAML for this classifier."""
    pixels = classifier.pixels
    values = {
        "bounds": as_text(pixels.bounds) if known else "auto",
        "mean": as_text(pixels.mean) if pixels.mean else None,
        "std": as_text(pixels.std) if pixels.std else None,
        **{key: json.dumps(getattr(settings, key)) for key in ("output", "module", "trust") if getattr(settings, key)},
    }
    read = [f"  {key}: {value}" for key, value in values.items() if value is not None]
    if not classifier.has_gradient:
        return "\n".join(["oracle:", f"  black_box: {json.dumps(given)}", "target:", *read])
    return "\n".join(
        ["target:", f"  file: {json.dumps(given)}", *read, "loss:", f"  scale: {'auto' if scale is None else scale}"]
    )
