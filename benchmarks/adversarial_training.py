"""What an epoch of adversarial training costs, for each architecture and method: seconds for 55,000 images of MNIST.

    python benchmarks/adversarial_training.py
    python benchmarks/adversarial_training.py --architectures lenet --steps 100

Times some steps of batches of 128, in turns between the methods, after a turn that compiles, and multiplies; validation
is not in it. Prints the median of the turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from advgan.startup import import_tensorflow

import_tensorflow()

from advgan.config.loading import parse_config  # noqa: E402
from advgan.data.batches import epoch_batches, steps_per_epoch  # noqa: E402
from advgan.data.datasets import Dataset  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.environment import prepare_environment  # noqa: E402
from advgan.progress import Progress  # noqa: E402
from advgan.training.classifier import ClassifierTrainer, build_classifier_state  # noqa: E402

METHODS: dict[str, dict[str, object]] = {
    "none": {},
    "fgsm": {"method": "fgsm", "epsilon": 0.3},
    "advgan": {"method": "advgan", "epsilon": 0.3},
    "pgd, 7 steps": {"method": "pgd", "epsilon": 0.3},
}
ARCHITECTURES = ("lenet", "model_a", "model_b", "model_c", "madrylab")
TURNS = 3


def trainer_of(architecture: str, method: str, dataset: Dataset) -> ClassifierTrainer:
    """A training that can be timed."""
    config = parse_config({"target": {"architecture": architecture, "adversarial_training": METHODS[method]}})
    state = build_classifier_state(config, dataset, 1000, [])
    return ClassifierTrainer(state, dataset.training, Progress("benchmark", 1))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=20, help="in each turn (20)")
    options = parser.parse_args()
    config = parse_config({})
    environment = prepare_environment(config.training)
    dataset = load_dataset(config.data)
    batches = epoch_batches(len(dataset.training), config.target.batch_size, 0, 0)[: options.steps]
    whole = steps_per_epoch(len(dataset.training), config.target.batch_size)
    print(f"{environment['device']}, {environment['cores']} cores; seconds for an epoch of {whole} steps")
    for architecture in options.architectures:
        trainers = {method: trainer_of(architecture, method, dataset) for method in METHODS}
        seconds: dict[str, list[float]] = {method: [] for method in METHODS}
        for turn in range(TURNS + 1):  # the first compiles
            for method, trainer in trainers.items():
                start = time.perf_counter()
                trainer.train(batches)
                if turn:
                    seconds[method].append((time.perf_counter() - start) / len(batches) * whole)
        print(
            architecture, *(f"{method}: {statistics.median(each):.0f} s" for method, each in seconds.items()), sep="  "
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
