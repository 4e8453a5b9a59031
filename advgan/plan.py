"""What a run is about to do: a configuration checked against its data and its disk, before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from advgan.config import Config
from advgan.data.datasets import Dataset, load_dataset
from advgan.errors import ConfigurationError
from advgan.networks.classifiers.architectures import build_classifier
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.training import runtime
from advgan.training.loop import total_steps

keras = tf.keras


class UntrainedNetworks(NamedTuple):
    """The Keras models that a configuration asks for."""

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
        ConfigurationError: a layer does not fit the images; the message names it.
    """
    keras.backend.set_image_data_format("channels_last")
    dtype = config.training.compute_dtype
    return UntrainedNetworks(
        build_generator(image_shape, config.generator, dtype),
        build_discriminator(image_shape, config.discriminator, dtype),
        build_classifier(image_shape, number_of_classes, config.target),
    )


def check(config: Config) -> Plan:
    """Check a configuration against its data and build its networks, before any work.

    Raises:
        ConfigurationError: the data cannot be used, the target class is out of range, a batch is larger than the data,
            a network does not fit the images, or the output folder cannot be written.
    """
    dataset = load_dataset(config.data)
    classes, wanted = dataset.number_of_classes, config.attack.target_class
    if wanted is not None and wanted >= classes:
        raise ConfigurationError(
            "attack.target_class", wanted, f"the data has {classes} classes (allowed: 0 to {classes - 1})"
        )
    for section, batch_size in (("training", config.training.batch_size), ("target", config.target.batch_size)):
        if batch_size > len(dataset.training):
            raise ConfigurationError(
                f"{section}.batch_size",
                batch_size,
                f"is larger than the training data (allowed: 1 to {len(dataset.training)})",
            )
    _check_writable(Path(config.output.directory), config.name)
    environment = runtime.prepare(config.training)  # before the first network starts the device
    networks = build_networks(dataset.image_shape, classes, config)
    return Plan(config, dataset, environment, networks, total_steps(len(dataset.training), config))


def _check_writable(folder: Path, name: str) -> None:
    existing = folder / name
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "output.directory", str(folder), f"cannot be written ({existing} is not a writable folder); choose another"
        )
