"""``<table>.json``: a table of results, with what its page needs of every run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from advgan.metrics import PairedDifference, Rate
from advgan.records.adversarial_training import Defence
from advgan.records.evaluation import ComparedAttack, QueryCurve
from advgan.records.record import Part, Record
from advgan.records.summary import DistilledScore, Seconds


class TableRow(Part):
    """One line of a table."""

    name: str
    options: tuple[str, ...]
    """The configuration as options of the training command."""
    seeds: tuple[int, ...]
    black_box: bool
    paper: str | None
    """The paper's figure."""


class TableSection(Part):
    """Rows under one heading."""

    title: str
    text: str | None
    rows: tuple[TableRow, ...]
    picture: str | None
    """The name of its file, where there is one."""
    attack_images: int | None = None
    """The test images that the other attacks were tried on; None where none were."""
    show: Literal["success", "accuracy"] = "success"
    """Of each attack then: its success, or the accuracy that it leaves."""


class TableRun(Part):
    """Which run of a table this is."""

    section: str
    row: str
    seed: int
    folder: str
    """Relative to that of the table."""
    config: str
    set: tuple[str, ...]
    command: str
    """What makes it again, on its own."""


class FailedRun(TableRun):
    """A run that failed when it was last tried."""

    state: Literal["failed"]
    problem: str


class DoneRun(TableRun):
    """What the table needs of a finished run."""

    state: Literal["done"]
    commits: tuple[str | None, ...]
    environments: tuple[dict[str, Any], ...]
    """Those of its processes, each once."""
    clean_accuracy: Rate
    accuracy_under_attack: Rate | None = None
    """Under AdvGAN; None in records of version 0.1."""
    success: Rate
    success_8_bit: Rate
    queries: dict[str, int] | None
    """Of a black-box run, by purpose."""
    distilled: DistilledScore | None
    """Of a black-box run."""
    seconds: Seconds
    queries_curve: QueryCurve | None
    """Of another attack, where the run was evaluated."""
    attacks: tuple[ComparedAttack, ...] = ()
    """On the first test images, where the section asks for them."""
    amortization_gap: PairedDifference | None = None
    """On the same images."""
    defence: Defence | None = None
    """Of a target that was trained to resist."""


class TableRecord(Record):
    """``<table>.json``."""

    version: int = Field(alias="schema")
    table: str
    command: str
    title: str
    text: str | None
    sections: tuple[TableSection, ...]
    runs: tuple[Annotated[DoneRun | FailedRun, Field(discriminator="state")], ...]
