"""What sharing a batch costs: steps of one process, of parts of its processor as devices, and of two processes.

    python benchmarks/devices.py                       # batches of 128 and 512
    python benchmarks/devices.py --batches 128 --steps 200

Each row is mnist.yaml's step (G, D and the lenet target), in processes of its own, in turns; two processes have
half of the cores each. It prints a Markdown table: milliseconds a step, the median of the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
WAYS = ("one device", "two devices", "two processes")


def measure(devices: int, batch: int, steps: int) -> None:
    """In a process of its own: print milliseconds a step."""
    from advgan.startup import import_tensorflow

    import_tensorflow()
    import numpy as np

    from advgan.classifiers.architectures import build_classifier
    from advgan.config.loading import parse_config
    from advgan.data.loading import load_dataset
    from advgan.data.streams import FromMemory
    from advgan.devices import open_strategy
    from advgan.environment import prepare_environment
    from advgan.networks.forward import forward
    from advgan.training.loop import STEPS_PER_CALL, several_steps
    from advgan.training.state import build_state
    from advgan.training.step import training_step
    from advgan.training.trainer import step_settings

    config = parse_config({"training": {"batch_size": batch, **({"devices": devices} if devices > 1 else {})}})
    prepare_environment(config.training)
    strategy = open_strategy(config.training.devices)
    with strategy.scope():
        training = load_dataset(config.data).training.loaded()
        target = build_classifier((28, 28, 1), 10, config.target)
        state = build_state((28, 28, 1), forward(target), config, steps)
        batches, settings = FromMemory(training.images, training.labels), step_settings(config, steps)
        step = several_steps(
            lambda given, number: training_step(
                state.networks, state.optimizers, *batches.batch(given), number, settings
            )
        )
        order = np.random.default_rng(0).integers(0, len(training), (STEPS_PER_CALL, batch)).astype(np.int32)
        step(order, 1)
        calls = max(1, steps // STEPS_PER_CALL)
        begun = time.perf_counter()
        for _ in range(calls):
            step(order, 1)
        print(json.dumps((time.perf_counter() - begun) / calls / STEPS_PER_CALL * 1e3))


def run(way: str, batch: int, steps: int) -> float:
    """Milliseconds a step, in new processes."""
    command = [sys.executable, __file__, "--measure", "2" if way == "two devices" else "1"]
    command += ["--batches", str(batch), "--steps", str(steps)]
    if way != "two processes":
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    workers = [f"localhost:{_free_port()}" for _ in range(2)]
    cores = sorted(os.sched_getaffinity(0))
    halves = cores[: len(cores) // 2], cores[len(cores) // 2 :]
    processes = []
    for index, half in enumerate(halves):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        pinned = ["taskset", "-c", ",".join(map(str, half)), *command]
        processes.append(
            subprocess.Popen(pinned, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        )
    return max(float(process.communicate()[0].splitlines()[-1]) for process in processes)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.batches[0], options.steps)
        return
    print(f"| batch | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for batch in options.batches:
        found = [[run(way, batch, options.steps) for way in WAYS] for _ in range(options.turns)]
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        print(f"| {batch} | {' | '.join(f'{value:.1f}' for value in medians)} |", flush=True)


if __name__ == "__main__":
    main()
