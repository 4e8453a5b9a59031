"""``summary.json``: the figures of a finished run, and ``processes.json``: the processes that worked on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advgan.files import read_json, write_json
from advgan.metrics import Rate
from advgan.records.adversarial_training import Defence
from advgan.records.data_card import DataCard
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.records.record import Part, Record, checked


class Process(Part):
    """One process that worked on a run."""

    command: str
    commit: str | None
    data_sha256: str
    environment: dict[str, Any]
    """As ``prepare_environment`` gives it."""


@dataclass(frozen=True)
class AttackScore:
    """How an attack does on a set of images (the goal says which images count)."""

    clean_accuracy: Rate
    accuracy_under_attack: Rate
    success: Rate
    """Over the images that the goal counts."""
    success_8_bit: Rate
    """The same after rounding the adversarial images to 8 bits within the epsilon ball."""
    largest_linf: float
    """Over all images, in pixel units, measured in float64."""
    mean_l2: float
    """Over the images that the goal counts, in pixel units."""


class TowardsClass(Part):
    """How a generator does conditioned on the wanted class, towards one of them."""

    wanted: int
    success: Rate
    success_8_bit: Rate
    by_source: tuple[Rate, ...]
    """On the images of each true class; n is 0 for the wanted one."""


class DistilledScore(Part):
    """How the network does that stands in for the black box, on the test images."""

    architecture: str
    success: Rate
    """Over the images that count for the black box."""
    agreement_clean: float
    """The share of the clean images to which both give the same class."""
    agreement_adversarial: float
    """The same over the generator's images."""


class BlackBoxSummary(Part):
    """What an attack on a black box cost, and how the distilled network compares with it."""

    name: str
    digest: str
    answers: str
    """``probabilities`` or ``labels``."""
    query_budget: int | None
    attacker_images: int
    distilled: DistilledScore
    remarks: tuple[str, ...] = ()
    """What was done to the black box's answers."""
    queries: dict[str, int]
    """Images it was queried about, by purpose."""

    @property
    def attack_queries(self) -> dict[str, int]:
        """The queries that made the attack: those of every purpose but scoring."""
        return {purpose: count for purpose, count in self.queries.items() if purpose != "scoring"}


class Seconds(Part):
    """Where the time of a run went."""

    target_training: float
    generator_training: float
    distillation: float | None = None
    """Of a black-box run."""
    this_process: float
    """The whole of the last process; it counts again what the others name."""

    @property
    def attack(self) -> float:
        """The training of the attack alone."""
        return self.generator_training + (self.distillation or 0.0)


class Summary(Record):
    """``summary.json``, written last: where it is, the run is finished. Release 0.1 wrote no version and no checks."""

    version: int = 1
    processes: tuple[Process, ...]
    threat_model: str
    black_box: BlackBoxSummary | None = None
    seed: int
    steps: int
    """Of the generator."""
    best_epoch: int
    """Counted from 1."""
    validation_success: float
    data: DataCard | None = None
    """Release 0.1 wrote none."""
    test: AttackScore
    """Of a generator conditioned on the wanted class: over all pairs of an image and a class wanted of it."""
    towards: tuple[TowardsClass, ...] | None = None
    """Of such a generator."""
    target_remarks: tuple[str, ...] = ()
    """What had to be done to the target's inputs and outputs."""
    defence: Defence | None = None
    """Of a target that was trained to resist."""
    pixels: PixelSearch | None = None
    """How the pixels were found that the target takes; absent where the configuration stated them."""
    checks: tuple[Finding, ...] = ()
    target_weights_sha256: str | None = None
    """None for a black-box run; of a target that is no Keras network, the digest of its file or answers."""
    distilled_weights_sha256: str | None = None
    """Of a black-box run."""
    generator_weights_sha256: str
    generator_last_weights_sha256: str
    seconds: Seconds
    peak_memory_bytes: int | None


def mean_success(towards: Sequence[TowardsClass]) -> float:
    """The mean of the success rates over the classes that are wanted, each of which counts the same."""
    return sum(each.success.rate for each in towards) / len(towards)


def read_processes(path: Path) -> list[Process]:
    """The processes of a run, the first one first; none where the file is not there yet.

    Raises:
        AdvGANError: the file is damaged.
    """
    if not path.exists():
        return []
    content = read_json(path)
    return [checked(Process, path, entry) for entry in (content if isinstance(content, list) else [content])]


def write_processes(path: Path, processes: list[Process]) -> None:
    """Write ``processes.json`` whole or not at all."""
    write_json(path, [process.model_dump(mode="json", exclude_unset=True) for process in processes])
