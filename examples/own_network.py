"""A network of your own, as TensorFlow's quickstart for beginners makes it, from its training to the report.

    python examples/own_network.py
    python examples/own_network.py --output mine --images 10000 --epochs 1 --test-images 1000

Nothing in the network is made for AdvGAN: it takes 28x28 images without a channel axis and ends with a softmax. It is
trained on the MNIST digits of the package, saved as own_network.keras in the output folder, and then three commands
follow, each printed as you would type it: describe shows what was found of the network, train trains an AdvGAN against
it, and evaluate compares that with other attacks and writes a report. For a network that you have already:

    python -m advgan.describe --target my_classifier.keras --data mnist
    python -m advgan.train --config mnist.yaml --set target.file=my_classifier.keras
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advgan import describe, evaluate, train
from advgan.command_line import run_command
from advgan.config.loading import override_config
from advgan.run_folder import latest_finished_run
from advgan.startup import import_tensorflow

NAME = "own_network"
EPOCHS_OF_THE_NETWORK = 5


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--images", metavar="N", help="train the network and the generator on so many (default: all)")
    parser.add_argument("--epochs", metavar="N", help="of the generator (default: as mnist.yaml says)")
    parser.add_argument("--test-images", metavar="N", help="how many images the attack is scored on (default: all)")
    parser.add_argument("--output", metavar="FOLDER", default="checkpoints", help="default: checkpoints")
    options = parser.parse_args(arguments)
    folder = Path(options.output)
    network, runs = folder / f"{NAME}.keras", folder / NAME
    settings = [f"target.file={network}", f"name={NAME}", f"output.directory={folder}", *_limits(options)]
    changes = [word for setting in settings for word in ("--set", setting)]
    return (
        run_command(_train_network, options)
        or _run("describe", describe.main, "--target", str(network), "--data", "mnist")
        or _run("train", train.main, "--config", "mnist.yaml", *changes)
        or _run("evaluate", evaluate.main, "--run", str(latest_finished_run(runs)))
    )


def _limits(options: argparse.Namespace) -> list[str]:
    """What was given of the settings that make a short run."""
    given = {
        "data.training_images": options.images,
        "data.test_images": options.test_images,
        "training.epochs": options.epochs,
    }
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _train_network(options: argparse.Namespace) -> int:
    """Train the network, and save it."""
    data = override_config({}, _limits(options)).data
    import_tensorflow()  # takes seconds, so after the options were checked
    import tensorflow as tf

    from advgan.data.datasets import Split
    from advgan.data.loading import load_dataset

    def pixels(split: Split) -> Any:
        return split.images[..., 0] / 255.0  # uint8, shape (n, 28, 28, 1)

    keras = tf.keras
    dataset = load_dataset(data)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(pixels(dataset.training.loaded()), dataset.training.labels, epochs=EPOCHS_OF_THE_NETWORK, verbose=0)
    accuracy = network.evaluate(pixels(dataset.test), dataset.test.labels, verbose=0)[1]
    path = Path(options.output, f"{NAME}.keras")
    path.parent.mkdir(parents=True, exist_ok=True)
    network.save(path)
    print(
        f"{path}: {network.count_params():,} parameters, right on {accuracy:.2%} of {len(dataset.test):,} test images"
    )
    return 0


def _run(name: str, command: Callable[[list[str]], int], *arguments: str) -> int:
    """Print a command as it is typed, run it in this process, and return its exit code."""
    print(f"\n$ {shlex.join(['python', '-m', f'advgan.{name}', *arguments])}", flush=True)
    return command(list(arguments))


if __name__ == "__main__":
    sys.exit(main())
