"""Several devices and several processes: one step is that of one device, and no run is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import finish, start, stop_when
from pydantic import ValidationError

from advgan.cluster import JOIN_VARIABLE, VARIABLE, Cluster, meet, speaker, this_cluster
from advgan.config.loading import parse_config
from advgan.errors import AdvGANError, ConfigurationError
from advgan.experiments.plan import check

HERE = Path(__file__).parent
RUN: dict[str, Any] = {
    "data": {"training_images": 1280, "validation_images": 64, "test_images": 64},
    "target": {"architecture": "model_c", "epochs": 1, "batch_size": 64},
    "generator": {"widths": [4, 8], "residual_blocks": 1},
    "discriminator": {"widths": [4, 8], "noise": 0.05},
    "training": {"epochs": 3, "batch_size": 64},
    "output": {"checkpoint_every": 5, "log_every": 5},
}
SMALL = {"widths": [4, 8], "residual_blocks": 1}


@pytest.mark.addons
@pytest.mark.parametrize(
    "sections",
    [
        {"discriminator": {"widths": [4, 8], "noise": 0.2}, "generator": SMALL},
        {
            "target": {"architecture": "resnet20", "augmentation": "flip_and_shift"},
            "generator": {**SMALL, "normalization": "batch"},
            "discriminator": {"widths": [4, 8], "normalization": "batch"},
        },
    ],
    ids=["noise", "batch normalization and augmentation"],
)
def test_a_step_on_two_devices_is_the_step_on_one(sections: dict[str, Any]) -> None:
    states = "5" if "batch" in str(sections) else "20"
    command = [sys.executable, str(HERE / "two_devices.py"), states, json.dumps(sections)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=200)
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    defended = found["losses"].pop("defended target")
    assert defended < 1e-3, found  # where a gradient is 0 but for rounding, PGD may step to either side
    assert max(found["losses"].values()) < 1e-6, found
    assert max(found["attack"]) < 1e-5, found
    gradients = np.array(found["gradients"])
    # Batch normalization puts so many values near 0 that rounding moves a ReLU to its other side now and then.
    assert (np.median(gradients, 0) if "batch" in str(sections) else gradients.max(0)).max() < 1e-5, gradients


TWO = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def test_tf_config_names_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (this_cluster(), speaker()) == (None, "")
    monkeypatch.setenv(VARIABLE, json.dumps(TWO))
    found = this_cluster()
    assert found is not None
    assert (found.addresses, found.own, speaker()) == (["a:1", "b:2"], 1, "worker 1: ")
    monkeypatch.setenv(VARIABLE, json.dumps({**TWO, "cluster": {"worker": ["a:1", "b:2"], "chief": ["c:3"]}}))
    found = this_cluster()
    assert found is not None
    assert (found.addresses, found.own) == (["c:3", "a:1", "b:2"], 2)
    monkeypatch.setenv(VARIABLE, json.dumps({**TWO, "cluster": {"worker": ["a:1", "b:2"], "chief": []}}))
    assert this_cluster() is not None
    monkeypatch.setenv(VARIABLE, json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}))
    assert this_cluster() is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "should be JSON such as"),
        ("[]", "should be JSON such as"),
        ({"cluster": TWO["cluster"]}, "should be JSON such as"),
        ({**TWO, "task": {"type": "worker", "index": 2}}, "its task worker 2 is not in its cluster"),
        ({**TWO, "task": {"type": "worker", "index": "1"}}, "its task worker '1' is not in its cluster"),
        ({**TWO, "cluster": {"worker": ["a:1", "b:99999"]}}, "the address 'b:99999' should be a host and a port"),
        ({**TWO, "cluster": {"worker": ["a:1", "b..c:1"]}}, "the address 'b..c:1' should be a host and a port"),
        ({**TWO, "task": {"type": "chief", "index": 0}}, "its task chief 0 is not in its cluster"),
        ({**TWO, "cluster": {"worker": ["a:1", "b"]}}, "the address 'b' should be a host and a port"),
        ({**TWO, "cluster": {"worker": ["a:1", "a:1"]}}, "names the address a:1 twice"),
        ({**TWO, "cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}}, "names the job 'ps'"),
        ({**TWO, "cluster": {"worker": ["a:1", "b:1"], "chief": ["c:1", "d:1"]}}, "names more than one chief"),
    ],
)
def test_a_malformed_tf_config_is_named_in_one_line(
    content: object, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        this_cluster()
    assert "\n" not in str(refusal.value)
    assert speaker() == ""


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"training": {"devices": ["GPU:7"]}}, r"training.devices = 'GPU:7': is not there \(found: "),
        ({"training": {"devices": "both"}}, "should be auto, all, a number of devices, or a list of them"),
        ({"training": {"devices": ["TPU:0"]}}, "should be auto, all, a number of devices, or a list of them"),
        ({"training": {"devices": 0}}, "should be auto, all, a number of devices, or a list of them"),
    ],
)
def test_devices_that_are_not_there_are_named_in_one_line(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises((ConfigurationError, ValidationError), match=problem):
        check(parse_config(sections))


def dry_run(*settings: str, **variables: str) -> str:
    """The error that a process of its own ends with."""
    command = [sys.executable, "-m", "advgan.train", "--config", "mnist.yaml", "--dry-run"]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **variables}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert process.returncode == 2, process.stdout
    [line] = process.stderr.splitlines()
    return line


def test_a_batch_that_the_devices_cannot_share_is_named_in_one_line() -> None:
    assert "training.batch_size = 127: cannot be divided among 2 devices; use 126 or 128" in dry_run(
        "training.devices=2", "training.batch_size=127"
    )


def test_a_run_on_two_devices_is_finished_and_resumed_on_one(tmp_path: Path) -> None:
    """With the same weights as far as it came; with other bits from there on, and a warning."""
    settings = tmp_path / "small.yaml"
    settings.write_text(json.dumps({**RUN, "training": {**RUN["training"], "devices": 2}}))
    process = start(tmp_path, "--config", str(settings))
    run = tmp_path / "checkpoints" / "small" / "0"
    stop_when(process, lambda: (run / "state" / "00000010").exists(), signal.SIGINT)
    assert process.returncode == 130
    record = json.loads((run / "processes.json").read_text())
    assert record[0]["environment"]["devices"] == 2
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("devices: 2", "devices: 1"))
    output = finish(start(tmp_path, "--resume"))
    assert "resumed in another environment, so not bit-identical to a run without a stop: devices 2 -> None" in output
    assert (run / "summary.json").exists()


# --- Several processes -------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def begin(folder: Path, *arguments: str, changes: Sequence[str] = ("", "")) -> list[subprocess.Popen[str]]:
    """The same command in two processes, the first first; each may have a change of a setting."""
    workers = [f"localhost:{port}" for port in free_ports(2)]
    processes = []
    for index, change in enumerate(changes):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        more = ["--set", change] if change else []
        processes.append(start(folder, *arguments, *more, **{VARIABLE: json.dumps(task)}))
    return processes


def ends(processes: list[subprocess.Popen[str]], code: int, seconds: float = 300) -> list[str]:
    outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == code, output
    return outputs


def prepared(folder: Path) -> Path:
    folder.mkdir()
    (folder / "small.yaml").write_text(json.dumps(RUN))
    return folder / "checkpoints" / "small" / "0"


def digests(run: Path) -> dict[str, str]:
    summary = json.loads((run / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key.endswith("_sha256")}


def test_two_processes_that_differ_say_in_what(tmp_path: Path) -> None:
    prepared(tmp_path / "a")
    processes = begin(tmp_path / "a", "--config", "small.yaml", changes=("", "loss.alpha=0.3"))
    for output in ends(processes, 2):
        assert "worker 1 and worker 0 differ in loss.alpha; start the same on both" in output
        assert "Traceback" not in output
    processes = begin(tmp_path / "a", "--config", "small.yaml", changes=("", "data.dataset=nothing.npz"))
    first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert first == "worker 0: another machine does not answer any more; the last checkpoint holds\n"
    assert second.startswith("worker 1: error: data.dataset = 'nothing.npz': is not there;")


def test_processes_of_other_clusters_are_refused() -> None:
    """Each hears of the other before TensorFlow begins to wait."""
    first, second, third = free_ports(3)
    addresses = [f"localhost:{first}", f"localhost:{second}"]
    refused: list[str] = []

    def come(addresses: list[str], own: int, fact: str) -> None:
        try:
            meet(Cluster({"worker": addresses}, own), 3, fact)
        except AdvGANError as problem:
            refused.append(str(problem))

    for other, fact, problem in (
        (addresses, "8 GPUs", "worker 1 has 8 GPUs, not 4 GPUs; start all with the same"),
        ([*addresses, f"localhost:{third}"], "4 GPUs", "worker 1 names other machines in TF_CONFIG"),
    ):
        refused.clear()
        thread = threading.Thread(target=come, args=(other, 1, fact))
        thread.start()
        come(addresses, 0, "4 GPUs")
        thread.join()
        assert any(each.startswith(problem) for each in refused), refused
        assert not any("did not join" in each for each in refused), refused
    refused.clear()
    thread = threading.Thread(target=come, args=(addresses, 1, "4 GPUs"))
    thread.start()
    come(addresses, 0, "4 GPUs")
    thread.join()
    assert not refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGTERM), (0, signal.SIGTERM)]
)
def test_a_stop_of_any_process_stops_all_and_the_run_ends_with_the_same_bits(
    tmp_path: Path, which: int, number: signal.Signals
) -> None:
    run, undisturbed = prepared(tmp_path / "stopped"), prepared(tmp_path / "undisturbed")
    first, second = ends(begin(tmp_path / "undisturbed", "--config", "small.yaml"), 0)
    assert "worker 0: Target         clean accuracy" in first
    assert second.strip() == "worker 1: trains along with worker 0, which writes to checkpoints/small/0"

    processes = begin(tmp_path / "stopped", "--config", "small.yaml")
    killed = processes[which]
    while not (run / "state" / "00000025").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(number)
    sent = time.monotonic()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert time.monotonic() - sent < 60
    others = outputs if number == signal.SIGTERM else [outputs[1 - which]]
    for output in others:
        assert "Traceback" not in output
        assert "continue with: " in output
        assert ("stopped " if number == signal.SIGTERM else "another machine does not answer any more") in output
    assert not (run / "summary.json").exists()
    assert not list((run / "state").glob(".*"))

    ends(begin(tmp_path / "stopped", "--resume", "checkpoints/small/0"), 0)
    assert digests(run) == digests(undisturbed)


@pytest.mark.slow
def test_two_runs_in_one_folder_and_a_process_that_never_comes(tmp_path: Path) -> None:
    run = prepared(tmp_path / "a")
    held = begin(tmp_path / "a", "--config", "small.yaml")
    while not (run / "state" / "00000005").exists():
        assert held[0].poll() is None
        time.sleep(0.02)
    output = begin(tmp_path / "a", "--resume", "checkpoints/small/0")[0].communicate(timeout=120)[0]
    assert "is in use by another process" in output
    ends(held, 0)
    workers = [f"localhost:{port}" for port in free_ports(2)]
    alone = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}})
    waiting = start(tmp_path / "a", "--config", "small.yaml", **{VARIABLE: alone, JOIN_VARIABLE: "5"})
    output = waiting.communicate(timeout=120)[0]
    assert waiting.returncode == 2
    assert output.strip() == f"worker 0: error: worker 1 ({workers[1]}) did not join within 5 s"
