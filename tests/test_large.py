"""What takes minutes: large networks, large pictures, many of them. ``python -m pytest -m slow -n 0`` runs these."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.config.loading import load_config
from advgan.data.datasets import Split
from advgan.networks.forward import forward
from advgan.progress import Progress
from advgan.training.classifier import ClassifierState, ClassifierTrainer
from advgan.training.optimizers import adam
from advgan.training.state import build_state
from advgan.training.step import training_step
from advgan.training.trainer import step_settings

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def test_a_wide_resnet34_takes_a_step_of_its_training_and_one_of_the_generators() -> None:
    config = load_config(ROOT / "configs" / "cifar10_wide_resnet34.yaml", ["training.batch_size=8"])
    random = np.random.default_rng(0)
    images = Split(random.integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8, dtype=np.int32) % 10)
    target = build_classifier((32, 32, 3), 10, config.target)
    before = target.get_weights()
    optimizer = adam(target, 1e-3, "constant", 1)
    state = ClassifierState(target, optimizer)
    ClassifierTrainer(state, images, Progress("target", 1)).train(np.arange(8, dtype=np.int32)[np.newaxis])
    changed = [not np.array_equal(*pair) for pair in zip(before, target.get_weights(), strict=True)]
    assert all(changed)
    state = build_state((32, 32, 3), forward(target), config, 10)
    start = state.networks.generator.get_weights()
    step = tf.function(lambda number: training_step(state.networks, state.optimizers, *given, number, settings))
    given, settings = (
        (tf.constant(images.images / np.float32(255)), tf.constant(images.labels)),
        step_settings(config, 10),
    )
    values = step(tf.constant(1))
    assert all(np.isfinite(value) for value in values.values())
    assert values["gradient_norm_generator"] > 0
    assert not np.array_equal(start[0], state.networks.generator.get_weights()[0])


def rows_of(arguments: list[str]) -> list[list[float]]:
    """The numbers of the rows that the benchmark of folders prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / "folder_of_pictures.py"), *arguments]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| \n").split("|") for line in printed.splitlines() if re.match(r"\| [0-9]", line)]
    return [[float(cell.replace(",", "")) for cell in row] for row in rows]


def test_a_hundred_thousand_pictures_take_little_more_memory_than_ten_thousand() -> None:
    few, many = rows_of(["--pictures", "10000", "100000", "--size", "16", "--architecture", "lenet"])
    assert many[1] < 1.1 * few[1]


def test_large_pictures_and_a_network_of_keras_applications_fit_into_memory() -> None:
    [[_, memory, *_]] = rows_of(
        ["--pictures", "300", "--size", "224", "--architecture", "MobileNetV2", "--batch", "16"]
    )
    assert memory < 6
