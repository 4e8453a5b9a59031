"""One run from configuration to figures; ``train_and_evaluate`` serves command line, tests and notebooks."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.checks import check_accuracy
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.query_counter import QueryCounter
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, scaled
from advgan.environment import changes_between, code_commit, peak_memory
from advgan.errors import AdvGANError
from advgan.evaluation.scores import accuracy, score_attack
from advgan.experiments import console
from advgan.experiments.plan import Plan, check
from advgan.experiments.threat_models import provide_target, query_counter
from advgan.files import locked, write_text, write_whole
from advgan.metrics import Rate, share, success_rate
from advgan.networks.keras_file import weights_digest
from advgan.records.finding import Finding
from advgan.records.summary import (
    BlackBoxSummary,
    DistilledScore,
    Process,
    Seconds,
    Summary,
    read_processes,
    write_processes,
)
from advgan.reports.plots import as_pixels, one_of_each_class, sample_grid, save_figure, training_curves
from advgan.reports.terminal import warnings
from advgan.run_folder import RunFolder, located
from advgan.run_folder import load_run_config as load_run_config  # the doors find it here
from advgan.training.distillation import Distillation, build_distilled
from advgan.training.metrics_log import MetricsLog, read_rows
from advgan.training.progress import Progress
from advgan.training.state import Checkpoints, TrainingState, build_state
from advgan.training.trainer import EpochReport, GeneratorTrainer
from advgan.training.validation import BlackBoxValidation, DistilledValidation, TargetValidation, Validation

logger = logging.getLogger(__name__)


def train_and_evaluate(config: Config, run_directory: Path, command: str = "") -> Summary:
    """Check a configuration, train an AdvGAN and score it: ``train(check(config), ...)``."""
    return train(check(config), run_directory, command)


def train(plan: Plan, run_directory: Path, command: str = "") -> Summary:
    """Train an AdvGAN, or go on where the run in this folder stopped, and score it on the test images.

    Args:
        plan: checked settings; for a resumed run those it was started with (``load_run_config``).
        run_directory: from ``new_run_directory``, or that of a run to resume.
        command: what was typed, for the record.

    Returns:
        What ``summary.json`` holds.

    Raises:
        NonFiniteError: training diverged.
        Interrupted: Ctrl-C; a call with the same arguments goes on.
    """
    run_directory.mkdir(parents=True, exist_ok=True)
    with locked(run_directory):
        if not RunFolder(run_directory).config.exists():
            write_text(RunFolder(run_directory).config, dump_config(located(plan.config)))
        elif load_run_config(run_directory) != located(plan.config):
            raise AdvGANError(f"{run_directory} was started with other settings; start a new run")
        if RunFolder(run_directory).summary.exists():
            logger.info("%s is complete already.", run_directory)
            return Summary.read(RunFolder(run_directory).summary)
        return _run(plan, run_directory, command)


def _run(plan: Plan, run_directory: Path, command: str) -> Summary:
    start = time.monotonic()
    config, dataset = plan.config, plan.dataset
    _start_process(plan, run_directory, command)
    logger.info("\n".join(console.introduction(plan, run_directory)))
    for line in warnings(plan.findings):
        logger.warning(line)

    target_seconds = provide_target(plan, run_directory)
    counter = None if config.black_box is None else query_counter(plan, run_directory)
    if counter is None:
        remedy = f"delete {RunFolder(run_directory).target_record} to put it there again"
        classifier = load_classifier(RunFolder(run_directory).target, dataset.image_shape, remedy)
        target = classifier.network
        clean = accuracy(classifier, dataset.test)
        logger.info("Target         clean accuracy %s test images", clean)
        for line in warnings([_judged(plan, clean)]):
            logger.warning(line)
    else:
        target = build_distilled(dataset.image_shape, dataset.number_of_classes, config)
    target_weights = weights_digest(target)

    state = build_state(dataset.image_shape, target, config, plan.steps, target_learns=counter is not None)
    checkpoints = Checkpoints(run_directory / "state", config.output.keep_checkpoints)
    if checkpoints.restore_latest(state):
        rounds = "" if counter is None else f", round {1 + state.position.epoch // config.training.epochs}"
        logger.info("Resumed        at step %d of %d%s", state.position.step, plan.steps, rounds)
    _train(state, plan, checkpoints, run_directory, counter)

    if counter is None and weights_digest(target) != target_weights:
        raise AdvGANError("the target's weights changed during training: this is a bug of advgan, and the run is void")
    best = AdvGANAttack(state.best_generator, target if counter is None else counter.classifier, config.attack)
    score = score_attack(best, dataset.test)
    findings = [*plan.findings, _judged(plan, score.clean_accuracy)]
    write_whole(RunFolder(run_directory).generator, state.best_generator.save)
    write_whole(run_directory / "generator-last.keras", state.networks.generator.save)
    write_whole(run_directory / "discriminator.keras", state.networks.discriminator.save)
    if counter is not None:
        write_whole(RunFolder(run_directory).distilled, target.save)
    _draw_results(best, dataset, run_directory)
    if counter is None:
        of_threat_model: dict[str, Any] = {"target_weights_sha256": target_weights}
    else:
        black_box = _black_box_figures(state, plan, counter)
        of_threat_model = {"black_box": black_box, "distilled_weights_sha256": weights_digest(target)}
    summary = Summary(
        version=Summary.newest,
        processes=tuple(read_processes(RunFolder(run_directory).processes)),
        threat_model=console.threat_model(config),
        seed=config.seed,
        steps=state.position.step,
        best_epoch=state.position.best_epoch + 1,
        validation_success=state.position.best_success,
        test=score,
        checks=tuple(findings),
        generator_weights_sha256=weights_digest(state.best_generator),
        generator_last_weights_sha256=weights_digest(state.networks.generator),
        seconds=_seconds(state, target_seconds, start, counter),
        peak_memory_bytes=peak_memory(),
        **of_threat_model,
    )
    summary.write(RunFolder(run_directory).summary)
    return summary


def _seconds(state: TrainingState, target_training: float, start: float, counter: QueryCounter | None) -> Seconds:
    position = state.position
    seconds = Seconds(
        target_training=target_training,
        generator_training=position.seconds - position.distillation_seconds,
        this_process=time.monotonic() - start,
    )
    return seconds if counter is None else seconds.model_copy(update={"distillation": position.distillation_seconds})


def _judged(plan: Plan, accuracy: Rate) -> Finding:
    """Whether the classifier under attack does better than chance on the clean test images."""
    config, test = plan.config, plan.dataset.test
    name = config.black_box or config.target.file or config.target.architecture
    return check_accuracy(name, accuracy, test.labels, test.images, config.target.check_accuracy)


def _start_process(plan: Plan, run_directory: Path, command: str) -> None:
    """Add this process to the run's list; other data raise, another environment is a warning."""
    path = RunFolder(run_directory).processes
    processes = read_processes(path)
    if processes and processes[0].data_sha256 != plan.dataset.digest:
        raise AdvGANError(f"{plan.config.data.dataset} has changed since {run_directory} was started; start a new run")
    if processes and (changed := changes_between(processes[0].environment, plan.environment)):
        logger.warning("resumed elsewhere, so not bit for bit the same as without a stop: %s", "; ".join(changed))
    here = Process(command=command, commit=code_commit(), data_sha256=plan.dataset.digest, environment=plan.environment)
    write_processes(path, [*processes, here])


def _black_box_figures(state: TrainingState, plan: Plan, counter: QueryCounter) -> BlackBoxSummary:
    """What a black-box run cost, and how the same images do on the distilled network: the gap between the two."""
    config, test = plan.config, plan.dataset.test
    distilled = AdvGANAttack(state.best_generator, state.networks.target, config.attack)
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
        attacker_images=len(plan.dataset.training),
        distilled=DistilledScore(
            architecture=config.distilled_architecture,
            success=success_rate(distilled.goal, test.labels, answers["clean"], learned["adversarial"]),
            agreement_clean=share(learned["clean"] == answers["clean"]).rate,
            agreement_adversarial=share(learned["adversarial"] == answers["adversarial"]).rate,
        ),
        remarks=tuple(counter.black_box.remarks),
        queries={str(purpose): count for purpose, count in counter.queries.items()},
    )


def _train(
    state: TrainingState, plan: Plan, checkpoints: Checkpoints, run_directory: Path, counter: QueryCounter | None
) -> None:
    config = plan.config
    if state.position.finished:
        return
    attack = AdvGANAttack(state.networks.generator, state.networks.target, config.attack)
    validation = plan.dataset.validation
    # A distilled network knows nothing yet, so there the first image of each class is shown, whatever it answers.
    predictions = attack.classify(scaled(validation.images)) if counter is None else validation.labels
    sample = one_of_each_class(validation, predictions)
    pictures = run_directory / "samples"
    pictures.mkdir(exist_ok=True)
    records = MetricsLog(run_directory, state.position.step, state.position.round)
    progress = Progress("advgan", plan.steps, start=state.position.step)
    answering = "" if counter is None else ", answers of the distilled network"

    def on_epoch(epoch: EpochReport) -> None:
        title = (
            f"Validation images after epoch {epoch.epoch}: success {epoch.values['validation_success']:.2%}{answering}"
        )
        figure = sample_grid(attack, sample, title)
        save_figure(figure, pictures / f"epoch-{epoch.epoch:03d}.png")
        records.add_image("samples", epoch.step, as_pixels(figure))
        logger.info(console.epoch_line(epoch.values, epoch.epoch, epoch.improved, config))
        if epoch.discriminator_health:
            logger.warning(epoch.discriminator_health)

    try:
        if counter is None:
            validate: Validation = TargetValidation(attack, validation)
            before_epoch = None
        else:
            before_epoch = Distillation(state, counter, attack, plan.dataset, config, run_directory / "rounds", records)
            count = before_epoch.plan.validation
            validate = (
                BlackBoxValidation(counter, attack, validation, count, config)
                if count
                else DistilledValidation(attack, validation)
            )
        GeneratorTrainer(
            state, plan.dataset.training, config, checkpoints, records, progress, validate, on_epoch, before_epoch
        ).train()
    finally:
        progress.close()
        records.close()


def _draw_results(attack: AdvGANAttack, dataset: Dataset, run_directory: Path) -> None:
    title = f"Test images, epsilon {attack.epsilon:.3g}, {attack.goal}"
    sample = one_of_each_class(dataset.test, attack.classify(scaled(dataset.test.images)))
    figure = sample_grid(attack, sample, title)
    save_figure(figure, run_directory / "result.png")
    rows = read_rows(run_directory / "metrics.jsonl")
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("steps", "epoch")}
    save_figure(training_curves(kinds["steps"], kinds["epoch"]), run_directory / "curves.png")
