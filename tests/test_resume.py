"""A run killed at any moment and resumed ends with the same bits as one that was never stopped."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from lenient import Lenient
from processes import finish, start, stop_when

from advgan.config.loading import parse_config
from advgan.config.settings import Config
from advgan.errors import AdvGANError, Interrupted
from advgan.experiments.train import train_and_evaluate
from advgan.files import locked, read_json, write_json
from advgan.run_folder import load_run_config, new_run_directory
from advgan.training.metrics_log import MetricsLog, read_rows
from advgan.training.state import TrainingState

SETTINGS: dict[str, Any] = {
    "data": {"training_images": 3200, "validation_images": 100, "test_images": 100},
    "target": {"architecture": "model_c", "epochs": 3, "batch_size": 64},  # with dropout, and long enough to be killed
    "generator": {"widths": [4, 8], "residual_blocks": 1},
    "discriminator": {"widths": [4, 8], "noise": 0.05},
    "training": {"epochs": 3, "batch_size": 64},
    "output": {"checkpoint_every": 10, "keep_checkpoints": 2, "log_every": 3},
}


def weights_of(run: Path) -> dict[str, str]:
    summary = read_json(run / "summary.json")
    return {key: value for key, value in summary.items() if key.endswith("_sha256")}


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def summaries_of(run: Path) -> list[tuple[str, int]]:
    """What TensorBoard has: (tag, step)."""
    found = []
    for file in (run / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            found += [(value.tag, event.step) for value in event.summary.value]
    assert {"samples", "epoch/validation_success", "steps/loss_adv"} <= {tag for tag, _ in found}
    return sorted(found)


@pytest.mark.slow
@pytest.mark.addons
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed in the target's training and in two epochs, once by Ctrl-C; each time resumed in a new process."""
    settings = tmp_path / "small.yaml"
    settings.write_text(json.dumps(SETTINGS))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    straight.mkdir()
    stopped.mkdir()
    finish(start(straight, "--config", str(settings)))
    run = stopped / "checkpoints" / "small" / "0"

    process = start(stopped, "--config", str(settings))
    output = stop_when(process, lambda: bool((run / "processes.json").exists()), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "target.keras").exists()
    assert "Target         clean accuracy" not in output

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(path.name.isdigit() and int(path.name) >= step for path in (run / "state").glob("*"))

    process = start(stopped, "--resume")
    stop_when(process, reached(10), signal.SIGKILL)
    assert not (run / "summary.json").exists()

    process = start(stopped, "--resume", "checkpoints/small/0")
    output = stop_when(process, reached(70), signal.SIGINT)
    assert process.returncode == 130, output
    assert "; continue with: " in output and " -m advgan.train --resume checkpoints/small/0" in output
    assert "Traceback" not in output

    output = finish(start(stopped, "--resume"))
    assert "Resumed        at step" in output
    reference = straight / "checkpoints" / "small" / "0"
    assert weights_of(run) == weights_of(reference)
    assert [row for row in rows_of(run) if row["kind"] == "epoch"] == [
        row for row in rows_of(reference) if row["kind"] == "epoch"
    ]
    assert len(rows_of(run)) >= len(rows_of(reference))
    assert (run / "result.png").read_bytes() == (reference / "result.png").read_bytes()
    assert "is complete already" in finish(start(stopped, "--resume"))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A run that kept all its checkpoints."""
    settings = {
        **SETTINGS,
        "target": {"architecture": "lenet", "epochs": 1, "batch_size": 64},
        "output": {**SETTINGS["output"], "directory": str(tmp_path_factory.mktemp("runs")), "keep_checkpoints": 100},
    }
    config = parse_config(settings)
    run = new_run_directory(config)
    train_and_evaluate(config, run)
    return config, run


def rewound(run: Path, step: int, folder: Path) -> Path:
    """A copy of a run as it was when its newest checkpoint was that of ``step``."""
    copy = folder / "copy"
    shutil.copytree(run, copy)
    for checkpoint in (copy / "state").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    (copy / "summary.json").unlink()
    return copy


@pytest.mark.parametrize("step", [10, 50, 60])
def test_resuming_from_any_checkpoint_gives_the_same_bits(
    finished_run: tuple[Config, Path], step: int, tmp_path: Path
) -> None:
    config, run = finished_run
    again = rewound(run, step, tmp_path)
    train_and_evaluate(config, again)
    assert weights_of(again) == weights_of(run)
    assert rows_of(again) == rows_of(run)
    assert summaries_of(again) == summaries_of(run)


@pytest.mark.parametrize("left_out", ["generator_optimizer", "discriminator_optimizer"])
def test_the_comparison_notices_when_an_optimizer_is_left_out(
    finished_run: tuple[Config, Path], left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    whole = TrainingState.checkpoint
    monkeypatch.setattr(TrainingState, "checkpoint", lambda state: Lenient(whole(state), left_out))
    train_and_evaluate(config, again)
    assert weights_of(again) != weights_of(run)


def test_an_incomplete_checkpoint_is_refused(finished_run: tuple[Config, Path], tmp_path: Path) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    data = next((again / "state" / "00000070").glob("state.data*"))
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(AdvGANError, match="00000070 cannot be restored") as refusal:
        train_and_evaluate(config, again)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["target.json", "state/00000070/position.json"])
def test_a_record_with_nothing_in_it_is_refused(finished_run: tuple[Config, Path], tmp_path: Path, name: str) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    write_json(again / name, {})
    with pytest.raises(AdvGANError, match="is damaged"):
        train_and_evaluate(config, again)


def test_a_summary_with_nothing_in_it_is_refused(finished_run: tuple[Config, Path], tmp_path: Path) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    write_json(again / "summary.json", [])
    with pytest.raises(AdvGANError, match="is damaged"):
        train_and_evaluate(config, again)


@pytest.mark.parametrize("left", [b"5\n", b"{}\n", b"\xff\xfe\n"])
def test_what_follows_a_line_of_the_metrics_that_is_no_row_is_dropped(tmp_path: Path, left: bytes) -> None:
    row = b'{"kind": "epoch", "epoch": 1, "step": 10}\n'
    (tmp_path / "metrics.jsonl").write_bytes(row + left + row)
    assert read_rows(tmp_path / "metrics.jsonl") == [{"kind": "epoch", "epoch": 1, "step": 10}]


def test_what_a_killed_write_leaves_is_ignored(finished_run: tuple[Config, Path], tmp_path: Path) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    (again / "state" / ".00000080.x.partial").mkdir()
    with (again / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "steps", "epo')
    train_and_evaluate(config, again)
    assert weights_of(again) == weights_of(run)
    assert rows_of(again) == rows_of(run)


def test_a_resume_with_other_data_or_settings_is_refused(finished_run: tuple[Config, Path], tmp_path: Path) -> None:
    config, run = finished_run
    again = rewound(run, 70, tmp_path)
    with pytest.raises(AdvGANError, match="started with other settings"):
        train_and_evaluate(config.model_copy(update={"seed": 1}), again)
    processes = read_json(again / "processes.json")
    processes[0]["data_sha256"] = "0" * 64
    write_json(again / "processes.json", processes)
    with pytest.raises(AdvGANError, match="mnist has changed since"):
        train_and_evaluate(config, again)


def test_a_run_in_use_is_refused(finished_run: tuple[Config, Path]) -> None:
    config, run = finished_run
    with locked(run), pytest.raises(AdvGANError, match="in use by another process"):
        train_and_evaluate(config, run)


def test_a_stop_is_asked_for_in_the_middle_and_at_the_end_of_an_epoch(
    finished_run: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost and no epoch is written twice."""
    config, run = finished_run
    again = rewound(run, 10, tmp_path)
    original = MetricsLog.add

    def add_and_interrupt(log: MetricsLog, kind: str, epoch: int, step: int, values: dict[str, float]) -> None:
        original(log, kind, epoch, step, values)
        if kind == "epoch" or step in (24, 75):
            os.kill(os.getpid(), signal.SIGINT)

    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "add", add_and_interrupt)
        while not (again / "summary.json").exists():
            try:
                train_and_evaluate(config, again)
            except Interrupted:
                stops += 1
    assert stops == 4
    assert weights_of(again) == weights_of(run)
    assert [row for row in rows_of(again) if row["kind"] == "epoch"] == [
        row for row in rows_of(run) if row["kind"] == "epoch"
    ]


def test_a_run_keeps_the_configuration_it_was_started_with(finished_run: tuple[Config, Path]) -> None:
    config, run = finished_run
    assert load_run_config(run) == config
