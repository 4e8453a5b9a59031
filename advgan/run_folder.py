"""What a run's folder holds for whoever comes after it, its configuration and its networks; and the run that ships."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from advgan.config.loading import dump_config, load_config, read_yaml
from advgan.config.settings import Config
from advgan.errors import AdvGANError
from advgan.files import write_text

keras = tf.keras
CONFIG, GENERATOR, TARGET = "config.yaml", "generator.keras", "target.keras"
SUMMARY, PROCESSES, TARGET_RECORD = "summary.json", "processes.json", "target.json"
DISTILLED, JOURNAL, ANSWERS = "distilled.keras", "answers.bin", "answers.json"
REFERENCE = Path("checkpoints", "reference")
TRAIN = "python -m advgan.train --config mnist.yaml"
RUN_OF_THIS_KERAS = f"use a run, or a .keras file, of the Keras that is installed here, such as made by: {TRAIN}"
"""What to do where a network of a run cannot be loaded."""
_PLACES = [folder / REFERENCE for folder in Path(__file__).resolve().parents[:2]]  # in a wheel; in a checkout


def reference_run() -> Path:
    """The folder of the run that ships with the package: ``mnist.yaml``, trained and evaluated.

    Raises:
        AdvGANError: it is not there.
    """
    for run in _PLACES:
        if (run / CONFIG).is_file():
            return run
    raise AdvGANError(f"{_PLACES[-1]} is not there; train a run with: {TRAIN}")


def is_reference_run(run: Path) -> bool:
    """Whether this is the folder of the run that ships."""
    return run.resolve() in _PLACES


def load_run_config(run_directory: Path) -> Config:
    """The configuration that a run was started with.

    Raises:
        AdvGANError: the folder holds no run.
    """
    if not (run_directory / CONFIG).is_file():
        raise AdvGANError(
            f"{run_directory} is not a run: it holds no {CONFIG}; a run is a folder such as checkpoints/mnist/0"
        )
    data = read_yaml("--run", run_directory / CONFIG).get("data") or {}
    of_release_0_1 = isinstance(data, dict) and "validation_split" not in data  # it knew one rule, and wrote none
    return load_config(run_directory / CONFIG, ["data.validation_split=last"] if of_release_0_1 else [])


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
    write_text(runs / str(number) / CONFIG, dump_config(located(config)))
    return runs / str(number)


def located(config: Config) -> Config:
    """The same with absolute paths: a run may be resumed from any folder."""
    data, target, oracle, output = config.data, config.target, config.oracle, config.output
    if data.dataset != "mnist":
        data = data.model_copy(update={"dataset": str(Path(data.dataset).absolute())})
    if target.file is not None:
        target = target.model_copy(update={"file": str(Path(target.file).absolute())})
    if oracle.black_box is not None and oracle.black_box.endswith(".keras"):
        oracle = oracle.model_copy(update={"black_box": str(Path(oracle.black_box).absolute())})
    output = output.model_copy(update={"directory": str(Path(output.directory).absolute())})
    return config.model_copy(update={"data": data, "target": target, "oracle": oracle, "output": output})


def latest_run(runs: Path) -> Path:
    """The newest run below ``runs``: ``checkpoints/mnist``, or ``checkpoints`` for the newest of any name.

    Raises:
        AdvGANError: there is none.
    """
    found = [path.parent for depth in ("*", "*/*") for path in runs.glob(f"{depth}/{CONFIG}")]
    found = [run for run in found if not is_reference_run(run)]
    if not found:
        raise AdvGANError(f"there is no run to resume in {runs}; start one with --config and without --resume")
    return max(found, key=lambda run: (run / CONFIG).stat().st_mtime)
