"""What the tests share: small real data, one small trained run, and TensorFlow without its chatter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What a command chooses; here TensorFlow may have started before a test asks for it.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(len(os.sched_getaffinity(0))))


def pytest_configure() -> None:
    """Import ART before there are workers, and in each worker before TensorFlow.

    It writes a settings file, at which two processes at once fail; and it closes the log handler of absl, which
    TensorFlow brings, and with it the stream that pytest captures.
    """
    import art.config  # noqa: F401


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a slice of MNIST: a fair classifier and a generator that often fools it."""
    from advgan.config.loading import parse_config
    from advgan.experiments.train import train_and_evaluate
    from advgan.run_folder import new_run_directory

    config = parse_config(
        {
            "data": {"training_images": 2000, "validation_images": 200, "test_images": 200},
            "target": {"epochs": 2, "batch_size": 32},
            "generator": {"widths": [4, 8, 16], "residual_blocks": 1},
            "training": {"epochs": 2, "batch_size": 64},
            "output": {"directory": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    run = new_run_directory(config)
    train_and_evaluate(config, run)
    return run
