"""What an attacker knows, and all that follows from it for a run.

``threat_model_of`` chooses for a run, ``evaluation/loading.py`` for an evaluation; whatever trains or measures calls
the object. In each the attacker knows the data and has epsilon; what it has of the classifier differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.black_box import reading_of
from advgan.classifiers.checks import PROBE_IMAGES, check_accuracy, check_answers
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import black_box_source, load_classifier
from advgan.classifiers.margin_scale import margin_scale
from advgan.classifiers.pixel_search import with_found_pixels
from advgan.config.settings import Config, DiscriminatorSettings
from advgan.data.datasets import GIB, Dataset, StreamedSplit, divided, images_in_common, scaled
from advgan.environment import Environment
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.scores import accuracy
from advgan.experiments.victims import BlackBoxVictim, FrozenVictim, Victim
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.records.pixel_search import PixelSearch
from advgan.run_folder import RunFolder
from advgan.training.adversarial_training import GENERATOR_SETTINGS
from advgan.training.classifier import other_target
from advgan.training.distillation import build_distilled
from advgan.training.query_plan import query_plan

JUDGED_IMAGES = 500
"""Validation images that show, before any work, whether a classifier of the user's own is better than chance."""
MOST_SHARED_IMAGES = 0.01
"""The share of the attacker's images that may be the black box's too: some data sets hold an image twice."""
Shape = tuple[int, int, int]


def threat_model_of(config: Config) -> ThreatModel:
    """The threat model of a configuration."""
    return BlackBox(config) if config.is_black_box else SemiWhiteBox(config)


class Checked(NamedTuple):
    """What the check of a classifier came to."""

    config: Config
    pixels: PixelSearch | None = None
    """How the pixels were found that it takes, where they were not stated."""


class ThreatModel(ABC):
    """A threat model under a configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def describe(self, other_target: bool = False) -> str:
        """The attacker's goal, knowledge and limits, in words.

        Args:
            other_target: whether the classifier under attack is another than the run's own.
        """
        attack, knowledge = self.config.attack, self.knowledge
        if other_target:
            knowledge = "transfer: the generator was trained against another classifier and attacks this one alone"
        return f"{attack.goal_in_words}, {knowledge}; L_inf, epsilon = {attack.epsilon:.4g}, pixels in [0, 1]"

    @property
    @abstractmethod
    def knowledge(self) -> str:
        """What the attacker knows, in words."""

    @abstractmethod
    def target_named(self, target: Any) -> str:
        """How large the target is, and what it is; ``target`` is from ``target_network``."""

    # --- What is checked before any work ------------------------------------------------------------------------

    @abstractmethod
    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """The data that a target is trained on, and the attacker's.

        Raises:
            ConfigurationError: they cannot be divided as the configuration says.
        """

    @abstractmethod
    def batches(self, owner: Dataset, attacker: Dataset) -> list[tuple[str, int, int]]:
        """Of what is trained besides the generator: the section of its settings, batch size, number of images."""

    @abstractmethod
    def target_network(self, shape: Shape, classes: int) -> Any:
        """The classifier under attack: an untrained network, the user's own as a ``Classifier``, None where it is a
        black box that is not trained here.

        Raises:
            ConfigurationError: a layer does not fit the images, or the file cannot be used.
        """

    def distilled_network(self, shape: Shape, classes: int) -> Any:  # noqa: ARG002
        """The network that stands in for the classifier, untrained; None where none does."""
        return None

    @abstractmethod
    def check_classifier(self, target: Any, dataset: Dataset) -> Checked:
        """Try the classifier as far as the attacker can without a query.

        Args:
            target: from ``target_network``.
            dataset: the attacker's.

        Returns:
            The configuration with what was found for its settings that are ``auto``.

        Raises:
            ConfigurationError: it cannot be attacked.
        """

    def introduction(self, owner: Dataset, attacker: Dataset, distilled: Any) -> list[str]:  # noqa: ARG002
        """Lines about what this threat model adds to a run."""
        return []

    def queries_planned(self, attacker: Dataset) -> str:  # noqa: ARG002
        """How many queries a run makes, and for what; empty where it makes none."""
        return ""

    # --- What is attacked in a run ------------------------------------------------------------------------------

    @abstractmethod
    def open_victim(self, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment) -> Victim:
        """Put the classifier under attack into the run's folder, once, and open it.

        Raises:
            AdvGANError: it is no longer the one that the run was started with, or does no better than chance.
        """


class SemiWhiteBox(ThreatModel):
    """The attacker has the classifier while G is trained, and nothing of it afterwards."""

    @property
    def knowledge(self) -> str:
        """What the attacker knows, in words."""
        return "semi-white-box: the target's gradients are used in training, afterwards the generator attacks alone"

    def target_named(self, target: Any) -> str:
        """How large the target is, and what it is."""
        name = self.config.target.file or self.config.target.in_words
        network = target.network if isinstance(target, Classifier) else target
        return name if network is None else f"{network.count_params():,} parameters: {name}"

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """Both train on the same images."""
        return dataset, dataset

    def batches(self, owner: Dataset, attacker: Dataset) -> list[tuple[str, int, int]]:  # noqa: ARG002
        """A target that is trained here."""
        if self.config.target.file is not None:
            return []
        return [("target", self.config.target.batch_size, len(owner.training))]

    def target_network(self, shape: Shape, classes: int) -> Any:
        """The target."""
        if self.config.target.file is None:
            return _trained_here(shape, classes, self.config)
        with _problems_of("target.file", self.config.target.file):
            return load_classifier(self.config.target.file, shape, self.config.target)

    def check_classifier(self, target: Any, dataset: Dataset) -> Checked:
        """Try a classifier of the user's own on a few validation images, as an evaluation does before it trusts it."""
        config = self.config
        if config.target.file is None:
            return Checked(config)
        given, few, search = config.target.file, dataset.validation.first(JUDGED_IMAGES), None
        classifier: Classifier = target
        with _problems_of("target.file", given):
            if config.target.bounds_are_to_be_found:
                classifier, search = with_found_pixels(classifier, few)
            check_answers(classifier, scaled(few.images[:PROBE_IMAGES]), classes=2)
            if classifier.number_of_classes < dataset.number_of_classes:
                raise AdvGANError(
                    f"answers with {classifier.number_of_classes} scores, the data have {dataset.classes_in_words}; do "
                    "labels start at 0?"
                )
            if not classifier.has_gradient:
                raise AdvGANError("has no gradient, which the generator learns from; replace the part that has none")
            hints = () if search is None else search.remarks
            clean = accuracy(classifier, few)
            check_accuracy(given, clean, few.labels, few.images, config.target.check_accuracy, hints)
            pixels, loss = classifier.pixels, config.loss
            if loss.scale == "auto":
                loss = loss.model_copy(update={"scale": margin_scale(classifier, few)})
        found = {"bounds": pixels.bounds, "mean": pixels.mean or None, "std": pixels.std or None}
        settled = config.target.model_copy(update=found)
        return Checked(config.model_copy(update={"target": settled, "loss": loss}), search)

    def open_victim(self, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment) -> Victim:
        """The frozen target."""
        return FrozenVictim(self.config, run, owner, attacker, environment)


class BlackBox(ThreatModel):
    """The attacker has the classifier's answers to queries, and nothing else; G learns from a distilled network."""

    @property
    def given(self) -> str:
        """The black box as the configuration names it."""
        return str(self.config.black_box)

    @property
    def is_trained_here(self) -> bool:
        """Whether the black box is a target that the run trains, for a study."""
        return self.given == "target"

    @property
    def knowledge(self) -> str:
        """What the attacker knows, in words."""
        config = self.config
        kind = "static" if config.distillation.rounds == 1 else "dynamic"
        budget = "any number of" if config.oracle.query_budget is None else f"{config.oracle.query_budget:,}"
        return (
            f"black-box: only the classifier's answers are used ({config.oracle.answers}, to {budget} queries), to "
            f"distil a {config.distilled_architecture} ({kind}), which the generator is trained against; afterwards it "
            "attacks alone"
        )

    def target_named(self, target: Any) -> str:
        """How large a target is that is trained here; else how the black box is named."""
        if target is None:
            return f"a black box: {self.given}"
        return f"{target.count_params():,} parameters: {self.config.target.in_words}"

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """The two have no training image in common.

        Raises:
            ConfigurationError: one of them would have none, or they share images.
        """
        stated, least = self.config.oracle.training_images, int(self.is_trained_here)
        count = stated if stated is not None else len(dataset.training) // 2 if self.is_trained_here else 0
        if not least <= count < len(dataset.training):
            raise ConfigurationError(
                "oracle.training_images",
                count,
                f"leaves one side without images; there are {len(dataset.training)} training images (allowed: {least} "
                f"to {len(dataset.training) - 1})",
            )
        if isinstance(dataset.training, StreamedSplit) and dataset.training.nbytes > self.config.data.memory * GIB:
            size = f"{dataset.training.nbytes / GIB:.1f} GiB"
            problem = f"a black-box attack holds the training images in memory, {size}; set data.training_images"
            raise ConfigurationError("data.memory", self.config.data.memory, problem)
        owner, attacker = divided(replace(dataset, training=dataset.training.loaded()), count)
        shared = images_in_common(attacker.training, [owner.training])
        if shared > MOST_SHARED_IMAGES * len(attacker.training):
            raise ConfigurationError(
                "oracle.training_images",
                count,
                f"{shared:,} of the attacker's {len(attacker.training):,} images are the black box's too; remove "
                "repeated images from x_train",
            )
        query_plan(self.config, len(attacker.training), len(attacker.validation))
        return owner, attacker

    def batches(self, owner: Dataset, attacker: Dataset) -> list[tuple[str, int, int]]:
        """A target that is trained here, and the distilled network."""
        target = [("target", self.config.target.batch_size, len(owner.training))] if self.is_trained_here else []
        return [*target, ("distillation", self.config.distillation.batch_size, len(attacker.training))]

    def target_network(self, shape: Shape, classes: int) -> Any:
        """A target that is trained here; else None."""
        return _trained_here(shape, classes, self.config) if self.is_trained_here else None

    def distilled_network(self, shape: Shape, classes: int) -> Any:
        """The distilled network, untrained."""
        return build_distilled(shape, classes, self.config)

    def check_classifier(self, target: Any, dataset: Dataset) -> Checked:  # noqa: ARG002
        """See that the black box is there, without a query."""
        if not self.is_trained_here:
            with _problems_of("oracle.black_box", self.given):
                black_box_source(self.given, dataset.image_shape, reading_of(self.config)._replace(retries=0)).check()
        return Checked(self.config)

    def introduction(self, owner: Dataset, attacker: Dataset, distilled: Any) -> list[str]:
        """The distilled network, whose data are whose, the queries."""
        rounds = self.config.distillation.rounds
        shared = images_in_common(attacker.training, [owner.training])
        return [
            f"Distilled      {distilled.count_params():,} parameters: {self.config.distilled_architecture}, "
            f"{rounds} {'round' if rounds == 1 else 'rounds'}",
            f"Data split     {len(owner.training):,} training images of the black box, "
            f"{len(attacker.training):,} of the attacker, {shared} in both",
            f"Queries        {self.queries_planned(attacker)}",
        ]

    def queries_planned(self, attacker: Dataset) -> str:
        """How many queries the run makes, and for what."""
        planned = query_plan(self.config, len(attacker.training), len(attacker.validation))
        later = " + ".join(f"{count:,}" for count in planned.adversarial) or "no"
        validation = f"{planned.validation * (1 + planned.validations):,} for validation"
        budget = self.config.oracle.query_budget
        limit = "no budget" if budget is None else f"of a budget of {budget:,}"
        return f"{planned.total:,} at most, {limit}: {planned.clean:,} clean, {later} adversarial images, {validation}"

    def open_victim(self, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment) -> Victim:
        """The black box behind its counter, and a distilled network."""
        return BlackBoxVictim(self.config, run, owner, attacker, environment)


def _trained_here(shape: Shape, classes: int, config: Config) -> Any:
    """The target, untrained; the other networks of an ensemble are built to see that they fit the images."""
    for other in config.target.adversarial_training.others or ():
        build_classifier(shape, classes, other_target(config, other).target, "target.adversarial_training.others")
    if config.target.adversarial_training.method == "advgan":
        build_generator(shape, GENERATOR_SETTINGS)
        build_discriminator(shape, DiscriminatorSettings())
    return build_classifier(shape, classes, config.target)


@contextmanager
def _problems_of(key: str, given: str) -> Iterator[None]:
    """Name the setting in what is wrong with a classifier of the user's own."""
    try:
        yield
    except ConfigurationError:  # it names a setting already
        raise
    except AdvGANError as error:
        raise ConfigurationError(key, given, str(error).removeprefix(f"{given}: ").removeprefix(f"{given} ")) from None
