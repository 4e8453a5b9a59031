"""The loop that every training goes through: when it reports, saves and stops, and what it never saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.errors import Interrupted, NonFiniteError
from advgan.training import loop
from advgan.training.loop import STEPS_PER_CALL, STEPS_PER_REPORT, Trainer, means, run_steps, several_steps


class Squares(Trainer):
    """Its loss is the square of the batch; it keeps a record of what the loop does with it."""

    setting_at_fault = "some.rate"
    step_name = "step {} of some squares"

    def __init__(self, checkpoint_every: int) -> None:
        self.checkpoint_every = checkpoint_every
        self.done = 0
        self.events: list[Any] = []

    def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
        assert first == self.done + 1
        assert 1 <= len(batches) <= STEPS_PER_CALL
        self.done += len(batches)
        return {"loss": np.square(batches), "number": np.arange(first, first + len(batches))}

    def report(self, rows: list[dict[str, float]]) -> None:
        self.events.append([row["number"] for row in rows])

    def save(self) -> None:
        self.events.append(f"saved {self.done}")


class EveryThird(Squares):
    """Reports by the number of the step, wherever it began."""

    def report_due(self, number: int, unreported: int) -> bool:
        assert 1 <= unreported <= 3
        return number % 3 == 0


def squares(first: int, last: int, at_fault: int = 0) -> tuple[int, np.ndarray]:
    numbers = np.arange(first, last + 1)
    return first, np.where(numbers == at_fault, np.nan, numbers / 7)


def after(trainer: Squares, number: int) -> Callable[[], bool]:
    return lambda: trainer.done >= number


def test_every_step_is_reported_once_and_the_end_is_left_to_the_caller() -> None:
    trainer = EveryThird(checkpoint_every=4)
    run_steps(trainer, *squares(1, 8))
    assert trainer.events == [[1, 2, 3], [4], "saved 4", [5, 6], [7, 8]]  # no checkpoint of an epoch that is still open
    resumed = EveryThird(checkpoint_every=4)
    resumed.done = 4
    run_steps(resumed, *squares(5, 8))
    assert resumed.events == trainer.events[3:]


def test_reports_come_after_so_many_steps_where_nothing_else_is_said() -> None:
    trainer = Squares(checkpoint_every=1000)
    run_steps(trainer, *squares(1, 2 * STEPS_PER_REPORT + 1))
    assert [len(event) for event in trainer.events] == [STEPS_PER_REPORT, STEPS_PER_REPORT, 1]


def test_no_steps_are_no_reports() -> None:
    trainer = Squares(checkpoint_every=1)
    run_steps(trainer, *squares(1, 0))
    assert trainer.events == []


def test_a_stop_is_reported_and_saved_but_not_after_the_last_step() -> None:
    trainer = EveryThird(checkpoint_every=4)
    with pytest.raises(Interrupted, match=r"^stopped at step 6 of some squares; nothing is lost$"):
        run_steps(trainer, *squares(1, 8), after(trainer, 6))
    assert trainer.events == [[1, 2, 3], [4], "saved 4", [5, 6], "saved 6"]
    run_steps(trainer, *squares(7, 7), after(trainer, 7))
    assert trainer.events[5:] == [[7]]


def test_a_loss_that_is_not_finite_is_never_saved_nor_reported() -> None:
    """It is found with its call's last step, though it was an earlier one."""
    trainer = Squares(checkpoint_every=4)
    with pytest.raises(NonFiniteError, match=r"^loss is not finite at step 7: .*; lower some\.rate, ") as found:
        run_steps(trainer, *squares(1, 12, at_fault=7))
    assert (found.value.term, found.value.step) == ("loss", 7)
    assert trainer.done == 8
    assert trainer.events == [[1, 2, 3, 4], "saved 4"]


def test_a_call_makes_as_many_steps_as_take_about_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a stop is heeded soon where steps are slow; which steps go together changes nothing else."""
    clock = iter(range(1000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock) / 4)
    calls: list[int] = []

    class Slow(Squares):
        def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
            calls.append(len(batches))
            for _ in range(2 * len(batches)):
                next(clock)  # half a second for each
            return super().steps(first, batches)

    run_steps(Slow(checkpoint_every=1000), *squares(1, 16))
    assert calls == [1] * 16


def test_a_call_makes_ten_steps_where_they_are_fast() -> None:
    calls: list[int] = []

    class Fast(Squares):
        def steps(self, first: int, batches: np.ndarray) -> dict[str, np.ndarray]:
            calls.append(len(batches))
            return super().steps(first, batches)

    run_steps(Fast(checkpoint_every=1000), *squares(1, 41))
    assert calls[0] == 1  # how long one takes is not known yet
    assert max(calls) == STEPS_PER_CALL
    assert sum(calls) == 41


def test_several_steps_are_the_steps_one_by_one() -> None:
    total = tf.Variable(0.0)

    def step(batch: Any, number: Any, factor: Any) -> dict[str, Any]:
        total.assign(factor * total + tf.reduce_sum(batch))
        return {"total": total + 0.0, "number": tf.cast(number, tf.float32)}

    steps = several_steps(step)
    batches = np.arange(14, dtype=np.float32).reshape(7, 2)
    made = [steps(batches[:5], 1, tf.constant(0.5)), steps(batches[5:], 6, tf.constant(0.5))]
    expected, totals = 0.0, []
    for batch in batches:
        expected = 0.5 * expected + batch.sum()
        totals.append(expected)
    np.testing.assert_allclose(np.concatenate([each["total"] for each in made]), totals, rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([each["number"] for each in made]), np.arange(1, 8))


def test_a_step_that_xla_cannot_compile_runs_without_it(caplog: pytest.LogCaptureFixture) -> None:
    def step(batch: Any, number: Any) -> dict[str, Any]:
        return {"length": tf.cast(tf.strings.length(tf.strings.as_string(number)), tf.float32) + batch}

    batches = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(several_steps(step, "auto")(batches, 9)["length"], [1, 3, 4])
    ours = [record.message.split(":")[0] for record in caplog.records if record.name.startswith("advgan")]
    assert ours == ["XLA cannot compile the step, which runs without it"]
    with pytest.raises(tf.errors.OpError):
        several_steps(step, True)(batches, 9)


def test_means_are_over_steps() -> None:
    assert means([{"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 4.0}]) == {"a": 1.5, "b": 4.0}
