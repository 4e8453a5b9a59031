"""What an attacker knows, and all that follows from it for a run.

``threat_model_of`` chooses for a run, ``evaluation/loading.py`` for an evaluation; whatever trains or measures calls
the object. In each the attacker knows the data and has epsilon; what it has of the classifier differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.black_box import is_local
from advgan.classifiers.checks import PROBE_IMAGES, check_accuracy, check_answers
from advgan.classifiers.classifier import classifier_of
from advgan.classifiers.loading import black_box_source, load_classifier
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, divided, images_in_common, scaled
from advgan.environment import Environment
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.scores import accuracy
from advgan.experiments.victims import BlackBoxVictim, FrozenVictim, Victim
from advgan.run_folder import RunFolder
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
        return f"{attack.objective}, {knowledge}; L_inf, epsilon = {attack.epsilon:.4g}, pixels in [0, 1]"

    @property
    @abstractmethod
    def knowledge(self) -> str:
        """What the attacker knows, in words."""

    @abstractmethod
    def target_named(self, target: Any) -> str:
        """How large the target is, and what it is; ``target`` is its Keras network, where there is one."""

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
        """The classifier under attack, untrained or from the user's file; None where there is no network of it here.

        Raises:
            ConfigurationError: a layer does not fit the images, or the file cannot be used.
        """

    def distilled_network(self, shape: Shape, classes: int) -> Any:  # noqa: ARG002
        """The network that stands in for the classifier, untrained; None where none does."""
        return None

    @abstractmethod
    def check_classifier(self, target: Any, dataset: Dataset) -> None:
        """Try the classifier as far as the attacker can without a query.

        Args:
            target: from ``target_network``.
            dataset: the attacker's.

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
        return f"{target.count_params():,} parameters: {self.config.target.file or self.config.target.architecture}"

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
            return build_classifier(shape, classes, self.config.target)
        file = Path(self.config.target.file)
        with _problems_of("target.file", file):
            return load_classifier(file, shape).network

    def check_classifier(self, target: Any, dataset: Dataset) -> None:
        """Try a classifier of the user's own on a few validation images, as an evaluation does before it trusts it."""
        if self.config.target.file is None:
            return
        file, few = Path(self.config.target.file), dataset.validation.first(JUDGED_IMAGES)
        with _problems_of("target.file", file):
            classifier = classifier_of(target, dataset.image_shape, str(file))
            check_answers(classifier, scaled(few.images[:PROBE_IMAGES]), classes=2)
            if classifier.number_of_classes < dataset.number_of_classes:
                raise AdvGANError(
                    f"answers with {classifier.number_of_classes} scores, the data have {dataset.classes_in_words}; do "
                    "labels start at 0?"
                )
            if not classifier.has_gradient:
                raise AdvGANError("has no gradient, which the generator learns from; replace the part that has none")
            stop = self.config.target.check_accuracy
            check_accuracy(str(file), accuracy(classifier, few), few.labels, few.images, stop)

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
        return f"{target.count_params():,} parameters: {self.config.target.architecture}"

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
        owner, attacker = divided(dataset, count)
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
        return build_classifier(shape, classes, self.config.target) if self.is_trained_here else None

    def distilled_network(self, shape: Shape, classes: int) -> Any:
        """The distilled network, untrained."""
        return build_distilled(shape, classes, self.config)

    def check_classifier(self, target: Any, dataset: Dataset) -> None:  # noqa: ARG002
        """See that the black box is there, without a query."""
        if not self.is_trained_here:
            with _problems_of("oracle.black_box", Path(self.given) if is_local(self.given) else self.given):
                timeout, headers = self.config.oracle.timeout, self.config.oracle.headers
                black_box_source(self.given, dataset.image_shape, timeout, retries=0, headers=headers).check()

    def introduction(self, owner: Dataset, attacker: Dataset, distilled: Any) -> list[str]:
        """The distilled network, whose data are whose, the queries."""
        rounds = self.config.distillation.rounds
        shared = images_in_common(attacker.training, [owner.training])
        return [
            f"Distilled      {distilled.count_params():,} parameters: {self.config.distilled_architecture}, "
            f"{rounds} {'round' if rounds == 1 else 'rounds'}",
            f"Data apart     {len(owner.training):,} training images of the black box, "
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


@contextmanager
def _problems_of(key: str, given: Path | str) -> Iterator[None]:
    """Name the setting in what is wrong with a classifier of the user's own."""
    if isinstance(given, Path) and not given.is_file():
        raise ConfigurationError(key, str(given), "no such file; give another, or put it back there")
    try:
        yield
    except ConfigurationError:  # it names a setting already
        raise
    except AdvGANError as error:
        raise ConfigurationError(key, str(given), str(error).removeprefix(f"{given} ")) from None
