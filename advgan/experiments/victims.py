"""The classifier that a run attacks: what G is trained on, what is scored, what happens before an epoch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.black_box import run_black_box
from advgan.classifiers.checks import check_accuracy
from advgan.classifiers.classifier import Classifier, classifier_of, fixed_answers
from advgan.classifiers.loading import copied_as, load_classifier
from advgan.classifiers.query_counter import QueryCounter
from advgan.classifiers.run_target import check_unchanged, kept_target, run_target
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, Split, scaled
from advgan.environment import Environment
from advgan.errors import AdvGANError
from advgan.evaluation.robustness import robustness
from advgan.evaluation.scores import accuracy
from advgan.files import copy_whole, path_digest, read_json, write_json, write_whole
from advgan.metrics import Rate, share, success_rate
from advgan.networks.keras_file import weights_digest
from advgan.records.adversarial_training import Defence
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.records.record import checked
from advgan.records.summary import BlackBoxSummary, DistilledScore
from advgan.reports.terminal import warnings
from advgan.run_folder import RunFolder
from advgan.training.classifier import load_or_train_target
from advgan.training.distillation import Distillation, build_distilled
from advgan.training.metrics_log import MetricsLog
from advgan.training.query_plan import query_plan
from advgan.training.state import Position, TrainingState
from advgan.training.trainer import BeforeEpoch
from advgan.training.validation import (
    BlackBoxValidation,
    DistilledValidation,
    EachClassValidation,
    TargetValidation,
    Validation,
)

logger = logging.getLogger(__name__)
LEARNT_NOTHING = (
    "target.adversarial_training: where a network learns nothing, warmup_epochs, a smaller epsilon or a lower "
    "target.learning_rate help"
)
SAME_ANSWERS = 1e-3
"""How far a target's logits may differ before and after training, as a share of the largest."""


class Victim(ABC):
    """A classifier under attack, in the folder of its run.

    Args:
        config: the run's settings.
        run: its folder.
        owner: the data of whoever trained the classifier.
        attacker: the data of whoever attacks it.
        environment: of this process.
    """

    attacked: Classifier
    """What G is trained on; it has a gradient."""
    distilled: Any = None
    """The Keras network that this is, where it learns too."""
    scored: Classifier
    """What the finished attack is scored on."""
    note = ""
    """What to add to the success that an epoch's picture names."""

    def __init__(
        self, config: Config, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment
    ) -> None:
        self.config, self.run, self.owner, self.attacker = config, run, owner, attacker
        self.environment = environment

    def judge(self, clean: Rate) -> Finding:
        """Whether the classifier does better than chance on the clean test images.

        Raises:
            AdvGANError: it does not, and ``target.check_accuracy`` is on.
        """
        config, test = self.config, self.attacker.test
        name = config.black_box or config.target.file or config.target.architecture
        trained = config.target.adversarial_training.method != "none"
        hints = (LEARNT_NOTHING,) if trained else ()
        return check_accuracy(name, clean, test.labels, test.images, config.target.check_accuracy, hints)

    def progress_note(self, position: Position) -> str:  # noqa: ARG002
        """What to add to the step at which a run is resumed."""
        return ""

    @abstractmethod
    def classes_shown(self, attack: AdvGANAttack, split: Split) -> np.ndarray:
        """The class of each image for the choice of the images that are drawn after an epoch."""

    def before_epoch(self, state: TrainingState, attack: AdvGANAttack, log: MetricsLog) -> BeforeEpoch | None:  # noqa: ARG002
        """What is done before each epoch."""
        return None

    @abstractmethod
    def validation(self, attack: AdvGANAttack) -> Validation:
        """How the generator is measured after each epoch."""

    @property
    def defence(self) -> Defence | None:
        """What an adversarial training of the target came to; None where it had none."""
        record = read_json(self.run.target_record)
        return checked(Defence, self.run.target_record, record["defence"]) if "defence" in record else None

    def training_seconds(self, position: Position) -> dict[str, float]:
        """How long each training took, by field of ``Seconds``; 0 for a classifier that was not trained here."""
        target = float(read_json(self.run.target_record, "seconds")["seconds"])
        return {"target_training": target, "generator_training": position.seconds}

    @abstractmethod
    def finish(self, state: TrainingState) -> dict[str, Any]:
        """What the summary has of this victim, by field of ``Summary``; called after the last epoch.

        Raises:
            AdvGANError: the classifier changed, or does not answer.
        """

    def _check_kept(self) -> None:
        """See that the run's copy of the target is there.

        Raises:
            AdvGANError: it is not, though its record is.
        """
        kept = kept_target(self.config, self.run)
        if kept is not None and not kept.exists():
            raise AdvGANError(f"{kept} is missing; delete {self.run.target_record} to restore it")

    def _train_target(self) -> None:
        """Put a target that is trained here into the folder, once."""
        if self.run.target_record.exists():
            return
        cache = Path(self.config.output.directory) / "targets"
        found = load_or_train_target(self.config, self.owner, self.environment, cache)
        write_whole(self.run.target, found.model.save)
        record: dict[str, Any] = {"digest": found.digest, "seconds": found.seconds}
        settings = self.config.target.adversarial_training
        if settings.epsilon is not None:
            classifier = classifier_of(found.model, self.owner.image_shape, self.config.target.architecture)
            resists = robustness(classifier, self.owner.test, settings.epsilon)
            defence = Defence(method=settings.method, epochs=found.epochs, robustness=resists)
            record["defence"] = defence.model_dump(mode="json")
            logger.info("Target         first %s test images: %s", f"{resists.pgd.n:,}", resists)
        write_json(self.run.target_record, record)
        came = "loaded" if found.cached else f"trained in {found.seconds:.0f} s"
        logger.info("Target         %s, digest %s", came, found.digest)

    def _keep(self, given: str, digest: str) -> None:
        """Put the user's own classifier into the run's folder, once, where it is a file or a folder.

        Raises:
            AdvGANError: it is no longer the one that the run was started with.
        """
        if not self.run.target_record.exists():
            if (kept := kept_target(self.config, self.run)) is not None:
                copy_whole(Path(given), kept)
            write_json(self.run.target_record, {"digest": digest, "seconds": 0.0})
            logger.info("Target         %s, digest %s", given, digest[:16])
        else:
            check_unchanged(self.run, given, digest)


class FrozenVictim(Victim):
    """A target whose gradients are used in training, and which stays as it is."""

    def __init__(
        self, config: Config, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment
    ) -> None:
        super().__init__(config, run, owner, attacker, environment)
        remedy = f"delete {run.target_record} to restore it"
        if (given := config.target.file) is None:
            self._train_target()
        elif copied_as(given) is not None:
            self._keep(given, path_digest(Path(given)))
        else:
            self._keep(given, load_classifier(given, attacker.image_shape, config.target).digest)
        self._check_kept()
        self.scored = self.attacked = run_target(config, run, attacker.image_shape, remedy)
        self._answers = fixed_answers(self.scored)
        clean = accuracy(self.scored, attacker.test)
        logger.info("Target         clean accuracy %s test images", clean)
        for line in warnings([self.judge(clean)]):
            logger.warning(line)

    def classes_shown(self, attack: AdvGANAttack, split: Split) -> np.ndarray:
        """Its answers on the clean images."""
        return attack.classify(scaled(split.images))

    def validation(self, attack: AdvGANAttack) -> Validation:
        """Success on the target."""
        if (classes := self.config.attack.wanted_classes) is not None:
            return EachClassValidation(attack, classes, self.attacker.validation)
        return TargetValidation(attack, self.attacker.validation)

    def finish(self, state: TrainingState) -> dict[str, Any]:  # noqa: ARG002
        """The digest of its weights, which are those of the start, and what was done to its inputs and outputs."""
        scored, network = self.scored, self.scored.network
        changed = network is not None and weights_digest(network) != scored.weights
        if changed or np.abs(fixed_answers(scored) - self._answers).max() > SAME_ANSWERS:
            raise AdvGANError("the target changed during training: the run is void; does its code change its weights?")
        figures: dict[str, Any] = {"target_weights_sha256": scored.weights or scored.digest}
        if scored.remarks:
            figures["target_remarks"] = tuple(scored.remarks)
        if self.run.pixels.is_file():
            figures["pixels"] = PixelSearch.read(self.run.pixels)
        return figures


class BlackBoxVictim(Victim):
    """A black box behind a counter, with the answers that earlier processes of the run were given; f stands in."""

    note = ", answers of the distilled network"

    def __init__(
        self, config: Config, run: RunFolder, owner: Dataset, attacker: Dataset, environment: Environment
    ) -> None:
        super().__init__(config, run, owner, attacker, environment)
        given, settings, copied = str(config.black_box), config.oracle, None
        shape, classes = attacker.image_shape, attacker.number_of_classes
        if given == "target":
            self._train_target()
        elif (copied := copied_as(given)) is not None:
            self._keep(given, path_digest(Path(given)))
        self._check_kept()
        black_box = run_black_box(config, run, shape, classes, writes=True)
        if given != "target" and copied is None:
            self._keep(given, black_box.digest)
        self._counter = QueryCounter(
            black_box,
            classes,
            settings.answers == "labels",
            settings.query_budget,
            settings.images_per_request,
            run.journal,
        )
        self.scored = self._counter.classifier
        self.distilled = build_distilled(shape, classes, config)
        self.attacked = classifier_of(self.distilled, shape, "the distilled network")

    def progress_note(self, position: Position) -> str:
        """The round."""
        return f", round {1 + position.epoch // self.config.training.epochs}"

    def classes_shown(self, attack: AdvGANAttack, split: Split) -> np.ndarray:  # noqa: ARG002
        """The labels: a distilled network knows nothing yet."""
        return split.labels

    def before_epoch(self, state: TrainingState, attack: AdvGANAttack, log: MetricsLog) -> BeforeEpoch:
        """Queries, then distillation."""
        return Distillation(state, self._counter, attack, self.attacker, self.config, self.run.rounds, log)

    def validation(self, attack: AdvGANAttack) -> Validation:
        """Success on the black box as far as queries allow, else on the distilled network."""
        data, config = self.attacker, self.config
        count = query_plan(config, len(data.training), len(data.validation)).validation
        if count:
            return BlackBoxValidation(self._counter, attack, data.validation, count, config)
        return DistilledValidation(attack, data.validation)

    def training_seconds(self, position: Position) -> dict[str, float]:
        """Of the generator's training, what went into queries and distillation is apart."""
        seconds, apart = super().training_seconds(position), position.distillation_seconds
        return {**seconds, "generator_training": seconds["generator_training"] - apart, "distillation": apart}

    def finish(self, state: TrainingState) -> dict[str, Any]:
        """Keep the distilled network; what the attack cost, and how far the two networks are apart."""
        write_whole(self.run.distilled, self.distilled.save)
        return {
            "black_box": self._figures(state),
            "distilled_weights_sha256": weights_digest(self.distilled),
        }

    def _figures(self, state: TrainingState) -> BlackBoxSummary:
        """The same images on the black box and on the distilled network: the gap between the two."""
        config, test, counter = self.config, self.attacker.test, self._counter
        distilled = AdvGANAttack(state.best_generator, self.attacked, config.attack)
        clean = scaled(test.images)
        adversarial = distilled.generate(clean)
        shown = {"clean": clean, "adversarial": adversarial}
        answers = {name: counter.query(images, "scoring").argmax(axis=1) for name, images in shown.items()}
        learned = {name: distilled.classify(images) for name, images in shown.items()}
        return BlackBoxSummary(
            name=str(config.black_box),
            digest=counter.black_box.digest,
            answers=config.oracle.answers,
            query_budget=config.oracle.query_budget,
            attacker_images=len(self.attacker.training),
            distilled=DistilledScore(
                architecture=config.distilled_architecture,
                success=success_rate(distilled.goal, test.labels, answers["clean"], learned["adversarial"]),
                agreement_clean=share(learned["clean"] == answers["clean"]).rate,
                agreement_adversarial=share(learned["adversarial"] == answers["adversarial"]).rate,
            ),
            remarks=tuple(counter.black_box.remarks),
            queries={str(purpose): count for purpose, count in counter.queries.items()},
        )
