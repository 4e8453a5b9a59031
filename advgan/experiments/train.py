"""One run from configuration to figures; ``train_and_evaluate`` serves command line, tests and notebooks."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advgan import replicas
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.data.datasets import Dataset, scaled
from advgan.data.pictures import printable
from advgan.environment import changes_between, code_commit, peak_memory
from advgan.errors import AdvGANError, Interrupted
from advgan.evaluation.scores import score_attack, score_each_class
from advgan.experiments import console
from advgan.experiments.plan import Plan, check
from advgan.experiments.run_list import write_digests
from advgan.experiments.victims import Victim
from advgan.files import locked, write_text, write_whole
from advgan.networks.keras_file import weights_digest
from advgan.progress import Progress
from advgan.records.summary import (
    Process,
    Seconds,
    Summary,
    TowardsClass,
    read_processes,
    write_processes,
)
from advgan.reports.plots import (
    one_of_each_class,
    sample_grid,
    save_figure,
    towards_grid,
    towards_matrix,
    training_curves,
)
from advgan.reports.terminal import warnings
from advgan.run_folder import RunFolder, load_run_config, located, new_run_directory
from advgan.training.adversarial_training import check_overfitting
from advgan.training.checkpoints import Checkpoints
from advgan.training.metrics_log import MetricsLog, read_rows
from advgan.training.state import TrainingState, build_state
from advgan.training.trainer import EpochReport, GeneratorTrainer
from advgan.training.validation import DEAD

logger = logging.getLogger(__name__)


def train_and_evaluate(config: Config, run_directory: Path, command: str = "") -> Summary:
    """Check a configuration, train an AdvGAN and score it: ``train(check(config), ...)``."""
    return train(check(config), run_directory, command)


def train(plan: Plan, run_directory: Path, command: str = "") -> Summary:
    """Train an AdvGAN, or continue where the run in this folder stopped, and score it on the test images.

    Args:
        plan: checked settings; for a resumed run those it was started with (``load_run_config``).
        run_directory: from ``new_run_directory``, or that of a run to resume.
        command: what was typed, for the record.

    Returns:
        What ``summary.json`` holds.

    Raises:
        NonFiniteError: training diverged.
        Interrupted: Ctrl-C; a call with the same arguments continues.
    """
    with plan.strategy.scope(), replicas.all_answer():
        if replicas.worker()[0]:
            return _train_along(plan, RunFolder(run_directory))
        return _train_and_write(plan, RunFolder(run_directory), command)


def new_run(plan: Plan) -> Path:
    """Make the folder of a new run; of several machines the first does, and sends its number to the others."""
    with plan.strategy.scope(), replicas.all_answer():
        own, _ = replicas.worker()
        number = 0 if own else int(new_run_directory(plan.config).name)
        agreed = int(replicas.of_workers(number)[0, 0])  # the first's
        return Path(plan.config.output.directory) / plan.config.name / str(agreed)


def _train_and_write(plan: Plan, run: RunFolder, command: str) -> Summary:
    run.path.mkdir(parents=True, exist_ok=True)
    with locked(run.path):
        settings = located(plan.config)
        if not run.config.exists() or load_run_config(run.path) == located(plan.given or plan.config):
            write_text(run.config, dump_config(settings))
        elif load_run_config(run.path) != settings:
            raise AdvGANError(f"{run.path} was started with other settings; start a new run")
        complete = run.summary.exists()
        replicas.of_workers(complete)
        if complete:
            logger.info("%s is complete already.", run.path)
            return Summary.read(run.summary)
        replicas.of_workers(0)  # the others have their copies
        return _run(plan, run, command, Checkpoints(run.checkpoints, plan.config.output.keep_checkpoints))


def _train_along(plan: Plan, run: RunFolder) -> Summary:
    """What all machines but the first do: the same, in a copy of the folder that is thrown away."""
    complete = bool(replicas.of_workers(0)[0, 0])
    if complete:
        return Summary.read(run.summary)
    with tempfile.TemporaryDirectory(prefix="advgan-") as temporary:
        copy = RunFolder(Path(temporary) / "run")
        shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns(".*", run.checkpoints.name))
        replicas.of_workers(0)
        logger.info("trains along with worker 0, which writes to %s", run.path)
        logging.getLogger("advgan").setLevel(logging.WARNING)
        keep = plan.config.output.keep_checkpoints
        with _leaving_last():
            return _run(plan, copy, "", Checkpoints(run.checkpoints, keep, writes=False))


@contextmanager
def _leaving_last() -> Iterator[None]:
    """After the block, done or stopped, wait until the first machine has gone: it may still need an answer."""
    try:
        yield
    except Interrupted:
        with suppress(*replicas.LOST):
            replicas.of_workers(0)
        raise
    with suppress(*replicas.LOST):
        replicas.of_workers(0)


def _run(plan: Plan, run: RunFolder, command: str, checkpoints: Checkpoints) -> Summary:
    start = time.monotonic()
    config, dataset = plan.config, plan.dataset
    _start_process(plan, run, command)
    if plan.pixels is not None:
        plan.pixels.write(run.pixels)
    logger.info("\n".join(console.introduction(plan, run.path)))
    for line in warnings(plan.findings):
        logger.warning(line)

    victim = plan.threat_model.open_victim(run, plan.owner, dataset, plan.environment)
    condition = None if config.attack.wanted_classes is None else dataset.number_of_classes
    state = build_state(dataset.image_shape, victim.attacked.logits, config, plan.steps, victim.distilled, condition)
    if checkpoints.restore_latest(state):
        position = state.position
        logger.info("Resumed        at step %d of %d%s", position.step, plan.steps, victim.progress_note(position))
    replicas.check_same(
        {
            "the run's checkpoint": (state.position.number, weights_digest(state.networks.generator)),
            "the target": victim.attacked.weights or victim.attacked.digest,
        }
    )
    if not state.position.finished:
        _train_generator(state, plan, checkpoints, run, victim)

    best, classes = (
        AdvGANAttack(state.best_generator, victim.scored, config.attack),
        config.attack.wanted_classes,
    )
    towards = None
    if classes is None:
        score = score_attack(best, dataset.test)
    else:
        score, towards = score_each_class(best, classes, dataset.test)
    findings = [*plan.findings, victim.judge(score.clean_accuracy)]
    write_whole(run.generator, state.best_generator.save)
    write_whole(run.last_generator, state.networks.generator.save)
    write_whole(run.discriminator, state.networks.discriminator.save)
    _draw_results(best, dataset, run, towards)
    of_victim = victim.finish(state)  # last: a black box counts every query until here
    if towards is not None:
        of_victim["towards"] = towards
    position = state.position
    if (defence := victim.defence) is not None:
        of_victim["defence"] = defence
        findings.append(check_overfitting(defence, config.target.adversarial_training))
    summary = Summary(
        version=Summary.newest,
        processes=tuple(read_processes(run.processes)),
        threat_model=plan.threat_model.describe(),
        seed=config.seed,
        steps=position.step,
        best_epoch=position.best_epoch + 1,
        validation_success=position.best_success,
        data=dataset.card,
        test=score,
        checks=tuple(findings),
        generator_weights_sha256=weights_digest(state.best_generator),
        generator_last_weights_sha256=weights_digest(state.networks.generator),
        seconds=Seconds(**victim.training_seconds(position), this_process=time.monotonic() - start),
        peak_memory_bytes=peak_memory(),
        **of_victim,
    )
    write_digests(run, summary)
    summary.write(run.summary)
    return summary


def _start_process(plan: Plan, run: RunFolder, command: str) -> None:
    """Add this process to the run's list; other data raise, another environment is a warning."""
    processes = read_processes(run.processes)
    dataset = plan.dataset
    if processes and processes[0].data_sha256 != dataset.digest:
        where = f"{plan.config.data.dataset} has changed since {run.path} was started"
        raise AdvGANError(f"{where}{_first_change(run, dataset)}; start a new run")
    if dataset.listing is not None and not run.pictures.exists():
        write_text(run.pictures, dataset.listing())
    if processes and (changed := changes_between(processes[0].environment, plan.environment)):
        logger.warning(
            "resumed in another environment, so not bit-identical to a run without a stop: %s", "; ".join(changed)
        )
    here = Process(command=command, commit=code_commit(), data_sha256=plan.dataset.digest, environment=plan.environment)
    write_processes(run.processes, [*processes, here])


def _first_change(run: RunFolder, dataset: Dataset) -> str:
    """The first picture that is another than when the run began, or is gone, or is new."""
    if dataset.listing is None or not run.pictures.exists():
        return ""
    before, now = (
        dict(line.split("  ", 1)[::-1] for line in text.splitlines())
        for text in (run.pictures.read_text(encoding="utf-8", errors="surrogateescape"), dataset.listing())
    )
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    what = "is gone" if changed[0] not in now else "is new" if changed[0] not in before else "is another"
    return f": {printable(changed[0])} {what}"


def _train_generator(
    state: TrainingState, plan: Plan, checkpoints: Checkpoints, run: RunFolder, victim: Victim
) -> None:
    config, validation = plan.config, plan.dataset.validation
    attack = AdvGANAttack(state.networks.generator, victim.attacked, config.attack)
    sample = one_of_each_class(validation, victim.classes_shown(attack, validation))
    run.samples.mkdir(exist_ok=True)
    log = MetricsLog(run.path, state.position.step, state.position.round)
    progress = Progress("advgan", plan.steps, start=state.position.step)
    health: list[str] = []  # of the discriminator, in the last epoch

    def on_epoch(epoch: EpochReport) -> None:
        success = f"{epoch.values['validation_success']:.2%}{victim.note}"
        title = f"Validation images after epoch {epoch.epoch}: success {success}"
        figure = sample_grid(attack, sample, title, plan.dataset.class_names)
        picture = run.samples / f"epoch-{epoch.epoch:03d}.png"
        save_figure(figure, picture)
        log.add_image("samples", epoch.step, picture)
        logger.info(console.epoch_line(epoch.values, epoch.epoch, epoch.improved, config.generator_epochs))
        health[:] = [epoch.discriminator_health]
        if health[0].startswith(DEAD):
            logger.warning(health.pop())

    try:
        before_epoch, validate = victim.before_epoch(state, attack, log), victim.validation(attack)
        GeneratorTrainer(
            state, plan.dataset.training, config, checkpoints, log, progress, validate, on_epoch, before_epoch
        ).train()
    finally:
        progress.close()
        log.close()
    for line in filter(None, health):
        logger.warning(line)


def _draw_results(
    attack: AdvGANAttack, dataset: Dataset, run: RunFolder, towards: tuple[TowardsClass, ...] | None
) -> None:
    title = f"Test images, epsilon {attack.epsilon:.3g}, {attack.goal if towards is None else 'one generator'}"
    sample = one_of_each_class(dataset.test, attack.classify(scaled(dataset.test.images)))
    if towards is None:
        figure = sample_grid(attack, sample, title, dataset.class_names)
    else:
        figure = towards_grid(attack, [each.wanted for each in towards], sample, title, dataset.class_names)
        save_figure(towards_matrix(towards, dataset.class_names), run.matrix)
    save_figure(figure, run.result_picture)
    save_figure(training_curves(read_rows(run.metrics)), run.curves)
