"""FGSM and PGD in the L_inf ball: attacks that follow the classifier's gradient on each image.

They work on tensors, inside a ``tf.function`` or outside, so that training can use them, and are untargeted. Images are
float32 in [0, 1], shape (n, height, width, channels), epsilon is in the same units, labels are class indices of shape
(n,). The classifier is a function from images to logits in inference mode, such as a Keras model. They start at
the images, or where ``start`` says: ``random_start`` draws points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from advgan import replicas
from advgan.perturbation import project

Tensor = Any
Classifier = Callable[[Tensor], Tensor]
Loss = Literal["cross-entropy", "margin"]


def fgsm(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: Tensor | float,
    *,
    start: Tensor | None = None,
    step_size: Tensor | float | None = None,
) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step of epsilon.

    Args:
        classifier: from images to logits.
        images: float32, shape (n, height, width, channels), in [0, 1].
        labels: int32, shape (n,).
        epsilon: the largest change of a pixel.
        start: within epsilon of the images and in [0, 1]; the images by default.
        step_size: another length of the step; the result stays within epsilon. Wong et al. (2020) take 1.25 epsilon
            from a random start.
    """
    begun = images if start is None else start
    return _step(classifier, images, begun, labels, epsilon, epsilon if step_size is None else step_size)


def pgd(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: Tensor | float,
    *,
    start: Tensor | None = None,
    steps: int = 40,
    step_size: Tensor | float | None = None,
    loss: Loss = "cross-entropy",
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018), by default Foolbox's ``LinfPGD``: 40 steps of epsilon / 30.

    Args:
        classifier: from images to logits.
        images: float32, shape (n, height, width, channels), in [0, 1].
        labels: int32, shape (n,).
        epsilon: the largest change of a pixel.
        start: within epsilon of the images and in [0, 1]; the images by default.
        steps: how many.
        step_size: of each; epsilon / 30 by default.
        loss: what rises: ``cross-entropy``, or ``margin``, by which the best other class's logit exceeds that of the
            label's (Carlini and Wagner 2017), whose gradient does not vanish where logits are large.
    """
    size = epsilon / 30 if step_size is None else step_size
    begun = images if start is None else start

    def step(number: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        return number + 1, _step(classifier, images, adversarial, labels, epsilon, size, loss)

    _, adversarial = tf.while_loop(lambda number, _: number < steps, step, (0, begun), parallel_iterations=1)
    return adversarial


def random_start(images: Tensor, epsilon: Tensor | float, seed: Tensor) -> Tensor:
    """A point of the epsilon ball around each image, uniform but for the pixel box.

    Args:
        images: float32, shape (n, height, width, channels), in [0, 1]; of several replicas this one's share of a batch.
        epsilon: the largest change of a pixel.
        seed: two integers, such as a run's seed and the number of the batch; they alone determine what is drawn.
    """
    many, rest = replicas.here(), tf.shape(images)[1:]
    drawn = tf.random.stateless_uniform(tf.concat([[tf.shape(images)[0] * many], rest], 0), seed, -epsilon, epsilon)
    if many > 1:
        drawn = replicas.share_of(tf.ensure_shape(drawn, [images.shape[0] * many, *images.shape[1:]]))
    return tf.clip_by_value(images + drawn, 0.0, 1.0)


def _step(
    classifier: Classifier,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    epsilon: Tensor | float,
    step_size: Tensor | float,
    loss: Loss = "cross-entropy",
) -> Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(adversarial)
        logits = classifier(adversarial)
        if loss == "margin":
            value = tf.reduce_sum(_margins(logits, labels))
        else:
            value = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradient = tape.gradient(value, adversarial)
    stepped = project(images, adversarial + step_size * tf.sign(gradient), epsilon)
    return tf.clip_by_value(stepped, 0.0, 1.0)


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the best other class exceeds that of the label, (n,)."""
    own = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(own, logits.dtype.min, logits)
    return tf.reduce_max(others, 1) - tf.reduce_sum(tf.where(own, logits, 0.0), 1)
