"""``evaluation.json``: every figure of an evaluation; docs/evaluation.md describes the keys."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from advgan.metrics import PairedDifference, Rate
from advgan.records.data_card import DataCard
from advgan.records.finding import Finding, Status
from advgan.records.record import Part, Record

CHALLENGE = "mnist_challenge.npy"
ARCHIVE = "adversarial.npz"


class Options(Part):
    """How hard the other attacks tried."""

    restarts: int
    """Starts of PGD."""
    pgd_steps: int | None = None
    """Steps of PGD, where they are not 40."""
    optimized_images: int
    """Images that the slow attack was tried on: FMN, or Square on a black box."""
    square_queries: int | None = None
    """The most queries of Square for an image; only where a black box is evaluated."""


class ScoredData(Part):
    """The images that were scored."""

    dataset: str
    sha256: str
    """Of the whole data set."""
    split: str
    images: int
    of: int
    """Test images that there are."""
    all_test_images: bool
    images_sha256: str
    """Of the scored images and their labels."""
    card: DataCard | None = None
    """Release 0.1 wrote none."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, where they have names."""
        return None if self.card is None else self.card.class_names


class GeneratorFile(Part):
    """The generator that was evaluated."""

    file: str
    sha256: str


class Target(Part):
    """The classifier under attack."""

    name: str
    sha256: str
    weights_sha256: str | None = None
    """None where the weights cannot be seen."""

    @property
    def identity(self) -> str:
        """The digest of a network's weights, where it has some: two files of one network differ."""
        return self.weights_sha256 or self.sha256


class ReadBack(Part):
    """Success on the adversarial images as they are in their files."""

    archive: Rate = Field(alias=ARCHIVE)
    png: Rate | None


class Distortion(Part):
    """How far adversarial images are from the clean ones; means over the images that count, pixels in [0, 1]."""

    largest_linf: float
    """Over all images, counted or not, measured in float64."""
    mean_l2: float | None = None
    mean_l0: float | None = None
    """The mean number of pixel values, each channel for itself, that differ at all."""
    mean_ssim: float | None = None
    """``tf.image.ssim`` with its defaults; None for images smaller than its window of 11 x 11."""
    mean_psnr: float | None = None
    """``tf.image.psnr`` in dB, over the images that changed at all; None where there is none."""


class ClassSuccess(Part):
    """The success rate on the images of one true class."""

    label: int = Field(alias="class")
    successes: int
    n: int
    rate: float
    low: float
    high: float

    @property
    def success(self) -> Rate:
        """The figures as a rate."""
        return Rate(self.successes, self.n, self.rate, self.low, self.high)


class ComparedAttack(Part):
    """What another attack came to at the same epsilon, on the first images or on all."""

    name: str
    kind: str
    """``noise``, ``single step``, ``iterative``, ``optimization`` or ``queries``."""
    settings: dict[str, Any]
    images: int
    success: Rate
    advgan_success: Rate
    """AdvGAN's on the same images."""
    accuracy_under_attack: Rate
    largest_linf: float
    seconds_per_1000_images: float
    gradients_per_image: float | None = None
    """How often it evaluated the gradient, in the mean over the images."""
    queries: int | None = None
    """Of an attack that queries a black box: in all."""
    median_queries: float | None = None
    """Over the images it fooled; None where there is none."""


class Transfer(Part):
    """What another classifier answers to the generator's images."""

    name: str
    sha256: str
    clean_accuracy: Rate
    accuracy_under_attack: Rate
    success: Rate


class CurvePoint(Part):
    """One epsilon of the curve: the trained perturbation scaled to it."""

    epsilon: float
    success: Rate
    falls: bool
    """Success is lower than at the epsilon before: a larger budget should never hurt an attacker."""
    falls_clearly: bool
    """And the upper end of its interval is below the lower end of an earlier one."""


class RetrainedPoint(Part):
    """A generator that was trained at an epsilon of its own; at epsilon 0 there is none."""

    epsilon: float
    success: Rate
    run: str | None
    validation_success: float | None
    best_epoch: int | None
    generator_sha256: str | None
    training_seconds: float | None


class EvaluationFiles(Part):
    """The names of what was written."""

    archive: str
    png: tuple[str, ...]
    grid: str | None
    challenge: str | None = Field(alias=CHALLENGE)
    left_out: dict[str, str]
    """Why a file is not there, by its name."""
    queries: str | None = None
    """Of a black-box run."""


class Queries(Part):
    """Images a black box was queried about."""

    answers: str
    """``probabilities`` or ``labels``."""
    attack: dict[str, int]
    """To train the attack, by purpose."""
    attack_total: int
    per_image: float
    """The same for each image scored."""
    budget: int | None
    scoring_in_training: int
    evaluation: int


class QueryPoint(Part):
    """Success after so many queries."""

    queries_per_image: int | float
    success: Rate | float

    @property
    def rate(self) -> float:
        """Success without its interval."""
        return self.success.rate if isinstance(self.success, Rate) else self.success


class QueryCurve(Part):
    """Success of an attack against the queries it made for each image."""

    name: str
    points: tuple[QueryPoint, ...]


class Gap(Part):
    """How the generator does on the distilled network it was trained against, where the black box is scored."""

    architecture: str
    sha256: str
    """Of the distilled network's file."""
    success: Rate
    """On the distilled network, over the images that count for the black box."""
    agreement_clean: Rate
    """How often both give the same class, over all clean images."""
    agreement_adversarial: Rate
    """The same over the generator's images."""


class LeftOut(Part):
    """An attack that did not run."""

    name: str
    reason: str


class CardLine(Part):
    """One line of the report card."""

    section: str
    item: str
    status: Status
    reason: str


class EvaluationHead(Record):
    """What is known before the attacks: the run, and the process that evaluates it."""

    version: int = Field(alias="schema")
    run: str
    command: str
    commit: str | None
    environment: dict[str, Any]
    """As ``prepare_environment`` gives it."""
    threat_model: str
    options: Options
    determinants_sha256: str | None = None
    """Of everything that decides the figures."""


class Evaluation(EvaluationHead):
    """``evaluation.json``, written last: where it is, its folder is whole."""

    goal: str
    target_class: int | None
    epsilon: float
    data: ScoredData
    generator: GeneratorFile
    target: Target
    clean_accuracy: Rate
    accuracy_under_attack: Rate
    success: Rate
    success_8_bit: Rate
    success_read_back: ReadBack
    png_largest_change_levels: int | None
    distortion: Distortion
    by_class: tuple[ClassSuccess, ...]
    confusion_clean: tuple[tuple[int, ...], ...]
    """Images by true class (row) and answer (column)."""
    confusion_under_attack: tuple[tuple[int, ...], ...]
    source_by_answer: tuple[tuple[int, ...], ...]
    """The same under attack, of the images that count."""
    seconds_per_1000_images: float
    attacks: tuple[ComparedAttack, ...]
    worst_case: Rate
    """All attacks together, image by image."""
    amortization_gap: PairedDifference | None = None
    """PGD's success (first), along cross-entropy and margin, less AdvGAN's (second): the price of one pass.
    None where there is no gradient, and for another target than the generator's."""
    seed: int
    transfer: tuple[Transfer, ...]
    guards: tuple[Finding, ...]
    curve: tuple[CurvePoint, ...]
    retrained: tuple[RetrainedPoint, ...] = ()
    full_range: Rate | None
    """Accuracy under PGD at epsilon 1; None where no gradient may be followed."""
    files: EvaluationFiles
    queries: Queries | None = None
    """This and the next three: of a black-box run."""
    queries_curve: QueryCurve | None = None
    distilled: Gap | None = None
    attacks_left_out: tuple[LeftOut, ...] = ()
    card: tuple[CardLine, ...] = ()

    def attack(self, name: str) -> ComparedAttack | None:
        """The other attack of that name; None where it did not run."""
        return next((attack for attack in self.attacks if attack.name == name), None)
