"""Adam with a learning-rate schedule, ready to be restored from a checkpoint."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config.settings import Config
from advgan.config.values import Schedule

keras = tf.keras


def adam(network: Any, learning_rate: float, schedule: Schedule, steps: int, beta_1: float = 0.9) -> Any:
    """Build Adam on a network's trainable variables.

    Args:
        network: the Keras model that it updates.
        learning_rate: at the first step.
        schedule: ``constant``, or a ``cosine`` or ``linear`` decay that reaches 0 after ``steps`` updates.
        steps: updates in the whole run.
        beta_1: Adam's first decay rate.
    """
    schedules: dict[Schedule, Any] = {
        "constant": lambda: learning_rate,
        "cosine": lambda: keras.optimizers.schedules.CosineDecay(learning_rate, steps),
        "linear": lambda: keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0),
    }
    optimizer = keras.optimizers.Adam(schedules[schedule](), beta_1=beta_1)
    optimizer.build(network.trainable_variables)  # so that a checkpoint finds its slots
    return optimizer


def distilled_optimizer(distilled: Any, config: Config) -> Any:
    """Adam for the distilled network; it stays warm over the rounds."""
    return adam(distilled, config.distillation.learning_rate, "constant", steps=1)
