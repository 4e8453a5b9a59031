"""Which data format runs on this machine, and how fast: channels last (NHWC) or channels first (NCHW).

    python benchmarks/data_format.py

For a convolution, a transposed convolution and max-pooling, and for each with its gradient (image and kernel), at sizes
like those of this program's networks: images per second in each format, by TensorFlow's own kernels and compiled by
XLA; or that it does not run, or that its answer is not the one that NHWC gave. The rows are Markdown. The formats take
turns, and the median is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

FORMATS = ("NHWC", "NCHW")


@dataclass(frozen=True)
class Operation:
    """What is measured: a function of images, kernel and data format, and the shapes of an image and of the kernel."""

    name: str
    function: Callable[[Any, Any, str], Any]
    image: tuple[int, int, int]
    kernel: tuple[int, int, int, int]


def convolution(images: Any, kernel: Any, data_format: str) -> Any:
    return tf.nn.conv2d(images, kernel, 1, "SAME", data_format=data_format)


def transposed_convolution(images: Any, kernel: Any, data_format: str) -> Any:
    batch, channels = images.shape[0], kernel.shape[2]
    shape = [batch, 28, 28, channels] if data_format == "NHWC" else [batch, channels, 28, 28]
    return tf.nn.conv2d_transpose(images, kernel, shape, 2, "SAME", data_format=data_format)


def max_pooling(images: Any, _: Any, data_format: str) -> Any:
    return tf.nn.max_pool2d(images, 2, 2, "VALID", data_format=data_format)


OPERATIONS = (
    Operation("convolution 3x3, 28x28, 32 to 32 channels", convolution, (28, 28, 32), (3, 3, 32, 32)),
    Operation(
        "transposed convolution 3x3, 14x14 to 28x28, 32 to 16", transposed_convolution, (14, 14, 32), (3, 3, 16, 32)
    ),
    Operation("max-pooling 2x2, 28x28, 32 channels", max_pooling, (28, 28, 32), (1, 1, 1, 1)),
)


class Program:
    """An operation, or its gradient, in one format as a compiled function of tensors that stay in memory."""

    def __init__(self, operation: Operation, gradient: bool, data_format: str, batch: int, xla: bool) -> None:
        def forward(images: Any, kernel: Any) -> list[Any]:
            return [operation.function(images, kernel, data_format)]

        def backward(images: Any, kernel: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch([images, kernel])
                loss = tf.reduce_sum(tf.square(operation.function(images, kernel, data_format)))
            return [found for found in tape.gradient(loss, [images, kernel]) if found is not None]

        random = np.random.default_rng(0)
        images = random.normal(size=(batch, *operation.image)).astype(np.float32)
        kernel = random.normal(size=operation.kernel).astype(np.float32)
        self.channels_first = data_format == "NCHW"
        self.tensors = tf.constant(images.transpose(0, 3, 1, 2) if self.channels_first else images), tf.constant(kernel)
        self.function = tf.function(backward if gradient else forward, jit_compile=xla)

    def __call__(self) -> list[np.ndarray]:
        """Run once, to the end; images first, then the kernel's gradient where there is one."""
        return [tensor.numpy() for tensor in self.function(*self.tensors)]

    def answer(self) -> list[np.ndarray] | None:
        """The result with channels last; None where it does not run."""
        try:
            images, *rest = self()
        except (tf.errors.OpError, ValueError):
            return None
        return [images.transpose(0, 2, 3, 1) if self.channels_first else images, *rest]

    def rate(self, seconds: float) -> float:
        """Images per second, from as many runs as take so many seconds."""
        runs, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            self()
            runs += 1
        return runs * len(self.tensors[0]) / passed


def cell(answer: list[np.ndarray] | None, expected: list[np.ndarray], rates: list[float]) -> str:
    """What the table says of a program."""
    if answer is None:
        return "does not run"
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(answer, expected, strict=True))
    return f"{statistics.median(rates):,.0f}" + ("" if error < 1e-3 else f", **wrong** by {error:.0%} of the largest")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # many functions of one name are meant here
    tf.config.threading.set_inter_op_parallelism_threads(1)  # operations of one thread share what oneDNN caches
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = "a GPU" if tf.config.list_physical_devices("GPU") else f"{cores} CPU cores"
    print(f"TensorFlow {tf.__version__}, {where}, batches of {options.batch}, float32; images/s\n")
    print("| operation | NHWC | NCHW | NHWC, XLA | NCHW, XLA |\n|---|---|---|---|---|")
    for operation in OPERATIONS:
        for gradient in (False, True):
            programs = [
                Program(operation, gradient, data_format, options.batch, xla)
                for xla in (False, True)
                for data_format in FORMATS
            ]
            answers = [program.answer() for program in programs]
            rates: list[list[float]] = [[] for _ in programs]
            for _ in range(options.turns):
                for program, answer, found in zip(programs, answers, rates, strict=True):
                    if answer is not None:
                        found.append(program.rate(options.seconds))
            assert answers[0] is not None  # NHWC always runs
            cells = [cell(answer, answers[0], found) for answer, found in zip(answers, rates, strict=True)]
            title = f"forward and gradient of {operation.name.split(',')[0]}" if gradient else operation.name
            print(f"| {title} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
