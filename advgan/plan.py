"""What a run is about to do: a configuration checked against its data and its disk, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from advgan.config import Config
from advgan.data.datasets import Dataset, load_dataset, scaled
from advgan.errors import AdvGANError, ConfigurationError
from advgan.oracles.classifiers import network_classifier
from advgan.evaluation.guards import PROBE_IMAGES, check_answers, has_gradient
from advgan.networks.classifiers.architectures import build_classifier
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.runs import load_network
from advgan.training import runtime
from advgan.training.loop import total_steps

keras = tf.keras
REMEDY = "give a .keras file written with the Keras that is installed here"


class UntrainedNetworks(NamedTuple):
    """The Keras models that a configuration asks for; a target from a file is as it is there."""

    generator: Any
    discriminator: Any
    target: Any


@dataclass(frozen=True)
class Plan:
    """A configuration that was checked, its data, and untrained copies of the networks it asks for."""

    config: Config
    dataset: Dataset
    environment: runtime.Environment
    networks: UntrainedNetworks
    steps: int


def build_networks(image_shape: tuple[int, int, int], number_of_classes: int, config: Config) -> UntrainedNetworks:
    """Build the three networks for images of a shape; NHWC, whatever the user's ``keras.json`` says.

    Raises:
        ConfigurationError: a layer does not fit the images; the message names it. Or the target's file cannot be used.
    """
    keras.backend.set_image_data_format("channels_last")
    dtype = config.training.compute_dtype
    return UntrainedNetworks(
        build_generator(image_shape, config.generator, dtype),
        build_discriminator(image_shape, config.discriminator, dtype),
        _own_target(Path(config.target.file), image_shape)
        if config.target.file is not None
        else build_classifier(image_shape, number_of_classes, config.target),
    )


def _own_target(file: Path, shape: tuple[int, int, int]) -> Any:
    """The user's own classifier, once it is known to take the images."""
    with _refusing(file):
        network_classifier(file, shape, REMEDY)
        return load_network(file, REMEDY)


def _check_own_target(file: Path, dataset: Dataset) -> None:
    """Ask the user's own classifier about a few images, as an evaluation does before it trusts it."""
    images = scaled(dataset.validation.images[:PROBE_IMAGES])
    with _refusing(file):
        classifier = network_classifier(file, dataset.image_shape, REMEDY)
        check_answers(classifier, images, dataset.number_of_classes)
        if not has_gradient(classifier, images):
            raise AdvGANError("has no gradient, which the generator learns from; replace the part that has none")


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Tell what is wrong with the target's file as a setting's problem."""
    if not file.is_file():
        raise ConfigurationError("target.file", str(file), "no such file; give another, or put it back there")
    try:
        yield
    except AdvGANError as error:
        raise ConfigurationError("target.file", str(file), str(error).removeprefix(f"{file} ")) from None


def check(config: Config) -> Plan:
    """Check a configuration against its data and build its networks, before any work.

    Raises:
        ConfigurationError: the data cannot be used, the target class is out of range, a batch is larger than the data,
            a network does not fit the images, the target's file cannot be used, or the output folder cannot be written.
    """
    dataset = load_dataset(config.data)
    classes, wanted = dataset.number_of_classes, config.attack.target_class
    if wanted is not None and wanted >= classes:
        raise ConfigurationError(
            "attack.target_class", wanted, f"the data has {classes} classes (allowed: 0 to {classes - 1})"
        )
    for section, batch_size in (("training", config.training.batch_size), ("target", config.target.batch_size)):
        if section == "target" and config.target.file is not None:
            continue  # nothing of it is trained
        if batch_size > len(dataset.training):
            raise ConfigurationError(
                f"{section}.batch_size",
                batch_size,
                f"is larger than the training data (allowed: 1 to {len(dataset.training)})",
            )
    _check_writable(Path(config.output.directory), config.name)
    environment = runtime.prepare(config.training)  # before the first network starts the device
    networks = build_networks(dataset.image_shape, classes, config)
    if config.target.file is not None:
        _check_own_target(Path(config.target.file), dataset)
    return Plan(config, dataset, environment, networks, total_steps(len(dataset.training), config))


def _check_writable(folder: Path, name: str) -> None:
    existing = folder / name
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "output.directory", str(folder), f"cannot be written ({existing} is not a writable folder); choose another"
        )
