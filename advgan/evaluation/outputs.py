"""The files of an evaluation beside its record: the images in every form that holds them, the pictures, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.attacks.baselines import Advance, Arrays
from advgan.data.batches import images_at_once, slices
from advgan.data.datasets import scaled
from advgan.errors import AdvGANError
from advgan.evaluation.page import page
from advgan.evaluation.plots import (
    as_png,
    confusion,
    one_of_each_class,
    queries_of_run,
    sample_grid,
    save_figure,
    success_against_epsilon,
    training_curves,
)
from advgan.evaluation.queries import validated
from advgan.evaluation.sheets import MOST_CHANNELS, challenge_array, read_sheets, write_sheets
from advgan.evaluation.stages import Stages
from advgan.evaluation.subject import Subject
from advgan.files import file_digest, write_text, write_whole
from advgan.perturbation import to_8_bits

Record = dict[str, Any]
ARCHIVE, CHALLENGE, GRID, CURVE = "adversarial.npz", "mnist_challenge.npy", "grid.png", "success_against_epsilon.png"
PAGE, QUERIES = "report.html", "queries.png"


def write_images(folder: Path, subject: Subject, made: Arrays) -> Record:
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


def read_back(folder: Path, subject: Subject, stages: Stages, files: Record) -> Arrays:
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
            answers["png"], levels = np.empty(len(whole), np.int32), 0
            for part in slices(len(whole), images_at_once(shape)):
                answers["png"][part] = subject.classifier.answers(scaled(whole[part]))
                clean = to_8_bits(subject.images[part], subject.images[part], 0)
                levels = max(levels, int(np.abs(whole[part].astype(np.int16) - clean).max()))
            answers["png_levels"] = np.array(levels)
        return answers

    return stages.result("read-back", settings, len(subject.test), work)


def draw_curve(folder: Path, record: Record) -> None:
    """Draw success against epsilon."""
    others = [(attack["name"], attack["success"]) for attack in record["attacks"]]
    figure = success_against_epsilon(record["curve"], record["epsilon"], others, record["retrained"])
    save_figure(figure, folder / CURVE)


def draw_queries(folder: Path, record: Record, rows: list[Record]) -> None:
    """Draw success against queries where the classifier is a black box, and say so in the record.

    Args:
        folder: of the results.
        record: the content of ``evaluation.json``; ``files`` is added to.
        rows: of the run's ``metrics.jsonl``.
    """
    if "queries" not in record:
        return
    images = record["data"]["images"]
    attacked = next((attack["images"] for attack in record["attacks"] if attack["name"] == "square"), 0)
    points = validated(rows, images)
    figure = queries_of_run(record["queries"], record["success"], record["queries_curve"], points, images, attacked)
    save_figure(figure, folder / QUERIES)
    record["files"]["queries"] = QUERIES


def write_page(folder: Path, record: Record, rows: list[dict[str, Any]]) -> None:
    """Write ``report.html``, its figures inside.

    Args:
        folder: which holds the pictures already.
        record: the content of ``evaluation.json``.
        rows: of the run's ``metrics.jsonl``.
    """
    epsilon = record["epsilon"]
    figures = []
    if record["files"]["grid"]:
        caption = f"One test image of each class: clean, the signed change (scale: {epsilon:.3g}), adversarial."
        figures.append(("Images", caption, (folder / GRID).read_bytes()))
    caption = f"The trained perturbation scaled from 0 to 1; trained at {epsilon:.3g}. Other attacks at that epsilon."
    if record["retrained"]:
        caption += " Squares: generators trained at their own epsilon, against the run's own target."
    figures.append(("Success against epsilon", caption, (folder / CURVE).read_bytes()))
    if "queries" in record:
        caption = (
            "AdvGAN asks while it is trained and then attacks without asking: its queries are divided by the images "
            "scored, so each further image would move its point to the left. Square searches for each image anew; its "
            "curve is the share of its images that were fooled by then. Asking about an image twice counts once."
        )
        figures.append(("Success against queries", caption, (folder / QUERIES).read_bytes()))
    matrices = confusion(np.array(record["confusion_clean"]), np.array(record["confusion_under_attack"]))
    figures.append(("Answers before and under attack", "Images by true class and answer.", as_png(matrices)))
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("steps", "epoch")}
    if kinds["steps"]:
        curves = training_curves(kinds["steps"], kinds["epoch"])
        figures.append(("Training", "Losses, success and what the discriminator gets right.", as_png(curves)))
    write_text(folder / PAGE, page(record, figures))
