"""A table of results made run by run: what is done is found, what was stopped goes on, the table is always there."""

from __future__ import annotations

import gc
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tensorflow as tf

from advgan.attacks.baselines import STEPS
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.config.table import Row, Section, Table
from advgan.errors import AdvGANError, BlackBoxUnavailable, ConfigurationError, Interrupted
from advgan.evaluation.subject import SQUARE_QUERIES, EvaluationRequest
from advgan.experiments.evaluate import EVALUATION, evaluate_run
from advgan.experiments.plan import check
from advgan.experiments.train import train
from advgan.files import check_writable, locked, write_text
from advgan.records.evaluation import Evaluation
from advgan.records.results_table import DoneRun, FailedRun, TableRecord, TableRow, TableRun, TableSection
from advgan.records.summary import Summary
from advgan.reports.plots import save_figure, success_against_queries
from advgan.reports.results_table import as_markdown, points_against_queries
from advgan.reports.terminal import warnings
from advgan.run_folder import RunFolder, load_run_config, located

logger = logging.getLogger(__name__)
RUNS = "runs"


@dataclass(frozen=True)
class Cell:
    """One run of a table."""

    section: str
    row: Row
    seed: int
    config: Config
    folder: Path
    """Where the run lives; cells with equal settings share it."""
    attack_images: int | None = None
    """The first test images, which other attacks are tried on too; None for no evaluation."""
    pgd_steps: int = STEPS
    """Of PGD among these attacks."""

    @property
    def evaluation(self) -> EvaluationRequest | None:
        """The evaluation that belongs to the run."""
        if self.attack_images is None:
            return None
        name = f"attacks-first-{self.attack_images}"  # a folder of its own: a user's evaluation may ask for less
        if self.pgd_steps != STEPS:
            name += f"-pgd-{self.pgd_steps}"
        return EvaluationRequest(
            self.folder, self.folder / name, self.attack_images, square_queries=SQUARE_QUERIES, pgd_steps=self.pgd_steps
        )

    @property
    def work(self) -> tuple[Path, EvaluationRequest | None]:
        """What cells may share."""
        return self.folder, self.evaluation

    @property
    def done(self) -> bool:
        """Whether the run is finished, and its evaluation too."""
        request = self.evaluation
        evaluated = request is None or _evaluation(request.folder) is not None
        return evaluated and RunFolder(self.folder).summary.is_file()

    @property
    def lacks_networks(self) -> bool:
        """Whether the run's records are there, and an evaluation is due that needs its networks."""
        run = RunFolder(self.folder)
        return not self.done and run.summary.is_file() and not run.generator.exists()

    @property
    def begun(self) -> bool:
        """Whether the run was started and is not finished."""
        return RunFolder(self.folder).config.is_file() and not self.done

    def __str__(self) -> str:
        return f"{self.section}: {self.row.name}, seed {self.seed}"


@dataclass(frozen=True)
class Reproduction:
    """A table, and the folder that its runs and files are in.

    Args:
        name: of the table, which names its files.
        table: its sections and rows.
        output: the folder.
        command: what makes the whole table.
    """

    name: str
    table: Table
    output: Path
    command: str

    @property
    def markdown(self) -> Path:
        """The table as Markdown."""
        return self.output / f"{self.name}.md"

    @property
    def records(self) -> Path:
        """What the Markdown is made from: one record for each run."""
        return self.output / f"{self.name}.json"

    def cells(self, only: str | None = None) -> list[Cell]:
        """The runs in the order of work: every row's first seed, then every row's second, and so on.

        Args:
            only: leaves out the rows that have this text neither in their name nor in their section's title.

        Raises:
            ConfigurationError: there is no such row.
        """
        places = _runs_by_settings(self.output / RUNS)
        rows = [[*_cells(section, row, self.output, places)] for section in self.table.sections for row in section.rows]
        cells = [cell for round_ in zip_longest(*rows) for cell in round_ if cell is not None]
        chosen = [cell for cell in cells if only is None or only.lower() in f"{cell.section}\n{cell.row.name}".lower()]
        if not chosen:
            sections = ", ".join(section.title for section in self.table.sections)
            raise ConfigurationError(
                "--only", only, f"is in no row's name and in no section's title; sections: {sections}"
            )
        return chosen


def _cells(section: Section, row: Row, output: Path, places: dict[tuple[str, int], Path]) -> Iterator[Cell]:
    for seed in row.seeds:
        config = row.configuration(seed)
        directory = config.output.model_copy(update={"directory": str(output / RUNS)})
        config = config.model_copy(update={"output": directory})
        digest = _settings_digest(located(config))
        new = output / RUNS / f"{_slug(row.name)}-{digest[:8]}" / f"seed-{seed}"
        place, steps = places.setdefault((digest, seed), new), section.pgd_steps or STEPS
        cell = Cell(section.title, row, seed, config, place, section.attack_images, steps)
        if cell.lacks_networks and cell.folder != new:
            cell = replace(cell, folder=places.setdefault((f"{digest} attacked", seed), new))
        yield cell


def _runs_by_settings(runs: Path) -> dict[tuple[str, int], Path]:
    """The runs that are there, by what decides their result. What they leave unsaid gets today's defaults, so a setting
    that is new since then, and is off by default, makes no run again."""
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(
        runs.glob("*/seed-*/config.yaml"),
        key=lambda path: (
            not RunFolder(path.parent).summary.is_file(),
            not any(path.parent.glob("attacks-first-*")) and not RunFolder(path.parent).generator.exists(),
            path,
        ),
    ):
        try:
            config = load_run_config(path.parent)
        except AdvGANError:  # damaged, or with a setting that is gone: no row can ask for it
            continue
        found.setdefault((_settings_digest(config), config.seed), path.parent)
    return found


def _settings_digest(config: Config) -> str:
    """SHA-256, in hex, of the resolved settings without the seed and without where the run is."""
    output = config.output.model_copy(update={"directory": RUNS})
    return hashlib.sha256(dump_config(config.model_copy(update={"seed": 0, "output": output})).encode()).hexdigest()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "row"


def listing(work: Reproduction, cells: Sequence[Cell]) -> list[str]:
    """The runs and how far they are, a line each."""
    failed = _failures(work)
    lines = []
    for cell in cells:
        state = "done" if cell.done else "failed" if _name(work, cell) in failed else "begun" if cell.begun else "to do"
        lines.append(f"{state:<7} {cell}   {cell.folder}")
    return [*lines, _count(cells)]


def dry_run(cells: Sequence[Cell]) -> list[str]:
    """What would be run, in order, with the command that makes each run on its own."""
    lines = []
    for number, cell in enumerate(_to_do(cells), 1):
        lines += [f"{number:>3}. {cell}{' (begun)' if cell.begun else ''}", f"     {cell.row.command(cell.seed)}"]
    return [*lines, _count(cells)]


def _to_do(cells: Sequence[Cell]) -> list[Cell]:
    """The unfinished runs, each once; in two sections one may be evaluated on different images."""
    first: dict[tuple[Path, EvaluationRequest | None], Cell] = {}
    for cell in cells:
        if not cell.done:
            first.setdefault(cell.work, cell)
    return list(first.values())


def _count(cells: Sequence[Cell]) -> str:
    runs = {cell.work: cell.done for cell in cells}
    return f"{sum(runs.values())} of {len(runs)} runs are done."


def reproduce(work: Reproduction, only: str | None = None, command: str = "") -> int:
    """Do the runs that are not done, and write the table before the first and after each.

    Args:
        work: the table, and where it goes.
        only: the rows to do (``Reproduction.cells``); the table has them all.
        command: what was typed, for the runs' records.

    Returns:
        How many runs failed; what each says is in the table, and the next call tries them again.

    Raises:
        Interrupted: Ctrl-C; a call with the same arguments goes on.
        AdvGANError: the folder cannot be written, or another process is in it.
    """
    cells, chosen = work.cells(), work.cells(only)
    check_writable("--output", work.output)
    work.output.mkdir(parents=True, exist_ok=True)
    with locked(work.output):
        failures = _failures(work)
        logger.info(_count(chosen))
        _write(work, cells, failures)
        to_do, failed = _to_do(chosen), 0
        for number, cell in enumerate(to_do, 1):
            logger.info("[%d/%d] %s", number, len(to_do), cell)
            failures.pop(_name(work, cell), None)
            try:
                _run(cell, command)
            except BlackBoxUnavailable as error:  # it can go on, but others need not wait for it
                failures[_name(work, cell)] = str(error)
            except Interrupted:
                raise
            except AdvGANError as error:
                failures[_name(work, cell)] = str(error)
            if (problem := failures.get(_name(work, cell))) is not None:
                failed += 1
                logger.warning("%s failed: %s", cell, problem)
            tf.keras.backend.clear_session()
            gc.collect()  # networks and their compiled steps refer to each other
            _write(work, cells, failures)
    return failed


def _run(cell: Cell, command: str) -> None:
    plan = check(cell.config)
    if (cell.attack_images or 0) > (images := len(plan.dataset.test)):
        raise ConfigurationError("attack_images", cell.attack_images, f"the data have {images} test images")
    if cell.lacks_networks:  # its own, whose evaluation was lost
        RunFolder(cell.folder).summary.unlink()
    cell.folder.mkdir(parents=True, exist_ok=True)
    # The folder may have been moved since the run was begun.
    write_text(RunFolder(cell.folder).config, dump_config(located(cell.config)))
    summary = train(plan, cell.folder, command)
    logger.info("Success        %s", summary.test.success)
    for line in warnings(summary.checks):
        logger.warning(line)
    if (request := cell.evaluation) is not None:
        evaluate_run(request, command)


def _name(work: Reproduction, cell: Cell) -> str:
    """A run's folder as the records name it: they are to be shown to others."""
    return cell.folder.relative_to(work.output).as_posix()


def _failures(work: Reproduction) -> dict[str, str]:
    """What the runs that failed last time said, by folder."""
    if not work.records.is_file():
        return {}
    try:
        record = TableRecord.read(work.records)
    except AdvGANError as error:
        raise AdvGANError(f"{error}: it is not a table's records of this version; move it away") from None
    return {run.folder: run.problem for run in record.runs if isinstance(run, FailedRun)}


def _write(work: Reproduction, cells: Sequence[Cell], failures: dict[str, str]) -> None:
    runs = [run for cell in cells if (run := _run_record(work, cell, failures)) is not None]
    record = TableRecord(
        version=TableRecord.newest,
        table=work.name,
        command=work.command,
        title=work.table.title,
        text=work.table.text,
        sections=tuple(_section_record(work, section, runs) for section in work.table.sections),
        runs=tuple(runs),
    )
    record.write(work.records)
    write_text(work.markdown, as_markdown(record))


def _section_record(work: Reproduction, section: Section, runs: Sequence[DoneRun | FailedRun]) -> TableSection:
    """A section of the table; its picture is drawn where there is something to show."""
    rows = tuple(
        TableRow(
            name=row.name,
            options=tuple(row.options),
            seeds=row.seeds,
            black_box=row.configuration(row.seeds[0]).is_black_box,
            paper=row.paper,
        )
        for row in section.rows
    )
    record = TableSection(
        title=section.title,
        text=section.text,
        rows=rows,
        picture=None,
        attack_images=section.attack_images,
        show=section.show,
    )
    if section.picture == "queries":
        points, curves = points_against_queries(record, runs)
        if points:
            picture = f"{work.name}-{_slug(section.title)}.png"
            save_figure(success_against_queries(points, curves), work.output / picture)
            record = record.model_copy(update={"picture": picture})
    return record


def _run_record(work: Reproduction, cell: Cell, failures: dict[str, str]) -> DoneRun | FailedRun | None:
    """What the table needs of a run; None where there is nothing to say yet."""
    name = _name(work, cell)
    which = TableRun(
        section=cell.section,
        row=cell.row.name,
        seed=cell.seed,
        folder=name,
        config=cell.row.config,
        set=cell.row.set,
        command=cell.row.command(cell.seed),
    )
    if not cell.done:
        return FailedRun(**dict(which), state="failed", problem=failures[name]) if name in failures else None
    summary = Summary.read(RunFolder(cell.folder).summary)
    processes, test, box = summary.processes, summary.test, summary.black_box
    environments = [process.environment for process in processes]
    whole = _evaluation(RunFolder(cell.folder).evaluation)
    return DoneRun(
        **dict(which),
        state="done",
        commits=tuple(dict.fromkeys(process.commit for process in processes)),
        environments=tuple(each for number, each in enumerate(environments) if each not in environments[:number]),
        clean_accuracy=test.clean_accuracy,
        accuracy_under_attack=test.accuracy_under_attack,
        success=test.success,
        success_8_bit=test.success_8_bit,
        queries=None if box is None else box.queries,
        distilled=None if box is None else box.distilled,
        seconds=summary.seconds,
        queries_curve=None if whole is None else whole.queries_curve,
        defence=summary.defence,
        **_attacks(cell),
    )


def _attacks(cell: Cell) -> dict[str, Any]:
    """What the evaluation that belongs to a run found, by field of ``DoneRun``."""
    request = cell.evaluation
    found = None if request is None else _evaluation(request.folder)
    return {} if found is None else {"attacks": found.attacks, "amortization_gap": found.amortization_gap}


def _evaluation(folder: Path) -> Evaluation | None:
    """An evaluation of a run; None where there is none, or none that can be read."""
    path = folder / EVALUATION
    if not path.is_file():
        return None
    try:
        return Evaluation.read(path)
    except AdvGANError as error:
        logger.warning("left out: %s", error)
        return None
