"""Training and caching of the target classifier.

A trained classifier is kept in a folder named by the digest of everything that determines it, so another run with the
same settings finds it and a run with others does not. A killed training starts again from its seed: dropout's random
state is not part of a checkpoint, and a target takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.config.settings import Config
from advgan.data.batches import epoch_order, gather_batch, steps_per_epoch
from advgan.data.datasets import Dataset
from advgan.environment import Environment, code_digest
from advgan.errors import NonFiniteError
from advgan.files import read_json, whole_directory, write_json, write_whole
from advgan.networks.keras_file import load_network
from advgan.training.optimizers import adam
from advgan.training.progress import Progress

keras = tf.keras
STEPS_PER_REPORT = 10
TRAINED_BY = (
    "classifiers/architectures.py",
    "training/classifier.py",
    "training/optimizers.py",
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
        "split": [config.data.validation_split, config.data.split_seed],
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
    if (folder / "record.json").exists():
        seconds = read_json(folder / "record.json")["seconds"]
        model = load_network(folder / "target.keras", f"delete the folder {folder} to train it again")
        return Target(model, digest, seconds, cached=True)
    shutil.rmtree(folder, ignore_errors=True)  # without its record it is not ours
    start = time.monotonic()
    model = train_classifier(config, dataset)
    seconds = time.monotonic() - start
    record = {"digest": digest, "seconds": seconds, "target": config.target.model_dump(mode="json")}
    with whole_directory(folder) as beside:
        write_whole(beside / "target.keras", model.save)
        write_json(beside / "record.json", record)
    model.trainable = False
    return Target(model, digest, seconds, cached=False)


def train_classifier(config: Config, dataset: Dataset) -> Any:
    """Train a classifier by cross-entropy plus its weight decay, from its seed alone.

    Returns:
        The Keras model, from images in [0, 1] to logits.
    """
    settings, seed = config.target, config.target_seed
    keras.utils.set_random_seed(seed)
    model = build_classifier(dataset.image_shape, dataset.number_of_classes, settings)
    per_epoch = steps_per_epoch(len(dataset.training), settings.batch_size)
    total = settings.epochs * per_epoch
    optimizer = adam(model, settings.learning_rate, settings.schedule, total)
    images, labels = tf.constant(dataset.training.images), tf.constant(dataset.training.labels)

    @tf.function
    def step_on(indices: Any) -> Any:
        batch, classes = gather_batch(images, labels, indices)
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, model(batch, training=True))
            loss = tf.reduce_mean(losses) + tf.add_n([*model.losses, tf.constant(0.0)])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    progress = Progress("target", total)
    try:
        for epoch in range(settings.epochs):
            order = epoch_order(len(dataset.training), seed, epoch)
            waiting: list[Any] = []
            for step in range(per_epoch):
                indices = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                waiting.append(step_on(tf.constant(indices)))
                if len(waiting) == STEPS_PER_REPORT or step + 1 == per_epoch:
                    values = [float(loss) for loss in waiting]
                    for number, value in enumerate(values, start=progress.done + 1):
                        if not math.isfinite(value):
                            raise NonFiniteError("the target's loss", number, "target.learning_rate")
                    progress.advance(len(values), f"loss {values[-1]:.3f}")
                    waiting = []
    finally:
        progress.close()
    return model
