"""What a run is about to do: a configuration checked against its data and its disk, before any work."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from advgan import replicas
from advgan.config.settings import Config
from advgan.config.values import ARCHITECTURES
from advgan.data.datasets import Dataset
from advgan.data.loading import load_dataset
from advgan.devices import open_strategy
from advgan.environment import Environment, code_digest, prepare_environment
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.checks import check_held_out
from advgan.experiments.threat_models import ThreatModel, threat_model_of
from advgan.files import check_writable, path_digest
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.training.trainer import total_steps
from advgan.training.validation import check_some_count

keras = tf.keras


class UntrainedNetworks(NamedTuple):
    """The Keras models that a configuration asks for."""

    generator: Any
    discriminator: Any
    target: Any
    """A ``Classifier`` where it is the user's own; None where it is a black box that is not trained here."""
    distilled: Any = None
    """Of a black-box attack."""

    def of_known_layers(self, config: Config) -> dict[str, Any]:
        """Those that are there and are described layer by layer, by role.

        A classifier of the user's own may have any layers, and a network of ``keras.applications`` has many kinds.
        """
        known = {
            "target": config.target.file is None and config.target.architecture in ARCHITECTURES,
            "distilled": config.distilled_architecture in ARCHITECTURES,
        }
        return {
            role: network for role, network in self._asdict().items() if network is not None and known.get(role, True)
        }


@dataclass(frozen=True)
class Plan:
    """A configuration that was checked, its data, and untrained copies of the networks it asks for."""

    config: Config
    threat_model: ThreatModel
    dataset: Dataset
    """In a black-box attack the attacker's: without the training images of the black box."""
    owner: Dataset
    """What a target that is trained here is trained on; in a black-box attack none of the attacker's images."""
    environment: Environment
    strategy: Any
    """TensorFlow's, over the devices that train; what is made and trained belongs into its scope."""
    networks: UntrainedNetworks
    steps: int
    findings: tuple[Finding, ...] = ()
    """What is doubtful about the data or the classifier, or is not."""
    given: Config | None = None
    """The configuration before settings that are ``auto`` were found; by default it had none."""
    pixels: PixelSearch | None = None
    """How the pixels were found that the target takes."""


def build_networks(image_shape: tuple[int, int, int], number_of_classes: int, config: Config) -> UntrainedNetworks:
    """Build the networks for images of a shape; NHWC, whatever the user's ``keras.json`` says.

    Raises:
        ConfigurationError: a layer does not fit the images; the message names it. Or the target's file cannot be used.
    """
    keras.backend.set_image_data_format("channels_last")
    dtype, threat_model = config.training.compute_dtype, threat_model_of(config)
    condition = None if config.attack.wanted_classes is None else number_of_classes
    return UntrainedNetworks(
        build_generator(image_shape, config.generator, dtype, condition),
        build_discriminator(image_shape, config.discriminator, dtype),
        threat_model.target_network(image_shape, number_of_classes),
        threat_model.distilled_network(image_shape, number_of_classes),
    )


def check(config: Config) -> Plan:
    """Check a configuration against its data and build its networks, before any work.

    Raises:
        ConfigurationError: the data cannot be used, the target class is out of range, a batch is larger than the data,
            a network does not fit the images, the target's file or the black box cannot be used, a budget does not
            reach, or the output folder cannot be written.
        AdvGANError: every validation image is of the target class.
    """
    environment = prepare_environment(config.training)  # before TensorFlow computes anything
    strategy = open_strategy(config.training.devices)
    with strategy.scope(), replicas.all_answer():
        return _checked(config, environment, strategy)


def _checked(config: Config, environment: Environment, strategy: Any) -> Plan:
    """The plan, in the strategy's scope."""
    dataset = load_dataset(config.data, config.images_of_black_box)
    classes, given = dataset.number_of_classes, config
    config = _with_classes(config, classes)
    if config.attack.wanted_classes is None:
        check_some_count(config.attack.objective, dataset.validation.labels, dataset.validation.labels)
    threat_model = threat_model_of(config)
    owner, dataset = threat_model.divide(dataset)
    batches = [("training", config.training.batch_size, len(dataset.training)), *threat_model.batches(owner, dataset)]
    devices = replicas.count()
    for section, batch_size, images in batches:
        if batch_size % devices:
            sizes = [batch_size // devices * devices, -(-batch_size // devices) * devices]
            nearest = " or ".join(str(size) for size in sizes if size)
            problem = f"cannot be divided among {devices} devices; use {nearest}"
            raise ConfigurationError(f"{section}.batch_size", batch_size, problem)
        if batch_size > images:
            raise ConfigurationError(
                f"{section}.batch_size", batch_size, f"is larger than the training data (allowed: 1 to {images})"
            )
    directory = Path(config.output.directory)
    check_writable("output.directory", directory / config.name, given=directory)
    if devices > 1:
        if config.training.xla is True:
            raise ConfigurationError(
                "training.xla", "on", "is for one device; leave it out, or set training.devices to 1"
            )
        _, machines = replicas.worker()
        environment = {**environment, "devices": devices, "machines": machines}
        if machines > 1 and config.is_black_box:
            problem = "a black box is queried by one machine only; unset TF_CONFIG"
            raise ConfigurationError("oracle.black_box", config.oracle.black_box, problem)
        _check_same_everywhere(config, dataset)
    networks = build_networks(dataset.image_shape, classes, config)
    if replicas.worker()[1] > 1:
        _check_normalization(networks)
    config, pixels = threat_model.check_classifier(networks.target, dataset)
    held_out = check_held_out(dataset.test, [owner.training, dataset.training, dataset.validation], stop=False)
    steps = total_steps(len(dataset.training), config)
    return Plan(
        config,
        threat_model_of(config),
        dataset,
        owner,
        environment,
        strategy,
        networks,
        steps,
        (held_out,),
        given,
        pixels,
    )


def _check_normalization(networks: UntrainedNetworks) -> None:
    """Refuse what several machines cannot do with Keras 2, which does not mirror batch normalization's statistics.

    Raises:
        AdvGANError: a network that is trained has batch normalization.
    """
    for role, network in networks._asdict().items():
        if isinstance(network, keras.Model) and not hasattr(keras, "ops"):
            for layer in network.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    raise AdvGANError(
                        f"the {role} has batch normalization, which TensorFlow 2.15 trains on one machine only; "
                        "leave TF_CONFIG out, or install a newer TensorFlow"
                    )


def _check_same_everywhere(config: Config, dataset: Dataset) -> None:
    """Raise where the machines would not do the same.

    Raises:
        AdvGANError: settings, data, code or versions of one differ from those of the first.
    """
    file = config.target.file
    facts: dict[str, object] = {
        "advgan's code": code_digest(),
        "TensorFlow": tf.__version__,
        "Keras": version("keras"),
        "data": dataset.digest,
        "the target's file": "" if file is None or not Path(file).exists() else path_digest(Path(file)),
    }
    for section, value in config.model_dump(mode="json").items():
        keys = value if isinstance(value, dict) else {"": value}
        facts |= {f"{section}.{key}".rstrip("."): each for key, each in keys.items()}
    replicas.check_same(facts)


def _with_classes(config: Config, classes: int) -> Config:
    """The configuration with ``all`` target classes as a list.

    Raises:
        ConfigurationError: the data have no such class.
    """
    wanted = config.attack.target_class
    if wanted == "all":
        attack = config.attack.model_copy(update={"target_class": tuple(range(classes))})
        return config.model_copy(update={"attack": attack})
    for each in wanted if isinstance(wanted, tuple) else [] if wanted is None else [wanted]:
        if each >= classes:
            problem = f"the data has {classes} classes (allowed: 0 to {classes - 1})"
            raise ConfigurationError("attack.target_class", each, problem)
    return config
