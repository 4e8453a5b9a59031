"""What an evaluation is asked for, and what it then looks at: a run's generator, a classifier, test images."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.config import Config
from advgan.data.datasets import Dataset, Split, load_dataset, scaled
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation import guards
from advgan.evaluation.guards import Finding
from advgan.files import read_json
from advgan.goals import Goal
from advgan.oracles.classifiers import Classifier, file_digest, load_classifier, network_classifier
from advgan.perturbation import measure
from advgan.runs import (
    CONFIG,
    GENERATOR,
    PROCESSES,
    REFERENCE,
    SUMMARY,
    TARGET,
    TRAIN,
    is_reference_run,
    load_network,
    load_run_config,
    reference_run,
)

REMEDY = f"evaluate a run of the Keras that is installed here, made with: {TRAIN}"


@dataclass(frozen=True)
class Request:
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
    """How many images the optimization attack, which is slow, is tried on."""
    target: str | None = None
    """The classifier under attack, as ``load_classifier`` takes it; the run's own by default."""
    transfer: tuple[str, ...] = ()
    """Further classifiers that the same images are shown to."""
    retrain: tuple[float, ...] = ()
    """The epsilons at which the run is trained anew, to measure success there."""

    def __post_init__(self) -> None:
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

    @property
    def goal(self) -> Goal:
        """What counts as success."""
        return self.config.attack.objective

    @property
    def epsilon(self) -> float:
        """The largest change of a pixel."""
        return self.config.attack.epsilon


def run_of(config: Config) -> Path:
    """The newest finished run of a configuration; where it has none, the run that ships, if it was made by the same.

    Raises:
        AdvGANError: there is none.
    """
    try:
        return latest_finished_run(Path(config.output.directory) / config.name)
    except AdvGANError:
        shipped = reference_run()
        if load_run_config(shipped).model_copy(update={"name": config.name, "output": config.output}) != config:
            raise
        return shipped.relative_to(Path.cwd()) if shipped.is_relative_to(Path.cwd()) else shipped


def latest_finished_run(runs: Path) -> Path:
    """The newest finished run below ``runs``, such as ``checkpoints/mnist``.

    Raises:
        AdvGANError: there is none.
    """
    found = [path.parent for path in runs.glob(f"*/{SUMMARY}") if (path.parent / CONFIG).is_file()]
    if not found:
        raise AdvGANError(f"there is no finished run in {runs}; train one with: python -m advgan.train --config FILE")
    return max(found, key=lambda run: (run / SUMMARY).stat().st_mtime)


def check_request(request: Request) -> tuple[Config, Dataset]:
    """The configuration and data of the run that is asked about, which must be those it was trained on.

    Raises:
        AdvGANError: the run is not finished, its data have changed, it has fewer test images, or the folder for the
            results cannot be written.
    """
    run, config = request.run, load_run_config(request.run)
    for name in (SUMMARY, GENERATOR, TARGET):
        if not (run / name).is_file():
            raise AdvGANError(
                f"{run} is not finished: it has no {name}; go on with: python -m advgan.train --resume {run}"
            )
    read_json(run / SUMMARY)
    dataset = load_dataset(config.data)
    processes = read_json(run / PROCESSES) if (run / PROCESSES).exists() else []
    if processes and processes[0]["data_sha256"] != dataset.digest:
        raise AdvGANError(f"{config.data.dataset} has changed since {run} was trained on it; put that file back")
    if request.images is not None and not 1 <= request.images <= len(dataset.test):
        raise ConfigurationError(
            "--images", request.images, f"{run} has {len(dataset.test)} test images (allowed: 1 to that)"
        )
    check_writable("--output", request.folder)
    return config, dataset


def check_writable(option: str, folder: Path) -> None:
    """Refuse a folder for results that cannot be written.

    Args:
        option: which asks for it.
        folder: it need not be there yet.

    Raises:
        ConfigurationError: what is there of it is no folder, or may not be written.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            option, str(folder), f"cannot be written ({existing} is not a writable folder); choose another"
        )


def load_subject(request: Request, config: Config, dataset: Dataset) -> Subject:
    """Load the networks that are asked about.

    Raises:
        AdvGANError: one cannot be loaded, or does not take the run's images.
    """
    shape = dataset.image_shape
    generator = load_generator(request.run, shape)
    if request.target is None:
        classifier = network_classifier(request.run / TARGET, shape, REMEDY)
    else:
        classifier = load_classifier(request.target, shape)
    others = [load_classifier(given, shape) for given in request.transfer]
    test = dataset.test.first(request.images)
    other_target = classifier.digest != file_digest(request.run / TARGET)
    return Subject(config, dataset, test, scaled(test.images), classifier, other_target, generator, others)


def load_generator(run: Path, shape: tuple[int, int, int]) -> Any:
    """A run's generator.

    Raises:
        AdvGANError: it cannot be loaded, or does not take images of the shape.
    """
    generator = load_network(run / GENERATOR, REMEDY)
    if tuple(generator.input_shape[1:]) != shape:
        raise AdvGANError(
            f"{run / GENERATOR} takes images of {tuple(generator.input_shape[1:])}, the data's are "
            f"{shape}; put the run's own generator back"
        )
    return generator


def check_subject(subject: Subject) -> list[Finding]:
    """The guards that need no attack of their own: refuse before anything is written, or mark."""
    images, labels = subject.images, subject.test.labels
    few = images[: guards.PROBE_IMAGES]
    attacked = AdvGANAttack(subject.generator, None, subject.config.attack)(few)
    guards.check_bounds("advgan", *extremes(few, attacked.projected), subject.epsilon)
    classes = subject.dataset.number_of_classes
    for other in subject.others:
        guards.check_answers(other, images, classes, gradients_asked=False)
    return [
        *guards.check_answers(subject.classifier, images, classes),
        guards.check_gradients(subject.classifier, images, labels),
        guards.check_held_out(subject.test, [subject.dataset.training, subject.dataset.validation]),
    ]


def extremes(images: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each image's largest change, lowest and highest pixel."""
    flat = adversarial.reshape(len(adversarial), -1)
    return measure(images, adversarial).linf, flat.min(axis=1), flat.max(axis=1)
