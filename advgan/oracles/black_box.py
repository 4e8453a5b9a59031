"""A black box: a classifier that answers images with probabilities, and of which nothing else can be had.

What goes in and what comes out are NumPy arrays, so no gradient and no weight passes through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advgan.config import Config
from advgan.data.batches import slices
from advgan.errors import AdvGANError
from advgan.oracles.classifiers import Shape, file_digest, find_function, network_classifier
from advgan.oracles.served import served_black_box
from advgan.runs import TARGET

SUM_TOLERANCE = 1e-3
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


def is_local(given: str) -> bool:
    """Whether a black box is a file of networks here, which a run keeps a copy of."""
    return given == "target" or ("://" not in given and given.endswith(".keras"))


def load_black_box(
    given: str, shape: Shape, classes: int, per_request: int = 500, timeout: float = 10.0, retries: int = 5
) -> BlackBox:
    """The black box as a configuration names it.

    Args:
        given: a ``.keras`` file, ``module:function``, or the URL of a served model.
        shape: of one image.
        classes: how many the data have, and the black box should tell apart.
        per_request: the most images in a request.
        timeout, retries: of a request to a served model; see the configuration.

    Raises:
        AdvGANError: there is no such black box, or it does not take the images.
    """
    if "://" in given:
        name, digest, ask = served_black_box(given, timeout, retries)
    else:
        if is_local(given):
            classifier = network_classifier(Path(given), shape, REMEDY)
            name, digest, scores = given, classifier.digest, classifier.scores
        else:
            scores, file = find_function(given)
            name, digest = given, file_digest(file) if file else hashlib.sha256(given.encode()).hexdigest()
        ask = _answers_of(scores, name)

    def asked(images: np.ndarray) -> np.ndarray:
        answers = [
            as_probabilities(ask(images[part]), part.stop - part.start, classes, name)
            for part in slices(len(images), per_request)
        ]
        return np.concatenate(answers) if answers else np.empty((0, classes), np.float32)

    return BlackBox(name, digest, asked)


def run_black_box(config: Config, run: Path, shape: Shape, classes: int) -> BlackBox:
    """The black box of a run: its own copy where it is a file, else where the configuration says.

    Args:
        config: of the run.
        run: its folder.
        shape: of one image.
        classes: how many the data have.

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
    )


def _answers_of(classifier: Callable[[Any], Any], name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A local classifier's probabilities: what it answers where that are such, else the softmax of its logits.

    Its first answers decide which, for good.
    """
    answers_with_logits: bool | None = None

    def ask(images: np.ndarray) -> np.ndarray:
        nonlocal answers_with_logits
        try:
            answered = np.asarray(classifier(images))
            scores = answered.astype(np.float64)
        except AdvGANError:  # a function of the user's own may say that it is not available
            raise
        except Exception as error:  # whatever the user's classifier raises
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise AdvGANError(f"{name} fails on images of shape {images.shape} ({problem})") from None
        if scores.ndim != 2:
            return answered
        if answers_with_logits is None:
            answers_with_logits = not are_probabilities(scores)
        if not answers_with_logits:
            return answered
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    return ask


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether every row could be the probabilities of classes."""
    sums = scores.sum(axis=1, dtype=np.float64)
    return bool((scores >= -SUM_TOLERANCE).all() and (np.abs(sums - 1) <= SUM_TOLERANCE).all())


def as_probabilities(answers: np.ndarray, images: int, classes: int, name: str) -> np.ndarray:
    """A black box's answers as float32 of shape (images, classes).

    Args:
        answers: probabilities (images, classes), or labels alone: integers of shape (images,).
        images: how many were asked about.
        classes: how many the data have.
        name: of the black box.

    Raises:
        AdvGANError: they are neither.
    """
    if answers.shape == (images,) and answers.dtype.kind in "iu":
        if images and not 0 <= answers.min() <= answers.max() < classes:
            wrong = answers.min() if answers.min() < 0 else answers.max()
            raise AdvGANError(f"{name} answers with class {wrong}; the data have {classes}, from 0")
        return np.eye(classes, dtype=np.float32)[answers]
    if answers.shape != (images, classes):
        raise AdvGANError(
            f"{name} answers {images} images with shape {answers.shape}; it should be probabilities "
            f"({images}, {classes}), or class numbers, integers ({images},)"
        )
    if not are_probabilities(answers):
        sums = answers.sum(axis=1)
        raise AdvGANError(
            f"{name} answers with no probabilities: rows sum to {sums.min():.4g} to {sums.max():.4g}, values from "
            f"{answers.min():.4g} to {answers.max():.4g}; it should answer with the softmax of its logits"
        )
    return answers.astype(np.float32)
