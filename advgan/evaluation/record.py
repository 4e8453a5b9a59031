"""The content of ``evaluation.json``, worked out from what the attacks came to; docs/evaluation.md describes it."""

from __future__ import annotations

import hashlib

import numpy as np

from advgan.attacks.baselines import Arrays
from advgan.evaluation.attack_stages import Results
from advgan.evaluation.distortion import distortion
from advgan.evaluation.subject import SEED, EvaluationRequest, Subject
from advgan.files import file_digest
from advgan.metrics import Rate, count_matrix, share, success_by_class, success_rate
from advgan.records.evaluation import (
    ClassSuccess,
    Evaluation,
    EvaluationFiles,
    EvaluationHead,
    GeneratorFile,
    ReadBack,
    RetrainedPoint,
    ScoredData,
    Target,
)
from advgan.records.finding import Finding
from advgan.run_folder import RunFolder

Matrix = tuple[tuple[int, ...], ...]


def evaluation_record(
    head: EvaluationHead,
    request: EvaluationRequest,
    subject: Subject,
    results: Results,
    saved: Arrays,
    retrained: list[RetrainedPoint],
    findings: list[Finding],
    files: EvaluationFiles,
) -> Evaluation:
    """Count everything; the report card is left empty.

    Args:
        head: what the run and this process know.
        request, subject: what is evaluated.
        results: of the attacks.
        saved: the target's answers on the images as they are in the files.
        retrained: the points at other epsilons.
        findings: of the guards.
        files: what was written.
    """
    made, labels, goal = results.made, subject.test.labels, subject.goal
    clean, answers = made["clean_predictions"], made["predictions"]
    counted = goal.eligible(labels, clean)
    generator = RunFolder(request.run).generator
    classes = subject.dataset.number_of_classes
    told_apart = max(classes, 1 + int(max(clean.max(), answers.max())))  # a classifier may know more than the data have

    def success(found: np.ndarray) -> Rate:
        return success_rate(goal, labels, clean, found)

    record = Evaluation(
        **dict(head),
        goal=subject.config.attack.goal,
        target_class=subject.config.attack.goal_class,
        epsilon=subject.epsilon,
        data=_data(subject),
        generator=GeneratorFile(file=generator.name, sha256=file_digest(generator)),
        target=_target(subject),
        clean_accuracy=share(clean == labels),
        accuracy_under_attack=share(answers == labels),
        success=success(answers),
        success_8_bit=success(made["predictions_8_bit"]),
        success_read_back=ReadBack(
            archive=success(saved["archive"]), png=success(saved["png"]) if "png" in saved else None
        ),
        png_largest_change_levels=int(saved["png_levels"]) if "png_levels" in saved else None,
        distortion=distortion(subject.images, made["adversarial"], counted),
        by_class=_by_class(success_by_class(goal, labels, clean, answers, classes)),
        confusion_clean=_matrix(labels, clean, told_apart),
        confusion_under_attack=_matrix(labels, answers, told_apart),
        source_by_answer=_matrix(labels[counted], answers[counted], told_apart),
        seconds_per_1000_images=float(made["seconds"]) * 1000 / len(labels),
        attacks=tuple(results.compared),
        worst_case=results.worst_case,
        amortization_gap=results.amortization_gap,
        seed=SEED,
        transfer=tuple(results.transfer),
        guards=tuple(findings),
        curve=tuple(results.curve),
        retrained=tuple(retrained),
        full_range=results.full_range,
        files=files,
    )
    return record.model_copy(update=subject.figures(results.more))


def _target(subject: Subject) -> Target:
    classifier = subject.classifier
    return Target(name=classifier.name, sha256=classifier.digest, weights_sha256=classifier.weights)


def _by_class(rates: list[Rate]) -> tuple[ClassSuccess, ...]:
    return tuple(ClassSuccess(label=label, **vars(rate)) for label, rate in enumerate(rates))


def _matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> Matrix:
    return tuple(map(tuple, count_matrix(labels, answers, classes).tolist()))


def _data(subject: Subject) -> ScoredData:
    scored = hashlib.sha256(subject.test.images.tobytes())
    scored.update(subject.test.labels.tobytes())
    return ScoredData(
        dataset=subject.config.data.dataset,
        sha256=subject.dataset.digest,
        split="test",
        images=len(subject.test),
        of=len(subject.dataset.test),
        all_test_images=len(subject.test) == len(subject.dataset.test),
        images_sha256=scored.hexdigest(),
        card=subject.dataset.card,
    )
