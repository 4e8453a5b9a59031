"""A trained generator against a classifier, batch by batch: what validation and evaluation both measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from advgan.config import AttackSettings
from advgan.data.batches import slices
from advgan.data.datasets import scaled
from advgan.perturbation import perturb

BATCH_SIZE = 500


class Attacked(NamedTuple):
    """Adversarial images, float32 in [0, 1], and what the classifier answers on them, int32 of shape (n,)."""

    images: np.ndarray
    predictions: np.ndarray


class GeneratorAttack:
    """Attack with one forward pass of G; both networks are in inference mode.

    Args:
        generator: from images in [0, 1] to tanh outputs in [-1, 1] of the same shape.
        classifier: from images in [0, 1] to logits.
        settings: the goal, epsilon and the form of the output.
    """

    def __init__(self, generator: Any, classifier: Any, settings: AttackSettings) -> None:
        self.settings = settings
        signature = [tf.TensorSpec([None, *generator.input_shape[1:]], tf.float32)]

        def classify(images: Any) -> Any:
            return tf.argmax(classifier(images, training=False), axis=-1, output_type=tf.int32)

        def attack(images: Any) -> tuple[Any, Any]:
            _, adversarial = perturb(images, generator(images, training=False), settings.epsilon, settings.output)
            return adversarial, classify(adversarial)

        self._classify = tf.function(classify, input_signature=signature)
        self._attack = tf.function(attack, input_signature=signature)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """The classifier's predictions on images as they are: uint8 in 0..255 or floats in [0, 1]."""
        return np.concatenate(_batched(self._classify, images))

    def __call__(self, images: np.ndarray) -> Attacked:
        """Attack clean images: uint8 in 0..255 or floats in [0, 1], n at least 1."""
        adversarial, predictions = zip(*_batched(self._attack, images), strict=True)
        return Attacked(
            np.concatenate([part.numpy() for part in adversarial]),
            np.concatenate([part.numpy() for part in predictions]),
        )


def _batched(function: Callable[[Any], Any], images: np.ndarray) -> list[Any]:
    return [function(tf.constant(scaled(images[part]))) for part in slices(len(images), BATCH_SIZE)]
