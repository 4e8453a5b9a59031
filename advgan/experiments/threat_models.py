"""What a run attacks, put into its folder once: a target trained here, a file of the user's own, or a black box."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path

from advgan.classifiers.black_box import is_local, run_black_box
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.query_counter import QueryCounter
from advgan.errors import AdvGANError
from advgan.experiments.plan import Plan
from advgan.files import file_digest, read_json, write_json, write_whole
from advgan.run_folder import RunFolder
from advgan.training.classifier import load_or_train_target

logger = logging.getLogger(__name__)


def provide_target(plan: Plan, run_directory: Path) -> float:
    """Put the classifier under attack into the run directory, once; return the seconds its training took.

    A black box that is no file here leaves its record alone.

    Raises:
        AdvGANError: the user's own classifier is no longer the one that the run was started with.
    """
    record = RunFolder(run_directory).target_record
    given = plan.config.target.file or plan.config.black_box
    if given is None or given == "target":
        if not record.exists():
            cache = Path(plan.config.output.directory) / "targets"
            found = load_or_train_target(plan.config, plan.owner, plan.environment, cache)
            write_whole(RunFolder(run_directory).target, found.model.save)
            write_json(record, {"digest": found.digest, "seconds": found.seconds})
            came = "loaded" if found.cached else f"trained in {found.seconds:.0f} s"
            logger.info("Target         %s, digest %s", came, found.digest)
        return float(read_json(record, "seconds")["seconds"])
    digest = file_digest(Path(given)) if is_local(given) else black_box_of(plan, run_directory).digest
    if not record.exists():
        if is_local(given):
            write_whole(RunFolder(run_directory).target, partial(shutil.copyfile, given))
        write_json(record, {"digest": digest, "seconds": 0.0})
        logger.info("Target         %s, digest %s", given, digest[:16])
    elif read_json(record, "digest")["digest"] != digest:
        raise AdvGANError(f"{given} has changed since {run_directory} was started; put it back, or start a new run")
    return float(read_json(record, "seconds")["seconds"])


def black_box_of(plan: Plan, run_directory: Path) -> Classifier:
    """The black box of a run, which is in its folder already where it is a file."""
    return run_black_box(plan.config, run_directory, plan.dataset.image_shape, plan.dataset.number_of_classes, True)


def query_counter(plan: Plan, run_directory: Path) -> QueryCounter:
    """The black box of a run behind its counter, with the answers that earlier processes of the run were given."""
    settings = plan.config.oracle
    return QueryCounter(
        black_box_of(plan, run_directory),
        plan.dataset.number_of_classes,
        settings.answers == "labels",
        settings.query_budget,
        settings.images_per_request,
        RunFolder(run_directory).journal,
    )
