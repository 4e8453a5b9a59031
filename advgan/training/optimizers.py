"""Adam with a learning-rate schedule, ready to be restored from a checkpoint."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.config.settings import Config
from advgan.config.values import Schedule

keras = tf.keras
Tensor = Any


class Adam(keras.optimizers.Adam):  # type: ignore[misc, name-defined]
    """Keras's Adam, which updates a variable by one operation in the place of ten: the same, but for rounding.

    Where there are several replicas, the gradients that it is given are those of all of them already.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:  # of Keras 3
        return grads_and_vars

    def aggregate_gradients(self, grads_and_vars: Any) -> Any:
        """Of Keras 2: as they are."""
        return grads_and_vars

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor | None = None) -> None:
        """Update a variable.

        Args:
            gradient: of the variable's shape.
            variable: one that the optimizer was built on.
            learning_rate: given by Keras 3; Keras 2 keeps it.
        """
        if learning_rate is None:
            index, learning_rate = self._index_dict[self._var_key(variable)], self.learning_rate
        else:
            index = self._get_variable_index(variable)
        number = tf.cast(self.iterations, tf.float32) + 1
        handles = [each.handle for each in (variable, self._momentums[index], self._velocities[index])]
        tf.raw_ops.ResourceApplyAdam(
            **dict(zip(("var", "m", "v"), handles, strict=True)),
            beta1_power=tf.pow(self.beta_1, number),
            beta2_power=tf.pow(self.beta_2, number),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(network: Any, learning_rate: float, schedule: Schedule, steps: int, beta_1: float = 0.9) -> Any:
    """Build Adam on a network's trainable variables.

    Args:
        network: the Keras model that it updates.
        learning_rate: at the first step; with ``one_cycle`` the highest.
        schedule: ``constant``, or a ``cosine`` or ``linear`` decay that reaches 0 after ``steps`` updates; or
            ``one_cycle``, which rises from 0 over a quarter of them and then falls as a cosine does.
        steps: updates in the whole run.
        beta_1: Adam's first decay rate.
    """
    rising = max(1, steps // 4)
    schedules: dict[Schedule, Any] = {
        "constant": lambda: learning_rate,
        "cosine": lambda: keras.optimizers.schedules.CosineDecay(learning_rate, steps),
        "linear": lambda: keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0),
        "one_cycle": lambda: keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - rising), warmup_target=learning_rate, warmup_steps=rising
        ),
    }
    optimizer = Adam(schedules[schedule](), beta_1=beta_1)
    optimizer.build(network.trainable_variables)  # so that a checkpoint finds its slots
    return optimizer


def distilled_optimizer(distilled: Any, config: Config) -> Any:
    """Adam for the distilled network; it stays warm over the rounds."""
    return adam(distilled, config.distillation.learning_rate, "constant", steps=1)
