"""What an evaluation is asked for, and what it then looks at: a run's generator, a classifier, test images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.baselines import STEPS, Arrays, Baseline, baselines
from advgan.attacks.square import FEWEST_QUERIES, run_square, square_settings, why_not_square
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.source import AS_IT_IS
from advgan.config.settings import Config, TargetSettings
from advgan.data.datasets import Dataset, Split
from advgan.errors import ConfigurationError
from advgan.evaluation import checks
from advgan.evaluation.cache import ResultCache
from advgan.files import digest_of
from advgan.goals import Goal
from advgan.metrics import share, success_rate
from advgan.perturbation import measure
from advgan.records.evaluation import ComparedAttack, Gap, LeftOut, Options, QueryCurve, QueryPoint
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.run_folder import REFERENCE, is_reference_run

SEED = 0
"""Of the randomness of the attacks to compare with."""
SQUARE_QUERIES = 1000
STAGES = "stages"
"""The folder, in that of the results, of what outlives the process."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, and where the results go.

    Raises:
        ConfigurationError: an epsilon to retrain at is not in [0, 1].
    """

    run: Path
    """The folder of a finished run."""
    output: Path | None = None
    """Where the results go; ``<run>/evaluation`` by default, followed by what is unlike the default: ``-<target>`` for
    another target, ``-first-<images>`` for fewer images. The run that ships is kept as it is:
    ``checkpoints/reference-evaluation``."""
    images: int | None = None
    """The first so many of the run's test images; all by default."""
    restarts: int = 1
    """How often PGD starts."""
    optimized_images: int = 100
    """How many images the attack that is slow is tried on: the optimization attack, or Square on a black box."""
    square_queries: int | None = None
    """The most queries of Square for each image it attacks, 3 or more. By default 1,000 for a black box, and
    another target is not attacked."""
    target: str | None = None
    """The classifier under attack, as ``load_classifier`` takes it; the run's own by default."""
    transfer: tuple[str, ...] = ()
    """Further classifiers that the same images are shown to."""
    retrain: tuple[float, ...] = ()
    """The epsilons at which the run is trained again, to measure success there."""
    reading: TargetSettings = AS_IT_IS
    """How ``target`` is to be read: its bounds, mean, std, output; module and trust are for ``transfer`` too."""
    to: str | None = None
    """The class that is wanted, by number or name, where the run's generator is conditioned on it."""
    pgd_steps: int = STEPS
    """Of PGD, each of epsilon / 30; 1 or more."""
    check_accuracy: bool | None = None
    """Whether to stop at a clean accuracy no better than chance; None for what the run's configuration says."""

    def __post_init__(self) -> None:
        if self.square_queries is not None and self.square_queries < FEWEST_QUERIES:
            raise ConfigurationError(
                "--square-queries",
                self.square_queries,
                f"is too few for Square Attack (allowed: {FEWEST_QUERIES} or more)",
            )
        for epsilon in self.retrain:
            if not 0 <= epsilon <= 1:
                raise ConfigurationError(
                    "--retrain", epsilon, "an epsilon is a share of the pixel range (allowed: 0 to 1)"
                )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.output is not None:
            return self.output
        name = "evaluation"
        if self.target is not None:
            name += f"-{re.sub(r'[^0-9A-Za-z_]+', '-', Path(self.target).stem).strip('-')}"
        if self.to is not None:
            name += f"-to-{re.sub(r'[^0-9A-Za-z_]+', '-', self.to).strip('-') or digest_of(self.to)[:8]}"
        if self.images is not None:
            name += f"-first-{self.images}"
        if is_reference_run(self.run):  # kept as it ships
            return REFERENCE.parent / f"{REFERENCE.name}-{name}"
        return self.run / name


@dataclass(frozen=True)
class MoreResults:
    """What the stages came to that only some classifiers have; empty for the others."""

    compared: tuple[ComparedAttack, ...] = ()
    fooled: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """Whether each of the first images, which those attacks were tried on, ended as the goal wants."""
    bounds: tuple[Finding, ...] = ()
    """Whether those attacks kept within epsilon."""
    judged: tuple[Finding, ...] = ()
    """What else was checked."""
    square: QueryCurve | None = None
    """Success against queries of Square."""
    gap: Gap | None = None
    """The distilled network in the black box's place."""
    left_out: tuple[LeftOut, ...] = ()
    """Attacks that did not run."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run's generator against a classifier, on test images."""

    config: Config
    dataset: Dataset
    test: Split
    images: np.ndarray
    """The test images as float32 in [0, 1]."""
    classifier: Classifier
    other_target: bool
    """Whether the classifier is another than the one the generator was trained against."""
    generator: Any
    others: list[Classifier]
    """Further classifiers, which the generator's images are shown to."""
    searches: tuple[PixelSearch, ...] = ()
    """How the pixels were found that classifiers of the request take."""
    first: int = 0
    """Number of the first image among those of the whole evaluation, where this is a part of it."""
    total: int | None = None
    """How many images the whole evaluation has; None where this is the whole."""

    def part_of_first(self, count: int | None) -> tuple[int, slice]:
        """Of the first ``count`` images of the evaluation (all, for None): how many these are, and which are here."""
        total = min(count or self.whole, self.whole)
        return total, slice(0, min(max(0, total - self.first), len(self.test)))

    @property
    def whole(self) -> int:
        """How many images the whole evaluation has."""
        return len(self.test) if self.total is None else self.total

    @property
    def goal(self) -> Goal:
        """What counts as success."""
        return self.config.attack.objective

    @property
    def epsilon(self) -> float:
        """The largest change of a pixel."""
        return self.config.attack.epsilon

    def options(self, request: EvaluationRequest) -> Options:
        """What of the request the record names."""
        tried = Options(restarts=request.restarts, optimized_images=request.optimized_images)
        unusual = {} if request.square_queries is None else {"square_queries": request.square_queries}
        unusual |= {} if request.pgd_steps == STEPS else {"pgd_steps": request.pgd_steps}
        return tried.model_copy(update=unusual)

    def introduction(self, request: EvaluationRequest) -> list[str]:  # noqa: ARG002
        """Lines for the user about what is ahead."""
        return []

    def check_classifier(self, held_out: Finding) -> list[Finding]:
        """The checks of the classifier that need no attack; ``held_out`` has its place among them."""
        classes = self.dataset.number_of_classes
        return [
            *classifier_checks.check_answers(self.classifier, self.images, classes),
            classifier_checks.check_gradients(self.classifier, self.images, self.test.labels),
            held_out,
        ]

    def baselines(self, request: EvaluationRequest) -> tuple[list[Baseline], Classifier]:
        """The attacks to compare with, and the classifier whose gradient they follow."""
        few = request.optimized_images
        chosen = baselines(self.goal, self.epsilon, request.restarts, few, request.pgd_steps)
        return chosen, self.classifier

    def about_gradients(self, finding: Finding) -> Finding:
        """What a check of attacks that follow a gradient found."""
        return finding

    def more_stages(self, request: EvaluationRequest, stages: ResultCache, made: Arrays) -> MoreResults:
        """The stages that this kind of classifier has beyond the usual ones: here Square, where it is asked for."""
        if request.square_queries is None:
            return MoreResults()
        return self.square(request, request.square_queries, stages, made, logits=True)

    def square(
        self, request: EvaluationRequest, queries: int, stages: ResultCache, made: Arrays, logits: bool
    ) -> MoreResults:
        """The stage ``square``: an attack that looks at answers alone.

        Args:
            request: says how many images it attacks.
            queries: the most for each image.
            stages: of the evaluation.
            made: what the stage ``advgan`` left.
            logits: whether the classifier's scores are those; else they are probabilities.
        """
        if reason := why_not_square(self.dataset.image_shape):
            return MoreResults(left_out=(LeftOut(name="square", reason=reason),))
        total = min(request.optimized_images, len(self.test))
        images, labels, clean = self.images[:total], self.test.labels[:total], made["clean_predictions"][:total]
        goal = self.goal
        settings = {**square_settings(queries, logits), "images": total, "seed": SEED}
        work = run_square(self.classifier, goal, images, labels, clean, self.epsilon, queries, SEED, logits)
        result = stages.result("square", settings, total, work, whole=True)
        needed = result["asked"][goal.eligible(labels, clean) & result["reached"]]
        queried = {
            "queries": int(result["asked"].sum()),
            "median_queries": float(np.median(needed)) if len(needed) else None,
        }
        points = survival(goal, labels, clean, result["asked"], result["reached"])
        bounds = result["linf"], result["lowest"], result["highest"]
        return MoreResults(
            (self.compared("square", "queries", settings, made, result).model_copy(update=queried),),
            goal.reached(labels, result["predictions"]),
            (checks.check_bounds("square", *bounds, self.epsilon),),
            square=QueryCurve(name="Square", points=points),
        )

    def figures(self, more: MoreResults) -> dict[str, Any]:
        """What the record has beyond the usual, by field of ``Evaluation``."""
        return {"attacks_left_out": more.left_out} if more.left_out else {}

    def compared(self, name: str, kind: str, settings: dict[str, Any], made: Arrays, result: Arrays) -> ComparedAttack:
        """What an attack on the first images came to, and what AdvGAN's did on the same.

        Args:
            name, kind, settings: of the attack.
            made: what the stage ``advgan`` left.
            result: what the attack's stage left.
        """
        answers = result["predictions"]
        total = len(answers)
        labels, clean = self.test.labels[:total], made["clean_predictions"][:total]
        return ComparedAttack(
            name=name,
            kind=kind,
            settings=settings,
            images=total,
            success=success_rate(self.goal, labels, clean, answers),
            advgan_success=success_rate(self.goal, labels, clean, made["predictions"][:total]),
            accuracy_under_attack=share(answers == labels),
            largest_linf=float(result["linf"].max()),
            seconds_per_1000_images=float(result["seconds"]) * 1000 / total,
            gradients_per_image=float(result["gradients"]) / total if "gradients" in result else None,
        )


def extremes(images: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each image's largest change, lowest and highest pixel."""
    flat = adversarial.reshape(len(adversarial), -1)
    return measure(images, adversarial).linf, flat.min(axis=1), flat.max(axis=1)


def survival(
    goal: Goal, labels: np.ndarray, clean: np.ndarray, asked: np.ndarray, reached: np.ndarray
) -> tuple[QueryPoint, ...]:
    """Success as a function of queries: at each number at which it rises, the share of images fooled by then.

    Args:
        goal, labels, clean: say which images count.
        asked, reached: from ``run_square``.

    Returns:
        Points in rising order: from 1 query to the most that were made for an image.
    """
    counted = goal.eligible(labels, clean)
    total, needed = int(counted.sum()), np.sort(asked[counted & reached])
    if not total:
        return ()
    steps = sorted({1, *needed.tolist(), int(asked[counted].max())})
    return tuple(QueryPoint(queries_per_image=step, success=int((needed <= step).sum()) / total) for step in steps)
