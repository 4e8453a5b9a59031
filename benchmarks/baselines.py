"""FGSM and PGD-40 (Foolbox's defaults) on a run's own target, the same test images and the same definition of success.

    python benchmarks/baselines.py checkpoints/mnist/0 --epsilons 0.1 0.15 0.2 0.3

PGD-40 is Foolbox's LinfPGD: 40 steps of epsilon / 30, one random start. Prints a table and, with --json FILE, writes
it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from advgan.startup import import_tensorflow

import_tensorflow()

import foolbox  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tqdm import tqdm  # noqa: E402

from advgan.attacks.foolbox_adapter import foolbox_model  # noqa: E402
from advgan.classifiers.run_target import run_target  # noqa: E402
from advgan.config.settings import Config  # noqa: E402
from advgan.data.batches import slices  # noqa: E402
from advgan.data.datasets import Split, scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.files import write_json  # noqa: E402
from advgan.goals import Targeted  # noqa: E402
from advgan.metrics import Rate  # noqa: E402
from advgan.run_folder import RunFolder, load_run_config  # noqa: E402

BATCH_SIZE = 500


def attack_success(
    config: Config, test: Split, target: object, attack: foolbox.attacks.base.Attack, epsilon: float, label: str
) -> Rate:
    """The success rate of a Foolbox attack on the run's test images, by the run's goal."""
    goal = config.attack.objective
    model = foolbox_model(target)
    successes = eligible = 0
    for part in tqdm(list(slices(len(test), BATCH_SIZE)), desc=label):
        images, labels = (
            tf.constant(scaled(test.images[part])),
            test.labels[part].astype(np.int64),
        )  # as argmax gives: eagerpy cannot mix integer types under NumPy 2
        clean = np.argmax(model(images).numpy(), axis=-1)
        criterion: foolbox.criteria.Criterion
        if isinstance(goal, Targeted):
            wanted = tf.fill([len(labels)], tf.constant(goal.target_class, tf.int64))
            criterion = foolbox.criteria.TargetedMisclassification(wanted)
        else:
            criterion = foolbox.criteria.Misclassification(tf.constant(labels))
        _, clipped, _ = attack(model, images, criterion, epsilons=epsilon)
        answers = np.argmax(model(clipped).numpy(), axis=-1)
        counted = goal.eligible(labels, clean)
        successes += int(goal.reached(labels, answers)[counted].sum())
        eligible += int(counted.sum())
    return Rate.of(successes, eligible)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.3])
    parser.add_argument("--seed", type=int, default=0, help="of PGD's random start")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = load_run_config(options.run)
    dataset, results = load_dataset(config.data), []
    target, test = run_target(config, RunFolder(options.run), dataset.image_shape).model, dataset.test
    attacks = {"FGSM": foolbox.attacks.FGSM(), "PGD-40": foolbox.attacks.LinfPGD()}
    if isinstance(config.attack.objective, Targeted):
        del attacks["FGSM"]  # Foolbox's has no targeted form
    for epsilon in options.epsilons:
        for name, attack in attacks.items():
            tf.random.set_seed(options.seed)
            start = time.monotonic()
            rate = attack_success(config, test, target, attack, epsilon, f"{name} at {epsilon}")
            results.append({"attack": name, "epsilon": epsilon, "seconds": time.monotonic() - start, **vars(rate)})
            print(f"epsilon {epsilon:<6} {name:<7} {rate}   {results[-1]['seconds']:.1f} s", flush=True)
    if options.json:
        write_json(options.json, {"run": str(options.run), "seed": options.seed, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
