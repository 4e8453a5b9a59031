"""A black box before its answers are read: NumPy arrays go in and come out, so no gradient passes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from advgan.classifiers.adaptation import only_output
from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError, BlackBoxFailed

AS_IT_IS = TargetSettings()
"""A classifier of pixels in [0, 1], with one output, whose file needs no code of the user's."""


class BlackBoxReading(NamedTuple):
    """How a black box is to be read, and reached."""

    settings: TargetSettings = AS_IT_IS
    """Its output, module and trust; its pixels are scaled before."""
    timeout: float = 10.0
    """Seconds that a served model may take for a request."""
    retries: int = 5
    """How often a request to a served model is sent again."""
    headers: Mapping[str, str] = {}
    """Of a request; see the configuration."""


class Source(NamedTuple):
    """What answers the queries of a black box."""

    answer: Callable[[np.ndarray], np.ndarray]
    """From float32 images as the black box takes them, shape (n, height, width, channels), to whatever it answers."""
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


def answers_of(function: Callable[[Any], Any], name: str, output: str | None) -> Callable[[np.ndarray], np.ndarray]:
    """A function here as one from images to the arrays it answers with.

    Args:
        function: from images to scores.
        name: what the user calls it.
        output: which of several outputs; see ``only_output``.

    Raises:
        BlackBoxFailed: the function does, where the user's code raises.
    """

    def answer(images: np.ndarray) -> np.ndarray:
        try:
            answers = np.asarray(only_output(function(images), name, output))
            answers.astype(np.float64)  # raises where they are no numbers
        except AdvGANError:  # a function of the user's own may say that it is not available
            raise
        except Exception as error:  # whatever the user's code raises
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise BlackBoxFailed(f"{name} fails on images of shape {images.shape} ({problem})") from None
        return answers

    return answer


def in_short(error: Exception) -> str:
    """An exception's own words, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
