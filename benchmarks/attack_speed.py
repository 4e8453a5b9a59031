"""AdvGAN's time for 1,000 images next to FGSM's and PGD-40's, and the memory it takes for 1,000 and for 60,000.

    python benchmarks/attack_speed.py checkpoints/mnist/0

One process, the run's own target, its first 1,000 test images in one batch, NumPy arrays in and out, in turns after a
warm-up. FGSM and PGD-40 (steps of epsilon / 30) are Foolbox's, ART's and CleverHans's; ratios are of medians, against
the fastest of the three. Memory is what the process takes beyond the arrays that go in and come out, at its peak; it is
read from /proc, so on Linux only. Needs ART and CleverHans (they are in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()
warnings.filterwarnings("ignore", message="PyTorch not found")

import foolbox  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent  # noqa: E402
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method  # noqa: E402
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent  # noqa: E402

from advgan import AdvGANAttack  # noqa: E402
from advgan.attacks.art_adapter import art_classifier  # noqa: E402
from advgan.attacks.foolbox_adapter import foolbox_model  # noqa: E402
from advgan.data.datasets import scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.files import write_json  # noqa: E402
from advgan.run_folder import load_run_config  # noqa: E402

COUNT = 1000
STEPS = 40
Attack = Callable[[np.ndarray, np.ndarray], np.ndarray]


def attacks_of_foolbox(target: Any, epsilon: float) -> tuple[Attack, Attack]:
    """FGSM and PGD-40."""
    model = foolbox_model(target)

    def calling(attack: foolbox.attacks.base.Attack) -> Attack:
        def call(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
            return attack(model, tf.constant(images), tf.constant(labels), epsilons=epsilon)[1].numpy()

        return call

    return calling(foolbox.attacks.FGSM()), calling(foolbox.attacks.LinfPGD(steps=STEPS))


def attacks_of_art(target: Any, epsilon: float) -> tuple[Attack, Attack]:
    """FGSM and PGD-40."""
    estimator, settings = art_classifier(target), {"eps": epsilon, "batch_size": COUNT}
    iterated = {"eps_step": epsilon / 30, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    return (
        FastGradientMethod(estimator, **settings).generate,
        ProjectedGradientDescent(estimator, **settings, **iterated).generate,
    )


def attacks_of_cleverhans(target: Any, epsilon: float) -> tuple[Attack, Attack]:
    """FGSM and PGD-40."""
    box = {"clip_min": 0.0, "clip_max": 1.0}

    def fgsm(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        y = tf.constant(labels)
        return fast_gradient_method(target, tf.constant(images), epsilon, np.inf, y=y, **box).numpy()

    def pgd(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        x, y = tf.constant(images), tf.constant(labels)
        return projected_gradient_descent(
            target, x, epsilon, epsilon / 30, STEPS, np.inf, y=y, rand_init=True, **box
        ).numpy()

    return fgsm, pgd


def seconds(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """The time of each call in each turn, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def memory_beyond(attack: AdvGANAttack, images: np.ndarray) -> int | None:
    """Bytes that the process takes at its peak beyond what it had with the input in place, and beyond the output."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5")  # the peak is counted from here
    before = _memory("VmRSS")
    adversarial = attack.generate(images)
    return _memory("VmHWM") - before - adversarial.nbytes


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--turns", type=int, default=9, help="of AdvGAN and FGSM")
    parser.add_argument("--pgd-turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    attack = AdvGANAttack.load(options.run)
    test = load_dataset(load_run_config(options.run).data).test.first(COUNT)
    images, labels = scaled(test.images), test.labels.astype(np.int64)

    beyond = {}
    for count in (COUNT, COUNT, 60_000):  # the first time warms up
        beyond[count] = memory_beyond(attack, np.resize(images, (count, *images.shape[1:])))

    libraries = {"Foolbox": attacks_of_foolbox, "ART": attacks_of_art, "CleverHans": attacks_of_cleverhans}
    pairs = {name: make(attack.target, attack.epsilon) for name, make in libraries.items()}
    quick: dict[str, Callable[[], Any]] = {
        "AdvGAN": lambda: attack.generate(images),
    }
    slow: dict[str, Callable[[], Any]] = {}
    for name, (fgsm, pgd) in pairs.items():
        quick[f"FGSM, {name}"] = partial(fgsm, images, labels)
        slow[f"PGD-{STEPS}, {name}"] = partial(pgd, images, labels)
    times = {**seconds(quick, options.turns), **seconds(slow, options.pgd_turns)}

    medians = {name: statistics.median(all_times) for name, all_times in times.items()}
    print(f"{len(images)} images of {attack.image_shape}, epsilon {attack.epsilon:g}, TensorFlow {tf.__version__}")
    for name, all_times in times.items():
        print(f"{name:20} median {medians[name] * 1e3:9.1f} ms   fastest {min(all_times) * 1e3:9.1f} ms")
    for kind in ("FGSM", f"PGD-{STEPS}"):
        fastest = min((name for name in medians if name.startswith(kind)), key=medians.__getitem__)
        for name in quick:
            if name.startswith("AdvGAN"):
                print(f"{name} is {medians[fastest] / medians[name]:.2f} times as fast as the fastest, {fastest}")
    for count, size in beyond.items():
        print(f"memory beyond input and output, {count:6,} images: {(size or 0) / 1e6:7.1f} MB")
    if options.json:
        write_json(options.json, {"seconds": times, "memory_beyond": beyond})
    return 0


if __name__ == "__main__":
    sys.exit(main())
