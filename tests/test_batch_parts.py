"""A batch in parts gives what the whole batch gives."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import environment
from advgan.config.loading import parse_config
from advgan.config.settings import TargetSettings
from advgan.data import batch_parts
from advgan.data.batch_parts import means_over, side_by_side, split_batch
from advgan.data.datasets import Split
from advgan.progress import Progress
from advgan.training import classifier, distillation
from advgan.training.classifier import ClassifierState, ClassifierTrainer
from advgan.training.optimizers import adam
from advgan.training.state import build_state
from advgan.training.step import StepSettings, training_step

keras = tf.keras
RANDOM = np.random.default_rng(0)
SHAPE = (8, 8, 1)
IMAGES = RANDOM.random((9, *SHAPE), np.float32)
LABELS = RANDOM.integers(0, 3, 9).astype(np.int32)


def target() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])


def stepped(parts: int, **sections: Any) -> tuple[dict[str, float], list[np.ndarray]]:
    """What a step returns, and the weights of G and D after it."""
    networks = {"generator": {"widths": [2, 4], "residual_blocks": 1}, "discriminator": {"widths": [2, 4]}}
    for name, values in sections.items():
        networks.setdefault(name, {}).update(values)
    config = parse_config({**networks, "training": {"batch_size": 9}})
    state = build_state(SHAPE, target(), config, 10)
    settings = StepSettings(config.attack, config.loss, config.discriminator, 0, steps=10, parts=parts)

    @tf.function(autograph=False)
    def step() -> Any:
        return training_step(
            state.networks, state.optimizers, tf.constant(IMAGES), tf.constant(LABELS), tf.constant(1), settings
        )

    values = {name: float(value) for name, value in step().items()}
    return values, [*state.networks.generator.get_weights(), *state.networks.discriminator.get_weights()]


@pytest.mark.addons
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"discriminator": {"noise": 0.3, "steps": 2}},
        {"loss": {"temperature": 2.0}},
        {"generator": {"normalization": "batch"}},
        {"discriminator": {"normalization": "batch"}},
    ],
    ids=["plain", "noise", "temperature", "batch norm in G", "batch norm in D"],
)
def test_a_step_on_parts_is_the_step_on_the_batch(sections: dict[str, Any]) -> None:
    """Nine images are parts of 3, 2, 2 and 2; the noise is that of the whole batch."""
    (expected, whole), (found, split) = stepped(1, **sections), stepped(4, **sections)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for ours, reference in zip(split, whole, strict=True):
        # Adam's first update is the rate times the gradient's sign; where that is 0 but for rounding it may be any.
        assert np.mean(np.abs(ours - reference) > 1e-5) < 0.05


@pytest.mark.parametrize("architecture", ["model_a", "resnet20"])
def test_a_classifier_learns_the_same_from_parts(architecture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has batch normalization, over the whole batch."""
    images, learned, kept = RANDOM.random((9, 16, 16, 1), np.float32), [], []
    for parts in (1, 3):
        monkeypatch.setattr(classifier, "parts_of", lambda _, parts=parts: parts)
        keras.utils.set_random_seed(0)
        settings = TargetSettings(architecture=architecture)
        model = classifier.build_classifier((16, 16, 1), 3, settings)
        for layer in model.layers:
            if hasattr(layer, "rate"):
                layer.rate = 0.0  # what is dropped is drawn for each part
        optimizer = adam(model, 1e-2, "constant", 1)
        progress = Progress("target", 2)
        trainer = ClassifierTrainer(ClassifierState(model, optimizer), Split(images, LABELS), progress)
        losses = trainer.steps(1, np.arange(18, dtype=np.int32).reshape(2, 9) % 9)
        progress.close()
        learned.append(next(iter(losses.values())))
        kept.append([weights.numpy() for weights in model.non_trainable_weights if "moving" in str(weights.name)])
    for ours, reference in zip(*kept, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(learned[1], learned[0], rtol=1e-3)


@pytest.mark.addons
def test_a_distilled_network_learns_the_same_from_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = tf.one_hot(LABELS, 3)
    learned = []
    for parts in (1, 2):
        monkeypatch.setattr(distillation, "parts_of", lambda _, parts=parts: parts)
        network = target()
        optimizer = keras.optimizers.SGD(0.5)
        loss = distillation.distillation_step(network, optimizer, [(tf.constant(IMAGES), answers)] * 2)
        learned.append([float(loss), *network.get_weights()])
    for ours, reference in zip(*learned, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


def test_parts_are_equal_and_hold_every_image_once() -> None:
    parts = split_batch(tf.constant(IMAGES), tf.constant(LABELS), 4)
    assert [len(part.images) for part in parts] == [3, 2, 2, 2]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), LABELS)
    means = [{"mean": tf.reduce_mean(part.images)} for part in parts]
    assert float(means_over(parts, means)["mean"]) == pytest.approx(IMAGES.mean(dtype=np.float64), rel=1e-6)
    assert len(split_batch(tf.constant(IMAGES), tf.constant(LABELS), 10)) == 1


@pytest.mark.parametrize("count", [0, 1, 23, 24, 100])
def test_a_function_works_side_by_side_on_a_large_batch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_parts, "parts_of", lambda _: 3)
    sizes: list[int] = []

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 1], tf.float32)])
    def function(images: Any) -> Any:
        tf.py_function(lambda at: sizes.append(len(at)), [images], [])
        return tf.reduce_sum(images, [1, 2, 3]), images * 2

    images = RANDOM.random((count, 2, 2, 1), np.float32)
    totals, doubled = side_by_side(function, (2, 2, 1))(tf.constant(images))
    np.testing.assert_allclose(totals, images.sum((1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(doubled, images * 2)
    assert sum(sizes) == count
    assert len(sizes) == (3 if count >= 24 else 1)


@pytest.mark.parametrize(
    ("cores", "batch", "threads"),
    [(2, 128, (1, 2)), (16, 128, (1, 16)), (64, 128, (4, 16)), (2, 8, (2, 1)), (1, 64, (1, 1))],
)
def test_an_operator_has_the_threads_that_the_parts_leave(cores: int, batch: int, threads: tuple[int, int]) -> None:
    assert environment.usual_threads(cores, batch) == threads


def test_threads_are_chosen_before_tensorflow_starts_and_left_to_the_user() -> None:
    code = (
        "from advgan.startup import import_tensorflow; import_tensorflow()\n"
        "from advgan import environment\n"
        "from advgan.config.settings import TrainingSettings\n"
        "environment.cores = lambda: 4\n"
        "found = environment.prepare_environment(TrainingSettings())\n"
        "threads = found['intra_op_threads'], found['inter_op_threads']\n"
        "print(*threads, environment.parts_of(128), environment.parts_of(16))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in environment.THREADS}
    answers = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        for env in (clean, {**clean, environment.THREADS[0]: "2"})
    ]
    assert answers == ["1 4 4 2\n", "4 4 2 2\n"]  # TensorFlow reads the variables itself, and does not tell
