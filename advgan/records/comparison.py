"""``comparison.json``: the evaluations of several runs next to each other; docs/evaluation.md describes the keys."""

from __future__ import annotations

from pydantic import Field

from advgan.metrics import Rate
from advgan.records.evaluation import CurvePoint, Options, ScoredData, Target
from advgan.records.record import Part, Record


class StrongestOther(Part):
    """The other attack that succeeds most often."""

    name: str
    success: Rate


class ComparedRun(Part):
    """One run of a comparison."""

    run: str
    threat_model: str
    goal: str
    target_class: int | None
    epsilon: float
    target: Target
    data: ScoredData
    options: Options
    clean_accuracy: Rate
    success: Rate
    success_8_bit: Rate
    mean_l2: float | None
    mean_ssim: float | None
    strongest_other: StrongestOther
    seconds_per_1000_images: float
    fair: bool
    """Whether it can be compared with the first."""
    differences: tuple[str, ...]
    """Why not, one phrase each."""
    marked: tuple[str, ...]
    """The guards that warn."""
    curve: tuple[CurvePoint, ...]


class ComparisonFiles(Part):
    """The names of what was written."""

    page: str
    picture: str


class ComparisonRecord(Record):
    """``comparison.json``, written last: where it is, its folder is whole."""

    version: int = Field(alias="schema")
    command: str
    commit: str | None
    runs: tuple[ComparedRun, ...]
    files: ComparisonFiles
