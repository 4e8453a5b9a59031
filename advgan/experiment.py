"""One run from configuration to figures; ``train_and_evaluate`` serves command line, tests and notebooks."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advgan.attacks.generator_attack import GeneratorAttack
from advgan.config import Config, dump_config, load_config
from advgan.data.datasets import Dataset, load_dataset
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.plots import as_pixels, one_of_each_class, sample_grid, save_figure, training_curves
from advgan.evaluation.scores import AttackScore, Rate, accuracy, score_attack
from advgan.files import read_json, sole_user, write_json, write_text, write_whole
from advgan.networks.classifiers.architectures import build_classifier
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.training import runtime
from advgan.training.checkpoints import Checkpoints, TrainingState
from advgan.training.classifier import load_or_train_target, load_target, weights_digest
from advgan.training.loop import EpochReport, build_state, total_steps, train
from advgan.training.progress import Progress
from advgan.training.records import Records, read_rows

Say = Callable[[str], None]
CONFIG, SUMMARY, TARGET = "config.yaml", "summary.json", "target.keras"


@dataclass(frozen=True)
class Plan:
    """A configuration that was checked against its data, with the networks it asks for."""

    config: Config
    dataset: Dataset
    generator: Any
    discriminator: Any
    target: Any
    steps: int


def check(config: Config) -> Plan:
    """Check a configuration against its data and build its networks, before any work.

    Raises:
        ConfigurationError: the data cannot be used, the target class is out of range, a batch is larger than the data,
            a network does not fit the images, or the output folder cannot be written.
    """
    dataset = load_dataset(config.data)
    classes, wanted = dataset.number_of_classes, config.attack.target_class
    if wanted is not None and wanted >= classes:
        raise ConfigurationError(
            "attack.target_class", wanted, f"the data has {classes} classes (allowed: 0 to {classes - 1})"
        )
    for section, batch_size in (("training", config.training.batch_size), ("target", config.target.batch_size)):
        if batch_size > len(dataset.training):
            raise ConfigurationError(
                f"{section}.batch_size",
                batch_size,
                f"is larger than the training data (allowed: 1 to {len(dataset.training)})",
            )
    _check_writable(Path(config.output.directory))
    dtype = config.training.compute_dtype
    return Plan(
        config,
        dataset,
        build_generator(dataset.image_shape, config.generator, dtype),
        build_discriminator(dataset.image_shape, config.discriminator, dtype),
        build_classifier(dataset.image_shape, classes, config.target),
        total_steps(len(dataset.training), config),
    )


def new_run_directory(config: Config) -> Path:
    """Make the next numbered folder ``<directory>/<name>/<number>`` and put the resolved configuration into it."""
    runs = Path(config.output.directory) / config.name
    runs.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in runs.iterdir() if path.name.isdigit()), default=-1)
    while True:  # another process may take the same number at the same time
        try:
            (runs / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    write_text(runs / str(number) / CONFIG, dump_config(config))
    return runs / str(number)


def latest_run(runs: Path) -> Path:
    """The newest run below ``runs``: ``checkpoints/mnist``, or ``checkpoints`` for the newest of any name.

    Raises:
        AdvGANError: there is none.
    """
    found = [*runs.glob(f"*/{CONFIG}"), *runs.glob(f"*/*/{CONFIG}")]
    if not found:
        raise AdvGANError(f"there is no run to resume in {runs}; start one with --config and without --resume")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def load_run_config(run_directory: Path) -> Config:
    """The configuration that a run was started with.

    Raises:
        AdvGANError: the folder holds no run.
    """
    if not (run_directory / CONFIG).is_file():
        raise AdvGANError(
            f"{run_directory} is not a run: it holds no {CONFIG}; a run is a folder such as checkpoints/mnist/0"
        )
    return load_config(run_directory / CONFIG)


def train_and_evaluate(config: Config, run_directory: Path, say: Say = print, command: str = "") -> dict[str, Any]:
    """Check a configuration, train an AdvGAN and score it: ``run(check(config), ...)``."""
    return run(check(config), run_directory, say, command)


def run(plan: Plan, run_directory: Path, say: Say = print, command: str = "") -> dict[str, Any]:
    """Train an AdvGAN, or go on where the run in this folder stopped, and score it on the test images.

    Args:
        plan: checked settings; for a resumed run those it was started with (``load_run_config``).
        run_directory: from ``new_run_directory``, or that of a run to resume.
        say: receives the lines that tell how the run goes; progress goes to stderr.
        command: what was typed, for the record.

    Returns:
        The content of ``summary.json``.

    Raises:
        NonFiniteError: training diverged.
        Interrupted: Ctrl-C; a call with the same arguments goes on.
    """
    with sole_user(run_directory):
        if (run_directory / SUMMARY).exists():
            say(f"{run_directory} is complete already.")
            return dict(read_json(run_directory / SUMMARY))
        return _run(plan, run_directory, say, command)


def _run(plan: Plan, run_directory: Path, say: Say, command: str) -> dict[str, Any]:
    start = time.monotonic()
    config, dataset = plan.config, plan.dataset
    environment = _environment(config, run_directory, say)
    for line in _introduction(plan, environment, run_directory):
        say(line)

    target_seconds = _provide_target(config, dataset, environment, run_directory, say)
    target = load_target(run_directory / TARGET)
    clean = accuracy(target, dataset.test)
    target_weights = weights_digest(target)
    say(f"Target         clean accuracy {clean} test images")

    state = build_state(dataset.image_shape, target, config, plan.steps)
    checkpoints = Checkpoints(run_directory / "state", config.output.keep_checkpoints)
    if checkpoints.restore_latest(state):
        say(f"Resumed        at step {state.position.step} of {plan.steps}")
    _train(state, plan, checkpoints, run_directory)

    if weights_digest(target) != target_weights:
        raise AdvGANError("the target's weights changed during training: this is a bug of advgan, and the run is void")
    best = GeneratorAttack(state.best_generator, target, config.attack)
    score = score_attack(best, dataset.test)
    write_whole(run_directory / "generator.keras", state.best_generator.save)
    write_whole(run_directory / "generator-last.keras", state.networks.generator.save)
    write_whole(run_directory / "discriminator.keras", state.networks.discriminator.save)
    _draw_results(best, dataset, run_directory)
    summary = {
        "command": command,
        "commit": runtime.commit(),
        "environment": environment,
        "threat_model": threat_model(config),
        "seed": config.seed,
        "steps": state.position.step,
        "best_epoch": state.position.best_epoch + 1,
        "validation_success": state.position.best_success,
        "test": dataclasses.asdict(score),
        "target_weights_sha256": target_weights,
        "generator_weights_sha256": weights_digest(state.best_generator),
        "generator_last_weights_sha256": weights_digest(state.networks.generator),
        "seconds": {
            "target_training": target_seconds,
            "generator_training": state.position.seconds,
            "this_process": time.monotonic() - start,
        },
        "peak_memory_bytes": runtime.peak_memory(),
    }
    write_json(run_directory / SUMMARY, summary)
    for line in _results(score, summary, run_directory):
        say(line)
    return summary


def threat_model(config: Config) -> str:
    """The attacker's goal, knowledge and limits, in words."""
    return (
        f"{config.attack.objective}, semi-white-box: the target's gradients are used in training, afterwards "
        f"the generator attacks alone; L_inf, epsilon = {config.attack.epsilon:.4g}, pixels in [0, 1]"
    )


def describe(plan: Plan) -> list[str]:
    """The resolved configuration, every layer with its output shape and parameters, and the steps of the run."""
    lines = ["# Resolved configuration", dump_config(plan.config)]
    for title, network in (
        ("Generator", plan.generator),
        ("Discriminator", plan.discriminator),
        ("Target", plan.target),
    ):
        lines.append(f"# {title}: {network.count_params():,} parameters")
        for layer in network.layers:
            shape = "x".join(str(size) for size in tuple(layer.output.shape)[1:])
            lines.append(f"  {layer.name:<24}{type(layer).__name__:<22}{shape:>12}{layer.count_params():>12,}")
        lines.append("")
    per_epoch = plan.steps // plan.config.training.epochs
    lines.append(f"# Steps: {plan.config.training.epochs} epochs x {per_epoch} = {plan.steps}, then the test images")
    return lines


def _check_writable(folder: Path) -> None:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "output.directory", str(folder), f"cannot be written ({existing} is not a writable folder); choose another"
        )


def _environment(config: Config, run_directory: Path, say: Say) -> runtime.Environment:
    """What the run runs on; kept at the first start, compared when resumed."""
    environment = runtime.prepare(config.training)
    path = run_directory / "environment.json"
    if path.exists():
        changed = runtime.differences(read_json(path), environment)
        if changed:
            say(f"Warning: resumed elsewhere, so not bit for bit the same as without a stop: {'; '.join(changed)}")
    else:
        write_json(path, environment)
    return environment


def _introduction(plan: Plan, environment: runtime.Environment, run_directory: Path) -> list[str]:
    config, dataset = plan.config, plan.dataset
    height, width, channels = dataset.image_shape
    widths, blocks = config.generator.widths, config.generator.residual_blocks
    layers = [f"c3s1-{widths[0]}", *(f"d{width}" for width in widths[1:])]
    layers += [f"r{widths[-1]} x{blocks}"] if blocks else []
    layers += [*(f"u{width}" for width in reversed(widths[:-1])), f"c3s1-{channels}"]
    exact = "bit-identical repeats" if environment["deterministic"] else "not bit-identical"
    counts = (len(dataset.training), len(dataset.validation), len(dataset.test))
    return [
        f"Run            {run_directory}",
        f"Device         {environment['device']}, {environment['cores']} cores, "
        f"TensorFlow {environment['tensorflow']}, {exact}",
        "Data           {}: {:,} training, {:,} validation, {:,} test images of {}x{}x{}".format(
            config.data.dataset, *counts, height, width, channels
        ),
        f"Threat model   {threat_model(config)}",
        f"Generator      {plan.generator.count_params():,} parameters: {', '.join(layers)}",
        f"Discriminator  {plan.discriminator.count_params():,} parameters: "
        f"{', '.join(f'C{width}' for width in config.discriminator.widths)}",
        f"Target         {plan.target.count_params():,} parameters: {config.target.architecture}",
    ]


def _provide_target(
    config: Config, dataset: Dataset, environment: runtime.Environment, run_directory: Path, say: Say
) -> float:
    """Put the target into the run directory, once; return the seconds its training took."""
    record = run_directory / "target.json"
    if not record.exists():
        found = load_or_train_target(config, dataset, environment, Path(config.output.directory) / "targets")
        write_whole(run_directory / TARGET, found.model.save)
        write_json(record, {"digest": found.digest, "seconds": found.seconds})
        say(
            f"Target         {'loaded' if found.cached else f'trained in {found.seconds:.0f} s'}, digest {found.digest}"
        )
    return float(read_json(record)["seconds"])


def _train(state: TrainingState, plan: Plan, checkpoints: Checkpoints, run_directory: Path) -> None:
    config = plan.config
    if state.position.finished:
        return
    attack = GeneratorAttack(state.networks.generator, state.networks.target, config.attack)
    sample = one_of_each_class(plan.dataset.validation)
    pictures = run_directory / "samples"
    pictures.mkdir(exist_ok=True)
    records = Records(run_directory, state.position.step)
    progress = Progress("advgan", plan.steps, start=state.position.step)

    def on_epoch(report: EpochReport) -> None:
        title = f"Validation images after epoch {report.epoch}: success {report.values['validation_success']:.2%}"
        figure = sample_grid(attack, sample, title)
        save_figure(figure, pictures / f"epoch-{report.epoch:03d}.png")
        records.add_image("samples", report.step, as_pixels(figure))
        best = " (best so far)" if report.improved else ""
        progress.say(
            f"epoch {report.epoch}/{config.training.epochs}: validation success "
            f"{report.values['validation_success']:.2%}{best}, {report.values['seconds']:.0f} s of training"
        )
        if report.discriminator_health:
            progress.say(f"note: {report.discriminator_health}")

    try:
        train(state, attack, plan.dataset, config, checkpoints, records, progress, on_epoch)
    finally:
        progress.close()
        records.close()


def _draw_results(attack: GeneratorAttack, dataset: Dataset, run_directory: Path) -> None:
    title = f"Test images, epsilon {attack.settings.epsilon:.3g}, {attack.settings.objective}"
    figure = sample_grid(attack, one_of_each_class(dataset.test), title)
    save_figure(figure, run_directory / "result.png")
    rows = read_rows(run_directory / "metrics.jsonl")
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("steps", "epoch")}
    save_figure(training_curves(kinds["steps"], kinds["epoch"]), run_directory / "curves.png")


def _results(score: AttackScore, summary: dict[str, Any], run_directory: Path) -> list[str]:
    def row(name: str, value: str) -> str:
        return f"  {name:<42}{value}"

    def rate(value: Rate) -> str:
        return f"{value.rate:>8.2%}   [{value.low:.2%}, {value.high:.2%}]   n = {value.n:,}"

    seconds = summary["seconds"]
    return [
        "",
        f"On the test images, best generator (epoch {summary['best_epoch']}), Wilson 95 % intervals:",
        row("attack success rate", rate(score.success)),
        row("  after rounding to 8 bits", rate(score.success_8_bit)),
        row("clean accuracy of the target", rate(score.clean_accuracy)),
        row("accuracy under attack", rate(score.accuracy_under_attack)),
        row("largest change of a pixel (L_inf)", f"{score.largest_linf:>10.6f}"),
        row("mean L2 of the perturbation", f"{score.mean_l2:>10.2f}"),
        row(
            "training: target, generator",
            f"{seconds['target_training']:>8.0f} s, {seconds['generator_training']:.0f} s",
        ),
        "",
        f"Pictures: {run_directory / 'result.png'}, {run_directory / 'curves.png'}; figures: {run_directory / SUMMARY}",
    ]
