"""A finished run trained again at other epsilons, against its own target: the points of success against epsilon."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from advgan.classifiers.run_target import kept_target
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.environment import has_gpu
from advgan.errors import AdvGANError, ConfigurationError
from advgan.experiments.plan import check
from advgan.experiments.train import train
from advgan.files import check_writable, copy_whole, path_digest, write_text
from advgan.records.summary import Summary
from advgan.reports.terminal import warnings
from advgan.run_folder import RunFolder, load_run_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retraining:
    """One epsilon at which a run is trained again."""

    epsilon: float
    folder: Path | None
    """Of the run that is trained, a run like any other; the run itself at its own epsilon; None at 0, where there is
    nothing to train."""
    config: Config


def plan_retraining(run: Path, config: Config, epsilons: tuple[float, ...]) -> list[Retraining]:
    """What there is to train, in rising order, each epsilon once; nothing is written.

    Args:
        run: the folder of a finished run; the new ones go below it, into ``retrained/epsilon-<value>``.
        config: its configuration.
        epsilons: in [0, 1].

    Raises:
        AdvGANError: a folder that is there already holds something else, or the run attacks a black box.
    """
    if config.is_black_box:
        raise ConfigurationError(
            "--retrain",
            " ".join(f"{epsilon:g}" for epsilon in epsilons),
            "each epsilon would cost queries again; train runs with --set attack.epsilon=..., then --compare them",
        )
    check_writable("--retrain", RunFolder(run).retrained)
    return [_planned(run, config, epsilon) for epsilon in sorted(set(epsilons))]


def _planned(run: Path, config: Config, epsilon: float) -> Retraining:
    if epsilon == 0:
        return Retraining(epsilon, None, config)
    if epsilon == config.attack.epsilon:
        return Retraining(epsilon, run, config)
    folder = RunFolder(run).retrained / f"epsilon-{epsilon}"
    attack = config.attack.model_copy(update={"epsilon": epsilon})
    output = config.output.model_copy(update={"directory": str(folder.parent.absolute())})
    training = config.training
    if not has_gpu() and training.devices != "auto":  # the processor is one device by now
        training = training.model_copy(update={"devices": "auto"})
    wanted = config.model_copy(update={"attack": attack, "output": output, "training": training})
    if RunFolder(folder).config.exists():
        found = load_run_config(folder)
        moved = found.output.model_copy(update={"directory": output.directory})
        if found.model_copy(update={"output": moved}) != wanted:
            raise AdvGANError(f"{folder} was started with other settings than {run}; delete it to train it again")
    for copy, own in _target_files(config, folder, run):
        if copy.exists() and path_digest(copy) != path_digest(own):
            raise AdvGANError(f"{folder} was trained against another target than {run}'s; delete it to train it again")
    return Retraining(epsilon, folder, wanted)


def _target_files(config: Config, folder: Path, run: Path) -> list[tuple[Path, Path]]:
    """The files of the target, as a retraining has them and as the run does."""
    copy, own = RunFolder(folder), RunFolder(run)
    kept = (kept_target(config, copy), kept_target(config, own))
    pairs = [kept, (copy.target_record, own.target_record)]
    return [(there, here) for there, here in pairs if there is not None and here is not None]


def retrain(planned: Retraining, run: Path, command: str) -> None:
    """Train a generator at its epsilon against the target of ``run``, or go on where that stopped.

    Args:
        planned: from ``plan_retraining``.
        run: whose target is used.
        command: what was typed, for the record.

    Raises:
        Interrupted: Ctrl-C; a call with the same arguments goes on.
        AdvGANError: the target that was attacked is not the run's.
    """
    folder = planned.folder
    if folder is None or folder == run:
        return
    if not RunFolder(folder).summary.exists():
        plan = check(planned.config)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(RunFolder(folder).config, dump_config(planned.config))
        for copy, own in _target_files(planned.config, folder, run):  # with both there, training takes them as they are
            copy_whole(own, copy)
        logger.info("Retraining     at epsilon %.4g", planned.epsilon)
        for line in warnings(train(plan, folder, command).checks):
            logger.warning(line)
    weights = [Summary.read(RunFolder(path).summary).target_weights_sha256 for path in (folder, run)]
    if weights[0] != weights[1]:
        raise AdvGANError(f"{folder} was trained against another target than {run}'s; delete it to train it again")
