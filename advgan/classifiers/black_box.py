"""A black box: a classifier that answers images with probabilities, and of which nothing else can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from advgan.classifiers.adaptation import Shape
from advgan.classifiers.answers import AnswerReader
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import black_box_source
from advgan.classifiers.pixels import pixels_of
from advgan.classifiers.run_target import kept_target
from advgan.classifiers.source import BlackBoxReading
from advgan.config.settings import Config
from advgan.data.batches import slices
from advgan.run_folder import RunFolder


def load_black_box(
    given: str,
    shape: Shape,
    classes: int,
    box: BlackBoxReading = BlackBoxReading(),  # noqa: B008 (immutable),
    per_request: int = 500,
    labels_only: bool = False,
    kept: Path | None = None,
    writes: bool = True,
) -> Classifier:
    """The black box as a configuration names it; its ``logits`` are probabilities, and raise where it does not answer.

    Args:
        given: what ``black_box_source`` takes.
        shape: of one image.
        classes: how many the data have, and the black box should tell apart.
        box: how it is read and reached.
        per_request: the most images in a request.
        labels_only: whether of its scores only the class is used, whatever they are.
        kept, writes: the file that says what its answers are; see ``AnswerReader``.

    Raises:
        AdvGANError: there is no such black box, or it does not take the images. When it is queried:
            ``BlackBoxUnavailable`` where it may answer later, another ``AdvGANError`` where it never will.
    """
    pixels = pixels_of(box.settings)
    pixels.check_channels(shape[-1])
    source = black_box_source(given, shape, box)
    reader = AnswerReader(given, classes, source.may_give_logits, labels_only, kept, writes)
    at_once = min(per_request, source.images_at_once or per_request)

    def probabilities(images: Any) -> np.ndarray:
        images = np.asarray(images)
        parts = slices(len(images), at_once)
        answers = [reader.read(source.answer(images[part]), part.stop - part.start) for part in parts]
        return np.concatenate(answers) if answers else np.empty((0, classes), np.float32)

    return Classifier(
        given,
        source.digest,
        shape,
        probabilities,
        pixels,
        weights=source.weights,
        is_black_box=True,
        remarks=reader.remarks,
    )


def reading_of(config: Config) -> BlackBoxReading:
    """How a configuration says that its black box is read and reached."""
    return BlackBoxReading(config.target, config.oracle.timeout, config.oracle.retries, config.oracle.headers)


def run_black_box(config: Config, run: RunFolder, shape: Shape, classes: int, writes: bool) -> Classifier:
    """The black box of a run: its own copy where it is a file, else where the configuration says.

    Args:
        config: of the run.
        run: its folder.
        shape: of one image.
        classes: how many the data have.
        writes: whether the run may be written into.

    Raises:
        AdvGANError: as for ``load_black_box``.
    """
    settings = config.oracle
    return load_black_box(
        str(kept_target(config, run) or config.black_box),
        shape,
        classes,
        reading_of(config),
        settings.images_per_request,
        settings.answers == "labels",
        run.answers,
        writes,
    )
