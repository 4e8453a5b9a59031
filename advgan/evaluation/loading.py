"""From a request to the subject of an evaluation: what is read, and checked before there are results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from advgan.attacks.advgan_attack import AdvGANAttack, image_shape_of
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.black_box import run_black_box
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.pixel_search import with_found_pixels
from advgan.classifiers.query_counter import QueryCounter, queries_in
from advgan.classifiers.run_target import kept_target, run_target
from advgan.classifiers.source import AS_IT_IS
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, Split, scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation import checks
from advgan.evaluation.black_box_subject import BlackBoxSubject
from advgan.evaluation.subject import STAGES, EvaluationRequest, Subject, extremes
from advgan.files import check_writable, path_digest
from advgan.networks.keras_file import load_network
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.records.summary import Summary, read_processes
from advgan.run_folder import RUN_OF_THIS_KERAS, RunFolder, load_run_config


def check_request(request: EvaluationRequest) -> tuple[Config, Dataset]:
    """The configuration and data of the run that is asked about, which must be those it was trained on.

    Raises:
        AdvGANError: the run is not finished, its data have changed, it has fewer test images, or the folder for the
            results cannot be written.
    """
    run, config = RunFolder(request.run), load_run_config(request.run)
    kept = kept_target(config, run)
    run.require(
        run.summary,
        run.generator,
        *([] if kept is None else [kept]),
        *([run.distilled] if config.is_black_box else []),
    )
    Summary.read(run.summary)
    if request.check_accuracy is not None:
        target = config.target.model_copy(update={"check_accuracy": request.check_accuracy})
        config = config.model_copy(update={"target": target})
    config = led_towards(config, run, request.to)
    dataset = load_dataset(config.data, config.images_of_black_box)
    processes = read_processes(run.processes)
    if processes and processes[0].data_sha256 != dataset.digest:
        raise AdvGANError(f"{config.data.dataset} has changed since {run.path} was trained on it; put that file back")
    if request.images is not None and not 1 <= request.images <= len(dataset.test):
        raise ConfigurationError(
            "--images", request.images, f"{run.path} has {len(dataset.test)} test images (allowed: 1 to that)"
        )
    check_writable("--output", request.folder)
    return config, dataset


def led_towards(config: Config, run: RunFolder, to: str | None) -> Config:
    """The configuration of a run with the wanted class as its goal, where its generator is conditioned on it.

    Args:
        config: the run's.
        run: its folder.
        to: the class, by number or name; None where the generator has one goal.

    Raises:
        ConfigurationError: it is missing, or is none of the generator's, or the generator has one goal.
    """
    classes = config.attack.wanted_classes
    if to is None and classes is None:
        return config
    card = Summary.read(run.summary).data if run.summary.exists() else None
    names = (card.class_names if card is not None else None) or ()
    if to is None or classes is None:
        listed = ", ".join(f"{each} ({names[each]})" if names else str(each) for each in classes or ())
        problem = f"the generator of {run.path} " + (
            "has one goal; leave it out" if classes is None else f"is for several classes; choose one of {listed}"
        )
        raise ConfigurationError("--to", to, problem)
    number = names.index(to) if to in names else int(to) if re.fullmatch("[0-9]{1,9}", to) else to
    return config.model_copy(update={"attack": config.attack.towards(number)})


def load_subject(request: EvaluationRequest, config: Config, dataset: Dataset) -> Subject:
    """Load the networks that are asked about.

    Raises:
        AdvGANError: one cannot be loaded, or does not take the run's images.
    """
    shape = dataset.image_shape
    generator = load_generator(request.run, shape)
    plain = AS_IT_IS.model_copy(update={"module": request.reading.module, "trust": request.reading.trust})
    loaded = [with_found_pixels(load_classifier(given, shape, plain), dataset.validation) for given in request.transfer]
    others, searches = [other for other, _ in loaded], [search for _, search in loaded]
    test = dataset.test.first(request.images)
    if queries_black_box(request, config):
        return _black_box_subject(request, config, dataset, test, generator, others, tuple(searches))
    if request.target is None:
        classifier, other_target = run_target(config, RunFolder(request.run), shape), False
    else:  # a black-box run's generator was trained against its distilled network, whatever the target
        classifier = load_classifier(request.target, shape, request.reading)
        if request.reading.bounds_are_to_be_found:
            classifier, search = with_found_pixels(classifier, dataset.validation)
            searches.insert(0, search)
        other_target = config.is_black_box or classifier.digest != own_classifier_digest(request, config, dataset)
    images = scaled(test.images)
    return Subject(config, dataset, test, images, classifier, other_target, generator, others, tuple(searches))


def queries_black_box(request: EvaluationRequest, config: Config) -> bool:
    """Whether the classifier that is scored is the run's black box."""
    return config.is_black_box and request.target is None


def own_classifier_digest(request: EvaluationRequest, config: Config, dataset: Dataset) -> str:
    """The digest of the run's own classifier, without a query."""
    if not config.is_black_box:
        run = RunFolder(request.run)
        kept = kept_target(config, run)
        return run_target(config, run, dataset.image_shape).digest if kept is None else path_digest(kept)
    return _box(request, config, dataset).digest


def _box(request: EvaluationRequest, config: Config, dataset: Dataset) -> Classifier:
    return run_black_box(config, RunFolder(request.run), dataset.image_shape, dataset.number_of_classes, writes=False)


def _black_box_subject(
    request: EvaluationRequest,
    config: Config,
    dataset: Dataset,
    test: Split,
    generator: Any,
    others: list[Classifier],
    searches: tuple[PixelSearch, ...],
) -> BlackBoxSubject:
    box, classes, settings = _box(request, config, dataset), dataset.number_of_classes, config.oracle
    folder = request.folder / STAGES
    folder.mkdir(parents=True, exist_ok=True)

    def counter(part: str) -> QueryCounter:
        journal = folder / f"answers{part}-{box.digest[:16]}.bin"
        labels_only = settings.answers == "labels"
        return QueryCounter(box, classes, labels_only, None, settings.images_per_request, journal)

    run = RunFolder(request.run)
    if (stated := Summary.read(run.summary).black_box) is None:
        raise AdvGANError(f"{run.summary} is damaged (it has no 'black_box')")
    counters = (counter(""), counter("-again"), counter("-alone"))
    return BlackBoxSubject(
        config,
        dataset,
        test,
        scaled(test.images),
        counters[0].classifier,
        other_target=False,
        generator=generator,
        others=others,
        searches=searches,
        counters=counters,
        distilled=load_classifier(run.distilled, dataset.image_shape, remedy=RUN_OF_THIS_KERAS),
        stated=stated,
        journal=queries_in(run.journal, classes) if run.journal.is_file() else None,
    )


def load_generator(run: Path, shape: tuple[int, int, int]) -> Any:
    """A run's generator.

    Raises:
        AdvGANError: it cannot be loaded, or does not take images of the shape.
    """
    generator = load_network(RunFolder(run).generator, RUN_OF_THIS_KERAS)
    if image_shape_of(generator) != shape:
        raise AdvGANError(
            f"{RunFolder(run).generator} takes images of {image_shape_of(generator)}, the data's are "
            f"{shape}; put the run's own generator back"
        )
    return generator


def check_subject(subject: Subject) -> list[Finding]:
    """The checks that need no attack of their own: raise before there are results, or mark."""
    images = subject.images
    few = images[: classifier_checks.PROBE_IMAGES]
    attacked = AdvGANAttack(subject.generator, None, subject.config.attack)(few)
    checks.check_bounds("advgan", *extremes(few, attacked.projected), subject.epsilon)
    classes = subject.dataset.number_of_classes
    for other in subject.others:
        classifier_checks.check_answers(other, images, classes, white_box=False)
    held_out = checks.check_held_out(subject.test, [subject.dataset.training, subject.dataset.validation])
    return [*map(checks.found_pixels, subject.searches), *subject.check_classifier(held_out)]
