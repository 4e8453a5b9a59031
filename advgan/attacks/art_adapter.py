"""AdvGAN and our classifiers in ART (``pip install adversarial-robustness-toolbox``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from art.attacks import EvasionAttack
from art.estimators import BaseEstimator
from art.estimators.classification import TensorFlowV2Classifier

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.errors import AdvGANError
from advgan.goals import Targeted
from advgan.perturbation import UNIT, Bounds

keras = tf.keras


def art_classifier(classifier: Any, bounds: Bounds = UNIT) -> TensorFlowV2Classifier:
    """A Keras classifier as an ART estimator, in inference mode.

    Args:
        classifier: from images within the bounds to logits.
        bounds: the smallest and the largest pixel value.
    """
    return TensorFlowV2Classifier(
        model=classifier,
        nb_classes=classifier.output_shape[-1],
        input_shape=classifier.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=bounds,
    )


class ARTAttack(EvasionAttack):  # type: ignore[misc]
    """An ``AdvGANAttack`` as one of ART's evasion attacks.

    Args:
        estimator: the ART classifier it is tried on; ART wants one, the images do not depend on it.
        attack: what makes the images; it brings its own goal, epsilon and bounds.

    Raises:
        AdvGANError: the estimator clips pixels to other bounds than the attack's.
    """

    _estimator_requirements = (BaseEstimator,)

    def __init__(self, estimator: Any, attack: AdvGANAttack) -> None:
        super().__init__(estimator=estimator)
        if estimator.clip_values is not None and not np.allclose(estimator.clip_values, attack.bounds):
            raise AdvGANError(f"the estimator's clip_values are {estimator.clip_values}, the attack's {attack.bounds}")
        self.attack = attack
        self._targeted = isinstance(attack.goal, Targeted)

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **_: Any) -> np.ndarray:
        """Attack images; see ``AdvGANAttack.generate``."""
        return self.attack.generate(x, y)
