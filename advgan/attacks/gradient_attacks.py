"""FGSM and PGD in the L_inf ball: attacks that follow the classifier's gradient on each image.

They work on tensors, inside a ``tf.function`` or outside, so that training can use them, and are untargeted. Images are
float32 in [0, 1], shape (n, height, width, channels), epsilon is in the same units, labels are class indices of shape
(n,). The classifier is a Keras model that returns logits; it is called in inference mode.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.perturbation import project

Tensor = Any


def fgsm(classifier: Any, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step of epsilon."""
    return _step(classifier, images, images, labels, epsilon, epsilon)


def pgd(classifier: Any, images: Tensor, labels: Tensor, epsilon: float, seed: Tensor, steps: int = 40) -> Tensor:
    """Projected gradient descent (Madry et al. 2018), by default Foolbox's ``LinfPGD``: 40 steps of epsilon / 30.

    Args:
        classifier, images, labels, epsilon: see the module.
        seed: two integers, such as a run's seed and the number of the batch; they alone determine the random start.
        steps: how many steps of epsilon / 30.
    """
    noise = tf.random.stateless_uniform(tf.shape(images), seed, -epsilon, epsilon)
    adversarial = tf.clip_by_value(images + noise, 0.0, 1.0)
    for _ in tf.range(steps):
        adversarial = _step(classifier, images, adversarial, labels, epsilon, epsilon / 30)
    return adversarial


def _step(
    classifier: Any, images: Tensor, adversarial: Tensor, labels: Tensor, epsilon: float, step_size: float
) -> Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(adversarial)
        logits = classifier(adversarial, training=False)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradient = tape.gradient(loss, adversarial)
    normalized = tf.sign(gradient)
    stepped = adversarial + step_size * normalized
    projected = project(images, stepped, epsilon)
    clipped = tf.clip_by_value(projected, 0.0, 1.0)
    return clipped
