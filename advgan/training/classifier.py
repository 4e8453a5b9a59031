"""Training and caching of the target classifier.

A trained classifier is kept in a folder named by the digest of everything that determines it, so another run with the
same settings finds it and a run with others does not. A killed training starts again from its seed: dropout's random
state is not part of a checkpoint, and a target takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan import replicas
from advgan.classifiers.architectures import build_classifier
from advgan.config.settings import Config
from advgan.data.augmentation import flipped_and_shifted
from advgan.data.batch_parts import means_over, split_batch
from advgan.data.batches import epoch_batches, steps_per_epoch
from advgan.data.datasets import AnySplit, Dataset
from advgan.data.streams import batches_of
from advgan.environment import Environment, code_digest, parts_of
from advgan.files import read_json, whole_directory, write_json, write_whole
from advgan.networks.forward import forward_in_parts
from advgan.networks.keras_file import load_network
from advgan.progress import Progress
from advgan.training.loop import Trainer, run_steps, several_steps
from advgan.training.optimizers import adam

keras = tf.keras
LOSS = "the target's loss"
DIVIDED_BY = {"validation_split", "split_seed", "image_size"}
TRAINED_BY = (
    "classifiers/architectures.py",
    "classifiers/resnet.py",
    "networks/forward.py",
    "networks/input_gradients.py",
    "replicas.py",
    "training/classifier.py",
    "training/loop.py",
    "training/optimizers.py",
    "data/augmentation.py",
    "data/batch_parts.py",
    "data/batches.py",
)
"""The files that decide a target's weights: a target that other code trained is not found in the cache."""


@dataclass(frozen=True)
class Target:
    """A frozen classifier and where it came from."""

    model: Any
    digest: str
    seconds: float
    """Time its training took, whenever that was."""
    cached: bool


def target_digest(config: Config, dataset: Dataset, environment: Environment) -> str:
    """The digest (16 hexadecimal digits) of everything that determines the target's weights, bit for bit."""
    determinants = {
        "target": config.target.model_dump(mode="json", exclude={"file", "check_accuracy"}),
        "seed": config.target_seed,
        "data": dataset.digest,
        "images": [len(dataset.training), len(dataset.validation)],
        "classes": dataset.number_of_classes,
        "split": [len(dataset.test), *config.data.model_dump(mode="json", include=DIVIDED_BY).values()],
        "environment": environment,
        "code": code_digest(*TRAINED_BY),
    }
    return hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()[:16]


def load_or_train_target(config: Config, dataset: Dataset, environment: Environment, cache: Path) -> Target:
    """Load the target from the cache, or train it and put it there.

    Args:
        config: the run's settings; its ``target`` section and seed matter here.
        dataset: the target sees the training split only.
        environment: from ``prepare_environment``.
        cache: the folder of all targets.

    Raises:
        NonFiniteError: its loss is NaN or infinite.
        AdvGANError: the cached file is damaged.
    """
    digest = target_digest(config, dataset, environment)
    folder = cache / digest
    if replicas.of_workers((folder / "record.json").exists())[0, 0]:
        seconds = read_json(folder / "record.json")["seconds"]
        model = load_network(folder / "target.keras", f"delete the folder {folder} to train it again")
        return Target(model, digest, seconds, cached=True)
    writes = replicas.worker()[0] == 0
    if writes:
        shutil.rmtree(folder, ignore_errors=True)  # without its record it is not ours
    start = time.monotonic()
    model = train_classifier(config, dataset)
    seconds = time.monotonic() - start
    record = {"digest": digest, "seconds": seconds, "target": config.target.model_dump(mode="json")}
    if writes:
        with whole_directory(folder) as temporary:
            write_whole(temporary / "target.keras", model.save)
            write_json(temporary / "record.json", record)
    model.trainable = False
    return Target(model, digest, seconds, cached=False)


def train_classifier(config: Config, dataset: Dataset) -> Any:
    """Train a classifier by cross-entropy plus its weight decay, from its seed alone.

    Returns:
        The Keras model, from images in [0, 1] to logits.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
    """
    settings, seed, count = config.target, config.target_seed, len(dataset.training)
    keras.utils.set_random_seed(seed)
    model = build_classifier(dataset.image_shape, dataset.number_of_classes, settings)
    total = settings.epochs * steps_per_epoch(count, settings.batch_size)
    optimizer = adam(model, settings.learning_rate, settings.schedule, total)
    epochs = [epoch_batches(count, settings.batch_size, seed, epoch) for epoch in range(settings.epochs)]
    with closing(Progress("target", total)) as progress:
        trainer = ClassifierTrainer(model, optimizer, dataset.training, progress, settings.augmentation, seed)
        trainer.train(np.concatenate(epochs))
    return model


class ClassifierTrainer(Trainer):
    """Trains a classifier on images and their labels.

    Args:
        model: a Keras model from images in [0, 1] to logits; updated in place, as is its optimizer.
        optimizer: built on its variables.
        images: the training images.
        progress: what the user sees.
        augmentation: a ``TargetSettings.augmentation``.
        seed: of what is drawn for it.
    """

    setting_at_fault = "target.learning_rate"

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        images: AnySplit,
        progress: Progress,
        augmentation: str = "none",
        seed: int = 0,
    ) -> None:
        self._progress = progress
        batches = self._batches = batches_of(images)
        answer = forward_in_parts(model)

        def step(given: Any, number: Any) -> dict[str, Any]:
            batch, classes = batches.batch(given)
            if augmentation == "flip_and_shift":
                batch = flipped_and_shifted(batch, seed, number)
            parts = split_batch(batch, classes, parts_of(batch.shape[0]))
            with tf.GradientTape() as tape:
                scores = answer([part.images for part in parts], True)
                found = [
                    {LOSS: tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(part.labels, logits))}
                    for part, logits in zip(parts, scores, strict=True)
                ]
                loss = means_over(parts, found)[LOSS] + tf.add_n([*model.losses, tf.constant(0.0)])
            gradients = replicas.means_of(tape.gradient(loss, model.trainable_variables))
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return {LOSS: loss}

        self._compiled_steps = several_steps(step)

    def train(self, batches: np.ndarray) -> None:
        """An update on each batch of images with these indices."""
        self._batches.start(batches)
        run_steps(self, 1, batches)

    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Updates on the images with these indices."""
        return self._compiled_steps(self._batches.take(batches), first)

    def report(self, rows: list[dict[str, float]]) -> None:
        """Show the last loss."""
        self._progress.advance(len(rows), f"loss {rows[-1][LOSS]:.3f}")
