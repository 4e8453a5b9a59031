"""One evaluation of a finished run, from its folder to figures: ``assess`` serves the command line and the tests."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import advgan
from advgan import report
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.config import Config
from advgan.data.batches import slices
from advgan.data.datasets import Dataset, Split, load_dataset, scaled
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation import guards
from advgan.evaluation.baselines import Baseline, baselines, pgd_attack, run_baseline
from advgan.evaluation.breakdown import count_matrix, distortion, success_by_class, success_rate
from advgan.evaluation.card import report_card
from advgan.evaluation.classifiers import Classifier, file_digest, load_classifier, network_classifier
from advgan.evaluation.curve import Point, curve_answers, epsilons_of_curve, success_curve
from advgan.evaluation.guards import Finding
from advgan.evaluation.page import page
from advgan.evaluation.plots import (
    as_png,
    confusion,
    one_of_each_class,
    sample_grid,
    save_figure,
    success_against_epsilon,
    training_curves,
)
from advgan.evaluation.scores import Rate
from advgan.evaluation.sheets import MOST_CHANNELS, challenge_array, read_sheets, write_sheets
from advgan.evaluation.stages import Advance, Arrays, Stages
from advgan.files import read_json, sole_user, write_json, write_text, write_whole
from advgan.goals import Goal, Untargeted
from advgan.perturbation import measure, to_8_bits
from advgan.runs import CONFIG, GENERATOR, TARGET, load_network, load_run_config
from advgan.training import runtime
from advgan.training.progress import Progress
from advgan.training.records import read_rows

Say = Callable[[str], None]
Record = dict[str, Any]
SCHEMA = 1
"""The version of ``evaluation.json``; docs/evaluation.md describes it."""
SUMMARY, PROCESSES, EVALUATION = "summary.json", "processes.json", "evaluation.json"
ARCHIVE, CHALLENGE, GRID, CURVE = "adversarial.npz", "mnist_challenge.npy", "grid.png", "success_against_epsilon.png"
PAGE = "report.html"
SEED = 0
"""Of the baselines' randomness."""
BATCH_SIZE = 500


@dataclass(frozen=True)
class Request:
    """What to evaluate, and where the results go."""

    run: Path
    """The folder of a finished run."""
    output: Path | None = None
    """Where the results go; ``<run>/evaluation`` by default, ``<run>/evaluation-<target>`` for another target."""
    images: int | None = None
    """The first so many of the run's test images; all by default."""
    restarts: int = 1
    """How often PGD starts."""
    optimized_images: int = 100
    """How many images the optimization attack, which is slow, is tried on."""
    target: str | None = None
    """The classifier under attack, as ``load_classifier`` takes it; the run's own by default."""
    transfer: tuple[str, ...] = ()
    """Further classifiers that the same images are shown to."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.output is not None:
            return self.output
        if self.target is None:
            return self.run / "evaluation"
        return self.run / f"evaluation-{re.sub(r'[^0-9A-Za-z_]+', '-', Path(self.target).stem).strip('-')}"


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run's generator against a classifier, on test images."""

    config: Config
    dataset: Dataset
    test: Split
    images: np.ndarray
    """The test images as float32 in [0, 1]."""
    classifier: Classifier
    generator: Any
    others: list[Classifier]
    """Further classifiers, which the generator's images are shown to."""

    @property
    def goal(self) -> Goal:
        """What counts as success."""
        return self.config.attack.objective

    @property
    def epsilon(self) -> float:
        """The largest change of a pixel."""
        return self.config.attack.epsilon


def latest_finished_run(runs: Path) -> Path:
    """The newest finished run below ``runs``, such as ``checkpoints/mnist``.

    Raises:
        AdvGANError: there is none.
    """
    found = [path.parent for path in runs.glob(f"*/{SUMMARY}") if (path.parent / CONFIG).is_file()]
    if not found:
        raise AdvGANError(f"there is no finished run in {runs}; train one with: python -m advgan.train --config FILE")
    return max(found, key=lambda run: (run / SUMMARY).stat().st_mtime)


def assess(request: Request, say: Say = print, command: str = "") -> Record:
    """Evaluate a finished run, or go on where an evaluation of it stopped.

    Args:
        request: what to evaluate.
        say: receives the lines that tell how it goes; progress goes to stderr.
        command: what was typed, for the record.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        AdvGANError: there is nothing that can be evaluated, or the evaluation would be wrong; nothing is written then.
    """
    config, dataset = _finished(request.run)
    if request.images is not None and not 1 <= request.images <= len(dataset.test):
        raise ConfigurationError(
            "--images", request.images, f"the run has {len(dataset.test)} test images (allowed: 1 to that)"
        )
    _check_writable(request.folder)
    environment = runtime.prepare(config.training)  # before the first network starts the device
    subject = _subject(request, config, dataset)
    findings = _check_subject(subject)
    request.folder.mkdir(parents=True, exist_ok=True)
    with sole_user(request.folder):
        stages = _stages(request, subject, environment)
        model = report.threat_model(config, request.target is not None)
        for line in report.evaluation_introduction(model, request.run, subject.classifier.name, len(subject.test)):
            say(line)
        (request.folder / EVALUATION).unlink(missing_ok=True)  # written last: where it is, the folder is whole
        record = _record(request, subject, stages, environment, command, findings)
        _write_page(request, record)
        write_json(request.folder / EVALUATION, record)
        if stages.found:
            say(f"Found already  {', '.join(stages.found)}")
    for line in report.evaluation_results(record, request.folder):
        say(line)
    return record


def _finished(run: Path) -> tuple[Config, Dataset]:
    """A finished run's configuration and data, which must be those it was trained on."""
    config = load_run_config(run)
    for name in (SUMMARY, GENERATOR, TARGET):
        if not (run / name).is_file():
            raise AdvGANError(
                f"{run} is not finished: it has no {name}; go on with: python -m advgan.train --resume {run}"
            )
    read_json(run / SUMMARY)
    dataset = load_dataset(config.data)
    processes = read_json(run / PROCESSES) if (run / PROCESSES).exists() else []
    if processes and processes[0]["data_sha256"] != dataset.digest:
        raise AdvGANError(f"{config.data.dataset} has changed since {run} was trained on it; put that file back")
    return config, dataset


def _check_writable(folder: Path) -> None:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "--output", str(folder), f"cannot be written ({existing} is not a writable folder); choose another"
        )


def _subject(request: Request, config: Config, dataset: Dataset) -> Subject:
    remedy = "evaluate a run that was written with the Keras that is installed here"
    generator = load_network(request.run / GENERATOR, remedy)
    if tuple(generator.input_shape[1:]) != dataset.image_shape:
        raise AdvGANError(
            f"{request.run / GENERATOR} takes images of {tuple(generator.input_shape[1:])}, the data's are "
            f"{dataset.image_shape}; put the run's own generator back"
        )
    shape = dataset.image_shape
    if request.target is None:
        classifier = network_classifier(request.run / TARGET, shape, remedy)
    else:
        classifier = load_classifier(request.target, shape)
    others = [load_classifier(given, shape) for given in request.transfer]
    test = dataset.test.first(request.images)
    return Subject(config, dataset, test, scaled(test.images), classifier, generator, others)


def _stages(request: Request, subject: Subject, environment: runtime.Environment) -> Stages:
    determinants = {
        "schema": SCHEMA,
        "advgan": advgan.__version__,
        "commit": runtime.commit(),
        "environment": environment,
        "data": subject.dataset.digest,
        "images": len(subject.test),
        "test_images": subject.config.data.test_images,
        "attack": subject.config.attack.model_dump(mode="json"),
        "generator": file_digest(request.run / GENERATOR),
        "target": subject.classifier.digest,
    }

    @contextmanager
    def watch(name: str, total: int) -> Iterator[Advance]:
        progress = Progress(name, total, unit="image")
        try:
            yield lambda images: progress.advance(images, "")
        finally:
            progress.close()

    return Stages(request.folder / "stages", determinants, watch)


def _check_subject(subject: Subject) -> list[Finding]:
    """The guards that need no attack of their own: refuse before anything is written, or mark."""
    images, labels = subject.images, subject.test.labels
    few = images[: guards.PROBE_IMAGES]
    attacked = AdvGANAttack(subject.generator, None, subject.config.attack)(few)
    guards.check_bounds("advgan", *_extremes(few, attacked.projected), subject.epsilon)
    classes = subject.dataset.number_of_classes
    for other in subject.others:
        guards.check_answers(other, images, classes, gradients_asked=False)
    return [
        *guards.check_answers(subject.classifier, images, classes),
        guards.check_gradients(subject.classifier, images, labels),
        guards.check_held_out(subject.test, [subject.dataset.training, subject.dataset.validation]),
    ]


def _extremes(images: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each image's largest change, lowest and highest pixel."""
    flat = adversarial.reshape(len(adversarial), -1)
    return measure(images, adversarial).linf, flat.min(axis=1), flat.max(axis=1)


def _record(
    request: Request,
    subject: Subject,
    stages: Stages,
    environment: runtime.Environment,
    command: str,
    findings: list[Finding],
) -> Record:
    made = _attack(subject, stages)
    within = guards.check_bounds("advgan", *_extremes(subject.images, made["adversarial"]), subject.epsilon)
    adversarial = made["adversarial"]
    clean, answers = made["clean_predictions"], made["predictions"]
    labels, goal = subject.test.labels, subject.goal
    counted = goal.eligible(labels, clean)
    files = _write_files(request.folder, subject, made)
    saved = _read_back(request.folder, subject, stages, files)
    classes = subject.dataset.number_of_classes
    told_apart = max(classes, 1 + int(max(clean.max(), answers.max())))  # a classifier may know more than the data have
    compared, worst, bounded = _baselines(request, subject, stages, made)
    curve = _curve(subject, stages, made)
    full_range = _full_range(subject, stages)
    compared_findings = _check_results(subject, compared, success_rate(goal, labels, clean, answers), full_range, curve)
    findings = [*findings, within, *bounded, *compared_findings]
    others = [(attack["name"], Rate(**attack["success"])) for attack in compared]
    save_figure(success_against_epsilon(curve, subject.epsilon, others), request.folder / CURVE)
    files["curve"] = CURVE

    def success(found: np.ndarray | None) -> Record | None:
        return None if found is None else dataclasses.asdict(success_rate(goal, labels, clean, found))

    record = {
        "schema": SCHEMA,
        "run": str(request.run),
        "command": command,
        "commit": runtime.commit(),
        "environment": environment,
        "threat_model": report.threat_model(subject.config, request.target is not None),
        "goal": subject.config.attack.goal,
        "target_class": subject.config.attack.target_class,
        "epsilon": subject.epsilon,
        "data": {
            "dataset": subject.config.data.dataset,
            "sha256": subject.dataset.digest,
            "split": "test",
            "images": len(subject.test),
            "of": len(subject.dataset.test),
            "all_test_images": len(subject.test) == len(subject.dataset.test),
        },
        "generator": {"file": GENERATOR, "sha256": file_digest(request.run / GENERATOR)},
        "target": {"name": subject.classifier.name, "sha256": subject.classifier.digest},
        "clean_accuracy": dataclasses.asdict(_share(clean == labels)),
        "accuracy_under_attack": dataclasses.asdict(_share(answers == labels)),
        "success": success(answers),
        "success_8_bit": success(made["predictions_8_bit"]),
        "success_read_back": {
            ARCHIVE: success(saved["archive"]),
            "png": success(saved.get("png")),
        },
        "png_largest_change_levels": int(saved["png_levels"]) if "png_levels" in saved else None,
        "distortion": dataclasses.asdict(distortion(subject.images, adversarial, counted)),
        "by_class": [
            {"class": number, **dataclasses.asdict(rate)}
            for number, rate in enumerate(success_by_class(goal, labels, clean, answers, classes))
        ],
        "confusion_clean": count_matrix(labels, clean, told_apart).tolist(),
        "confusion_under_attack": count_matrix(labels, answers, told_apart).tolist(),
        "source_by_answer": count_matrix(labels[counted], answers[counted], told_apart).tolist(),
        "seconds_per_1000_images": float(made["seconds"]) * 1000 / len(labels),
        "attacks": compared,
        "worst_case": dataclasses.asdict(worst),
        "seed": SEED,
        "transfer": _transfer(subject, stages, made),
        "guards": [dataclasses.asdict(finding) for finding in findings],
        "curve": [dataclasses.asdict(point) for point in curve],
        "full_range": None if full_range is None else dataclasses.asdict(full_range),
        "files": files,
    }
    record["card"] = [dataclasses.asdict(line) for line in report_card(record)]
    return record


def _write_page(request: Request, record: Record) -> None:
    """Write ``report.html``, its figures inside."""
    folder, epsilon = request.folder, record["epsilon"]
    figures = []
    if record["files"]["grid"]:
        caption = f"One test image of each class: clean, the signed change (scale: {epsilon:.3g}), adversarial."
        figures.append(("Images", caption, (folder / GRID).read_bytes()))
    caption = f"The trained perturbation scaled from 0 to 1; trained at {epsilon:.3g}. Other attacks at that epsilon."
    figures.append(("Success against epsilon", caption, (folder / CURVE).read_bytes()))
    matrices = confusion(np.array(record["confusion_clean"]), np.array(record["confusion_under_attack"]))
    figures.append(("Answers before and under attack", "Images by true class and answer.", as_png(matrices)))
    rows = read_rows(request.run / "metrics.jsonl")
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("steps", "epoch")}
    if kinds["steps"]:
        curves = training_curves(kinds["steps"], kinds["epoch"])
        figures.append(("Training", "Losses, success and what the discriminator gets right.", as_png(curves)))
    write_text(folder / PAGE, page(record, figures))


def _share(hits: np.ndarray) -> Rate:
    return Rate.of(int(hits.sum()), len(hits))


def _attack(subject: Subject, stages: Stages) -> Arrays:
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
                "accuracy_under_attack": dataclasses.asdict(_share(answers == classes)),
                "largest_linf": float(result["linf"].max()),
                "seconds_per_1000_images": float(result["seconds"]) * 1000 / total,
            }
        )
    counted = goal.eligible(labels, clean)
    return rows, _share(fooled[counted]), findings


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
                "clean_accuracy": dataclasses.asdict(_share(clean == labels)),
                "accuracy_under_attack": dataclasses.asdict(_share(answers == labels)),
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
    return _share(result["predictions"] == labels)


def _check_results(
    subject: Subject, compared: list[Record], success: Rate, full_range: Rate | None, curve: list[Point]
) -> list[Finding]:
    """The guards that compare attacks with each other."""

    def best(*kinds: str) -> Rate | None:
        rates = [Rate(**attack["success"]) for attack in compared if attack["kind"] in kinds]
        return max(rates, key=lambda rate: rate.rate, default=None)

    return [
        guards.check_iterative(best("single step"), best("iterative")),
        guards.check_white_box(best("noise"), best("single step", "iterative")),
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


def _write_files(folder: Path, subject: Subject, made: Arrays) -> Record:
    """Write the images in every form that holds them; where one does not, say why."""
    labels, goal, adversarial = subject.test.labels, subject.goal, made["adversarial"]
    counted = goal.eligible(labels, made["clean_predictions"])
    arrays = {
        "x": subject.images,
        "x_adv": adversarial,
        "y": labels,
        "clean_predictions": made["clean_predictions"],
        "predictions": made["predictions"],
        "counted": counted,
        "success": counted & goal.reached(labels, made["predictions"]),
    }
    write_whole(folder / ARCHIVE, lambda beside: np.savez(beside, **arrays))
    files: Record = {"archive": ARCHIVE, "png": [], "grid": None, CHALLENGE: None, "left_out": {}}

    channels = subject.images.shape[-1]
    if channels <= MOST_CHANNELS:
        whole = to_8_bits(subject.images, adversarial, subject.epsilon)
        files["png"] = [str(file.relative_to(folder)) for file in write_sheets(whole, folder / "images")]
    else:
        files["left_out"]["png"] = f"a PNG holds at most {MOST_CHANNELS} channels, the images have {channels}"

    try:
        if subject.config.data.dataset != "mnist":
            raise AdvGANError("the challenge is on MNIST, the run is not")
        submission = challenge_array(subject.images, adversarial)
        write_whole(folder / CHALLENGE, lambda beside: np.save(beside, submission))
        files[CHALLENGE] = CHALLENGE
    except AdvGANError as reason:
        (folder / CHALLENGE).unlink(missing_ok=True)
        files["left_out"][CHALLENGE] = str(reason)

    attack = AdvGANAttack(subject.generator, subject.classifier.scores, subject.config.attack)
    sample = one_of_each_class(subject.test, made["clean_predictions"])
    if len(sample):
        title = f"Test images, epsilon {subject.epsilon:.3g}, {goal}"
        save_figure(sample_grid(attack, sample, title), folder / GRID)
        files["grid"] = GRID
    return files


def _read_back(folder: Path, subject: Subject, stages: Stages, files: Record) -> Arrays:
    """The stage ``read-back``: the target's answers on the images as they are in the files."""
    shape = subject.dataset.image_shape
    sheets = [folder / name for name in files["png"]]
    settings = {name: file_digest(folder / name) for name in [ARCHIVE, *files["png"]]}

    def work(advance: Advance) -> Arrays:
        with np.load(folder / ARCHIVE, allow_pickle=False) as archive:
            answers = {"archive": subject.classifier.answers(archive["x_adv"])}
        advance(len(subject.test))
        if sheets:
            whole = read_sheets(sheets, len(subject.test), shape)
            answers["png"] = subject.classifier.answers(scaled(whole))
            clean = np.rint(subject.images.astype(np.float64) * 255)
            answers["png_levels"] = np.abs(whole - clean).max()
        return answers

    return stages.result("read-back", settings, len(subject.test), work)
