"""The accuracy of resnet32 with weights that were trained in PyTorch, which shows that it is the same network.

    python benchmarks/resnet32_weights.py --weights resnet32.npz --data cifar10.npz --output resnet32.keras

The weights: those of the CIFAR ResNet-32 of github.com/akamaster/pytorch_resnet_cifar10 or one of the same layout,
written as an .npz with PyTorch's names (``np.savez(file, **{name: value.numpy() for name, value in
torch.load(checkpoint)["state_dict"].items()})``, without the prefix ``module.``): conv1, bn1, layer1.0.conv1, ...,
linear. The data: an .npz with the CIFAR-10 images x_test and their classes y_test, as keras.datasets.cifar10 gives
them. Prints the share of correctly classified test images; --output saves the network, from images in [0, 1] to
logits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from advgan.startup import import_tensorflow

import_tensorflow()

from advgan.classifiers.resnet import BLOCKS, build_resnet  # noqa: E402
from advgan.data.batches import slices  # noqa: E402
from advgan.data.datasets import scaled  # noqa: E402
from advgan.files import write_whole  # noqa: E402
from advgan.metrics import Rate  # noqa: E402

BATCH_SIZE = 500


def set_weights(network: Any, weights: Mapping[str, np.ndarray], architecture: str) -> None:
    """Put PyTorch's weights into a network of ``build_resnet``: kernels are (out, in, height, width) there."""
    pieces = [("conv1", "bn1", "convolution", "norm")]
    for stage in (1, 2, 3):
        for block in range(BLOCKS[architecture]):
            theirs, ours = f"layer{stage}.{block}", f"stage{stage}_block{block + 1}"
            for half in (1, 2):
                pieces.append(
                    (f"{theirs}.conv{half}", f"{theirs}.bn{half}", f"{ours}_convolution{half}", f"{ours}_norm{half}")
                )
    for their_convolution, their_norm, convolution, norm in pieces:
        network.get_layer(convolution).set_weights([weights[f"{their_convolution}.weight"].transpose(2, 3, 1, 0)])
        kinds = ("weight", "bias", "running_mean", "running_var")
        network.get_layer(norm).set_weights([weights[f"{their_norm}.{kind}"] for kind in kinds])
    network.get_layer("logits").set_weights([weights["linear.weight"].T, weights["linear.bias"]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="an .npz with PyTorch's names")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="CIFAR-10 as an .npz")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a .keras file for the network")
    options = parser.parse_args()
    network = build_resnet("resnet32", (32, 32, 3), 10)
    with np.load(options.weights, allow_pickle=False) as weights:
        set_weights(network, weights, "resnet32")
    with np.load(options.data, allow_pickle=False) as data:
        images, labels = data["x_test"], data["y_test"].reshape(-1)
    correct = 0
    for part in slices(len(images), BATCH_SIZE):
        answers = network(scaled(images[part]), training=False).numpy().argmax(axis=-1)
        correct += int((answers == labels[part]).sum())
    rate = Rate.of(correct, len(images))
    print(f"resnet32, {network.count_params():,} parameters: {rate.rate:.2%} of {len(images):,} test images")
    if options.output is not None:
        write_whole(options.output, network.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
