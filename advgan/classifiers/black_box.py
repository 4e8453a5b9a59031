"""A black box: a classifier that answers images with probabilities, and of which nothing else can be had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from advgan.classifiers.answers import AnswerReader
from advgan.classifiers.classifier import Classifier, Shape
from advgan.classifiers.loading import black_box_source
from advgan.config.settings import Config
from advgan.data.batches import slices
from advgan.run_folder import RunFolder


def is_local(given: str) -> bool:
    """Whether a black box is a file of networks here, which a run keeps a copy of."""
    return given == "target" or ("://" not in given and given.endswith(".keras"))


def load_black_box(
    given: str,
    shape: Shape,
    classes: int,
    per_request: int = 500,
    timeout: float = 10.0,
    retries: int = 5,
    labels_only: bool = False,
    kept: Path | None = None,
    writes: bool = True,
    headers: Mapping[str, str] = {},
) -> Classifier:
    """The black box as a configuration names it; its ``logits`` are probabilities, and raise where it does not answer.

    Args:
        given: a ``.keras`` file, ``module:function``, or the URL of a served model.
        shape: of one image.
        classes: how many the data have, and the black box should tell apart.
        per_request: the most images in a request.
        timeout, retries: of a request to a served model; see the configuration.
        labels_only: whether of its scores only the class is used, whatever they are.
        kept, writes: the file that says what its answers are; see ``AnswerReader``.
        headers: of a request to a served model; see the configuration.

    Raises:
        AdvGANError: there is no such black box, or it does not take the images. When it is queried:
            ``BlackBoxUnavailable`` where it may answer later, another ``AdvGANError`` where it never will.
    """
    source = black_box_source(given, shape, timeout, retries, headers)
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
        weights=source.weights,
        is_black_box=True,
        remarks=reader.remarks,
    )


def run_black_box(config: Config, run: Path, shape: Shape, classes: int, writes: bool) -> Classifier:
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
    given, settings = str(config.black_box), config.oracle
    return load_black_box(
        str(RunFolder(run).target) if is_local(given) else given,
        shape,
        classes,
        settings.images_per_request,
        settings.timeout,
        settings.retries,
        settings.answers == "labels",
        RunFolder(run).answers,
        writes,
        settings.headers,
    )
