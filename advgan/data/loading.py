"""A data set from its settings: what the source holds, divided into training, validation and test images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from advgan.config.settings import DataSettings
from advgan.data.datasets import GIB, AnySplit, Dataset, Split, StreamedSplit
from advgan.data.source import Source
from advgan.data.sources import open_source
from advgan.errors import ConfigurationError
from advgan.records.data_card import DataCard

USUAL_VALIDATION_IMAGES, MOST_TEST_IMAGES = 5_000, 10_000
"""The most that are drawn where the settings do not say how many."""


class Parts(NamedTuple):
    """Where the training, validation and test images are: in which split, at which places."""

    training: AnySplit
    validation: AnySplit
    test: AnySplit
    rule: str
    """In words."""


def load_dataset(settings: DataSettings, first_apart: int = 0) -> Dataset:
    """Load a data set, and take validation and test images out of its training images where it has none of its own.

    Args:
        settings: of the data.
        first_apart: so many images, the first of the file, stay the first of the training images, and none of them
            validates: those that a black box of the user's own was trained on.

    Raises:
        ConfigurationError: a file is missing or cannot be used, or there are too few images.
        AdvGANError: a file that ships with the package or with Keras is damaged.
    """
    source = open_source(settings)
    parts = _divided(source, settings, first_apart)
    training = parts.training.first(settings.training_images)
    if settings.training_images is not None and settings.training_images > len(parts.training):
        raise _too_many("training_images", settings.training_images, len(parts.training))
    available = len(parts.test)
    if settings.test_images is not None and settings.test_images > available:
        raise _too_many("test_images", settings.test_images, available)
    validation = _in_memory(parts.validation, settings, "data.validation_images")
    test = _in_memory(parts.test.first(settings.test_images), settings, "data.test_images")
    labels = np.concatenate([split.labels for split in source.splits])
    classes = _class_count(labels, source, settings)
    names = settings.class_names or source.class_names
    card = DataCard(
        source=settings.dataset,
        kind=source.kind,
        sha256=source.digest,
        image_shape=training.image_shape,
        resized=source.resized,
        training=len(training),
        validation=len(validation),
        test=len(test),
        test_available=available,
        classes=classes,
        class_names=None if names is None else tuple(names),
        empty_classes=_empty_classes(training, test, classes),
        split=parts.rule,
        streamed=isinstance(training, StreamedSplit),
    )
    return Dataset(training, validation, test, classes, source.digest, card, source.listing)


def _divided(source: Source, settings: DataSettings, first_apart: int) -> Parts:
    """Draw what the source does not have of its own."""
    everything, rules, seed = source.training, [], settings.split_seed
    by_class = settings.validation_split == "by_class"
    places, apart = np.arange(len(everything)), np.arange(0)
    if by_class:
        apart, places = places[:first_apart], places[first_apart:]
    test, validation, wanted = source.test, source.validation, settings.validation_images
    if test is None:
        count = settings.test_images or max(1, min(MOST_TEST_IMAGES, len(everything) // 10))
        _check_leaves_some("test_images", count, len(places))
        places, drawn = _drawn(everything.labels, places, count, seed)
        test = everything.at(drawn)
        rules.append(f"{count:,} test images drawn by class from all")
    elif source.in_classes:
        test = test.at(np.random.default_rng(seed).permutation(len(test)))
    if validation is not None:
        count = min(wanted or USUAL_VALIDATION_IMAGES, len(validation))
        rules.append("its own validation images")
        if count < len(validation):
            validation = validation.at(_drawn(validation.labels, np.arange(len(validation)), count, seed)[1])
            rules[-1] = f"{count:,} of its own validation images, drawn by class"
        elif source.in_classes:
            validation = validation.at(np.random.default_rng(seed).permutation(count))
        if by_class:
            places = np.random.default_rng(seed).permutation(places)
    else:
        count = wanted or max(1, min(USUAL_VALIDATION_IMAGES, len(places) // 10))
        _check_leaves_some("validation_images", count, len(apart) + len(places))
        if by_class:
            if count >= len(places):  # too few are left, which is said where the data are divided
                apart, places = np.arange(0), np.concatenate([apart, places])
            places, drawn = _drawn(everything.labels, places, count, seed)
        else:
            places, drawn = places[:-count], places[-count:]
        validation = everything.at(drawn)
        how = "drawn by class from the training images" if by_class else "the last of the training images"
        rules.append(f"{count:,} validation images, {how}")
    if source.test is not None:
        rules.append("its own test images" + ", in a random order" * source.in_classes)
    drawn_at_random = by_class or source.test is None
    if drawn_at_random:
        rules.append(f"seed {seed}")
    training = everything.at(np.concatenate([apart, places]) if drawn_at_random else slice(len(places)))
    return Parts(training, validation, test, "; ".join(rules))


def _drawn(labels: np.ndarray, places: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some places that stay and ``count`` that are drawn: of each class the same share, all in a random order."""
    labels = labels[places]
    order = np.random.default_rng(seed).permutation(len(labels))
    counts = np.bincount(labels)
    wanted = counts * (count / len(labels))
    chosen = np.floor(wanted).astype(int)
    # One more of the classes with the largest remainders; last of those that would have no training image then.
    chosen[np.lexsort((chosen - wanted, chosen + 1 >= counts))[: count - chosen.sum()]] += 1
    drawn = np.zeros(len(labels), bool)
    for label in np.flatnonzero(chosen):
        drawn[order[labels[order] == label][: chosen[label]]] = True
    return places[order[~drawn[order]]], places[order[drawn[order]]]


def _check_leaves_some(key: str, count: int, available: int) -> None:
    if not 1 <= count < available:
        raise ConfigurationError(
            f"data.{key}",
            count,
            f"leaves nothing to train on; the training set has {available} images (allowed: 1 to {available - 1})",
        )


def _too_many(key: str, wanted: int, available: int) -> ConfigurationError:
    return ConfigurationError(f"data.{key}", wanted, f"there are {available} (allowed: 1 to {available})")


def _in_memory(split: AnySplit, settings: DataSettings, key: str) -> Split:
    """Images that are scored; they are few enough to be held."""
    if isinstance(split, Split):
        return split
    if split.nbytes > settings.memory * GIB:
        problem = f"these images take {split.nbytes / GIB:.1f} GiB, data.memory is {settings.memory:g}; use fewer"
        raise ConfigurationError(key, len(split), problem)
    return split.loaded()


def _class_count(labels: np.ndarray, source: Source, settings: DataSettings) -> int:
    found = int(labels.max()) + 1
    if settings.class_names is not None and len(settings.class_names) < found:
        problem = f"are {len(settings.class_names)} names, the data have labels 0 to {found - 1}"
        raise ConfigurationError("data.class_names", list(settings.class_names), problem)
    return max(found, len(settings.class_names or source.class_names or ()))


def _empty_classes(training: AnySplit, test: Split, classes: int) -> str:
    found = []
    for name, split in (("training", training), ("test", test)):
        if len(empty := np.flatnonzero(np.bincount(split.labels, minlength=classes) == 0)):
            listed = ", ".join(map(str, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
            found.append(f"no {name} image of class {listed}")
    return "; ".join(found)
