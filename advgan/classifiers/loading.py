"""The one way to name a classifier: ``KINDS`` is the table of what a user may give, and the place for one more kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from advgan.classifiers.adaptation import Shape
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.files import file_as_black_box, keras_classifier, saved_model
from advgan.classifiers.functions import function_as_black_box, function_classifier
from advgan.classifiers.served import check_served, served_black_box
from advgan.classifiers.shipped import shipped_classifier
from advgan.classifiers.source import AS_IT_IS, BlackBoxReading, Source
from advgan.config.settings import TargetSettings
from advgan.config.values import SHIPPED_CLASSIFIERS, is_function, of_another_library
from advgan.errors import AdvGANError
from advgan.networks.keras_file import GIVE_ANOTHER


class Load(Protocol):
    """From the name, the shape of one image, how it is read, and a remedy (see ``load_network``) to a classifier."""

    def __call__(self, given: str, shape: Shape, settings: TargetSettings, remedy: str, /) -> Classifier:
        """The classifier."""


@dataclass(frozen=True)
class Kind:
    """A kind of classifier: how it is named, and how it is made where the whole of it, or its answers alone, serve."""

    words: str
    """What to give, as error messages say it."""
    is_named_by: Callable[[str], bool]
    """By the text alone: a run has a copy where the file is gone."""
    load: Load | None = None
    """None where it is a black box only."""
    connect: Callable[[str, Shape, BlackBoxReading], Source] | None = None
    """None where it cannot be a black box."""
    copy: str = ""
    """The name of a run's copy of it; empty where there can be none."""


def load_classifier(
    given: str | Path, shape: Shape, settings: TargetSettings = AS_IT_IS, remedy: str = GIVE_ANOTHER
) -> Classifier:
    """A classifier as a user names it; SavedModels and modules run code of their own, so only those one trusts.

    Args:
        given: a ``.keras`` or ``.h5`` file, the folder of a SavedModel, or ``module:function``, a function from float32
            images in [0, 1], shape (n, height, width, channels), to logits (n, classes), or one that takes nothing and
            returns a Keras model; modules of the current folder are found.
        shape: of one image: height, width, channels.
        settings: how it is to be read: bounds, mean, std, output, module, trust.
        remedy: what the user should do where a file of Keras cannot be loaded.

    Raises:
        AdvGANError: there is no such classifier, or it cannot be loaded, or it does not take the images.
    """
    kind = _kind_of(str(given))
    if kind.load is None:
        raise AdvGANError(f"{given} gives no gradients; give {_one_of(each.words for each in KINDS if each.load)}")
    return kind.load(str(given), shape, settings, remedy)


def black_box_source(given: str, shape: Shape, box: BlackBoxReading) -> Source:
    """A black box as a user names it; nothing is sent to it.

    Args:
        given: what ``load_classifier`` takes, or the URL of a served model.
        shape: of one image.
        box: how it is read and reached.

    Raises:
        AdvGANError: there is no such black box, or it cannot be loaded, or it does not take the images.
    """
    kind = _kind_of(given)
    assert kind.connect is not None
    return kind.connect(given, shape, box)


def copied_as(given: str) -> str | None:
    """The name of a run's copy of a classifier; None where it is a function, is served or ships."""
    return _kind_of(given).copy or None


def _kind_of(given: str) -> Kind:
    if problem := of_another_library(given):
        raise AdvGANError(f"{given} {problem}")
    return next(kind for kind in KINDS if kind.is_named_by(given))


def _one_of(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)}, or {last}"


def _ends_with(*endings: str) -> Callable[[str], bool]:
    return lambda given: Path(given).suffix.lower() in endings


def _served_model(given: str, _: Shape, box: BlackBoxReading) -> Source:
    digest, answer = served_black_box(given, box.timeout, box.retries, box.headers, box.settings.output)
    check = partial(check_served, given, box.timeout, box.headers)
    return Source(answer, digest, may_give_logits=False, check=check)


KINDS = (
    Kind("the URL of a served model", lambda given: "://" in given, connect=_served_model),
    Kind(
        "a .keras file",
        _ends_with(".keras"),
        keras_classifier,
        partial(file_as_black_box, keras_classifier),
        copy="target.keras",
    ),
    Kind(
        "a .h5 file",
        _ends_with(".h5", ".hdf5"),
        keras_classifier,
        partial(file_as_black_box, keras_classifier),
        copy="target.h5",
    ),
    Kind(
        SHIPPED_CLASSIFIERS[0],
        lambda given: given in SHIPPED_CLASSIFIERS,
        shipped_classifier,
        partial(file_as_black_box, shipped_classifier),
    ),
    Kind("module:function", is_function, function_classifier, function_as_black_box),
    Kind(
        "the folder of a SavedModel",
        lambda _: True,
        saved_model,
        partial(file_as_black_box, saved_model),
        copy="target",
    ),
)
"""The first that a name fits is taken."""
