"""``attack.json`` and what became of each image; docs/attack.md describes the keys."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field

from advgan.metrics import Rate
from advgan.records.finding import Finding
from advgan.records.record import Part, Record


class Row(NamedTuple):
    """What became of one image."""

    file: str
    output: str
    """Its adversarial image, relative to the folder."""
    clean: int | None = None
    """The classifier's answer on the clean image; None where there is no classifier, or the image cannot be used."""
    adversarial: int | None = None
    """Its answer on the adversarial image as it is in the file."""
    counts: bool = False
    """Whether it enters the success rate."""
    success: bool = False
    linf: float = 0.0
    """The largest change of a pixel, in [0, 1]."""
    l2: float = 0.0
    problem: str = ""
    """Why the image cannot be used; empty where it was attacked."""


class AttackClassifier(Part):
    """The classifier that was shown the images."""

    name: str
    sha256: str


class AttackOptions(Part):
    """How the images were prepared."""

    resize: bool


class LeftOutImage(Part):
    """An image that could not be used."""

    file: str
    problem: str


class AttackFiles(Part):
    """The names of what was written besides the images."""

    table: str
    picture: str | None


class BegunAttack(Record):
    """What ``attack.json`` holds from the start: which attack the folder is for."""

    version: int = Field(alias="schema")
    digest: str
    """Of everything that decides the output."""
    complete: bool
    run: str
    input: str
    command: str
    commit: str | None
    environment: dict[str, Any]
    """As ``prepare_environment`` gives it, and the version of Pillow."""
    threat_model: str
    goal: str
    target_class: int | None
    epsilon: float
    generator_sha256: str
    classifier: AttackClassifier | None
    options: AttackOptions
    labels: str | None
    """Where they come from."""
    class_names: tuple[str, ...] | None


class FinishedAttack(BegunAttack):
    """``attack.json`` of an attack that is complete."""

    images: int
    """Attacked."""
    left_out: tuple[LeftOutImage, ...]
    success: Rate | None
    """None where there is no classifier."""
    success_counts: str
    """Which images it is over, and what it means."""
    checks: tuple[Finding, ...] = ()
    largest_linf: float
    mean_l2: float
    files: AttackFiles
