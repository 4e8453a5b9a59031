"""Foolbox's PGD along Carlini and Wagner's margin of logits, for comparison."""

from __future__ import annotations

from typing import Any

import eagerpy as ep
import foolbox
import tensorflow as tf


class MarginPGD(foolbox.attacks.LinfPGD):
    """The loss that rises is that margin in the place of the cross-entropy."""

    def get_loss_fn(self, model: Any, labels: Any) -> Any:
        def loss(inputs: Any) -> Any:
            logits = model(inputs).raw
            others = tf.reduce_max(logits - 1e4 * tf.one_hot(labels.raw, 10), 1)
            return ep.astensor(tf.reduce_sum(others - tf.gather(logits, labels.raw, batch_dims=1)))

        return loss
