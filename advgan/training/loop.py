"""The loop of every training: steps, finite losses, reports, checkpoints, stops. What is trained it does not know."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from advgan import replicas
from advgan.errors import Interrupted, NonFiniteError

STEPS_PER_REPORT = 10
STEPS_PER_CALL, SECONDS_PER_CALL = 10, 1.0
"""How much is done between two looks at losses and stops: so many steps, or as many as take so long."""

logger = logging.getLogger(__name__)
Tensor = Any


class Trainer(ABC):
    """One kind of training: how a step is made, reported and saved. ``run_steps`` decides when."""

    setting_at_fault: str
    """What to lower when a loss is not finite."""
    checkpoint_every: float = math.inf
    """Steps between two checkpoints; infinite where there are none."""
    step_name = "step {}"
    """What the message of a stop calls the step with this number."""

    @abstractmethod
    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Make an update for each batch.

        Args:
            first: number of the first of these steps, counted from 1.
            batches: a part of those given to ``run_steps``, at most ``STEPS_PER_CALL``.

        Returns:
            Losses and the like by name, a float32 for each step.
        """

    @abstractmethod
    def report(self, rows: list[dict[str, float]]) -> None:
        """Record and show the values, all of them finite, of the steps since the last report."""

    def report_due(self, number: int, unreported: int) -> bool:  # noqa: ARG002
        """Whether to report after the step with this number, when so many steps are not reported yet."""
        return unreported == STEPS_PER_REPORT

    def save(self) -> None:
        """Write a checkpoint. Needed where there are checkpoints, or a stop can be requested."""
        raise NotImplementedError


def run_steps(
    trainer: Trainer, first: int, batches: np.ndarray, stop_requested: Callable[[], bool] = lambda: False
) -> None:
    """Make a step for each batch, several in one call.

    After the last step there is a report but neither checkpoint nor stop: both wait until the caller has closed the
    epoch.

    Args:
        trainer: what is trained.
        first: number of the first step.
        batches: an item for each step.
        stop_requested: whether to stop, from ``stop_requests``.

    Raises:
        NonFiniteError: a loss is NaN or infinite; no checkpoint holds the step.
        Interrupted: a stop was requested; a checkpoint was written.
    """
    unreported: list[dict[str, float]] = []
    done, most = 0, 1  # how long one takes is not known yet
    while done < len(batches):
        number, count = first + done, 0  # the number of the call's last step
        saving = reporting = False
        while not (saving or reporting) and count < min(most, len(batches) - done):
            number, count = first + done + count, count + 1
            saving = number % trainer.checkpoint_every == 0
            reporting = trainer.report_due(number, len(unreported) + count)
        start = time.monotonic()
        made = trainer.steps(first + done, batches[done : done + count])
        reached = int(SECONDS_PER_CALL * count / max(time.monotonic() - start, 1e-9))
        most = max(1, min(STEPS_PER_CALL, int(replicas.of_workers(reached).min())))
        unreported += _finite_rows(made, first + done, trainer.setting_at_fault)
        done += count
        last = done == len(batches)
        stopping = not last and stop_requested()
        saving = stopping or (saving and not last)
        if last or saving or reporting:
            trainer.report(unreported)
            unreported = []
        if saving:
            trainer.save()
        if stopping:
            raise Interrupted(f"stopped at {trainer.step_name.format(number)}; nothing is lost")


def several_steps(
    step: Callable[..., dict[str, Tensor]], xla: bool | Literal["auto"] = False
) -> Callable[..., dict[str, np.ndarray]]:
    """Compile a step, and make of it one graph that runs as many steps as are wanted without coming back to Python.

    Args:
        step: from a batch, the number of the step and whatever else is given to float32 scalars by name.
        xla: compile the step by XLA; ``auto``: if XLA can, else a warning says that it cannot.

    Returns:
        A function of batches (an array, or several, with an item for each step), the number of the first step, and the
        same else; with an array of values for each name.
    """
    names: list[str] = []

    def compiled(with_xla: bool) -> Callable[..., Tensor]:
        one_step = tf.function(step, jit_compile=True, autograph=False) if with_xla else replicas.on_each(step)

        @tf.function(autograph=False, reduce_retracing=True)
        def call(batches: Tensor, first: Tensor, count: Tensor, *others: Any) -> Tensor:
            def one(place: Tensor) -> Tensor:
                values = one_step(tf.nest.map_structure(lambda each: each[place], batches), first + place, *others)
                names[:] = values
                return tf.stack(list(values.values()))

            return tf.map_fn(one, tf.range(count), fn_output_signature=tf.float32, parallel_iterations=1)

        return call

    call, trying = compiled(bool(xla)), xla == "auto"

    def steps(batches: Any, first: int, *others: Any) -> dict[str, np.ndarray]:
        nonlocal call, trying
        count = len(tf.nest.flatten(batches)[0])
        given = tf.nest.map_structure(_filled, batches), tf.constant(first), tf.constant(count), *others
        try:
            values = call(*given).numpy()
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not trying:
                raise
            logger.warning("XLA cannot compile the step, which runs without it: %s", str(error).split("\n", 1)[0])
            call = compiled(False)
            values = call(*given).numpy()
        trying = False
        return dict(zip(names, values.T, strict=True))

    return steps


def _filled(batches: np.ndarray) -> Tensor:
    """Of one shape, for one graph."""
    filled = np.zeros([STEPS_PER_CALL, *batches.shape[1:]], batches.dtype)
    filled[: len(batches)] = batches
    return tf.constant(filled)


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each value over some steps, at least one."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _finite_rows(values: dict[str, np.ndarray], first: int, setting: str) -> list[dict[str, float]]:
    """The values of each step as numbers."""
    rows = [
        dict(zip(values, row, strict=True)) for row in zip(*(each.tolist() for each in values.values()), strict=True)
    ]
    for number, row in enumerate(rows, start=first):
        for name, value in row.items():
            if not math.isfinite(value):
                raise NonFiniteError(name, number, setting)
    return rows
