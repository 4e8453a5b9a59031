"""The content of ``evaluation.json``, worked out from what the attacks came to; docs/evaluation.md describes it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from advgan.attacks.baselines import Arrays
from advgan.classifiers.checks import Finding
from advgan.evaluation.attack_stages import SEED, Results, share
from advgan.evaluation.distortion import distortion
from advgan.evaluation.queries import queries_record
from advgan.evaluation.saved_images import ARCHIVE
from advgan.evaluation.subject import EvaluationRequest, Subject
from advgan.files import file_digest
from advgan.metrics import count_matrix, success_by_class, success_rate
from advgan.run_folder import GENERATOR

Record = dict[str, Any]
SCHEMA = 1
"""The version of ``evaluation.json``."""


def evaluation_record(
    head: Record,
    request: EvaluationRequest,
    subject: Subject,
    results: Results,
    saved: Arrays,
    retrained: list[Record],
    findings: list[Finding],
    files: Record,
) -> Record:
    """Count everything and put it into the form that ``evaluation.json`` has.

    Args:
        head: what the run and this process know: command, commit, environment, threat model.
        request, subject: what was asked, and what was looked at.
        results: of the attacks.
        saved: the target's answers on the images as they are in the files.
        retrained: the points at other epsilons.
        findings: of the guards.
        files: what was written.
    """
    made, labels, goal = results.made, subject.test.labels, subject.goal
    clean, answers = made["clean_predictions"], made["predictions"]
    counted = goal.eligible(labels, clean)
    classes = subject.dataset.number_of_classes
    told_apart = max(classes, 1 + int(max(clean.max(), answers.max())))  # a classifier may know more than the data have

    def success(found: np.ndarray | None) -> Record | None:
        return None if found is None else dataclasses.asdict(success_rate(goal, labels, clean, found))

    record = {
        "schema": SCHEMA,
        **head,
        "goal": subject.config.attack.goal,
        "target_class": subject.config.attack.target_class,
        "epsilon": subject.epsilon,
        "data": _data(subject),
        "generator": {"file": GENERATOR, "sha256": file_digest(request.run / GENERATOR)},
        "target": {
            "name": subject.classifier.name,
            "sha256": subject.classifier.digest,
            "weights_sha256": subject.classifier.weights,
        },
        "clean_accuracy": dataclasses.asdict(share(clean == labels)),
        "accuracy_under_attack": dataclasses.asdict(share(answers == labels)),
        "success": success(answers),
        "success_8_bit": success(made["predictions_8_bit"]),
        "success_read_back": {ARCHIVE: success(saved["archive"]), "png": success(saved.get("png"))},
        "png_largest_change_levels": int(saved["png_levels"]) if "png_levels" in saved else None,
        "distortion": dataclasses.asdict(distortion(subject.images, made["adversarial"], counted)),
        "by_class": [
            {"class": number, **dataclasses.asdict(rate)}
            for number, rate in enumerate(success_by_class(goal, labels, clean, answers, classes))
        ],
        "confusion_clean": count_matrix(labels, clean, told_apart).tolist(),
        "confusion_under_attack": count_matrix(labels, answers, told_apart).tolist(),
        "source_by_answer": count_matrix(labels[counted], answers[counted], told_apart).tolist(),
        "seconds_per_1000_images": float(made["seconds"]) * 1000 / len(labels),
        "attacks": results.compared,
        "worst_case": dataclasses.asdict(results.worst_case),
        "seed": SEED,
        "transfer": results.transfer,
        "guards": [dataclasses.asdict(finding) for finding in findings],
        "curve": [dataclasses.asdict(point) for point in results.curve],
        "retrained": retrained,
        "full_range": None if results.full_range is None else dataclasses.asdict(results.full_range),
        "files": files,
    }
    if subject.black_box is not None:
        record |= {
            "queries": queries_record(subject.black_box, len(labels)),
            "queries_curve": None if results.square is None else {"name": "Square", "points": results.square},
            "distilled": None if results.gap is None else dataclasses.asdict(results.gap),
            "attacks_left_out": results.left_out,
        }
    return record


def _data(subject: Subject) -> Record:
    scored = hashlib.sha256(subject.test.images.tobytes())
    scored.update(subject.test.labels.tobytes())
    return {
        "dataset": subject.config.data.dataset,
        "sha256": subject.dataset.digest,
        "split": "test",
        "images": len(subject.test),
        "of": len(subject.dataset.test),
        "all_test_images": len(subject.test) == len(subject.dataset.test),
        "images_sha256": scored.hexdigest(),
    }
