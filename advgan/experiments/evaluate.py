"""One evaluation of a finished run, from its folder to figures; command line, tests and notebooks call the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import advgan
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.attacks.baselines import Advance
from advgan.classifiers.source import AS_IT_IS
from advgan.config.settings import Config, TargetSettings
from advgan.data.datasets import Dataset
from advgan.devices import strategy_here
from advgan.environment import Environment, code_commit, code_digest, prepare_environment
from advgan.errors import ConfigurationError
from advgan.evaluation.attack_stages import Results, attack_all, attack_part, retrained_success
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.loading import (
    check_request,
    check_subject,
    load_subject,
    own_classifier_digest,
    queries_black_box,
)
from advgan.evaluation.record import evaluation_record
from advgan.evaluation.saved_images import read_back, write_images
from advgan.evaluation.shards import RECORD as SHARD
from advgan.evaluation.shards import Shard, complete_set, part_of, shared_by_parts, write_record
from advgan.evaluation.subject import STAGES, EvaluationRequest, Subject
from advgan.experiments import console
from advgan.experiments.retrain import Retraining, plan_retraining, retrain
from advgan.experiments.threat_models import threat_model_of
from advgan.files import digest_of, file_digest, locked
from advgan.metrics import Rate
from advgan.progress import Progress
from advgan.records.evaluation import Evaluation, EvaluationHead, RetrainedPoint
from advgan.records.finding import Finding
from advgan.records.summary import Summary
from advgan.reports.checklist import report_card
from advgan.reports.evaluation_page import QUERIES, draw_curve, draw_grid, draw_queries, write_page
from advgan.reports.terminal import pixel_lines
from advgan.run_folder import RunFolder
from advgan.training.metrics_log import read_rows

logger = logging.getLogger(__name__)
EVALUATION = "evaluation.json"


def evaluate_part(request: EvaluationRequest, shard: Shard) -> Path:
    """Run the attacks of an evaluation on a part of the images; ``evaluate_run`` puts the parts together.

    Args:
        request: the whole evaluation.
        shard: which part.

    Returns:
        The folder of the part.

    Raises:
        AdvGANError: as for ``evaluate_run``.
    """
    config, dataset = check_request(request)
    if queries_black_box(request, config) or request.retrain:
        what = "--retrain" if request.retrain else "a black box, whose queries one process counts"
        raise ConfigurationError("--shard", str(shard), f"is not for {what}; leave it out")
    environment = prepare_environment(config.training)  # before the first network starts the device
    folder = shard.folder(request)
    with _alone_in(folder), strategy_here().scope():
        subject = load_subject(request, config, dataset)
        decisive = _determinants(request, config, dataset, environment, subject.classifier.digest)
        shared, part = shared_by_parts(decisive, request, subject), part_of(subject, shard)
        (folder / SHARD).unlink(missing_ok=True)  # written last
        attack_part(request, part, ResultCache(folder / STAGES, _of_part(shared, shard), _watch))
        write_record(folder, shard, part, shared)
    return folder


def _of_part(shared: dict[str, Any], shard: Shard) -> dict[str, Any]:
    return {**shared, "shard": list(shard)}


def evaluate_run(request: EvaluationRequest, command: str = "", parts: Sequence[Path] = ()) -> Evaluation:
    """Evaluate a finished run, or go on where an evaluation of it stopped.

    Args:
        request: what to evaluate.
        command: what was typed, for the record.
        parts: folders of ``evaluate_part``, all that there are, whose results are taken.

    Returns:
        What ``evaluation.json`` holds.

    Raises:
        AdvGANError: there is nothing that can be evaluated, or the evaluation would be wrong; nothing is written then,
            except the answers of a black box.
        Interrupted: Ctrl-C while a generator was retrained; a call with the same arguments goes on.
        BlackBoxUnavailable: the black box does not answer; a call with the same arguments goes on.
    """
    config, dataset = check_request(request)
    if parts and queries_black_box(request, config):
        raise ConfigurationError(
            "--merge", str(parts[0]), "is not for a black box, which only one process queries; leave it out"
        )
    if request.to is not None and request.retrain:
        raise ConfigurationError("--retrain", list(request.retrain), "is for generators with one goal; leave it out")
    planned = plan_retraining(request.run, config, request.retrain) if request.retrain else []
    environment = prepare_environment(config.training)  # before the first network starts the device
    with ExitStack() as held:
        if queries_black_box(request, config):  # whose answers to the guards are kept too
            held.enter_context(_alone_in(request.folder))
        strategy = strategy_here()
        with strategy.scope():
            subject = load_subject(request, config, dataset)
            findings = check_subject(subject)
        if not queries_black_box(request, config):
            held.enter_context(_alone_in(request.folder))
        decisive = _determinants(request, config, dataset, environment, subject.classifier.digest)
        shards = []
        if parts:
            shared = shared_by_parts(decisive, request, subject)
            for shard, folder in complete_set(parts, shared, len(subject.test)):
                shards.append(ResultCache(folder / STAGES, _of_part(shared, shard), _watch))
        stages = ResultCache(request.folder / STAGES, decisive, _watch, shards)
        model = threat_model_of(config).describe(subject.other_target)
        logger.info(console.evaluation_introduction(model, request.run, subject.classifier.name, len(subject.test)))
        for search in subject.searches:
            logger.info("\n".join(pixel_lines(search)))
        for line in subject.introduction(request):
            logger.info(line)
        for point in planned:  # before the last evaluation goes: this is what takes long, and may be stopped
            retrain(point, request.run, command)
        (request.folder / EVALUATION).unlink(missing_ok=True)  # written last: where it is, the folder is whole
        held.enter_context(strategy.scope())
        results = attack_all(request, subject, stages)
        files = write_images(request.folder, subject, results.made)
        attack = AdvGANAttack(subject.generator, subject.classifier, config.attack)
        grid = draw_grid(
            request.folder, attack, subject.test, results.made["clean_predictions"], subject.dataset.class_names
        )
        drawn = {"grid": grid, "queries": QUERIES} if subject.classifier.is_black_box else {"grid": grid}
        files = files.model_copy(update=drawn)
        saved = read_back(request.folder, subject, stages, files)
        retrained, bounded = _retrained(planned, subject, stages, results)
        head = EvaluationHead(
            version=Evaluation.newest,
            run=str(request.run),
            command=command,
            commit=code_commit(),
            environment=environment,
            threat_model=model,
            options=subject.options(request),
            determinants_sha256=digest_of(decisive),
        )
        findings = [*findings, *results.findings, *bounded]
        record = evaluation_record(head, request, subject, results, saved, retrained, findings, files)
        record = record.model_copy(update={"card": report_card(record)})
        rows = read_rows(RunFolder(request.run).metrics)
        draw_curve(request.folder, record)
        draw_queries(request.folder, record, rows)
        write_page(request.folder, record, rows)
        record.write(request.folder / EVALUATION)
        if stages.found:
            logger.info("Found already  %s", ", ".join(stages.found))
    return record


def last_record(request: EvaluationRequest) -> tuple[Evaluation | None, bool]:
    """The record of the evaluation in the request's folder, and whether ``evaluate_run`` would come to it again.

    It would not where code, versions, machine, networks or data have changed. Where there is no record, or one that
    does not say what decided it, None and False. The options of the other attacks, transfer and retraining are not
    compared.

    Raises:
        AdvGANError: as for ``check_request``, or the record is damaged or of a newer version.
    """
    config, dataset = check_request(request)
    path = request.folder / EVALUATION
    record = Evaluation.read(path) if path.is_file() else None
    if record is None or record.determinants_sha256 is None:
        return None, False
    environment = prepare_environment(config.training)  # before the first network starts the device
    decisive = _determinants(request, config, dataset, environment, own_classifier_digest(request, config, dataset))
    return record, record.determinants_sha256 == digest_of(decisive)


def _determinants(
    request: EvaluationRequest, config: Config, dataset: Dataset, environment: Environment, target: str
) -> dict[str, Any]:
    """What decides every stage's result; ``target`` is the classifier's digest."""
    black_box = {}
    if queries_black_box(request, config):
        black_box = {"answers": config.oracle.answers, "distilled": file_digest(RunFolder(request.run).distilled)}
    reading = config.target if request.target is None else request.reading
    read = {
        key: value for key in TargetSettings.describes if (value := getattr(reading, key)) != getattr(AS_IT_IS, key)
    }
    return {
        **black_box,
        **({"read": read} if read else {}),
        "schema": Evaluation.newest,
        "advgan": advgan.__version__,
        "commit": code_commit(),
        "code": code_digest(),  # two trees with changes that no commit holds have the same name
        "foolbox": version("foolbox"),
        "environment": environment,
        "data": dataset.digest,
        "images": len(dataset.test.first(request.images)),
        "test_images": config.data.test_images,
        "attack": config.attack.model_dump(mode="json"),
        "generator": file_digest(RunFolder(request.run).generator),
        "target": target,
    }


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield


@contextmanager
def _watch(name: str, total: int) -> Iterator[Advance]:
    progress = Progress(name, total, unit="image")
    try:
        yield lambda images: progress.advance(images, "")
    finally:
        progress.close()


def _retrained(
    planned: list[Retraining], subject: Subject, stages: ResultCache, results: Results
) -> tuple[list[RetrainedPoint], list[Finding]]:
    """Measure the generators that were retrained; the checks' findings about their bounds."""
    points, findings = [], []
    clean = results.made["clean_predictions"]
    for point in planned:
        if point.folder is None:  # nothing is changed, so nothing succeeds
            rate, summary = Rate.of(0, int(subject.goal.eligible(subject.test.labels, clean).sum())), None
        else:
            rate, finding = retrained_success(subject, stages, clean, point.epsilon, point.folder)
            findings.append(finding)
            summary = Summary.read(RunFolder(point.folder).summary)
        points.append(
            RetrainedPoint(
                epsilon=point.epsilon,
                success=rate,
                run=None if point.folder is None else str(point.folder),
                validation_success=None if summary is None else summary.validation_success,
                best_epoch=None if summary is None else summary.best_epoch,
                generator_sha256=None if point.folder is None else file_digest(RunFolder(point.folder).generator),
                training_seconds=None if summary is None else summary.seconds.generator_training,
            )
        )
    return points, findings
