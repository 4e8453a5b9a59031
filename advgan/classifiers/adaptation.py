"""From the classifiers that people have to one form: images (n, height, width, channels) in, logits (n, classes) out.

What goes in may lack the channel axis, be flat, have the channels first, whole numbers, or a batch of one size. What
comes out may be one of several outputs, probabilities whose logits are in the same graph, or one unit for two classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from advgan.errors import AdvGANError

keras = tf.keras
Shape = tuple[int, int, int]
"""Height, width, channels."""
Tensor = Any
Ending = Literal["logits", "softmax", "sigmoid", "log-softmax"]
"""What a classifier ends with."""
_ENDINGS: dict[str, Ending] = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log-softmax"}
"""By TensorFlow's operation."""
ALIKE = ("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape")
"""Operations that change no value."""


class FittedInput(NamedTuple):
    """How images become what a classifier takes."""

    prepare: Callable[[Tensor], Tensor]
    """From float32 images (n, height, width, channels) to what goes in, still float32."""
    batch: int | None
    """The one batch size that goes in; None for any."""
    remark: str
    """What is done to the images, in words; empty where nothing is."""


def fitted_input(takes: Sequence[int | None], shape: Shape, name: str) -> FittedInput:
    """How images of a shape go into a classifier.

    Args:
        takes: the shape of its input, the batch first; None for any size.
        shape: of one image of the data.
        name: what the user calls the classifier.

    Raises:
        AdvGANError: it takes other images.
    """
    batch, *sizes = takes
    height, width, channels = shape

    def fits(*wanted: int) -> bool:
        return len(sizes) == len(wanted) and all(size in (None, here) for size, here in zip(sizes, wanted, strict=True))

    if fits(*shape):
        return FittedInput(lambda images: images, batch, "")
    if fits(height, width) and channels == 1:
        return FittedInput(lambda images: tf.squeeze(images, -1), batch, "images go in without the channel axis")
    if fits(channels, height, width):
        return FittedInput(lambda images: tf.transpose(images, [0, 3, 1, 2]), batch, "images go in channels first")
    if fits(math.prod(shape)):
        return FittedInput(lambda images: tf.reshape(images, [-1, math.prod(shape)]), batch, "images go in flat")
    raise AdvGANError(f"{name} takes images of {tuple(sizes)}, the run's are {shape}; give a classifier of those")


def in_fixed_batches(function: Callable[[Tensor], Tensor], batch: int) -> Callable[[Tensor], Tensor]:
    """A function that takes one batch size as one for any number of images; the last batch is filled with zeros."""

    def any_number(images: Tensor) -> Tensor:
        count = tf.shape(images)[0]
        filled = tf.pad(images, [[0, -count % batch], *([[0, 0]] * (len(images.shape) - 1))])
        parts = tf.reshape(filled, [-1, batch, *images.shape[1:]])
        answers = tf.map_fn(function, parts, fn_output_signature=tf.float32)
        return tf.reshape(answers, [-1, answers.shape[-1]])[:count]

    return any_number


@tf.autograph.experimental.do_not_convert
def only_output(answer: Any, name: str, chosen: str | None = None) -> Any:
    """A classifier's scores, where its answer holds them by name or in a list.

    Args:
        answer: what it answers: a tensor or an array; a mapping or a list of several.
        name: what the user calls the classifier.
        chosen: which of several: a name, or a number from 0; None where there is one.

    Raises:
        AdvGANError: there are several, which the message lists, or none of that name.
    """
    if isinstance(answer, Mapping):
        keys, outputs = [str(key) for key in answer], list(answer.values())
        names = keys
    elif isinstance(answer, (list, tuple)) and all(len(getattr(output, "shape", ())) > 1 for output in answer):
        keys, outputs = [str(number) for number in range(len(answer))], list(answer)
        names = [f"output {key}" for key in keys]
    else:
        keys, outputs, names = ["0"], [answer], ["output 0"]
    if chosen is None and len(outputs) == 1:
        return outputs[0]
    if chosen in keys:
        return outputs[keys.index(chosen)]
    if chosen is not None and chosen.isdecimal() and int(chosen) < len(outputs):
        return outputs[int(chosen)]
    has = f"{name} has {len(outputs)} output{'s' * (len(outputs) != 1)} ({listed(names, outputs)})"
    if chosen is None:
        raise AdvGANError(f"{has}; name the one with the scores, such as target.output={keys[0]}")
    raise AdvGANError(f"{has}, and none is {chosen}; give target.output as a name, or a number from 0")


def listed(names: Sequence[Any], tensors: Sequence[Any]) -> str:
    """Tensors by name, with the shape for one image."""
    shapes = [tuple(getattr(tensor, "shape", ()))[1:] for tensor in tensors]
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))


@tf.autograph.experimental.do_not_convert
def logits_before(scores: Tensor) -> tuple[Tensor, Ending]:
    """The logits that scores were computed from, exactly: what went into the softmax or sigmoid at the end of a graph.

    Args:
        scores: a tensor of a graph that is being traced; one in eager mode comes back as it is.

    Returns:
        The logits, of the same shape, and what the graph ended with. Log-probabilities are logits as they are.
    """
    if tf.executing_eagerly() or not tf.is_tensor(scores):
        return scores, "logits"
    again: list[Callable[[Tensor], Tensor]] = []  # what only changes the shape is done to the logits too
    tensor = scores
    while True:
        operation = tensor.op
        kind = operation.type
        if kind in _ENDINGS:
            break
        if kind == "Reshape":
            again.append(lambda found, operation=operation: tf.reshape(found, operation.inputs[1]))  # type: ignore[misc]
        elif kind == "Squeeze":
            axes = list(operation.get_attr("squeeze_dims"))
            again.append(lambda found, axes=axes: tf.squeeze(found, axes or None))  # type: ignore[misc]
        elif not (kind in ALIKE or (kind == "Cast" and operation.inputs[0].dtype.is_floating)):
            return scores, "logits"
        tensor = operation.inputs[0]
    if kind == "LogSoftmax":
        return scores, "log-softmax"
    found = operation.inputs[0]
    for reshape in reversed(again):
        found = reshape(found)
    return found, _ENDINGS[kind]


@tf.autograph.experimental.do_not_convert
def class_scores(scores: Tensor) -> Tensor:
    """Scores as float32 of shape (n, classes): axes of size 1 between are left out, one unit becomes (0, z)."""
    scores = tf.cast(tf.convert_to_tensor(scores), tf.float32)
    sizes = scores.shape.as_list()
    if len(sizes) > 2 and all(size == 1 for size in sizes[1:-1]):
        scores = tf.reshape(scores, [-1, sizes[-1]])
    if len(sizes) == 1:
        scores = scores[:, tf.newaxis]
    if len(scores.shape) == 2 and scores.shape[-1] == 1:
        return tf.concat([tf.zeros_like(scores), scores], axis=-1)
    return scores


def with_float_input(network: Any) -> Any:
    """A Keras network that takes whole numbers as one of the same layers that takes float32, which has a gradient.

    Raises:
        Exception: Keras raises nearly anything where a network is not made of layers.
    """
    [given] = network.inputs
    images = keras.Input(tuple(given.shape)[1:], dtype="float32")
    return keras.models.clone_model(network, input_tensors=images, clone_function=lambda layer: layer)


@tf.autograph.experimental.do_not_convert
def rounded(images: Tensor) -> Tensor:
    """Images at whole numbers, with the gradient of the images themselves."""
    return images + tf.stop_gradient(tf.round(images) - images)
