"""A finished run's attack on images in files: ``attack_files`` serves the command line, the tests and notebooks.

Images are read, attacked and written a batch at a time. After each batch its results go into a hidden file, so the same
call continues where a process was killed, and every byte of the output is the same then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

import advgan
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.checks import PROBE_IMAGES, check_accuracy, check_answers
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.pixel_search import with_found_pixels
from advgan.classifiers.pixels import UNSCALED
from advgan.classifiers.run_target import has_target, kept_target, run_target
from advgan.classifiers.source import AS_IT_IS
from advgan.config.settings import Config, TargetSettings
from advgan.data.batches import images_at_once, slices
from advgan.data.datasets import scaled
from advgan.data.image_source import ImageSource, Labels
from advgan.data.loading import load_dataset
from advgan.data.pictures import Shape, printable, shape_text
from advgan.environment import Environment, code_commit, prepare_environment
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.loading import led_towards
from advgan.experiments.attack_folder import PICTURE, RECORD, TABLE, AttackFolder
from advgan.experiments.threat_models import threat_model_of
from advgan.files import check_writable, digest_of, file_digest, locked
from advgan.metrics import Rate
from advgan.networks.keras_file import load_network
from advgan.perturbation import FLOAT_TOLERANCE, measure, to_8_bits
from advgan.progress import Progress
from advgan.records.attack import (
    AttackClassifier,
    AttackFiles,
    AttackOptions,
    BegunAttack,
    FinishedAttack,
    LeftOutImage,
    Row,
)
from advgan.records.finding import Finding
from advgan.records.pixel_search import PixelSearch
from advgan.records.summary import Summary
from advgan.reports.image_grid import rows_grid
from advgan.reports.plots import save_figure
from advgan.reports.terminal import pixel_lines
from advgan.run_folder import RUN_OF_THIS_KERAS, RunFolder, load_run_config

logger = logging.getLogger(__name__)
MOST_SHOWN = 16
"""Images in ``attack.png``."""


@dataclass(frozen=True)
class AttackRequest:
    """What to attack, with what, and where the output goes."""

    run: Path
    """The folder of a finished run."""
    images: ImageSource
    """As ``open_images`` makes it."""
    output: Path
    """A folder, which need not be there; not the one that holds the images."""
    target: str | None = None
    """The classifier that is shown the images, as ``load_classifier`` takes it; the run's own by default."""
    reading: TargetSettings = AS_IT_IS
    """How ``target`` is to be read."""
    to: str | None = None
    """The class that is wanted, by number or name, where the run's generator is conditioned on it."""
    resize: bool = False
    """Whether pictures of another size, and coloured ones for a grey run, are converted."""
    overwrite: bool = False
    """Whether the output of another attack is replaced."""


class _Attacker(NamedTuple):
    config: Config
    attack: AdvGANAttack
    classifier: Classifier | None
    other_target: bool
    search: PixelSearch | None
    """How the pixels were found that the classifier takes, where they were not stated."""

    @property
    def shape(self) -> Shape:
        return self.attack.image_shape


def attack_files(request: AttackRequest, command: str = "") -> FinishedAttack:
    """Attack images in files, or continue where a call with the same request was stopped.

    Args:
        request: what to attack.
        command: what was typed, for the record.

    Returns:
        What ``attack.json`` holds.

    Raises:
        AdvGANError: the run, the images, or the output folder cannot be used; nothing is written then.
        OSError: the output cannot be written; what is done is kept.
    """
    _check_output(request)
    attacker, environment = _load(request)
    images = request.images
    progress = Progress("checking", len(images), unit="image", rate=True)
    try:
        content = images.check(attacker.shape, request.resize, lambda count: progress.advance(count, ""))
    finally:
        progress.close()
    few = images.read(slice(0, min(len(images), PROBE_IMAGES)), attacker.shape, request.resize).images
    if attacker.classifier is not None and len(few):
        check_answers(attacker.classifier, scaled(few), classes=2, white_box=False)
    labels = None
    if attacker.classifier is not None:
        labels = images.labels(attacker.classifier.number_of_classes, _class_names(request.run))
    head = _head(request, attacker, labels, content, environment, command)
    folder = AttackFolder(request.output, head.digest)
    folder.check(request.overwrite)
    logger.info("\n".join(_introduction(request, attacker, labels)))
    request.output.mkdir(parents=True, exist_ok=True)
    with locked(request.output):
        folder.check(request.overwrite)  # another process may have been here meanwhile
        if folder.complete() and not request.overwrite:
            record = folder.record()
            logger.info("%s is complete already.", request.output)
        else:
            _attack(request, attacker, labels, folder, head)
            record = _finish(request, attacker, labels, folder, head)
        images.clean(request.output)
        folder.forget()
    return record


def _class_names(run: Path) -> tuple[str, ...] | None:
    """The names of the classes of a run's data, where they have names."""
    summary = RunFolder(run).summary
    card = Summary.read(summary).data if summary.is_file() else None
    return None if card is None else card.class_names


def _check_output(request: AttackRequest) -> None:
    source, output = request.images.path.resolve(), request.output.resolve()
    if output.is_relative_to(source) or source.is_relative_to(output):
        problem = f"must not contain {request.images.path} or be inside it; choose another folder"
        raise ConfigurationError("--output", str(request.output), problem)
    check_writable("--output", request.output)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
        if not any(request.output.iterdir()):
            request.output.rmdir()  # nothing stays where the images turn out to be unusable
    except OSError as error:
        problem = f"cannot be made: {error.strerror}; choose another"
        raise ConfigurationError("--output", str(request.output), problem) from None


def _load(request: AttackRequest) -> tuple[_Attacker, Environment]:
    run = RunFolder(request.run)
    config = led_towards(load_run_config(request.run), run, request.to)
    environment = prepare_environment(config.training)  # before the first network starts the device
    kept = kept_target(config, run)
    run.require(run.generator, *([] if config.is_black_box or kept is None else [kept]))
    attack = AdvGANAttack(load_network(run.generator, RUN_OF_THIS_KERAS), None, config.attack)
    shape, other_target, classifier, search = attack.image_shape, False, None, None
    if request.target is not None:
        classifier = load_classifier(request.target, shape, request.reading)
        if request.reading.bounds_are_to_be_found:
            validation = load_dataset(config.data, config.images_of_black_box).validation
            classifier, search = with_found_pixels(classifier, validation)
        own = None if config.is_black_box else run_target(config, run, shape).digest
        other_target = classifier.digest != own
    elif has_target(config, run):
        classifier = run_target(config, run, shape)
    return _Attacker(config, attack, classifier, other_target, search), environment


def _head(
    request: AttackRequest,
    attacker: _Attacker,
    labels: Labels | None,
    content: str,
    environment: Environment,
    command: str,
) -> BegunAttack:
    """The part of ``attack.json`` that is known before the attack, its digest included."""
    classifier, generator = attacker.classifier, file_digest(RunFolder(request.run).generator)
    decisive = {
        "schema": BegunAttack.newest,
        "advgan": advgan.__version__,
        "attack": attacker.config.attack.model_dump(mode="json"),
        "generator": generator,
        "classifier": None if classifier is None else classifier.digest,
        **({} if classifier is None or classifier.pixels == UNSCALED else {"pixels": str(classifier.pixels)}),
        **({} if request.reading.output is None else {"output": request.reading.output}),
        "images": content,
        "resize": request.resize,
    }
    return BegunAttack(
        version=BegunAttack.newest,
        digest=digest_of(decisive),
        complete=False,
        run=str(request.run),
        input=str(request.images.path),
        command=command,
        commit=code_commit(),
        environment={**environment, "pillow": PIL.__version__},
        threat_model=threat_model_of(attacker.config).describe(attacker.other_target),
        goal=attacker.config.attack.goal,
        target_class=attacker.config.attack.goal_class,
        epsilon=attacker.attack.epsilon,
        generator_sha256=generator,
        classifier=None if classifier is None else AttackClassifier(name=classifier.name, sha256=classifier.digest),
        options=AttackOptions(resize=request.resize),
        labels=None if labels is None else labels.origin,
        class_names=None if labels is None else labels.names,
    )


def _introduction(request: AttackRequest, attacker: _Attacker, labels: Labels | None) -> list[str]:
    classifier, origin = attacker.classifier, "none" if labels is None else labels.origin
    if labels is not None and labels.names is not None:
        named = [f"{printable(name)} = {index}" for index, name in enumerate(labels.names)]
        origin += f": {', '.join(named[:10])}{', ...' if len(named) > 10 else ''}"
    return [
        f"Run            {request.run}",
        f"Threat model   {threat_model_of(attacker.config).describe(attacker.other_target)}",
        f"Classifier     {'none: the run has no file of one' if classifier is None else classifier.name}",
        f"Images         {request.images}, {'resized to' if request.resize else 'of'} {shape_text(attacker.shape)}",
        f"Labels         {origin}",
        *([] if attacker.search is None else pixel_lines(attacker.search)),
    ]


def _attack(
    request: AttackRequest, attacker: _Attacker, labels: Labels | None, folder: AttackFolder, head: BegunAttack
) -> None:
    """Attack all images that an earlier process has not."""
    images, count = request.images, len(request.images)
    done = folder.prepare(request.overwrite)
    head.write(request.output / RECORD)
    if not done:
        images.clean(request.output)  # what another attack left unfinished
    if not images.start(request.output):
        folder.forget()
        done = 0
    if done:
        logger.info("Continued      at image %s of %s", f"{done:,}", f"{count:,}")
    progress = Progress("attack", count, start=done, unit="image", rate=True)
    try:
        for part in slices(count, images_at_once(attacker.shape), done):
            folder.begin([images.output(index) for index in range(part.start, part.stop)])
            rows = _attack_batch(request, attacker, labels, part)
            folder.append(part.stop, rows)
            for row in rows:
                if row.problem:
                    logger.warning("left out: %s %s", printable(row.file), row.problem)
            progress.advance(part.stop - part.start, "")
    finally:
        progress.close()


def _attack_batch(request: AttackRequest, attacker: _Attacker, labels: Labels | None, part: slice) -> list[Row]:
    """Attack consecutive images, write them, read them back and count."""
    images, attack, classifier = request.images, attacker.attack, attacker.classifier
    batch = images.read(part, attacker.shape, request.resize)
    rows = {index: Row(images.name(index), "", problem=problem) for index, problem in batch.problems.items()}
    if batch.indices:
        clean = scaled(batch.images)
        made = attack.generate(clean)
        if batch.images.dtype == np.uint8:
            made = to_8_bits(clean, made, attack.epsilon)
        written = images.write(request.output, batch.indices, made)
        norms = measure(_unit(batch.images), _unit(written))
        if not np.array_equal(written, made):
            raise AdvGANError(f"{request.output}: the images read back differ from those written; check the disk")
        if norms.linf.max() > attack.epsilon + FLOAT_TOLERANCE:
            raise AdvGANError(f"a pixel changed by {norms.linf.max()}, more than epsilon: this is a bug of advgan")
        answers = [None if classifier is None else classifier.predict(scaled(shown)) for shown in (clean, written)]
        for place, index in enumerate(batch.indices):
            before, after = (None if answer is None else int(answer[place]) for answer in answers)
            label = before if labels is None else int(labels.indices[index])
            counts = before is not None and bool(attack.goal.eligible(label, before))
            success = counts and bool(attack.goal.reached(label, after))
            size = (float(norms.linf[place]), float(norms.l2[place]))
            rows[index] = Row(images.name(index), images.output(index), before, after, counts, success, *size)
    return [rows[index] for index in sorted(rows)]


def _unit(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as float64, so that a norm has no rounding error of float32."""
    return images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)


def _finish(
    request: AttackRequest, attacker: _Attacker, labels: Labels | None, folder: AttackFolder, head: BegunAttack
) -> FinishedAttack:
    """Write the array where there is one, the table, the picture and, last, the record."""
    names = None if labels is None else labels.names
    folder.write_table(names)
    attacked = counted = reached = right = 0
    largest = total = 0.0
    left_out: list[LeftOutImage] = []
    for index, row in enumerate(folder.rows()):
        if row.problem:
            left_out.append(LeftOutImage(file=row.file, problem=row.problem))
            continue
        attacked, counted, reached = attacked + 1, counted + row.counts, reached + row.success
        right += labels is not None and row.clean == labels.indices[index]
        largest = max(largest, row.linf)
        total += row.l2 if row.counts or attacker.classifier is None else 0.0
    measured = attacked if attacker.classifier is None else counted
    if attacked:
        request.images.finish(request.output)
        _draw(request, attacker, folder, names, attacked)
    record = FinishedAttack(
        **dict(head.model_copy(update={"complete": True})),
        images=attacked,
        left_out=tuple(left_out),
        success=None if attacker.classifier is None else Rate.of(reached, counted),
        success_counts=_what_counts(attacker, labels),
        checks=tuple(_judged(request, attacker, labels, left_out, right)),
        largest_linf=largest,
        mean_l2=total / measured if measured else 0.0,
        files=AttackFiles(table=TABLE, picture=PICTURE if attacked else None),
    )
    record.write(request.output / RECORD)
    return record


def _judged(
    request: AttackRequest, attacker: _Attacker, labels: Labels | None, left_out: list[LeftOutImage], right: int
) -> list[Finding]:
    """Whether the classifier does better than chance on the clean images, where their labels are known."""
    images, missing = request.images, {image.file for image in left_out}
    if labels is None or attacker.classifier is None or len(missing) == len(images):
        return []
    used = [index for index in range(len(images)) if images.name(index) not in missing]
    part = slice(used[0], min(len(images), used[0] + PROBE_IMAGES))
    few = images.read(part, attacker.shape, request.resize).images
    accuracy = Rate.of(int(right), len(used))
    return [check_accuracy(attacker.classifier.name, accuracy, labels.indices[used], few, stop=False)]


def _what_counts(attacker: _Attacker, labels: Labels | None) -> str:
    """Which images the success rate is over, and what success means, in words."""
    if attacker.classifier is None:
        return "the run has no classifier file, so nothing is counted; --target CLASSIFIER names one"
    target = attacker.config.attack.goal_class
    if labels is None:
        means = "the classifier's answer changed"
        if target is not None:
            means = f"an image that was not classified as class {target} now is"
        return f"no labels: success means that {means}"
    return "classified correctly when clean" if target is None else f"neither of class {target} nor classified as it"


def _draw(
    request: AttackRequest, attacker: _Attacker, folder: AttackFolder, names: tuple[str, ...] | None, attacked: int
) -> None:
    """Draw up to 16 of the images, spread evenly over all: clean, the change, adversarial."""
    images, epsilon = request.images, attacker.attack.epsilon
    wanted = set(np.linspace(0, attacked - 1, min(attacked, MOST_SHOWN)).round().astype(int).tolist())
    usable = (pair for pair in enumerate(folder.rows()) if not pair[1].problem)
    shown = [pair for place, pair in enumerate(usable) if place in wanted]
    parts = [images.read(slice(index, index + 1), attacker.shape, request.resize).images for index, _ in shown]
    adversarial = np.stack([images.read_back(request.output, index) for index, _ in shown])

    rows = [row for _, row in shown]
    clean, adversarial = _unit(np.concatenate(parts)), _unit(adversarial)
    save_figure(rows_grid(clean, adversarial, epsilon, attacker.attack.goal, rows, names), request.output / PICTURE)
