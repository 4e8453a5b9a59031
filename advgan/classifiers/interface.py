"""What a classifier of the user's own takes and gives: one input of images, one output of float32 scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from advgan.errors import AdvGANError

keras = tf.keras
_STRUCTURES = (Mapping, list, tuple)


def as_classifier(network: Any, shape: tuple[int, int, int], name: str) -> Any:
    """A Keras model from float32 images to float32 scores (n, classes), frozen.

    A model that is one already comes back as it is. A single output by name is taken, scores in half precision become
    float32.

    Args:
        network: a Keras model.
        shape: of one image: height, width, channels.
        name: what the user calls it.

    Raises:
        AdvGANError: it has several inputs or outputs, which the message lists, or takes other images.
    """
    inputs, outputs = list(getattr(network, "inputs", None) or ()), list(getattr(network, "outputs", None) or ())
    if not inputs or not outputs:
        raise AdvGANError(f"{name} does not say what images it takes; build it on keras.Input{shape} and save it again")
    # A Sequential has no attributes "input" and "output" before it is called; it has one of each.
    given, made = getattr(network, "input", inputs[0]), getattr(network, "output", outputs[0])
    if len(inputs) > 1:
        listed = _listed([tensor.name for tensor in inputs], inputs)
        raise AdvGANError(
            f"{name} has {len(inputs)} inputs ({listed}); a classifier takes images alone: wrap it in a model whose "
            "only input is the image"
        )
    takes = tuple(inputs[0].shape)
    if len(takes) != 4 or any(size not in (None, here) for size, here in zip(takes[1:], shape, strict=True)):
        raise AdvGANError(f"{name} takes images of {takes[1:]}, the run's are {shape}; give a classifier of those")
    if len(outputs) > 1:
        only_output(made if isinstance(made, Mapping) else dict(zip(network.output_names, outputs, strict=True)), name)
    structured = isinstance(given, _STRUCTURES) or isinstance(made, _STRUCTURES)
    if not structured and tf.as_dtype(outputs[0].dtype) == tf.float32:
        return network
    images = keras.Input(shape, name="images")
    answer = network(tf.nest.pack_sequence_as(given, [images]), training=False)
    scores = keras.layers.Activation("linear", dtype="float32", name="scores")(tf.nest.flatten(answer)[0])
    adapted = keras.Model(images, scores, name="classifier")
    adapted.trainable = False
    return adapted


def only_output(answer: Any, name: str) -> Any:
    """A classifier's scores, where its answer holds them by name or in a list.

    Args:
        answer: what it answers: a tensor or an array; a mapping or a list of one.
        name: what the user calls the classifier.

    Raises:
        AdvGANError: there are several, which the message lists.
    """
    if isinstance(answer, Mapping):
        names, outputs = list(answer), list(answer.values())
    elif isinstance(answer, (list, tuple)) and all(len(getattr(output, "shape", ())) > 1 for output in answer):
        names, outputs = [f"output {number}" for number in range(len(answer))], list(answer)
    else:
        return answer
    if len(outputs) != 1:
        raise AdvGANError(
            f"{name} has {len(outputs)} outputs ({_listed(names, outputs)}); a classifier has one: give a model, or a "
            "function, that returns the scores alone"
        )
    return outputs[0]


def float_scores(answer: Any, name: str) -> Any:
    """A classifier's scores as a float32 tensor, whatever it computes in; see ``only_output``."""
    return tf.cast(tf.convert_to_tensor(only_output(answer, name)), tf.float32)


def _listed(names: Sequence[Any], tensors: Sequence[Any]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)[1:]}" for name, tensor in zip(names, tensors, strict=True))
