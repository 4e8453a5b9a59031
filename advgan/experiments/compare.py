"""Several finished runs in one table: ``compare`` reads the evaluation of each, or works it out first."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from advgan.environment import code_commit
from advgan.errors import ConfigurationError
from advgan.evaluation.loading import check_request
from advgan.evaluation.subject import EvaluationRequest
from advgan.experiments.evaluate import evaluate_run, last_record
from advgan.files import check_writable, locked, write_text, write_whole
from advgan.records.comparison import ComparisonFiles, ComparisonRecord
from advgan.records.evaluation import Evaluation, Options
from advgan.reports.comparison import compared, comparison_page
from advgan.reports.plots import as_png, compared_curves
from advgan.reports.terminal import warnings
from advgan.run_folder import load_run_config

logger = logging.getLogger(__name__)
COMPARISON, PAGE, PICTURE = "comparison.json", "comparison.html", "comparison.png"


@dataclass(frozen=True)
class Comparison:
    """Which runs to compare, and where the results go.

    Raises:
        ConfigurationError: fewer than two runs, or one of them twice.
    """

    runs: tuple[Path, ...]
    """The folders of finished runs; the first is what the others are compared with."""
    output: Path | None = None
    """Where the results go; ``comparison`` in the first run's folder by default, ``comparison-first-<images>`` for
    fewer images."""
    images: int | None = None
    """The first so many of each run's test images; all by default."""
    restarts: int | None = None
    """How often PGD starts; by default what an evaluation that is there already has, or 1."""
    optimized_images: int | None = None
    """How many images the optimization attack is tried on; by default what an evaluation has, or 100."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ConfigurationError("--compare", str(*self.runs), "should be two runs or more")
        for number, run in enumerate(self.runs):
            if run.resolve() in [earlier.resolve() for earlier in self.runs[:number]]:
                raise ConfigurationError("--compare", str(run), "is there twice; leave one out")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        few = "" if self.images is None else f"-first-{self.images}"
        return self.runs[0] / f"comparison{few}" if self.output is None else self.output


def compare(comparison: Comparison, command: str = "") -> ComparisonRecord:
    """Put finished runs into one table; evaluate first those that have no evaluation, or one that is out of date.

    Args:
        comparison: which runs.
        command: what was typed, for the record.

    Returns:
        What ``comparison.json`` holds.

    Raises:
        AdvGANError: a run cannot be evaluated; all are checked before any work.
    """
    requests = [EvaluationRequest(run, images=comparison.images) for run in comparison.runs]
    for request in requests:
        if load_run_config(request.run).attack.wanted_classes is not None:
            problem = "its generator is for several target classes; take runs with one goal"
            raise ConfigurationError("--compare", str(request.run), problem)
        check_request(request)
    check_writable("--output", comparison.folder)
    found = [(each, _evaluation(each, comparison, command)) for each in requests]
    evaluations = [evaluation.model_copy(update={"run": str(each.run)}) for each, evaluation in found]
    record = ComparisonRecord(
        version=ComparisonRecord.newest,
        command=command,
        commit=code_commit(),
        runs=compared(evaluations),
        files=ComparisonFiles(page=PAGE, picture=PICTURE),
    )
    picture = as_png(compared_curves(evaluations))
    folder = comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        (folder / COMPARISON).unlink(missing_ok=True)  # written last: where it is, the folder is whole
        write_whole(folder / PICTURE, lambda temporary: temporary.write_bytes(picture))
        write_text(folder / PAGE, comparison_page(record, picture))
        record.write(folder / COMPARISON)
    return record


def _evaluation(request: EvaluationRequest, comparison: Comparison, command: str) -> Evaluation:
    """A run's evaluation as it stands, where it is of today and has the settings that are asked for."""
    record, current = last_record(request)
    before = Options(restarts=1, optimized_images=100) if record is None else record.options
    given = {"restarts": comparison.restarts, "optimized_images": comparison.optimized_images}
    options = before.model_copy(update={name: value for name, value in given.items() if value is not None})
    if record is not None and current and options == before:
        logger.info("Found already  %s", request.folder)
        return record
    if record is not None:
        why = "its settings differ" if current else "code, versions, machine, networks or data have changed"
        logger.info("Out of date    %s: %s", request.folder, why)
    trained = () if record is None else tuple(point.epsilon for point in record.retrained)
    request = replace(request, restarts=options.restarts, optimized_images=options.optimized_images, retrain=trained)
    kept = {name: value for name in ("square_queries", "pgd_steps") if (value := getattr(options, name)) is not None}
    request = replace(request, **kept)
    record = evaluate_run(request, command)
    for line in warnings(record.guards):
        logger.warning(line)
    return record
