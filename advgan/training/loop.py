"""The loop of every training: steps, finite losses, reports, checkpoints, stops. What is trained it does not know."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from advgan.errors import Interrupted, NonFiniteError

STEPS_PER_REPORT = 10


class Trainer(ABC):
    """One kind of training: how a step is made, reported and saved. ``run_steps`` decides when."""

    setting_at_fault: str
    """What to lower when a loss is not finite."""
    checkpoint_every: float = math.inf
    """Steps between two checkpoints; infinite where there are none."""
    step_name = "step {}"
    """What the message of a stop calls the step with this number."""

    @abstractmethod
    def step(self, number: int, batch: Any) -> dict[str, Any]:
        """Make one update.

        Args:
            number: of the step, counted from 1.
            batch: whatever the iterator given to ``run_steps`` has.

        Returns:
            Losses and the like by name: float32 scalar tensors, which are read later, so this need not wait for them.
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
    trainer: Trainer, steps: Iterator[tuple[int, Any]], stop_requested: Callable[[], bool] = lambda: False
) -> None:
    """Make all steps of an iterator. Their losses are read when a report is due, so the device never waits in between.

    After the last step there is a report but neither checkpoint nor stop: both wait until the caller has closed the
    epoch.

    Args:
        trainer: what is trained.
        steps: the number, ascending by 1, and the batch of each.
        stop_requested: whether to stop, from ``stop_requests``.

    Raises:
        NonFiniteError: a loss is NaN or infinite; no checkpoint holds the step.
        Interrupted: a stop was requested; a checkpoint was written.
    """
    unreported: list[dict[str, Any]] = []
    following = next(steps, None)
    while following is not None:
        number, batch = following
        unreported.append(trainer.step(number, batch))
        following = next(steps, None)
        last = following is None
        stopping = not last and stop_requested()
        saving = stopping or (not last and number % trainer.checkpoint_every == 0)
        if last or saving or trainer.report_due(number, len(unreported)):
            trainer.report(_read(unreported, number, trainer.setting_at_fault))
            unreported = []
        if saving:
            trainer.save()
        if stopping:
            raise Interrupted(f"stopped at {trainer.step_name.format(number)}; nothing is lost")


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each value over some steps, at least one."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _read(losses: list[dict[str, Any]], last: int, setting: str) -> list[dict[str, float]]:
    """The losses of the steps up to ``last`` as numbers; waits for the device."""
    rows = [{name: float(value) for name, value in row.items()} for row in losses]
    for number, row in enumerate(rows, start=last - len(rows) + 1):
        for name, value in row.items():
            if not math.isfinite(value):
                raise NonFiniteError(name, number, setting)
    return rows
