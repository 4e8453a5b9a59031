"""When the training of a generator ends, and what it logs of each epoch: counted again from its steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.loading import parse_config
from advgan.data.datasets import Split
from advgan.progress import Progress
from advgan.training.checkpoints import Checkpoints
from advgan.training.metrics_log import MetricsLog, read_rows
from advgan.training.state import build_state
from advgan.training.trainer import EpochReport, GeneratorTrainer, total_steps

keras = tf.keras
RANDOM = np.random.default_rng(0)
IMAGES = Split(RANDOM.integers(0, 256, (14, 9, 9, 1), np.uint8), RANDOM.integers(0, 3, 14).astype(np.int32))


class Successes:
    """A validation whose rates are known before."""

    def __init__(self, rates: list[float], within_first_epoch: bool) -> None:
        self.rates, self.within_first_epoch = rates, within_first_epoch

    def __call__(self) -> dict[str, float]:
        return {"validation_success": self.rates.pop(0)}

    @staticmethod
    def improves(success: float, best: float) -> bool:
        return success > best


def trained(
    folder: Path, rates: list[float], stop_at_success: float | None, within_first_epoch: bool = False
) -> list[EpochReport]:
    config = parse_config(
        {
            "generator": {"widths": [2], "residual_blocks": 0},
            "discriminator": {"widths": [2]},
            "training": {"epochs": 4, "batch_size": 4, "stop_at_success": stop_at_success},
            "output": {"log_every": 2, "checkpoint_every": 100},
        }
    )
    target = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    steps = total_steps(len(IMAGES), config)
    state, log, reports = build_state((9, 9, 1), target, config, steps), MetricsLog(folder, 0), []
    trainer = GeneratorTrainer(
        state,
        IMAGES,
        config,
        Checkpoints(folder / "state", 1),
        log,
        Progress("steps", steps),
        Successes(rates, within_first_epoch),
        reports.append,
    )
    trainer.train()
    log.close()
    return reports


@pytest.mark.parametrize(("stop_at_success", "epochs"), [(0.5, 2), (np.nextafter(0.5, 1).item(), 3)])
def test_training_ends_with_the_first_epoch_that_reaches_the_rate(
    tmp_path: Path, stop_at_success: float | None, epochs: int
) -> None:
    reports = trained(tmp_path, [0.25, 0.5, 0.75, 0.5], stop_at_success)
    assert [report.epoch for report in reports] == list(range(1, epochs + 1))
    assert [report.step for report in reports] == [3, 6, 9, 12][:epochs]  # 14 images are three full batches
    assert [report.values["validation_success"] for report in reports] == [0.25, 0.5, 0.75, 0.5][:epochs]
    rows = read_rows(tmp_path / "metrics.jsonl")
    steps = [row for row in rows if row["kind"] == "steps"]
    assert [row["step"] for row in steps] == [2, 3, 4, 6, 8, 9, 10, 12][: 2 * epochs]
    sizes = np.diff([0, *(row["step"] for row in steps)])
    for report in reports:
        here = [number for number, row in enumerate(steps) if row["epoch"] == report.epoch]
        for name in ("loss_adv", "loss_discriminator", "batch_success", "gradient_norm_generator"):
            mean = np.average([steps[number][name] for number in here], weights=sizes[here])
            assert report.values[name] == pytest.approx(mean, rel=1e-6)


def test_the_first_epoch_is_validated_in_its_course(tmp_path: Path) -> None:
    reports = trained(tmp_path, [0.1, 0.4, 0.3, 0.2, 0.6, 0.5], None, within_first_epoch=True)
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["kind"] in ("validation", "epoch")]
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("validation", 1), ("validation", 2), ("epoch", 3), ("epoch", 6), ("epoch", 9), ("epoch", 12)
    ]  # fmt: skip
    assert [row["validation_success"] for row in rows] == [0.1, 0.4, 0.3, 0.2, 0.6, 0.5]
    assert [report.improved for report in reports] == [False, False, True, False]  # 0.4 was better than 0.3
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_training_ends_within_the_first_epoch_where_the_rate_is_reached_there(tmp_path: Path) -> None:
    [report] = trained(tmp_path, [0.1, 0.5], 0.5, within_first_epoch=True)
    assert (report.epoch, report.step, report.improved) == (1, 2, True)
    steps = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["kind"] == "steps"]
    assert report.values["loss_adv"] == pytest.approx(np.mean([row["loss_adv"] for row in steps]), rel=1e-6)
