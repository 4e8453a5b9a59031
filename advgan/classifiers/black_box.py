"""A black box: a classifier that answers images with probabilities, and of which nothing else can be had.

What goes in and what comes out are NumPy arrays, so no gradient and no weight passes through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from advgan.classifiers.answers import AnswerReader
from advgan.classifiers.interface import only_output
from advgan.classifiers.loading import Shape, find_function, network_classifier
from advgan.classifiers.served import served_black_box
from advgan.config.settings import Config
from advgan.data.batches import images_at_once, slices
from advgan.errors import AdvGANError, BlackBoxFailed
from advgan.files import file_digest
from advgan.run_folder import ANSWERS, TARGET

REMEDY = "give a .keras file written with the Keras that is installed here"


@dataclass(frozen=True)
class BlackBox:
    """A classifier behind its answers."""

    name: str
    """What the user calls it."""
    digest: str
    """SHA-256 of what determines its answers, as far as that can be seen; of a served model's its URL's."""
    ask: Callable[[np.ndarray], np.ndarray]
    """From float32 images in [0, 1], shape (n, height, width, channels), to probabilities, float32 (n, classes).

    Raises ``OracleUnavailable`` where it may answer later, ``AdvGANError`` where it never will."""
    remarks: list[str] = field(default_factory=list)
    """What had to be done to its answers to make probabilities of them, in words; added to as it answers."""


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
) -> BlackBox:
    """The black box as a configuration names it.

    Args:
        given: a ``.keras`` file, ``module:function``, or the URL of a served model.
        shape: of one image.
        classes: how many the data have, and the black box should tell apart.
        per_request: the most images in a request.
        timeout, retries: of a request to a served model; see the configuration.
        labels_only: whether of its scores only the class is used, whatever they are.
        kept, writes: the file that says what its answers are; see ``AnswerReader``.

    Raises:
        AdvGANError: there is no such black box, or it does not take the images.
    """
    if "://" in given:
        name, digest, ask = served_black_box(given, timeout, retries)
    else:
        if is_local(given):
            classifier = network_classifier(Path(given), shape, REMEDY)
            name, digest, scores = given, classifier.digest, classifier.scores
            per_request = min(per_request, images_at_once(shape))  # its memory is this process's
        else:
            scores, file = find_function(given)
            name, digest = given, file_digest(file) if file else hashlib.sha256(given.encode()).hexdigest()
        ask = _answers_of(scores, name)
    reader = AnswerReader(name, classes, "://" not in given, labels_only, kept, writes)

    def asked(images: np.ndarray) -> np.ndarray:
        parts = slices(len(images), per_request)
        answers = [reader.read(ask(images[part]), part.stop - part.start) for part in parts]
        return np.concatenate(answers) if answers else np.empty((0, classes), np.float32)

    return BlackBox(name, digest, asked, reader.remarks)


def run_black_box(config: Config, run: Path, shape: Shape, classes: int, writes: bool) -> BlackBox:
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
        str(run / TARGET) if is_local(given) else given,
        shape,
        classes,
        settings.images_per_request,
        settings.timeout,
        settings.retries,
        settings.answers == "labels",
        run / ANSWERS,
        writes,
    )


def _answers_of(classifier: Callable[[Any], Any], name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A local classifier as a function from images to the arrays it answers with.

    Raises:
        BlackBoxFailed: the function does, where the classifier raises.
    """

    def ask(images: np.ndarray) -> np.ndarray:
        try:
            answers = np.asarray(only_output(classifier(images), name))
            answers.astype(np.float64)  # raises where they are no numbers
        except AdvGANError:  # a function of the user's own may say that it is not available
            raise
        except Exception as error:  # whatever the user's classifier raises
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise BlackBoxFailed(f"{name} fails on images of shape {images.shape} ({problem})") from None
        return answers

    return ask
