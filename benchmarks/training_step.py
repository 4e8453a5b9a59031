"""How fast the training loop is, next to the bare step.

    python benchmarks/training_step.py --config mnist.yaml

Measures, in one process and in turns: the bare training step on one batch that is ready in memory; the input pipeline
alone (draw the order, gather, scale); the whole loop, with its records and a checkpoint every 100 steps. Prints images
per second of each, shares of time, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

from advgan.attacks.advgan_attack import AdvGANAttack  # noqa: E402
from advgan.classifiers.architectures import build_classifier  # noqa: E402
from advgan.classifiers.classifier import Classifier, classifier_of  # noqa: E402
from advgan.config.loading import find_config, load_config  # noqa: E402
from advgan.config.settings import Config  # noqa: E402
from advgan.data.batches import epoch_order, gather_batch  # noqa: E402
from advgan.data.datasets import Dataset, scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.environment import peak_memory, prepare_environment  # noqa: E402
from advgan.progress import Progress  # noqa: E402
from advgan.training.checkpoints import Checkpoints  # noqa: E402
from advgan.training.metrics_log import MetricsLog  # noqa: E402
from advgan.training.state import build_state  # noqa: E402
from advgan.training.step import training_step  # noqa: E402
from advgan.training.trainer import GeneratorTrainer, step_settings, total_steps  # noqa: E402
from advgan.training.validation import TargetValidation  # noqa: E402


class Clock(Progress):
    """Notes when the loop reports, so that its start (tracing) and its end (validation) are left out."""

    def __init__(self, total: int) -> None:
        super().__init__("loop", total)
        self.times: list[tuple[int, float]] = []

    def advance(self, steps: int, status: str) -> None:
        """Count and note the time."""
        super().advance(steps, status)
        self.times.append((self.done, time.perf_counter()))

    def seconds_per_step(self) -> float:
        """Between the first report and the last."""
        (first, start), (last, end) = self.times[0], self.times[-1]
        return (end - start) / (last - first)


def bare_step(config: Config, dataset: Dataset, target: Classifier) -> Callable[[int], float]:
    """A function that runs so many bare steps and returns the seconds of one."""
    state = build_state(dataset.image_shape, target.logits, config, 1000)
    settings = step_settings(config, 1000)
    size = config.training.batch_size
    first = dataset.training.first(size).loaded()
    images, labels = tf.constant(scaled(first.images)), tf.constant(first.labels)

    @tf.function(autograph=False)
    def step_on(images: Any, labels: Any, step: Any) -> dict[str, Any]:
        return training_step(state.networks, state.optimizers, images, labels, step, settings)

    def measure(steps: int) -> float:
        start = time.perf_counter()
        for number in range(steps):
            result = step_on(images, labels, tf.constant(number))
        result["loss_adv"].numpy()
        return (time.perf_counter() - start) / steps

    measure(3)
    return measure


def input_pipeline(config: Config, dataset: Dataset) -> float:
    """Seconds per batch of drawing the order, gathering and scaling."""
    images, labels = tf.constant(dataset.training.loaded().images), tf.constant(dataset.training.labels)
    size = config.training.batch_size

    @tf.function
    def gather(indices: Any) -> Any:
        return gather_batch(images, labels, indices)

    gather(tf.constant(epoch_order(len(dataset.training), 0, 0)[:size]))
    start = time.perf_counter()
    order = epoch_order(len(dataset.training), 0, 1)
    steps = len(order) // size
    for step in range(steps):
        batch, _ = gather(tf.constant(order[step * size : (step + 1) * size]))
    batch.numpy()
    return (time.perf_counter() - start) / steps


def loop(config: Config, dataset: Dataset, target: Classifier) -> float:
    """Seconds per step of the real loop over one epoch."""
    steps = total_steps(len(dataset.training), config)
    state, clock = build_state(dataset.image_shape, target.logits, config, steps), Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        log = MetricsLog(Path(folder), 0)
        attack = AdvGANAttack(state.networks.generator, target, config.attack)
        GeneratorTrainer(
            state,
            dataset.training,
            config,
            Checkpoints(Path(folder) / "state", 2),
            log,
            clock,
            TargetValidation(attack, dataset.validation),
            lambda _report: None,
        ).train()
        log.close()
        clock.close()
    return clock.seconds_per_step()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="mnist.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    parser.add_argument("--steps", type=int, default=200, help="steps per turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    fixed = ["data.validation_images=500", "training.epochs=1"]
    config = load_config(find_config(options.config), [*options.overrides, *fixed])
    images = options.steps * config.training.batch_size
    config = load_config(find_config(options.config), [*options.overrides, *fixed, f"data.training_images={images}"])
    dataset = load_dataset(config.data)
    environment = prepare_environment(config.training)
    network = build_classifier(dataset.image_shape, dataset.number_of_classes, config.target)
    network.trainable = False
    target = classifier_of(network, dataset.image_shape, "target")
    bare, bare_times, loop_times = bare_step(config, dataset, target), [], []
    for _ in range(options.turns):
        bare_times.append(bare(options.steps))
        loop_times.append(loop(config, dataset, target))
    bare_times.append(bare(options.steps))
    step, whole, pipeline = (
        statistics.median(bare_times),
        statistics.median(loop_times),
        input_pipeline(config, dataset),
    )
    size = config.training.batch_size
    print(f"{environment['device']}, {environment['cores']} cores, TensorFlow {environment['tensorflow']}")
    print(f"bare step       {step * 1e3:7.1f} ms   {size / step:8.0f} images/s")
    print(f"whole loop      {whole * 1e3:7.1f} ms   {size / whole:8.0f} images/s   {step / whole:.1%} of the bare rate")
    print(f"input pipeline  {pipeline * 1e3:7.2f} ms   {pipeline / whole:.1%} of the time; the step {step / whole:.1%}")
    memory = peak_memory()
    print(f"peak memory     {(memory or 0) / 1e9:7.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
