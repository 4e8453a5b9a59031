"""Training and caching of the target classifier.

A trained classifier is kept in a folder named by the digest of everything that determines it, so another run with the
same settings finds it and a run with others does not. Beside it lie the checkpoints of one whose training was stopped;
the next run that wants it goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan import replicas
from advgan.attacks.gradient_attacks import pgd, random_start
from advgan.classifiers.architectures import build_classifier
from advgan.config.settings import Config, OtherNetwork, TargetSettings
from advgan.data.augmentation import flipped_and_shifted
from advgan.data.batch_parts import by_parts, means_over, split_batch
from advgan.data.batches import epoch_batches, images_at_once, slices, steps_per_epoch
from advgan.data.datasets import AnySplit, Dataset, Split, scaled
from advgan.data.streams import batches_of
from advgan.environment import Environment, code_digest, parts_of
from advgan.errors import AdvGANError, Interrupted
from advgan.files import locked, read_json, whole_directory, write_json, write_whole
from advgan.networks.forward import forward, forward_in_parts
from advgan.networks.keras_file import load_network, weights_digest
from advgan.progress import Progress
from advgan.records.adversarial_training import TrainingEpoch
from advgan.records.record import checked
from advgan.training.adversarial_training import GENERATOR_DEFAULTS, Adversary, build_adversary
from advgan.training.checkpoints import Checkpoints
from advgan.training.interruption import stop_requests
from advgan.training.loop import Trainer, means, run_steps, several_steps
from advgan.training.optimizers import adam
from advgan.training.state import Stopwatch

keras = tf.keras
logger = logging.getLogger(__name__)
LOSS = "the target's loss"
ACCURACY = "accuracy on the images that the target learns"
DIVIDED_BY = {"validation_split", "split_seed", "image_size"}
TRAINED_BY = (
    "attacks/gradient_attacks.py",
    "classifiers/architectures.py",
    "classifiers/resnet.py",
    "networks/convolution.py",
    "networks/forward.py",
    "networks/input_gradients.py",
    "perturbation.py",
    "replicas.py",
    "training/adversarial_training.py",
    "training/classifier.py",
    "training/loop.py",
    "training/optimizers.py",
    "data/augmentation.py",
    "data/batch_parts.py",
    "data/batches.py",
)
"""The files that decide a target's weights: a target that other code trained is not found in the cache."""
WITH_A_GENERATOR = (
    "goals.py",
    "losses.py",
    "networks/discriminator.py",
    "networks/generator.py",
    "networks/normalization.py",
    "training/step.py",
)
"""Those that decide them too where a generator is trained along."""
PGD_IMAGES, PGD_STEPS, PGD_AT_ONCE = 1000, 20, 100
"""Of the validation that chooses the best epoch of an adversarial training: PGD with steps of epsilon / 8."""


@dataclass(frozen=True)
class Target:
    """A frozen classifier and where it came from."""

    model: Any
    digest: str
    seconds: float
    """Time its training took, whenever that was; with that of an ensemble's other networks."""
    cached: bool
    epochs: tuple[TrainingEpoch, ...] = ()
    """Of an adversarial training."""


def target_digest(config: Config, dataset: Dataset, environment: Environment) -> str:
    """The digest (16 hexadecimal digits) of everything that determines the target's weights, bit for bit."""
    settings = config.target.adversarial_training
    determinants = {
        "target": config.target.model_dump(mode="json", exclude={"file", "check_accuracy"}),
        "attack in training": settings.resolved,
        "generator in training": GENERATOR_DEFAULTS if settings.method == "advgan" else None,
        "seed": config.target_seed,
        "data": dataset.digest,
        "images": [len(dataset.training), len(dataset.validation)],
        "classes": dataset.number_of_classes,
        "split": [len(dataset.test), *config.data.model_dump(mode="json", include=DIVIDED_BY).values()],
        "environment": environment,
        "code": code_digest(*TRAINED_BY, *(WITH_A_GENERATOR if settings.method == "advgan" else ())),
    }
    return hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()[:16]


def other_target(config: Config, other: OtherNetwork) -> Config:
    """The settings of a run whose target is one of an ensemble's other networks."""
    target = TargetSettings(
        architecture=other.architecture, seed=other.seed, epochs=other.epochs, batch_size=config.target.batch_size
    )
    return config.model_copy(update={"target": target})


def load_or_train_target(config: Config, dataset: Dataset, environment: Environment, cache: Path) -> Target:
    """Load the target from the cache, or train it and put it there.

    Args:
        config: the run's settings; its ``target`` section and seed matter here.
        dataset: the target is trained on the training split only.
        environment: from ``prepare_environment``.
        cache: the folder of all targets.

    Raises:
        NonFiniteError: its loss is NaN or infinite.
        Interrupted: Ctrl-C or SIGTERM; the next call goes on.
        AdvGANError: the cached file is damaged.
    """
    digest = target_digest(config, dataset, environment)
    folder = cache / digest
    if (found := _cached(folder)) is not None:
        return found
    others = [
        load_or_train_target(other_target(config, other), dataset, environment, cache)
        for other in config.target.adversarial_training.others or ()
    ]
    writes = replicas.worker()[0] == 0
    with _alone(cache, digest) if writes else nullcontext():
        if (found := _cached(folder)) is not None:  # another process has trained it in the meantime
            return found
        if writes:
            shutil.rmtree(folder, ignore_errors=True)  # without its record it is not ours
        unfinished = cache / f"{digest}.training"
        networks = [other.model for other in others]
        trained = train_classifier(config, dataset, networks, Checkpoints(unfinished, 1, writes))
        epochs = trained.position.epochs
        seconds = trained.position.seconds + sum(other.seconds for other in others)
        settings = config.target.model_dump(mode="json")
        record = {"digest": digest, "seconds": seconds, "target": settings, "epochs": epochs}
        if writes:
            with whole_directory(folder) as temporary:
                write_whole(temporary / "target.keras", trained.chosen.save)
                write_json(temporary / "record.json", record)
            shutil.rmtree(unfinished)
    trained.chosen.trainable = False
    return Target(trained.chosen, digest, seconds, False, tuple(TrainingEpoch(**each) for each in epochs))


def _cached(folder: Path) -> Target | None:
    """A target that was trained before; None where the first machine sees none.

    Raises:
        AdvGANError: the file is damaged.
    """
    path = folder / "record.json"
    if not replicas.of_workers(path.exists())[0, 0]:
        return None
    record = read_json(path, "seconds")
    model = load_network(folder / "target.keras", f"delete the folder {folder} to train it again")
    epochs = tuple(checked(TrainingEpoch, path, epoch) for epoch in record.get("epochs", ()))
    return Target(model, folder.name, record["seconds"], True, epochs)


@contextmanager
def _alone(cache: Path, digest: str) -> Iterator[None]:
    """Wait until no other process trains the same target."""
    cache.mkdir(parents=True, exist_ok=True)
    name = f".{digest}.lock"
    with ExitStack() as held:
        try:
            held.enter_context(locked(cache, name))
        except AdvGANError:
            logger.info("Target         another process trains it; waiting for that")
            held.enter_context(locked(cache, name, waits=True))
        yield


@dataclass
class ClassifierPosition:
    """How far a classifier's training is. An epoch's number counts from 0."""

    step: int = 0
    epoch: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    """Over the steps of the current epoch so far."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """What those that are over came to, each a ``TrainingEpoch``."""

    @property
    def number(self) -> int:
        """Names the checkpoint."""
        return self.step


@dataclass
class ClassifierState:
    """All that the training of a classifier changes."""

    model: Any
    optimizer: Any
    adversary: Adversary | None = None
    """Makes what it learns; None where it learns clean images alone."""
    best: Any = None
    """A copy of the model after the best epoch so far; None where the last is kept."""
    position: ClassifierPosition = field(default_factory=ClassifierPosition)

    @property
    def chosen(self) -> Any:
        """The network that the training is for."""
        return self.model if self.best is None else self.best

    def checkpoint(self) -> Any:
        """What TensorFlow saves."""
        kept = {} if self.adversary is None else self.adversary.kept()
        best = {} if self.best is None else {"best": self.best}
        random = _random_state(self.model)
        return tf.train.Checkpoint(model=self.model, optimizer=self.optimizer, random=random, **best, **kept)


def _random_state(network: Any) -> list[Any]:
    """What its dropout draws from, which Keras leaves out of a checkpoint."""
    if hasattr(keras, "ops"):
        return [each.value for each in network.variables if not any(each is weight for weight in network.weights)]
    sources: list[Any] = [getattr(layer, "_random_generator", None) for layer in network.layers]
    return [source._generator for source in sources if getattr(source, "_generator", None) is not None]


def train_classifier(
    config: Config, dataset: Dataset, others: Sequence[Any] = (), checkpoints: Checkpoints | None = None
) -> ClassifierState:
    """Train a classifier by cross-entropy plus its weight decay, from its seed alone, or go on from a checkpoint.

    Args:
        config: the run's settings; its ``target`` section and seed matter here.
        dataset: trained on the training split; validation images choose the epoch of an adversarial training.
        others: the frozen networks of an ensemble.
        checkpoints: where its state goes; None where it is never stopped.

    Returns:
        Its end; ``chosen`` is the Keras model, from images in [0, 1] to logits.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    settings, seed, count = config.target, config.target_seed, len(dataset.training)
    of_epoch = steps_per_epoch(count, settings.batch_size)
    total = settings.epochs * of_epoch
    state = build_classifier_state(config, dataset, total, others)
    if checkpoints is not None and checkpoints.restore_latest(state):
        logger.info("Target         its training goes on at step %s of %s", state.position.step, total)
    replicas.check_same({"the target's checkpoint": (state.position.step, weights_digest(state.model))})
    validation = None
    if state.adversary is not None:
        validation = PgdValidation(state.model, dataset.validation, config)
    with closing(Progress("target", total, start=state.position.step)) as progress, stop_requests() as requested_here:

        def stop_requested() -> bool:  # of any machine; all ask at the same steps
            return checkpoints is not None and bool(replicas.of_workers(requested_here()).any())

        trainer = ClassifierTrainer(
            state, dataset.training, progress, settings.augmentation, seed, checkpoints, config.output.checkpoint_every
        )
        while state.position.epoch < settings.epochs:
            batches = epoch_batches(count, settings.batch_size, seed, state.position.epoch)
            trainer.train(batches[state.position.step - state.position.epoch * of_epoch :], stop_requested)
            trainer.close_epoch(of_epoch, validation, settings.epochs)
            if stop_requested():  # within the last steps of the epoch, or the validation
                raise Interrupted(
                    f"stopped after epoch {state.position.epoch} of the target's training; nothing is lost"
                )
    return state


def build_classifier_state(config: Config, dataset: Dataset, steps: int, others: Sequence[Any]) -> ClassifierState:
    """A classifier and what trains it, initialized from the seed alone.

    Args:
        config, dataset, others: as ``train_classifier`` takes them.
        steps: of the whole training.
    """
    settings, seed, shape = config.target, config.target_seed, dataset.image_shape
    if not hasattr(keras, "ops"):
        keras.backend.experimental.enable_tf_random_generator()  # dropout's state can then be saved
    keras.utils.set_random_seed(seed)
    model = build_classifier(shape, dataset.number_of_classes, settings)
    optimizer = adam(model, settings.learning_rate, settings.schedule, steps)
    of_replica = settings.batch_size // replicas.count()
    adversary = build_adversary(
        settings.adversarial_training, seed, shape, of_replica, steps // settings.epochs, others
    )
    best = None
    if adversary is not None and settings.adversarial_training.keep == "best":
        best = build_classifier(shape, dataset.number_of_classes, settings)
        best.set_weights(model.get_weights())
    return ClassifierState(model, optimizer, adversary, best)


class PgdValidation:
    """Accuracy under PGD on the first validation images, from the same random starts after every epoch.

    Args:
        model: the classifier in training.
        split: the validation images.
        config: the run's settings.
    """

    def __init__(self, model: Any, split: Split, config: Config) -> None:
        few = split.first(min(PGD_IMAGES, len(split)))
        self._images, self._labels, self._seed = scaled(few.images), few.labels, config.target_seed % 2**31
        epsilon = float(config.target.adversarial_training.epsilon or 0.0)
        answer = forward(model)

        @tf.function(autograph=False)
        def right(images: Any, labels: Any, number: Any) -> Any:
            seed = tf.stack([tf.constant(self._seed, tf.int32), number])

            def of_part(images: Any, labels: Any, start: Any) -> Any:
                attacked = pgd(answer, images, labels, epsilon, start=start, steps=PGD_STEPS, step_size=epsilon / 8)
                answers = [tf.argmax(answer(each), -1, tf.int32) for each in (images, attacked)]
                return tf.stack([each == labels for each in answers], 1)

            hits = by_parts(of_part, images, labels, random_start(images, epsilon, seed))
            return tf.math.count_nonzero(hits, 0)

        self._right = right

    def __call__(self) -> tuple[float, float]:
        """The present accuracy on clean images and under PGD, in [0, 1]; on several machines that of the first."""
        at_once = min(PGD_AT_ONCE, images_at_once(self._images.shape[1:]))
        parts = enumerate(slices(len(self._labels), at_once))
        right = sum(
            self._right(tf.constant(self._images[part]), tf.constant(self._labels[part]), tf.constant(number)).numpy()
            for number, part in parts
        )
        clean, attacked = replicas.of_workers(*np.asarray(right).tolist())[0] / len(self._labels)
        return float(clean), float(attacked)


class ClassifierTrainer(Trainer):
    """Trains a classifier on images and their labels, or on what an adversary makes of them.

    Args:
        state: the model, from images in [0, 1] to logits, its optimizer and its adversary; changed in place.
        images: the training images.
        progress: what the user sees.
        augmentation: a ``TargetSettings.augmentation``.
        seed: of what is drawn for it.
        checkpoints: where the state goes.
        checkpoint_every: steps between two checkpoints within an epoch of an adversarial training; one without an
            adversary takes seconds for an epoch, and is saved at its end.
    """

    setting_at_fault = "target.learning_rate"
    step_name = "step {} of the target's training"

    def __init__(
        self,
        state: ClassifierState,
        images: AnySplit,
        progress: Progress,
        augmentation: str = "none",
        seed: int = 0,
        checkpoints: Checkpoints | None = None,
        checkpoint_every: int = 100,
    ) -> None:
        self._state, self._progress, self._checkpoints = state, progress, checkpoints
        if checkpoints is not None and state.adversary is not None:
            self.checkpoint_every = checkpoint_every
        self._stopwatch = Stopwatch()
        batches = self._batches = batches_of(images)
        model, optimizer, adversary = state.model, state.optimizer, state.adversary
        answer = forward_in_parts(model)

        def of_images(images: Any, classes: Any) -> dict[str, Any]:
            parts = split_batch(images, classes, parts_of(images.shape[0]))
            scores = answer([part.images for part in parts], True)
            found = [
                {
                    LOSS: tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(part.labels, logits)),
                    ACCURACY: tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) == part.labels, tf.float32)),
                }
                for part, logits in zip(parts, scores, strict=True)
            ]
            return means_over(parts, found)

        def step(given: Any, number: Any) -> dict[str, Any]:
            batch, classes = batches.batch(given)
            if augmentation == "flip_and_shift":
                batch = flipped_and_shifted(batch, seed, number)
            learned = batch if adversary is None else adversary.attack(model, batch, classes, number)
            with tf.GradientTape() as tape:
                found = of_images(learned, classes)
                loss = found[LOSS]
                if adversary is not None and adversary.weight_of_clean:
                    weight = adversary.weight_of_clean
                    loss = weight * of_images(batch, classes)[LOSS] + (1 - weight) * loss
                loss += tf.add_n([*model.losses, tf.constant(0.0)])
            gradients = replicas.means_of(tape.gradient(loss, model.trainable_variables))
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return {LOSS: loss, ACCURACY: found[ACCURACY]}

        self._compiled_steps = several_steps(step)

    def train(self, batches: np.ndarray, stop_requested: Any = lambda: False) -> None:
        """An update on each batch of images with these indices.

        Raises:
            Interrupted: a stop was requested; a checkpoint was written.
        """
        self._batches.start(batches)
        if len(batches):
            run_steps(self, self._state.position.step + 1, batches, stop_requested)

    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Updates on the images with these indices."""
        values = self._compiled_steps(self._batches.take(batches), first)
        self._state.position.step = first + len(batches) - 1
        return values

    def report(self, rows: list[dict[str, float]]) -> None:
        """Add the values to the epoch's sums; show the last loss."""
        sums, values = self._state.position.epoch_sums, means(rows)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(rows)
        shown = f"loss {rows[-1][LOSS]:.3f}"
        if self._state.adversary is not None:
            shown += f"  accuracy under its own attack {values[ACCURACY]:.1%}"
        self._progress.advance(len(rows), shown)

    def save(self) -> None:
        """Write a checkpoint."""
        self._state.position.seconds += self._stopwatch.lap()
        if self._checkpoints is not None:
            self._checkpoints.save(self._state)

    def close_epoch(self, steps: int, validation: PgdValidation | None, epochs: int) -> None:
        """Measure what the epoch came to, keep the network if it is to be kept, and write a checkpoint.

        Args:
            steps: of the epoch.
            validation: of an adversarial training.
            epochs: of the whole training.
        """
        state, position = self._state, self._state.position
        averages = {name: total / steps for name, total in position.epoch_sums.items()}
        position.epoch += 1
        position.epoch_sums = {}
        if validation is not None:
            clean, attacked = validation()
            best = attacked > position.best_accuracy
            kept = best or state.best is None
            if best:
                if state.best is not None:
                    state.best.set_weights(state.model.get_weights())
                position.best_accuracy, position.best_epoch = attacked, position.epoch - 1
            position.seconds += self._stopwatch.lap()
            found = TrainingEpoch(
                epoch=position.epoch,
                loss=averages[LOSS],
                accuracy_in_training=averages[ACCURACY],
                accuracy_clean=clean,
                accuracy_pgd=attacked,
                kept=kept,
                seconds=position.seconds,
            )
            position.epochs = [*({**each, "kept": each["kept"] and not kept} for each in position.epochs)]
            position.epochs.append(found.model_dump(mode="json"))
            shown = f"{found}, the best so far" if best else found
            logger.info("Target         epoch %s/%s: %s", position.epoch, epochs, shown)
        self.save()
