"""The classifier under attack: one type for whatever a user names, and the one place that scales pixels for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.classifiers.adaptation import (
    Ending,
    Shape,
    class_scores,
    fitted_input,
    in_fixed_batches,
    listed,
    logits_before,
    only_output,
    rounded,
    with_float_input,
)
from advgan.classifiers.pixels import UNSCALED, Pixels
from advgan.data.batch_parts import side_by_side
from advgan.data.batches import in_batches
from advgan.errors import AdvGANError
from advgan.networks.forward import forward
from advgan.networks.input_gradients import fast_gradients
from advgan.perturbation import UNIT, Bounds

keras = tf.keras
LEFT_OUT = {
    "softmax": "its softmax is left out: the logits before it are the scores",
    "sigmoid": "its sigmoid is left out: the logits before it are the scores",
}
"""What is done at the end of a classifier, in words."""
ONE_UNIT = "its one output z becomes the scores (0, z) of two classes"


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
    """From float32 images as ``pixels`` says to float32 scores; call ``logits``, which scales the images."""
    pixels: Pixels = UNSCALED
    """The pixels that ``function`` takes."""
    network: Any = None
    """The Keras network as the user has it; None where there is none to be had."""
    weights: str | None = None
    """SHA-256 of the weights of a Keras network: the same in two files that hold one network; None elsewhere."""
    is_black_box: bool = False
    """Whether each image sent to it is a query: only its answers are available, and no gradient."""
    remarks: list[str] = field(default_factory=list)
    """What had to be done to images and answers, in words; a black box adds to it as it answers."""
    ends: Ending = "logits"
    """What it ends with; a softmax or sigmoid is not part of the scores."""
    inputs: str = ""
    """The names and shapes of what it takes, as far as they are known."""
    outputs: str = ""
    """The same of what it answers."""

    def logits(self, images: Any, bounds: Bounds = UNIT) -> Any:
        """The scores of images, differentiable where ``has_gradient``.

        Args:
            images: float32, shape (n, height, width, channels), in [0, 1] or other bounds.
            bounds: the smallest and the largest pixel value of the images.

        Returns:
            Float32 of shape (n, classes): logits. A black box gives a NumPy array of probabilities, or of one-hot rows.
        """
        return self.function(self.pixels.of(images, bounds))

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
    def model(self) -> Any:
        """A Keras model from images in [0, 1] to the scores, for other libraries: the user's own where it is that.

        Raises:
            AdvGANError: it is a black box.
        """
        if self.is_black_box:
            raise AdvGANError(f"{self.name} is a black box: there is no model of it")
        if self.network is not None and self.pixels == UNSCALED and not self.remarks:
            return self.network
        images = keras.Input(self.image_shape, name="images")
        return keras.Model(images, _Scores(self)(images), name="classifier")

    @cached_property
    def number_of_classes(self) -> int:
        """The scores it gives an image, counted on a blank one when first needed: for a black box that is a query.

        Raises:
            AdvGANError: it does not give an image two scores or more.
        """
        shape = np.shape(self.logits(tf.zeros([1, *self.image_shape])))
        if len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
            raise AdvGANError(f"{self.name} returns shape {shape} for one image; it should be (1, classes)")
        return int(shape[1])

    @cached_property
    def has_gradient(self) -> bool:
        """Whether attacks can follow its gradient; tried on eight images. A black box has none, which costs no query.

        Only the trial can tell: a function may leave TensorFlow, or round; a loop has zeros where there is none.
        """
        if self.is_black_box:
            return False
        images = tf.constant(fixed_images(self.image_shape))
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = tf.convert_to_tensor(self.logits(images))
            # Not their plain sum, which probabilities keep at 1.
            total = tf.reduce_sum(scores * tf.range(1.0, scores.shape[-1] + 1))
        gradient = tape.gradient(total, images)
        return gradient is not None and bool(tf.reduce_any(gradient != 0))


def fixed_images(shape: Shape) -> np.ndarray:
    """Eight images of noise, always the same: float32 in [0, 1], shape (8, height, width, channels)."""
    return np.random.default_rng(0).random((8, *shape), np.float32)


def fixed_answers(classifier: Classifier) -> np.ndarray:
    """A classifier's logits on the fixed images, as shares of the largest: float32 of shape (8, classes).

    Raises:
        ValueError: they have another shape.
    """
    logits = np.asarray(classifier.logits(tf.constant(fixed_images(classifier.image_shape))), np.float32)
    if logits.ndim != 2 or len(logits) != 8:
        raise ValueError(f"8 images are answered with shape {logits.shape}, it should be (8, classes)")
    return logits / max(np.abs(logits).max(), np.finfo(np.float32).tiny)


def answers_digest(classifier: Classifier) -> str:
    """SHA-256 of its fixed answers in per cent, whole: on another processor the last digits differ."""
    per_cent = np.rint(100 * np.nan_to_num(fixed_answers(classifier)))  # NaN is an error of the checks that follow
    return hashlib.sha256(per_cent.astype(np.int16).tobytes()).hexdigest()


def listed_inputs(inputs: Sequence[Any]) -> str:
    """A network's inputs: name, shape for one image, type."""
    return ", ".join(f"{tensor.name} {tuple(tensor.shape)[1:]} {tf.as_dtype(tensor.dtype).name}" for tensor in inputs)


def listed_outputs(answer: Any) -> str:
    """What a classifier answers: each output's shape for one image, with its name where it has one."""
    if isinstance(answer, Mapping):
        return listed(list(answer), list(answer.values()))
    outputs = tf.nest.flatten(answer)
    return listed([f"output {number}" for number in range(len(outputs))], outputs)


class _Scores(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """A classifier as a layer."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(name="scores", trainable=False)
        self._classifier = classifier

    def call(self, images: Any) -> Any:
        return self._classifier.logits(images)


def classifier_of(
    target: Callable[[Any], Any],
    shape: Shape,
    name: str,
    digest: str = "",
    pixels: Pixels = UNSCALED,
    weights: str | None = None,
    output: str | None = None,
    as_it_answers: bool = False,
) -> Classifier:
    """A Keras network or any other function as a classifier.

    Args:
        target: a Keras network, which is compiled and called in inference mode; or a function from float32 images
            as ``pixels`` says, shape (n, height, width, channels), to scores (n, classes), called as it is. A network
            may take images in another layout, and its logits are found before a softmax (see ``adaptation``).
        shape: of one image: height, width, channels.
        name: what the user calls it.
        digest, weights: SHA-256 of what determines its answers, and of its weights, where they are known.
        pixels: what it takes.
        output: the name or number of the output that is meant, where there are several.
        as_it_answers: whether its answers are left as they are, probabilities too.

    Raises:
        AdvGANError: the network has several inputs or outputs, which the message lists, or takes other images.
    """
    pixels.check_channels(shape[-1])
    if not isinstance(target, keras.layers.Layer):

        def scores(images: Any) -> Any:
            return class_scores(only_output(target(images), name, output))

        return Classifier(name, digest, shape, scores, pixels)
    network, call = target, target
    takes: Sequence[int | None] = (None, *shape)
    dtype, given, made = tf.float32, None, None
    if inputs := list(getattr(network, "inputs", None) or []):
        if len(inputs) > 1:
            raise AdvGANError(
                f"{name} has {len(inputs)} inputs ({listed([tensor.name for tensor in inputs], inputs)}); a classifier "
                "takes images alone: wrap it in a model whose only input is the image"
            )
        takes, dtype = tuple(inputs[0].shape), tf.as_dtype(inputs[0].dtype)
        # A Sequential has no attributes "input" and "output" before it is called; it has one of each.
        given, made = getattr(network, "input", None), getattr(network, "output", None)
        if len(network.outputs) > 1 and not isinstance(made, Mapping):
            made = dict(zip(network.output_names, network.outputs, strict=True))
    if dtype.is_integer:
        try:
            call = with_float_input(network)
        except Exception:  # not made of layers: it works, without a gradient
            call = network
    elif (faster := forward(network)) is not network:
        call, given = faster, None  # it takes the images as they are

    def answer(images: Any) -> Any:
        found = call(images if given is None else tf.nest.pack_sequence_as(given, [images]), training=False)
        if isinstance(made, Mapping) and not isinstance(found, Mapping):
            return dict(zip(made, tf.nest.flatten(found), strict=True))
        return found

    return compiled(
        answer,
        Classifier(name, digest, shape, answer, pixels, network, weights, inputs=listed_inputs(inputs)),
        takes,
        dtype,
        output,
        as_it_answers,
    )


def compiled(
    answer: Callable[[Any], Any],
    classifier: Classifier,
    takes: Sequence[int | None],
    dtype: Any,
    output: str | None = None,
    as_it_answers: bool = False,
) -> Classifier:
    """A classifier of the usual form, as a graph, from TensorFlow operations.

    Args:
        answer: from a batch as it takes it to what it answers.
        classifier: what is known of it.
        takes: the shape of its input, the batch first; None for any size.
        dtype: of its input.
        output, as_it_answers: see ``classifier_of``.

    Raises:
        AdvGANError: it takes other images, or has several outputs.
    """
    name, shape = classifier.name, classifier.image_shape
    fitted = fitted_input(takes, shape, name)
    remarks = [fitted.remark] if fitted.remark else []
    ends: Ending = "logits"
    outputs = ""
    problems: list[AdvGANError] = []

    def chosen(made: Any) -> Any:
        try:
            return only_output(made, name, output)
        except AdvGANError as error:  # TensorFlow would put where it arose in front of it
            problems.append(error)
            raise

    def one_batch(images: Any) -> Any:
        nonlocal ends, outputs
        images = rounded(fitted.prepare(images)) if dtype.is_integer else fitted.prepare(images)
        with fast_gradients():
            made = answer(images)
        outputs = listed_outputs(made)
        scores = tf.convert_to_tensor(chosen(made))
        if as_it_answers:
            return tf.cast(scores, tf.float32)
        scores, ends = logits_before(scores)
        if ends in LEFT_OUT:
            remarks.append(LEFT_OUT[ends])
        if scores.shape.rank is not None and scores.shape.rank <= 2 and scores.shape[1:].num_elements() == 1:
            remarks.append(ONE_UNIT)
        return class_scores(scores)

    def traced(call: Callable[[Any], Any], images: int | None) -> Any:
        function = tf.function(call, input_signature=[tf.TensorSpec([images, *shape], tf.float32)])
        function.get_concrete_function()
        return function

    try:
        function = traced(one_batch, fitted.batch)
        if fitted.batch is not None:  # an error inside its loop would leave TensorFlow's variable scope changed
            function = traced(in_fixed_batches(one_batch, fitted.batch), None)
    except Exception:
        if problems:
            raise problems[0] from None
        raise
    if dtype.is_integer:
        remarks.append(f"pixels go in as whole numbers ({dtype.name})")
    if fitted.batch is not None:
        remarks.append(f"images go in {fitted.batch} at a time")
    return replace(
        classifier,
        function=side_by_side(function, shape),
        remarks=list(dict.fromkeys(remarks)),
        ends=ends,
        outputs=outputs,
    )
