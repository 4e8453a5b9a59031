"""What an evaluation is asked for, and what it then looks at: a run's generator, a classifier, test images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.attacks.square import FEWEST_QUERIES
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.black_box import is_local, run_black_box
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.query_counter import Purpose, QueryCounter, queries_in
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, Split, load_dataset, scaled
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation import checks
from advgan.files import check_writable, file_digest
from advgan.goals import Goal
from advgan.networks.keras_file import load_network
from advgan.perturbation import measure
from advgan.records.finding import Finding
from advgan.records.summary import BlackBoxSummary, Summary, read_processes
from advgan.run_folder import (
    DISTILLED,
    GENERATOR,
    JOURNAL,
    PROCESSES,
    REFERENCE,
    RUN_OF_THIS_KERAS,
    SUMMARY,
    TARGET,
    is_reference_run,
    load_run_config,
)

SQUARE_QUERIES = 1000
STAGES = "stages"
"""The folder, in that of the results, of what outlives the process."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, and where the results go.

    Raises:
        ConfigurationError: an epsilon to retrain at is not in [0, 1].
    """

    run: Path
    """The folder of a finished run."""
    output: Path | None = None
    """Where the results go; ``<run>/evaluation`` by default, followed by what is unlike the default: ``-<target>`` for
    another target, ``-first-<images>`` for fewer images. The run that ships is kept as it is:
    ``checkpoints/reference-evaluation``."""
    images: int | None = None
    """The first so many of the run's test images; all by default."""
    restarts: int = 1
    """How often PGD starts."""
    optimized_images: int = 100
    """How many images the attack that is slow is tried on: the optimization attack, or Square on a black box."""
    square_queries: int = SQUARE_QUERIES
    """The most images that Square asks a black box about for each image it attacks; 3 or more."""
    target: str | None = None
    """The classifier under attack, as ``load_classifier`` takes it; the run's own by default."""
    transfer: tuple[str, ...] = ()
    """Further classifiers that the same images are shown to."""
    retrain: tuple[float, ...] = ()
    """The epsilons at which the run is trained anew, to measure success there."""
    check_accuracy: bool | None = None
    """Whether to stop at a clean accuracy no better than chance; None for what the run's configuration says."""

    def __post_init__(self) -> None:
        if self.square_queries < FEWEST_QUERIES:
            raise ConfigurationError(
                "--square-queries",
                self.square_queries,
                f"is too few to try a square (allowed: {FEWEST_QUERIES} or more)",
            )
        for epsilon in self.retrain:
            if not 0 <= epsilon <= 1:
                raise ConfigurationError(
                    "--retrain", epsilon, "an epsilon is a share of the pixel range (allowed: 0 to 1)"
                )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.output is not None:
            return self.output
        name = "evaluation"
        if self.target is not None:
            name += f"-{re.sub(r'[^0-9A-Za-z_]+', '-', Path(self.target).stem).strip('-')}"
        if self.images is not None:
            name += f"-first-{self.images}"
        if is_reference_run(self.run):  # kept as it ships
            return REFERENCE.parent / f"{REFERENCE.name}-{name}"
        return self.run / name


@dataclass(frozen=True)
class BlackBoxRun:
    """What an evaluation of a black-box run has beside the answers that it scores."""

    counters: tuple[QueryCounter, QueryCounter, QueryCounter]
    """The black box behind three counters, each of which keeps its answers: one for every figure, and for the guards
    one with the same images again and one with single images."""
    distilled: Classifier
    """The network that the generator was trained against."""
    stated: BlackBoxSummary
    """What the run's summary says of its black box."""
    journal: dict[Purpose, int] | None
    """How many answers the run's journal holds, by purpose; None where it is gone."""

    @property
    def queries(self) -> int:
        """How many images the evaluation asked about so far, killed processes and earlier evaluations included."""
        return sum(sum(counter.queries.values()) for counter in self.counters)


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run's generator against a classifier, on test images."""

    config: Config
    dataset: Dataset
    test: Split
    images: np.ndarray
    """The test images as float32 in [0, 1]."""
    classifier: Classifier
    other_target: bool
    """Whether the classifier is another than the one the generator was trained against."""
    generator: Any
    others: list[Classifier]
    """Further classifiers, which the generator's images are shown to."""
    black_box: BlackBoxRun | None = None
    """Where the classifier is a black box: it is asked, and no attack may follow its gradient."""

    @property
    def goal(self) -> Goal:
        """What counts as success."""
        return self.config.attack.objective

    @property
    def epsilon(self) -> float:
        """The largest change of a pixel."""
        return self.config.attack.epsilon


def check_request(request: EvaluationRequest) -> tuple[Config, Dataset]:
    """The configuration and data of the run that is asked about, which must be those it was trained on.

    Raises:
        AdvGANError: the run is not finished, its data have changed, it has fewer test images, or the folder for the
            results cannot be written.
    """
    run, config = request.run, load_run_config(request.run)
    needed = [SUMMARY, GENERATOR]
    needed += [TARGET] if config.black_box is None or is_local(config.black_box) else []
    needed += [] if config.black_box is None else [DISTILLED]
    for name in needed:
        if not (run / name).is_file():
            raise AdvGANError(
                f"{run} is not finished: it has no {name}; go on with: python -m advgan.train --resume {run}"
            )
    Summary.read(run / SUMMARY)
    if request.check_accuracy is not None:
        target = config.target.model_copy(update={"check_accuracy": request.check_accuracy})
        config = config.model_copy(update={"target": target})
    dataset = load_dataset(config.data, config.images_of_black_box)
    processes = read_processes(run / PROCESSES)
    if processes and processes[0].data_sha256 != dataset.digest:
        raise AdvGANError(f"{config.data.dataset} has changed since {run} was trained on it; put that file back")
    if request.images is not None and not 1 <= request.images <= len(dataset.test):
        raise ConfigurationError(
            "--images", request.images, f"{run} has {len(dataset.test)} test images (allowed: 1 to that)"
        )
    if request.square_queries != SQUARE_QUERIES and not asks_black_box(request, config):
        raise ConfigurationError(
            "--square-queries", request.square_queries, "is for a run's own black box; leave it out"
        )
    check_writable("--output", request.folder)
    return config, dataset


def load_subject(request: EvaluationRequest, config: Config, dataset: Dataset) -> Subject:
    """Load the networks that are asked about.

    Raises:
        AdvGANError: one cannot be loaded, or does not take the run's images.
    """
    shape = dataset.image_shape
    generator = load_generator(request.run, shape)
    black_box = None
    if asks_black_box(request, config):
        black_box = _black_box(request, config, dataset)
        classifier, other_target = black_box.counters[0].classifier, False
    elif request.target is None:
        classifier, other_target = load_classifier(request.run / TARGET, shape, RUN_OF_THIS_KERAS), False
    else:  # a black-box run's generator was trained against its distilled network, whatever the target
        classifier = load_classifier(request.target, shape)
        other_target = config.black_box is not None or classifier.digest != file_digest(request.run / TARGET)
    others = [load_classifier(given, shape) for given in request.transfer]
    test = dataset.test.first(request.images)
    return Subject(config, dataset, test, scaled(test.images), classifier, other_target, generator, others, black_box)


def asks_black_box(request: EvaluationRequest, config: Config) -> bool:
    """Whether the classifier that is scored is the run's black box."""
    return config.black_box is not None and request.target is None


def target_digest(request: EvaluationRequest, config: Config, dataset: Dataset) -> str:
    """The digest of the run's own classifier, which is not asked."""
    if config.black_box is None:
        return file_digest(request.run / TARGET)
    return _box(request, config, dataset).digest


def _box(request: EvaluationRequest, config: Config, dataset: Dataset) -> Classifier:
    return run_black_box(config, request.run, dataset.image_shape, dataset.number_of_classes, writes=False)


def _black_box(request: EvaluationRequest, config: Config, dataset: Dataset) -> BlackBoxRun:
    box, classes, settings = _box(request, config, dataset), dataset.number_of_classes, config.oracle
    folder = request.folder / STAGES
    folder.mkdir(parents=True, exist_ok=True)

    def counter(part: str) -> QueryCounter:
        journal = folder / f"answers{part}-{box.digest[:16]}.bin"
        labels_only = settings.answers == "labels"
        return QueryCounter(box, classes, labels_only, None, settings.images_per_request, journal)

    journal, summary = request.run / JOURNAL, request.run / SUMMARY
    if (stated := Summary.read(summary).black_box) is None:
        raise AdvGANError(f"{summary} is damaged (it has no 'black_box')")
    return BlackBoxRun(
        (counter(""), counter("-again"), counter("-alone")),
        load_classifier(request.run / DISTILLED, dataset.image_shape, RUN_OF_THIS_KERAS),
        stated,
        queries_in(journal, classes) if journal.is_file() else None,
    )


def load_generator(run: Path, shape: tuple[int, int, int]) -> Any:
    """A run's generator.

    Raises:
        AdvGANError: it cannot be loaded, or does not take images of the shape.
    """
    generator = load_network(run / GENERATOR, RUN_OF_THIS_KERAS)
    if tuple(generator.input_shape[1:]) != shape:
        raise AdvGANError(
            f"{run / GENERATOR} takes images of {tuple(generator.input_shape[1:])}, the data's are "
            f"{shape}; put the run's own generator back"
        )
    return generator


def check_subject(subject: Subject) -> list[Finding]:
    """The guards that need no attack of their own: refuse before there are results, or mark."""
    images, labels = subject.images, subject.test.labels
    few = images[: classifier_checks.PROBE_IMAGES]
    attacked = AdvGANAttack(subject.generator, None, subject.config.attack)(few)
    checks.check_bounds("advgan", *extremes(few, attacked.projected), subject.epsilon)
    classes = subject.dataset.number_of_classes
    for other in subject.others:
        classifier_checks.check_answers(other, images, classes, white_box=False)
    held_out = checks.check_held_out(subject.test, [subject.dataset.training, subject.dataset.validation])
    if (run := subject.black_box) is not None:
        stated, spent = run.stated, sum(run.stated.attack_queries.values())
        same = checks.check_same_black_box(subject.classifier.digest, stated.digest)
        uncached = [counter.classifier for counter in run.counters[1:]]
        return [
            *classifier_checks.check_answers(subject.classifier, images, classes, white_box=False, uncached=uncached),
            checks.not_for_a_black_box("gradients"),
            held_out,
            same,
            checks.check_budget(spent, stated.query_budget, run.journal, stated.queries),
        ]
    return [
        *classifier_checks.check_answers(subject.classifier, images, classes),
        classifier_checks.check_gradients(subject.classifier, images, labels),
        held_out,
    ]


def extremes(images: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each image's largest change, lowest and highest pixel."""
    flat = adversarial.reshape(len(adversarial), -1)
    return measure(images, adversarial).linf, flat.min(axis=1), flat.max(axis=1)
