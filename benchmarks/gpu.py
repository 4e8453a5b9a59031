"""What the training step and the attack do on a GPU, as Markdown for docs/performance.md.

    pip install -e '.[gpu]'                                # Linux; brings CUDA
    python benchmarks/gpu.py                               # a few minutes
    python benchmarks/gpu.py --set loss.alpha=0.1 --batches 128 1024 --steps 200
    python benchmarks/gpu.py --on-cpu --batches 32 --steps 10      # tries the script where there is no GPU

First the losses and gradient norms of the first steps are compared with the CPU's, each from the same state and batch:
they may differ by 1e-3 relatively (float32, TF32 off). Then it measures the step with and without XLA, in
float32, TF32 and bfloat16, for several batches; steps in one call of the graph and one by one; how busy the GPU is, as
nvidia-smi sees it; and the generation of 10,000 images from NumPy to NumPy. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from advgan.attacks.advgan_attack import AdvGANAttack  # noqa: E402
from advgan.classifiers.architectures import build_classifier  # noqa: E402
from advgan.classifiers.classifier import classifier_of  # noqa: E402
from advgan.config.loading import find_config, load_config  # noqa: E402
from advgan.config.settings import Config  # noqa: E402
from advgan.data.batches import gather_batch  # noqa: E402
from advgan.data.datasets import Dataset, scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.environment import prepare_environment  # noqa: E402
from advgan.training.loop import STEPS_PER_CALL, several_steps  # noqa: E402
from advgan.training.state import TrainingState, build_state  # noqa: E402
from advgan.training.step import training_step  # noqa: E402
from advgan.training.trainer import step_settings  # noqa: E402

TOLERANCE = 1e-3
COMPARED_STEPS = 5
GENERATED = 10_000
KINDS = {
    "float32": [],
    "TF32": ["training.tf32=on"],
    "bfloat16": ["training.compute_dtype=bfloat16", "training.tf32=on"],
}


class Step:
    """The step of a configuration on a device, from the seed's weights.

    Args:
        config: the run's settings.
        dataset: gives the images.
        device: such as ``/GPU:0``.
        xla: compile it.
    """

    def __init__(self, config: Config, dataset: Dataset, device: str, xla: bool = False) -> None:
        self.size, self.device = config.training.batch_size, device
        with tf.device(device):
            tf.keras.utils.set_random_seed(config.seed)
            network = build_classifier(dataset.image_shape, dataset.number_of_classes, config.target)
            target = classifier_of(network, dataset.image_shape, "target")
            self.state: TrainingState = build_state(dataset.image_shape, target.logits, config, 1000)
            images, labels = tf.constant(dataset.training.loaded().images), tf.constant(dataset.training.labels)
        settings = step_settings(config, 1000)
        self.count = len(dataset.training)

        def step_on(indices: Any, number: Any) -> dict[str, Any]:
            batch = gather_batch(images, labels, indices)
            return training_step(self.state.networks, self.state.optimizers, *batch, number, settings)

        self._steps = several_steps(step_on, xla)

    def variables(self) -> list[Any]:
        """Weights and optimizer slots."""
        networks, optimizers = self.state.networks, self.state.optimizers
        return [
            *networks.generator.weights,
            *networks.discriminator.weights,
            *optimizers.generator.variables,
            *optimizers.discriminator.variables,
        ]

    def __call__(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Make so many steps in one call; the images are a function of the number of the first."""
        indices = np.random.default_rng(first).integers(0, self.count, (count, self.size)).astype(np.int32)
        with tf.device(self.device):
            return self._steps(indices, first)

    def seconds(self, steps: int, at_a_time: int = STEPS_PER_CALL) -> float:
        """Seconds of a step, after a warm-up."""
        self(1, at_a_time)
        start = time.perf_counter()
        for first in range(1, steps + 1, at_a_time):
            self(first, at_a_time)
        return (time.perf_counter() - start) / (steps // at_a_time * at_a_time)


def difference(config: Config, dataset: Dataset, device: str) -> float:
    """The largest relative difference of a value of the first steps between the device and the CPU."""
    ours, reference = Step(config, dataset, device), Step(config, dataset, "/CPU:0")
    largest = 0.0
    for number in range(1, 1 + COMPARED_STEPS):
        for variable, here in zip(reference.variables(), ours.variables(), strict=True):
            variable.assign(here.numpy())  # each step from the same state: rounding does not add up
        made, expected = ours(number, 1), reference(number, 1)
        for name, value in made.items():
            if name.startswith(("loss", "gradient")):
                largest = max(largest, float(abs(value - expected[name])[0] / max(abs(expected[name][0]), 1e-3)))
    return largest


@contextmanager
def utilization() -> Iterator[list[float]]:
    """The GPU's utilization in per cent while the block runs, twice a second; nothing where nvidia-smi is missing."""
    found: list[float] = []
    stop = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def ask() -> None:
        while not stop.wait(0.5):
            answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            if answer.isdigit():
                found.append(float(answer))

    asker = threading.Thread(target=ask, daemon=True)
    if shutil.which(command[0]):
        asker.start()
    try:
        yield found
    finally:
        stop.set()
        if asker.ident is not None:
            asker.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="mnist.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--steps", type=int, default=500, help="steps of a measurement")
    parser.add_argument("--on-cpu", action="store_true", help="on the CPU, to try the script")
    options = parser.parse_args()
    if not options.on_cpu and not tf.config.list_physical_devices("GPU"):
        print(
            "error: TensorFlow finds no GPU; on Linux install its libraries with: pip install -e '.[gpu]'",
            file=sys.stderr,
        )
        return 2
    device = "/CPU:0" if options.on_cpu else "/GPU:0"

    def configured(batch: int, *changes: str) -> Config:
        return load_config(find_config(options.config), [*options.overrides, f"training.batch_size={batch}", *changes])

    config = configured(128)
    environment = prepare_environment(config.training)
    dataset = load_dataset(config.data)
    print(f"{environment['device']}, TensorFlow {tf.__version__}\n")
    found = difference(configured(128, "training.tf32=off"), dataset, device)
    print(f"Losses and gradient norms of the first {COMPARED_STEPS} steps: within {found:.1e} of the CPU's\n")
    if found > TOLERANCE:
        print(f"error: that is more than {TOLERANCE:g}", file=sys.stderr)
        return 1
    print("| batch | numbers | XLA | ms per step | images/s | GPU busy |\n|---|---|---|---|---|---|")
    for batch in options.batches:
        for kind, changes in KINDS.items():
            changed = configured(batch, *changes)
            tf.config.experimental.enable_tensor_float_32_execution(changed.training.tf32)
            for xla in (False, True):
                try:
                    step = Step(changed, dataset, device, xla)
                    with utilization() as busy:
                        each = step.seconds(options.steps)
                except tf.errors.OpError as error:
                    print(f"| {batch} | {kind} | {'on' if xla else 'off'} | {type(error).__name__} | | |")
                    continue
                share = f"{statistics.median(busy):.0f} %" if busy else ""
                row = f"{each * 1e3:.2f} | {batch / each:,.0f} | {share} |"
                print(f"| {batch} | {kind} | {'on' if xla else 'off'} | {row}", flush=True)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    step = Step(config, dataset, device)
    together, alone = step.seconds(options.steps), step.seconds(options.steps, at_a_time=1)
    print(f"\n{STEPS_PER_CALL} steps in a call: {together * 1e3:.2f} ms each; one by one: {alone * 1e3:.2f} ms (128)")
    images = scaled(dataset.training.first(GENERATED).loaded().images)
    attack = AdvGANAttack(step.state.networks.generator, None, config.attack)
    attack.generate(images)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        attack.generate(images)
        times.append(time.perf_counter() - start)
    print(f"{len(images):,} images, NumPy to NumPy: {statistics.median(times) * 1e3:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
