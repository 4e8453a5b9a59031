"""Our classifiers in Foolbox: Foolbox attacks them, and scores any attack on them."""

from __future__ import annotations

from functools import partial
from typing import Any

from foolbox.models.tensorflow import TensorFlowModel

from advgan.perturbation import UNIT, Bounds


def foolbox_model(classifier: Any, bounds: Bounds = UNIT) -> TensorFlowModel:
    """A Keras classifier as a Foolbox model, in inference mode.

    With NumPy 2, Foolbox needs labels as int64 tensors: ``tf.constant(labels, tf.int64)``.

    Args:
        classifier: from images within the bounds to logits.
        bounds: the smallest and the largest pixel value.
    """
    return TensorFlowModel(partial(classifier, training=False), bounds=bounds)
