"""A checkpoint with parts left out, read without the check that refuses it."""

from __future__ import annotations

import tensorflow as tf

PARTS = (
    "generator",
    "discriminator",
    "generator_optimizer",
    "discriminator_optimizer",
    "best_generator",
    "distilled",
    "distilled_optimizer",
)


class Lenient:
    """Reads what there is of a checkpoint but for some parts, as a program would that does not check."""

    def __init__(self, whole: tf.train.Checkpoint, left_out: str) -> None:
        parts = {name: getattr(whole, name) for name in PARTS if hasattr(whole, name)}
        del parts[left_out]
        self._checkpoint = tf.train.Checkpoint(**parts)

    def read(self, path: str) -> Lenient:
        self._checkpoint.read(path).expect_partial()
        return self

    def assert_consumed(self) -> None:
        pass

    def write(self, path: str) -> None:
        self._checkpoint.write(path)
