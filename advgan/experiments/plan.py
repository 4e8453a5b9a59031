"""What a run is about to do: a configuration checked against its data and its disk, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.black_box import is_local
from advgan.classifiers.checks import PROBE_IMAGES, check_accuracy, check_answers
from advgan.classifiers.classifier import classifier_of
from advgan.classifiers.loading import black_box_source, load_classifier
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, divided, images_in_common, load_dataset, scaled
from advgan.environment import Environment, prepare_environment
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.checks import check_held_out
from advgan.evaluation.scores import accuracy
from advgan.files import check_writable
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.records.finding import Finding
from advgan.training.distillation import build_distilled
from advgan.training.query_plan import query_plan
from advgan.training.trainer import total_steps
from advgan.training.validation import check_some_count

keras = tf.keras
JUDGED_IMAGES = 500
"""Validation images that show, before any work, whether a classifier of the user's own is better than chance."""
MOST_SHARED_IMAGES = 0.01
"""The share of the attacker's images that may be the black box's too: some data sets hold an image twice."""


class UntrainedNetworks(NamedTuple):
    """The Keras models that a configuration asks for; a target from a file is as it is there."""

    generator: Any
    discriminator: Any
    target: Any
    """None where it is a black box that is not trained here."""
    distilled: Any = None
    """Of a black-box attack."""

    def of_known_layers(self, config: Config) -> dict[str, Any]:
        """Those that are there and were built here, by role; a classifier of the user's own may have any layers."""
        return {
            role: network
            for role, network in self._asdict().items()
            if network is not None and not (role == "target" and config.target.file is not None)
        }


@dataclass(frozen=True)
class Plan:
    """A configuration that was checked, its data, and untrained copies of the networks it asks for."""

    config: Config
    dataset: Dataset
    """In a black-box attack the attacker's: without the training images of the black box."""
    owner: Dataset
    """What a target that is trained here is trained on; in a black-box attack none of the attacker's images."""
    environment: Environment
    networks: UntrainedNetworks
    steps: int
    findings: tuple[Finding, ...] = ()
    """What is doubtful about the data or the classifier, or is not."""


def build_networks(image_shape: tuple[int, int, int], number_of_classes: int, config: Config) -> UntrainedNetworks:
    """Build the three networks for images of a shape; NHWC, whatever the user's ``keras.json`` says.

    Raises:
        ConfigurationError: a layer does not fit the images; the message names it. Or the target's file cannot be used.
    """
    keras.backend.set_image_data_format("channels_last")
    dtype = config.training.compute_dtype
    generator = build_generator(image_shape, config.generator, dtype)
    discriminator = build_discriminator(image_shape, config.discriminator, dtype)
    target = distilled = None
    if config.target.file is not None:
        target = _own_target(Path(config.target.file), image_shape)
    elif config.black_box in (None, "target"):
        target = build_classifier(image_shape, number_of_classes, config.target)
    if config.black_box is not None:
        distilled = build_distilled(image_shape, number_of_classes, config)
    return UntrainedNetworks(generator, discriminator, target, distilled)


def _own_target(file: Path, shape: tuple[int, int, int]) -> Any:
    """The user's own classifier, once it is known to take the images."""
    with _refusing("target.file", file):
        return load_classifier(file, shape).network


def _check_own_target(network: Any, file: Path, dataset: Dataset, stop: bool) -> None:
    """Try the user's own classifier on a few validation images, as an evaluation does before it trusts it."""
    few = dataset.validation.first(JUDGED_IMAGES)
    with _refusing("target.file", file):
        classifier = classifier_of(network, dataset.image_shape, str(file))
        check_answers(classifier, scaled(few.images[:PROBE_IMAGES]), classes=2)
        if classifier.number_of_classes < dataset.number_of_classes:
            raise AdvGANError(
                f"answers with {classifier.number_of_classes} scores, the data have {dataset.classes_in_words}; do "
                "labels start at 0?"
            )
        if not classifier.has_gradient:
            raise AdvGANError("has no gradient, which the generator learns from; replace the part that has none")
        check_accuracy(str(file), accuracy(classifier, few), few.labels, few.images, stop)


def _check_black_box(given: str, dataset: Dataset, timeout: float) -> None:
    """See that a black box is there, without a query."""
    with _refusing("oracle.black_box", Path(given) if is_local(given) else given):
        black_box_source(given, dataset.image_shape, timeout, retries=0).check()


@contextmanager
def _refusing(key: str, given: Path | str) -> Iterator[None]:
    """Tell what is wrong with a classifier of the user's own as a setting's problem."""
    if isinstance(given, Path) and not given.is_file():
        raise ConfigurationError(key, str(given), "no such file; give another, or put it back there")
    try:
        yield
    except AdvGANError as error:
        raise ConfigurationError(key, str(given), str(error).removeprefix(f"{given} ")) from None


def _divide(dataset: Dataset, config: Config) -> tuple[Dataset, Dataset]:
    """The black box's data and the attacker's, which have no training image in common.

    Raises:
        ConfigurationError: one of them would have none, or they share images.
    """
    asked = config.oracle.training_images
    count = asked if asked is not None else len(dataset.training) // 2 if config.black_box == "target" else 0
    least = 1 if config.black_box == "target" else 0
    if not least <= count < len(dataset.training):
        raise ConfigurationError(
            "oracle.training_images",
            count,
            f"leaves one side without images; there are {len(dataset.training)} training images (allowed: {least} to "
            f"{len(dataset.training) - 1})",
        )
    owner, attacker = divided(dataset, count)
    shared = images_in_common(attacker.training, [owner.training])
    if shared > MOST_SHARED_IMAGES * len(attacker.training):
        raise ConfigurationError(
            "oracle.training_images",
            count,
            f"{shared:,} of the attacker's {len(attacker.training):,} images are the black box's too; remove repeated "
            "images from x_train",
        )
    return owner, attacker


def check(config: Config) -> Plan:
    """Check a configuration against its data and build its networks, before any work.

    Raises:
        ConfigurationError: the data cannot be used, the target class is out of range, a batch is larger than the data,
            a network does not fit the images, the target's file or the black box cannot be used, a budget does not
            reach, or the output folder cannot be written.
        AdvGANError: every validation image is of the target class.
    """
    dataset = load_dataset(config.data, config.images_of_black_box)
    classes, wanted = dataset.number_of_classes, config.attack.target_class
    if wanted is not None and wanted >= classes:
        raise ConfigurationError(
            "attack.target_class", wanted, f"the data has {classes} classes (allowed: 0 to {classes - 1})"
        )
    check_some_count(config.attack.objective, dataset.validation.labels, dataset.validation.labels)
    owner = dataset
    if config.black_box is not None:
        owner, dataset = _divide(dataset, config)
        query_plan(config, len(dataset.training), len(dataset.validation))
    batches = [("training", config.training.batch_size, len(dataset.training))]
    if config.target.file is None and config.black_box in (None, "target"):  # else nothing of it is trained
        batches.append(("target", config.target.batch_size, len(owner.training)))
    if config.black_box is not None:
        batches.append(("distillation", config.distillation.batch_size, len(dataset.training)))
    for section, batch_size, images in batches:
        if batch_size > images:
            raise ConfigurationError(
                f"{section}.batch_size", batch_size, f"is larger than the training data (allowed: 1 to {images})"
            )
    directory = Path(config.output.directory)
    check_writable("output.directory", directory / config.name, given=directory)
    environment = prepare_environment(config.training)  # before the first network starts the device
    networks = build_networks(dataset.image_shape, classes, config)
    if config.target.file is not None:
        _check_own_target(networks.target, Path(config.target.file), dataset, config.target.check_accuracy)
    if config.black_box not in (None, "target"):
        _check_black_box(str(config.black_box), dataset, config.oracle.timeout)
    held_out = check_held_out(dataset.test, [owner.training, dataset.training, dataset.validation], stop=False)
    steps = total_steps(len(dataset.training), config)
    return Plan(config, dataset, owner, environment, networks, steps, (held_out,))
