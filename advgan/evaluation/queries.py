"""What a black box was asked, by the attack and by the evaluation, and what success that bought."""

from __future__ import annotations

import numpy as np

from advgan.attacks.baselines import Advance, Arrays
from advgan.classifiers.checks import ALONE_IMAGES, PROBE_IMAGES
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.curve import epsilons_of_curve
from advgan.evaluation.subject import BlackBoxRun, EvaluationRequest, Subject
from advgan.goals import Goal
from advgan.metrics import share, success_rate
from advgan.records.evaluation import Gap, Queries, QueryPoint


def gap(subject: Subject, run: BlackBoxRun, stages: ResultCache, made: Arrays) -> Gap:
    """The stage ``distilled``: the distilled network's answers beside those of the black box.

    Args:
        subject, run: what is evaluated.
        stages: of the evaluation.
        made: what the stage ``advgan`` left.
    """
    labels, distilled = subject.test.labels, run.distilled

    def work(advance: Advance) -> Arrays:
        clean = distilled.predict(subject.images)
        advance(len(labels))
        answers = distilled.predict(made["adversarial"])
        advance(len(labels))
        return {"clean_predictions": clean, "predictions": answers}

    found = stages.result("distilled", {"distilled": distilled.digest}, 2 * len(labels), work)
    return Gap(
        architecture=run.stated.distilled.architecture,
        sha256=distilled.digest,
        success=success_rate(subject.goal, labels, made["clean_predictions"], found["predictions"]),
        agreement_clean=share(found["clean_predictions"] == made["clean_predictions"]),
        agreement_adversarial=share(found["predictions"] == made["predictions"]),
    )


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


def count_queries(run: BlackBoxRun, images: int) -> Queries:
    """What the attack asked, and what the evaluation did; ``images`` is how many were scored."""
    stated = run.stated
    total = sum(stated.attack_queries.values())
    return Queries(
        answers=stated.answers,
        attack=stated.attack_queries,
        attack_total=total,
        per_image=total / images,
        budget=stated.query_budget,
        scoring_in_training=stated.queries["scoring"],
        evaluation=run.queries,
    )


def most_queries(request: EvaluationRequest, subject: Subject) -> int:
    """How many images an evaluation asks about at most, but for the few of the picture of samples."""
    images = len(subject.test)
    noise_fgsm_pgd = 3 + request.restarts
    for_each = 3 + len(epsilons_of_curve(subject.epsilon)) - 1 + noise_fgsm_pgd
    probes = min(PROBE_IMAGES, images) + ALONE_IMAGES
    return for_each * images + probes + min(request.optimized_images, images) * request.square_queries
