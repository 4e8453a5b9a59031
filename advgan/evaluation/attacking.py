"""The stages of an evaluation that attack: the generator, the attacks beside it, scaled, elsewhere, retrained."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.data.batches import slices
from advgan.data.datasets import scaled
from advgan.errors import AdvGANError
from advgan.evaluation import guards
from advgan.evaluation.baselines import Baseline, baselines, pgd_attack, run_baseline
from advgan.evaluation.breakdown import success_rate
from advgan.evaluation.curve import Point, curve_answers, epsilons_of_curve, success_curve
from advgan.evaluation.guards import Finding
from advgan.evaluation.scores import Rate
from advgan.evaluation.stages import Advance, Arrays, Stages
from advgan.evaluation.subject import Request, Subject, extremes, load_generator
from advgan.goals import Untargeted
from advgan.oracles.classifiers import BATCH_SIZE, Classifier, file_digest
from advgan.perturbation import to_8_bits
from advgan.runs import GENERATOR

Record = dict[str, Any]
SEED = 0
"""Of the baselines' randomness."""


@dataclass(frozen=True)
class Results:
    """What the attacks came to."""

    made: Arrays
    """The generator's images and the target's answers, as the stage ``advgan`` left them."""
    compared: list[Record]
    """The attacks beside it."""
    worst_case: Rate
    """The success of all attacks together, image by image."""
    transfer: list[Record]
    curve: list[Point]
    full_range: Rate | None
    """Accuracy under PGD at epsilon 1; None where there is no gradient."""
    findings: list[Finding]


def attack_all(request: Request, subject: Subject, stages: Stages) -> Results:
    """Run every attack, or find again what an evaluation that was stopped left of it.

    Raises:
        AdvGANError: an attack left its bounds, or the target does not repeat its answers.
    """
    made = _advgan(subject, stages)
    within = guards.check_bounds("advgan", *extremes(subject.images, made["adversarial"]), subject.epsilon)
    compared, worst, bounded = _baselines(request, subject, stages, made)
    curve = _curve(subject, stages, made)
    full_range = _full_range(subject, stages)
    success = success_rate(subject.goal, subject.test.labels, made["clean_predictions"], made["predictions"])
    found = _compare_attacks(subject, compared, success, full_range, curve)
    transfer = _transfer(subject, stages, made)
    return Results(made, compared, worst, transfer, curve, full_range, [within, *bounded, *found])


def share(hits: np.ndarray) -> Rate:
    """How many of all: booleans of shape (n,)."""
    return Rate.of(int(hits.sum()), len(hits))


def retrained_success(
    subject: Subject, stages: Stages, clean: np.ndarray, epsilon: float, run: Path
) -> tuple[Rate, Finding]:
    """The stage ``retrained-<epsilon>``: the success of a generator trained at that epsilon, and its bounds.

    Args:
        subject: gives images, classifier and goal.
        stages: of the evaluation.
        clean: the classifier's answers on the clean images.
        epsilon: which the generator was trained at.
        run: its folder.
    """
    images, labels = subject.images, subject.test.labels
    generator = load_generator(run, subject.dataset.image_shape)
    attack = AdvGANAttack(generator, None, subject.config.attack.model_copy(update={"epsilon": epsilon}))

    def work(advance: Advance) -> Arrays:
        adversarial = np.empty_like(images)
        for part in slices(len(images), BATCH_SIZE):
            adversarial[part] = attack.generate(images[part])
            advance(part.stop - part.start)
        linf, lowest, highest = extremes(images, adversarial)
        answers = subject.classifier.answers(adversarial)
        return {"predictions": answers, "linf": linf, "lowest": lowest, "highest": highest}

    settings = {"epsilon": epsilon, "generator": file_digest(run / GENERATOR)}
    result = stages.result(f"retrained-{epsilon}", settings, len(images), work)
    bounds = result["linf"], result["lowest"], result["highest"]
    finding = guards.check_bounds(f"advgan retrained at {epsilon:.4g}", *bounds, epsilon)
    return success_rate(subject.goal, labels, clean, result["predictions"]), finding


def _advgan(subject: Subject, stages: Stages) -> Arrays:
    """The stage ``advgan``: the generator's images and the target's answers."""
    attack = AdvGANAttack(subject.generator, None, subject.config.attack)
    images, classifier = subject.images, subject.classifier

    def work(advance: Advance) -> Arrays:
        attack(images[:BATCH_SIZE])  # compiled here, so that the clock sees the attack alone
        raw, adversarial = np.empty_like(images), np.empty_like(images)
        seconds = 0.0
        for part in slices(len(images), BATCH_SIZE):
            start = time.perf_counter()
            raw[part], adversarial[part], _ = attack(images[part])
            seconds += time.perf_counter() - start
            advance(part.stop - part.start)
        return {
            "raw": raw,
            "adversarial": adversarial,
            "clean_predictions": classifier.answers(images),
            "predictions": classifier.answers(adversarial),
            "predictions_8_bit": classifier.answers(scaled(to_8_bits(images, adversarial, subject.epsilon))),
            "seconds": np.array(seconds),
        }

    return stages.result("advgan", {}, len(images), work)


def _baselines(
    request: Request, subject: Subject, stages: Stages, made: Arrays
) -> tuple[list[Record], Rate, list[Finding]]:
    """A stage for each attack to compare with; the success of all attacks together, image by image; their bounds.

    Where the target has no gradient, only noise attacks it.
    """
    differentiable = guards.has_gradient(subject.classifier, subject.images)
    findings = []
    goal, labels, clean = subject.goal, subject.test.labels, made["clean_predictions"]
    fooled = goal.reached(labels, made["predictions"])
    rows = []
    for baseline in baselines(goal, subject.epsilon, request.restarts, request.optimized_images):
        if not (differentiable or baseline.kind == "noise"):
            continue
        part = slice(None if baseline.images is None else min(baseline.images, len(labels)))
        images, classes, total = subject.images[part], labels[part], len(labels[part])
        settings = {**baseline.settings, "restarts": baseline.restarts, "images": total, "seed": SEED}
        work = run_baseline(baseline, subject.classifier, goal, images, classes, SEED)
        result = stages.result(baseline.name, settings, total * baseline.restarts, work)
        answers = result["predictions"]
        extremes = result["linf"], result["lowest"], result["highest"]
        findings.append(guards.check_bounds(baseline.name, *extremes, subject.epsilon))
        fooled[part] |= goal.reached(classes, answers)
        rows.append(
            {
                "name": baseline.name,
                "kind": baseline.kind,
                "settings": settings,
                "images": total,
                "success": dataclasses.asdict(success_rate(goal, classes, clean[part], answers)),
                "advgan_success": dataclasses.asdict(
                    success_rate(goal, classes, clean[part], made["predictions"][part])
                ),
                "accuracy_under_attack": dataclasses.asdict(share(answers == classes)),
                "largest_linf": float(result["linf"].max()),
                "seconds_per_1000_images": float(result["seconds"]) * 1000 / total,
            }
        )
    counted = goal.eligible(labels, clean)
    return rows, share(fooled[counted]), findings


def _transfer(subject: Subject, stages: Stages, made: Arrays) -> list[Record]:
    """A stage for each further classifier: what it answers on the clean images and on the generator's."""
    rows = []
    labels = subject.test.labels
    for number, other in enumerate(subject.others, start=1):

        def work(advance: Advance, other: Classifier = other) -> Arrays:
            clean = other.answers(subject.images)
            advance(len(labels))
            answers = other.answers(made["adversarial"])
            advance(len(labels))
            return {"clean_predictions": clean, "predictions": answers}

        result = stages.result(f"transfer-{number}", {"classifier": other.digest}, 2 * len(labels), work)
        clean, answers = result["clean_predictions"], result["predictions"]
        rows.append(
            {
                "name": other.name,
                "sha256": other.digest,
                "clean_accuracy": dataclasses.asdict(share(clean == labels)),
                "accuracy_under_attack": dataclasses.asdict(share(answers == labels)),
                "success": dataclasses.asdict(success_rate(subject.goal, labels, clean, answers)),
            }
        )
    return rows


def _full_range(subject: Subject, stages: Stages) -> Rate | None:
    """The stage ``full-range``: accuracy under untargeted PGD at epsilon 1; None where there is no gradient."""
    if not guards.has_gradient(subject.classifier, subject.images):
        return None
    images, labels = subject.images[: guards.PROBE_IMAGES], subject.test.labels[: guards.PROBE_IMAGES]
    pgd = Baseline("full-range", "iterative", {"epsilon": 1.0}, pgd_attack(Untargeted(), 1.0))
    work = run_baseline(pgd, subject.classifier, Untargeted(), images, labels, SEED)
    result = stages.result(pgd.name, {**pgd.settings, "images": len(images), "seed": SEED}, len(images), work)
    return share(result["predictions"] == labels)


def _compare_attacks(
    subject: Subject, compared: list[Record], success: Rate, full_range: Rate | None, curve: list[Point]
) -> list[Finding]:
    """The guards that compare attacks with each other."""

    def best(*kinds: str) -> Rate | None:
        rates = [Rate(**attack["success"]) for attack in compared if attack["kind"] in kinds]
        return max(rates, key=lambda rate: rate.rate, default=None)

    transferred = success if subject.other_target else None  # trained elsewhere, the generator is a black-box attack
    return [
        guards.check_iterative(best("single step"), best("iterative")),
        guards.check_white_box(best("noise"), best("single step", "iterative"), transferred),
        guards.check_generator(best("noise"), success),
        guards.check_full_range(full_range, subject.dataset.number_of_classes),
        guards.check_curve(
            [point.epsilon for point in curve if point.falls], [point.epsilon for point in curve if point.falls_clearly]
        ),
    ]


def _curve(subject: Subject, stages: Stages, made: Arrays) -> list[Point]:
    """The stage ``curve``; at epsilon 0 nothing may succeed."""
    images, epsilon = subject.images, subject.epsilon
    total = len(images) * len(epsilons_of_curve(epsilon))

    def work(advance: Advance) -> Arrays:
        return curve_answers(subject.classifier, images, made["raw"], epsilon, advance)

    answers = stages.result("curve", {"epsilons": epsilons_of_curve(epsilon)}, total, work)["answers"]
    points = success_curve(subject.goal, subject.test.labels, made["clean_predictions"], answers, epsilon)
    if points[0].success.successes:
        raise AdvGANError(
            f"at epsilon 0 {points[0].success.successes} images count as fooled: the target does not repeat its "
            "answers; give one that does (no dropout, no noise, no batch statistics)"
        )
    return points
