"""The classifier under attack: one type for whatever a user names, and the one place that scales pixels for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.data.batches import in_batches
from advgan.errors import AdvGANError
from advgan.perturbation import UNIT, Bounds

keras = tf.keras
Shape = tuple[int, int, int]
"""Height, width, channels."""
_STRUCTURES = (Mapping, list, tuple)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier as attacks, checks and scores see it, always in inference mode.

    ``load_classifier`` makes one from what a user names, ``classifier_of`` from a Keras network or a function.
    """

    name: str
    """What the user calls it."""
    digest: str
    """SHA-256 of what determines its answers; empty where it came from Python without a file."""
    image_shape: Shape
    function: Callable[[Any], Any]
    """From float32 images within ``bounds`` to float32 scores; call ``logits``, which scales the images."""
    bounds: Bounds = UNIT
    """The smallest and the largest pixel value that ``function`` takes."""
    network: Any = None
    """The Keras network, from images within the bounds to float32 scores; None where there is none to be had."""
    weights: str | None = None
    """SHA-256 of the weights of a Keras network: the same in two files that hold one network; None elsewhere."""
    is_black_box: bool = False
    """Whether each image that is shown to it is a query: nothing but its answers can be had, and no gradient."""
    remarks: list[str] = field(default_factory=list)
    """What had to be done to its answers to make scores of them, in words; added to as it answers."""

    def logits(self, images: Any, bounds: Bounds = UNIT) -> Any:
        """The scores of images, differentiable where ``has_gradient``.

        Args:
            images: float32, shape (n, height, width, channels), in [0, 1] or other bounds.
            bounds: the smallest and the largest pixel value of the images.

        Returns:
            Float32 of shape (n, classes): logits. A black box gives a NumPy array of probabilities, or of one-hot rows.
        """
        return self.function(_rescaled(images, bounds, self.bounds))

    def predict(self, images: np.ndarray, bounds: Bounds = UNIT) -> np.ndarray:
        """The class of each image, int32 of shape (n,), computed batch by batch.

        Args:
            images: a NumPy array, shape (n, height, width, channels), in [0, 1] or other bounds; n may be 0.
            bounds: the smallest and the largest pixel value of the images.
        """
        predictions = np.empty(len(images), np.int32)

        def classify(part: slice) -> None:
            batch = tf.constant(images[part].astype(np.float32, copy=False))
            predictions[part] = np.argmax(self.logits(batch, bounds), axis=-1)

        in_batches(
            len(images), images.shape[1:], classify
        )  # one by one: a function need not be safe to call twice at once
        return predictions

    @cached_property
    def number_of_classes(self) -> int:
        """The scores it gives an image, counted on a blank one when first needed: for a black box that is a query.

        Raises:
            AdvGANError: it does not give an image two scores or more.
        """
        shape = np.shape(self.logits(tf.zeros([1, *self.image_shape])))
        if len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
            raise AdvGANError(f"{self.name} answers one image with shape {shape}; it should be (1, classes)")
        return int(shape[1])

    @cached_property
    def has_gradient(self) -> bool:
        """Whether attacks can follow its gradient; tried on a blank image. A black box has none, which costs no query.

        Of a function only the trial can tell: it may leave TensorFlow, or round.
        """
        if self.is_black_box:
            return False
        image = tf.zeros([1, *self.image_shape])
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = tf.reduce_sum(tf.convert_to_tensor(self.logits(image)))
        return tape.gradient(total, image) is not None


def classifier_of(
    target: Callable[[Any], Any],
    shape: Shape,
    name: str,
    digest: str = "",
    bounds: Bounds = UNIT,
    weights: str | None = None,
) -> Classifier:
    """A Keras network or any other function as a classifier.

    Args:
        target: a Keras network, which is compiled and called in inference mode; or a function from float32 images
            within the bounds, shape (n, height, width, channels), to scores (n, classes), called as it is. The only
            output in a mapping or a list is taken, and scores in half precision become float32.
        shape: of one image: height, width, channels.
        name: what the user calls it.
        digest, weights: SHA-256 of what determines its answers, and of its weights, where they are known.
        bounds: the smallest and the largest pixel value that it takes.

    Raises:
        AdvGANError: the network has several inputs or outputs, which the message lists, or takes other images.
    """
    if not isinstance(target, keras.layers.Layer):

        def scores(images: Any) -> Any:
            return _float_scores(target(images), name)

        return Classifier(name, digest, shape, scores, bounds)
    network = _with_plain_ends(target, shape, name) if getattr(target, "inputs", None) else target

    def inference(images: Any) -> Any:
        return _float_scores(network(images, training=False), name)

    compiled = tf.function(inference, input_signature=[tf.TensorSpec([None, *shape], tf.float32)])
    return Classifier(name, digest, shape, compiled, bounds, network, weights)


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


def _rescaled(images: Any, given: Bounds, wanted: Bounds) -> Any:
    """Pixels from one range in another; as they are where both are the same."""
    if given == wanted:
        return images
    (low, high), (lowest, highest) = given, wanted
    return (images - low) / (high - low) * (highest - lowest) + lowest


def _float_scores(answer: Any, name: str) -> Any:
    return tf.cast(tf.convert_to_tensor(only_output(answer, name)), tf.float32)


def _with_plain_ends(network: Any, shape: Shape, name: str) -> Any:
    """A Keras network whose only input is the image and whose only output are float32 scores.

    One that is like that already comes back as it is; else a frozen one around it, which takes its single output by
    name and casts half precision.
    """
    inputs, outputs = list(network.inputs), list(network.outputs)
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


def _listed(names: Sequence[Any], tensors: Sequence[Any]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)[1:]}" for name, tensor in zip(names, tensors, strict=True))
