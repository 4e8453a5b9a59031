"""A generator's forward pass with fewer passes over memory, for those who attack so much that a compilation pays.

On a CPU instance normalization and what follows it take as long as the convolutions, because TensorFlow writes and
reads the whole activation for every small operation. Here all that lies between two convolutions is one function,
compiled by XLA, which writes once; the convolutions stay TensorFlow's, whose are faster than XLA's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import tensorflow as tf

keras = tf.keras
Tensor = Any
Step = tuple[Callable[..., Tensor], list[int], int]
"""What to call, on which tensors of the model's graph, and which it makes; tensors by their ``id``."""


def fused(generator: Any) -> Callable[[Tensor], Tensor]:
    """The same function as ``generator(images, training=False)``, to be called inside a ``tf.function``.

    Args:
        generator: a functional Keras model of one input and one output, from float32 images to float32 images.

    Returns:
        The function; its values differ from the model's by rounding only. XLA compiles it for each new batch size,
        which takes seconds: worth it from some tens of thousands of images on.
    """
    steps = _steps(generator)
    [start], [end] = generator.inputs, generator.outputs

    def forward(images: Tensor) -> Tensor:
        made = {id(start): images}
        for call, inputs, output in steps:
            made[output] = call(*(made[key] for key in inputs))
        return made[id(end)]

    return forward


def _steps(generator: Any) -> list[Step]:
    """The layers in order, each by itself or, between convolutions, in runs."""
    layers = [layer for layer in generator.layers if not isinstance(layer, keras.layers.InputLayer)]
    uses = Counter(id(tensor) for layer in layers for tensor in _inputs(layer))
    steps: list[Step] = []
    inputs: list[Any] = []  # of the run that is being gathered, and what it makes so far
    output: Any = None

    def close() -> None:
        nonlocal output
        if output is not None:
            run = tf.function(_inference(keras.Model(inputs[:], output)), jit_compile=True)
            steps.append((run, [id(tensor) for tensor in inputs], id(output)))
            output = None

    for layer in layers:
        taken = _inputs(layer)
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            close()
            steps.append((layer, [id(tensor) for tensor in taken], id(layer.output)))
            continue
        if output is None or uses[id(output)] > 1 or not any(tensor is output for tensor in taken):
            close()
            inputs = []
        inputs += [tensor for tensor in taken if tensor is not output]
        output = layer.output
    close()
    return steps


def _inputs(layer: Any) -> list[Any]:
    return list(layer.input) if isinstance(layer.input, (list, tuple)) else [layer.input]


def _inference(model: Any) -> Callable[..., Tensor]:
    def call(*tensors: Tensor) -> Tensor:
        return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

    return call
