"""The stages of an evaluation that attack: the generator, the attacks to compare with, scaled, elsewhere, retrained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.attacks.baselines import Advance, Arrays, Baseline, pgd_attack, run_baseline
from advgan.classifiers.checks import PROBE_IMAGES, check_accuracy
from advgan.classifiers.classifier import Classifier
from advgan.data.batches import images_at_once, slices
from advgan.data.datasets import scaled
from advgan.errors import AdvGANError
from advgan.evaluation import checks
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.curve import curve_answers, epsilons_of_curve, success_curve
from advgan.evaluation.loading import load_generator
from advgan.evaluation.subject import SEED, EvaluationRequest, MoreResults, Subject, extremes
from advgan.files import file_digest
from advgan.goals import Untargeted
from advgan.metrics import PairedDifference, Rate, share, success_rate
from advgan.perturbation import to_8_bits
from advgan.records.evaluation import ComparedAttack, CurvePoint, Transfer
from advgan.records.finding import Finding
from advgan.run_folder import RunFolder


@dataclass(frozen=True)
class Results:
    """What the attacks came to."""

    made: Arrays
    """The generator's images and the target's answers, as the stage ``advgan`` left them."""
    compared: list[ComparedAttack]
    """The attacks to compare with."""
    worst_case: Rate
    """The success of all attacks together, image by image."""
    amortization_gap: PairedDifference | None
    """PGD's success less AdvGAN's; None where no gradient is followed, and for another target than the generator's."""
    transfer: list[Transfer]
    curve: list[CurvePoint]
    full_range: Rate | None
    """Accuracy under PGD at epsilon 1; None where there is no gradient."""
    findings: list[Finding]
    more: MoreResults
    """Of the stages that only some classifiers have."""


def attack_all(request: EvaluationRequest, subject: Subject, stages: ResultCache) -> Results:
    """Run every attack, or find again what an evaluation that was stopped left of it.

    Raises:
        AdvGANError: an attack left its bounds, or the target does not repeat its answers.
    """
    (clean, *others_clean), judged = _clean(subject, stages)
    made = {**_advgan(subject, stages), "clean_predictions": clean}
    within = checks.check_bounds("advgan", *extremes(subject.images, made["adversarial"]), subject.epsilon)
    compared, fooled, by_gradient, findings, gap = _baselines(request, subject, stages, made)
    more = subject.more_stages(request, stages, made)
    if subject.classifier.has_gradient:
        counted = subject.goal.eligible(subject.test.labels, made["clean_predictions"])[: len(more.fooled)]
        pair = more.fooled[counted], by_gradient[: len(more.fooled)][counted]
        if len(more.fooled):
            findings.append(checks.check_square(PairedDifference.of(*pair)))
        else:
            findings.append(checks.check_square(None, *(f"Square: {each.reason}" for each in more.left_out)))
    compared += more.compared
    fooled[: len(more.fooled)] |= more.fooled
    worst = share(fooled[subject.goal.eligible(subject.test.labels, made["clean_predictions"])])
    curve = _curve(subject, stages, made)
    full_range = _full_range(subject, stages)
    success = success_rate(subject.goal, subject.test.labels, made["clean_predictions"], made["predictions"])
    found = _compare_attacks(subject, compared, success, full_range, curve)
    transfer = _transfer(subject, stages, made, others_clean)
    return Results(
        made,
        compared,
        worst,
        gap,
        transfer,
        curve,
        full_range,
        [*judged, within, *findings, *more.bounds, *found, *more.judged],
        more,
    )


def attack_part(request: EvaluationRequest, subject: Subject, stages: ResultCache) -> None:
    """Run the stages alone, on a part of the images; ``attack_all`` finds them again when all parts are there."""
    for number, classifier in enumerate([subject.classifier, *subject.others]):
        _clean_answers(subject, stages, classifier, number)
    made = _advgan(subject, stages)
    list(_baseline_answers(request, subject, stages))
    for number, other in enumerate(subject.others, start=1):
        _transferred(subject, stages, made, other, number)
    _curve_answers(subject, stages, made)
    _full_range_answers(subject, stages)


def retrained_success(
    subject: Subject, stages: ResultCache, clean: np.ndarray, epsilon: float, run: Path
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
        for part in slices(len(images), images_at_once(images.shape[1:])):
            adversarial[part] = attack.generate(images[part])
            advance(part.stop - part.start)
        linf, lowest, highest = extremes(images, adversarial)
        answers = subject.classifier.predict(adversarial)
        return {"predictions": answers, "linf": linf, "lowest": lowest, "highest": highest}

    settings = {"epsilon": epsilon, "generator": file_digest(RunFolder(run).generator)}
    result = stages.result(f"retrained-{epsilon}", settings, len(images), work, whole=True)
    bounds = result["linf"], result["lowest"], result["highest"]
    finding = checks.check_bounds(f"advgan retrained at {epsilon:.4g}", *bounds, epsilon)
    return success_rate(subject.goal, labels, clean, result["predictions"]), finding


def _clean(subject: Subject, stages: ResultCache) -> tuple[list[np.ndarray], list[Finding]]:
    """The stages ``clean``: what the classifier and the further ones answer on the clean images, before any attack.

    Raises:
        AdvGANError: it, or one that the images are to be shown to, does no better than chance.
    """
    test, stop = subject.test, subject.config.target.check_accuracy
    classifiers = [subject.classifier, *subject.others]
    answers = [_clean_answers(subject, stages, each, number) for number, each in enumerate(classifiers)]
    hints = {search.classifier: search.remarks for search in subject.searches}
    findings = [
        check_accuracy(each.name, share(given == test.labels), test.labels, test.images, stop, hints.get(each.name, ()))
        for each, given in zip(classifiers, answers, strict=True)
    ]
    return answers, findings


def _clean_answers(subject: Subject, stages: ResultCache, classifier: Classifier, number: int) -> np.ndarray:
    def work(advance: Advance) -> Arrays:
        answers = classifier.predict(subject.images)
        advance(len(answers))
        return {"clean_predictions": answers}

    name = f"clean-transfer-{number}" if number else "clean"
    return stages.result(name, {"classifier": classifier.digest}, len(subject.test), work)["clean_predictions"]


def _advgan(subject: Subject, stages: ResultCache) -> Arrays:
    """The stage ``advgan``: the generator's images and the target's answers."""
    attack = AdvGANAttack(subject.generator, None, subject.config.attack)
    images, classifier = subject.images, subject.classifier

    def work(advance: Advance) -> Arrays:
        attack(images[: images_at_once(images.shape[1:])])  # compiled here, so that the clock sees the attack alone
        raw, adversarial = np.empty_like(images), np.empty_like(images)
        seconds = 0.0
        for part in slices(len(images), images_at_once(images.shape[1:])):
            start = time.perf_counter()
            raw[part], adversarial[part], _ = attack(images[part])
            seconds += time.perf_counter() - start
            advance(part.stop - part.start)
        return {
            "raw": raw,
            "adversarial": adversarial,
            "predictions": classifier.predict(adversarial),
            "predictions_8_bit": classifier.predict(scaled(to_8_bits(images, adversarial, subject.epsilon))),
            "seconds": np.array(seconds),
        }

    return stages.result("advgan", {}, len(images), work)


def _baselines(
    request: EvaluationRequest, subject: Subject, stages: ResultCache, made: Arrays
) -> tuple[list[ComparedAttack], np.ndarray, np.ndarray, list[Finding], PairedDifference | None]:
    """A stage for each attack to compare with; whether any, AdvGAN's too, fooled each image, and whether one along the
    gradient did; their bounds; the gap.

    Where the target has no gradient, only noise attacks it. On a black box that of the distilled network is followed.
    """
    findings = []
    goal, labels = subject.goal, subject.test.labels
    by_advgan = goal.reached(labels, made["predictions"])
    fooled, counted = by_advgan.copy(), goal.eligible(labels, made["clean_predictions"])
    by_gradient = np.zeros_like(fooled)
    rows, gap = [], None
    for baseline, settings, part, result in _baseline_answers(request, subject, stages):
        extremes = result["linf"], result["lowest"], result["highest"]
        findings.append(checks.check_bounds(baseline.name, *extremes, subject.epsilon))
        reached = goal.reached(labels[part], result["predictions"])
        fooled[part] |= reached
        if baseline.gradients:
            by_gradient[part] |= reached
        if baseline.continues is not None and not subject.other_target:  # PGD's second loss, with the first's successes
            gap = PairedDifference.of(reached[counted], by_advgan[counted])
        rows.append(subject.compared(baseline.name, baseline.kind, settings, made, result))
    return rows, fooled, by_gradient, findings, gap


def _baseline_answers(
    request: EvaluationRequest, subject: Subject, stages: ResultCache
) -> Iterator[tuple[Baseline, dict[str, Any], slice, Arrays]]:
    """Each attack to compare with, its settings, which images it is tried on, and what its stage left."""
    chosen, followed = subject.baselines(request)
    left: dict[str, Arrays] = {}
    for baseline in chosen:
        if not (followed.has_gradient or baseline.kind == "noise"):
            continue
        total, part = subject.part_of_first(baseline.images)
        images, classes = subject.images[part], subject.test.labels[part]
        settings = {**baseline.settings, "restarts": baseline.restarts, "images": total, "seed": SEED}
        before = None if baseline.continues is None else left[baseline.continues]
        work = run_baseline(
            baseline, subject.classifier, subject.goal, images, classes, SEED, followed, subject.first, before
        )
        name = baseline.name.replace(" ", "-")
        left[baseline.name] = stages.result(name, settings, len(images) * baseline.restarts, work)
        yield baseline, settings, part, left[baseline.name]


def _transfer(subject: Subject, stages: ResultCache, made: Arrays, others_clean: list[np.ndarray]) -> list[Transfer]:
    """A stage for each further classifier: what it answers on the generator's images."""
    rows = []
    labels = subject.test.labels
    for number, (other, clean) in enumerate(zip(subject.others, others_clean, strict=True), start=1):
        answers = _transferred(subject, stages, made, other, number)
        rows.append(
            Transfer(
                name=other.name,
                sha256=other.digest,
                clean_accuracy=share(clean == labels),
                accuracy_under_attack=share(answers == labels),
                success=success_rate(subject.goal, labels, clean, answers),
            )
        )
    return rows


def _transferred(subject: Subject, stages: ResultCache, made: Arrays, other: Classifier, number: int) -> np.ndarray:
    def work(advance: Advance) -> Arrays:
        answers = other.predict(made["adversarial"])
        advance(len(answers))
        return {"predictions": answers}

    return stages.result(f"transfer-{number}", {"classifier": other.digest}, len(subject.test), work)["predictions"]


def _full_range(subject: Subject, stages: ResultCache) -> Rate | None:
    """Accuracy under untargeted PGD at epsilon 1; None where no gradient may be followed."""
    answers = _full_range_answers(subject, stages)
    return None if answers is None else share(answers == subject.test.labels[: len(answers)])


def _full_range_answers(subject: Subject, stages: ResultCache) -> np.ndarray | None:
    """The stage ``full-range``."""
    if not subject.classifier.has_gradient:
        return None
    total, part = subject.part_of_first(PROBE_IMAGES)
    images, labels = subject.images[part], subject.test.labels[part]
    pgd = Baseline("full-range", "iterative", {"epsilon": 1.0}, pgd_attack(Untargeted(), 1.0))
    work = run_baseline(pgd, subject.classifier, Untargeted(), images, labels, SEED, first=subject.first)
    return stages.result(pgd.name, {**pgd.settings, "images": total, "seed": SEED}, len(images), work)["predictions"]


def _compare_attacks(
    subject: Subject,
    compared: list[ComparedAttack],
    success: Rate,
    full_range: Rate | None,
    curve: list[CurvePoint],
) -> list[Finding]:
    """The guards that compare attacks with each other."""

    def best(*kinds: str) -> Rate | None:
        rates = [attack.success for attack in compared if attack.kind in kinds]
        return max(rates, key=lambda rate: rate.rate, default=None)

    iterative = [attack.success for attack in compared if attack.kind == "iterative"]
    transferred = success if subject.other_target else None  # trained elsewhere, the generator is a black-box attack
    of_gradients = [
        subject.about_gradients(finding)
        for finding in (
            checks.check_iterative(best("single step"), best("iterative")),
            checks.check_losses(*iterative) if len(iterative) == 2 else checks.check_losses(None, None),
            checks.check_white_box(best("noise"), best("single step", "iterative"), transferred),
            checks.check_full_range(full_range, subject.dataset.number_of_classes),
        )
    ]
    return [
        *of_gradients[:3],
        checks.check_generator(best("noise"), success),
        *of_gradients[3:],
        checks.check_curve(
            [point.epsilon for point in curve if point.falls], [point.epsilon for point in curve if point.falls_clearly]
        ),
    ]


def _curve(subject: Subject, stages: ResultCache, made: Arrays) -> list[CurvePoint]:
    """Success at each epsilon; at 0 nothing may succeed."""
    epsilon, answers = subject.epsilon, _curve_answers(subject, stages, made)
    points = success_curve(subject.goal, subject.test.labels, made["clean_predictions"], answers.T, epsilon)
    if points[0].success.successes:
        raise AdvGANError(
            f"at epsilon 0 {points[0].success.successes} images count as fooled: the target does not repeat its "
            "answers; give one that does (no dropout, no noise, no batch statistics)"
        )
    return points


def _curve_answers(subject: Subject, stages: ResultCache, made: Arrays) -> np.ndarray:
    """The stage ``curve``: answers, (n, epsilons)."""
    images, epsilon = subject.images, subject.epsilon
    total = len(images) * len(epsilons_of_curve(epsilon))

    def work(advance: Advance) -> Arrays:
        return {"answers": curve_answers(subject.classifier, images, made["raw"], epsilon, advance)["answers"].T}

    return stages.result("curve", {"epsilons": epsilons_of_curve(epsilon)}, total, work)["answers"]
