"""The adversarial images of an evaluation as files: ``adversarial.npz``, PNG sheets, the MadryLab array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from advgan.attacks.baselines import Advance, Arrays
from advgan.data.batches import images_at_once, slices
from advgan.data.datasets import scaled
from advgan.errors import AdvGANError
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.image_sheets import MOST_CHANNELS, challenge_array, read_sheets, write_sheets
from advgan.evaluation.subject import Subject
from advgan.files import file_digest, write_whole
from advgan.perturbation import to_8_bits
from advgan.records.evaluation import ARCHIVE, CHALLENGE, EvaluationFiles


def write_images(folder: Path, subject: Subject, made: Arrays) -> EvaluationFiles:
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
    write_whole(folder / ARCHIVE, lambda temporary: np.savez(temporary, **arrays))
    sheets: list[str] = []
    challenge: str | None = None
    left_out: dict[str, str] = {}

    channels = subject.images.shape[-1]
    if channels <= MOST_CHANNELS:
        whole = to_8_bits(subject.images, adversarial, subject.epsilon)
        sheets = [str(file.relative_to(folder)) for file in write_sheets(whole, folder / "images")]
    else:
        left_out["png"] = f"a PNG holds at most {MOST_CHANNELS} channels, the images have {channels}"

    try:
        if subject.config.data.dataset != "mnist":
            raise AdvGANError("the challenge is on MNIST, the run is not")
        submission = challenge_array(subject.images, adversarial)
        write_whole(folder / CHALLENGE, lambda temporary: np.save(temporary, submission))
        challenge = CHALLENGE
    except AdvGANError as reason:
        (folder / CHALLENGE).unlink(missing_ok=True)
        left_out[CHALLENGE] = str(reason)
    return EvaluationFiles(archive=ARCHIVE, png=tuple(sheets), grid=None, challenge=challenge, left_out=left_out)


def read_back(folder: Path, subject: Subject, stages: ResultCache, files: EvaluationFiles) -> Arrays:
    """The stage ``read-back``: the target's answers on the images as they are in the files."""
    shape = subject.dataset.image_shape
    sheets = [folder / name for name in files.png]
    settings = {name: file_digest(folder / name) for name in [ARCHIVE, *files.png]}

    def work(advance: Advance) -> Arrays:
        with np.load(folder / ARCHIVE, allow_pickle=False) as archive:
            answers = {"archive": subject.classifier.predict(archive["x_adv"])}
        advance(len(subject.test))
        if sheets:
            whole = read_sheets(sheets, len(subject.test), shape)
            answers["png"], levels = np.empty(len(whole), np.int32), 0
            for part in slices(len(whole), images_at_once(shape)):
                answers["png"][part] = subject.classifier.predict(scaled(whole[part]))
                clean = to_8_bits(subject.images[part], subject.images[part], 0)
                levels = max(levels, int(np.abs(whole[part].astype(np.int16) - clean).max()))
            answers["png_levels"] = np.array(levels)
        return answers

    return stages.result("read-back", settings, len(subject.test), work, whole=True)
