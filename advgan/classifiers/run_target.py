"""The classifier under attack in a run's folder: the run's own copy of a file or folder, or the function it names."""

from __future__ import annotations

from pathlib import Path

from advgan.classifiers.adaptation import Shape
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import copied_as, load_classifier
from advgan.config.settings import Config
from advgan.errors import AdvGANError
from advgan.files import read_json
from advgan.run_folder import RUN_OF_THIS_KERAS, RunFolder


def kept_target(config: Config, run: RunFolder) -> Path | None:
    """Where a run keeps the classifier under attack; None where that is a function or is served."""
    given = config.target.file if config.black_box is None else config.black_box
    if given in (None, "target"):
        return run.target
    name = copied_as(str(given))
    return None if name is None else run.path / name


def has_target(config: Config, run: RunFolder) -> bool:
    """Whether a run's classifier can be had whole: it was trained here or is in files, or is no black box."""
    kept = kept_target(config, run)
    return not config.is_black_box or (kept is not None and kept.exists())


def run_target(config: Config, run: RunFolder, shape: Shape, remedy: str = RUN_OF_THIS_KERAS) -> Classifier:
    """The classifier under attack of a run, whole.

    Args:
        config: of the run.
        run: its folder.
        shape: of one image.
        remedy: what the user should do where a file of Keras cannot be loaded.

    Raises:
        AdvGANError: it is not there, or is a function that has changed since the run was started.
    """
    kept = kept_target(config, run)
    classifier = load_classifier(kept or str(config.target.file), shape, config.target, remedy)
    if kept is None and run.target_record.is_file():
        check_unchanged(run, classifier.name, classifier.digest)
    return classifier


def check_unchanged(run: RunFolder, given: str, digest: str) -> None:
    """Raise where a classifier is not the one that a run was started with.

    Raises:
        AdvGANError: it is not.
    """
    if read_json(run.target_record, "digest")["digest"] != digest:
        raise AdvGANError(f"{given} has changed since {run.path} was started; put it back, or start a new run")
