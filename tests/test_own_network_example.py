"""The example that trains a network as TensorFlow's quickstart does, and attacks it from describe to the report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from advgan.records.evaluation import Evaluation
from advgan.records.pixel_search import PixelSearch
from advgan.records.summary import Summary
from advgan.run_folder import load_run_config

ROOT = Path(__file__).parent.parent
LEFT_OUT = "its softmax is left out: the logits before it are the scores"


def test_a_network_after_the_quickstart_comes_to_a_report(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "own_network.py"), "--output", "here"]
    command += ["--images", "1000", "--epochs", "1", "--test-images", "100"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    typed = [line.split()[3] for line in done.stdout.splitlines() if line.startswith("$ python -m ")]
    assert typed == ["advgan.describe", "advgan.train", "advgan.evaluate"]
    assert done.stdout.count(LEFT_OUT) == 2  # describe's and the run's
    assert "ends with       softmax" in done.stdout

    network, run = tmp_path / "here" / "own_network.keras", tmp_path / "here" / "own_network" / "0"
    assert (run / "target.keras").read_bytes() == network.read_bytes()
    config, summary, search = (
        load_run_config(run),
        Summary.read(run / "summary.json"),
        PixelSearch.read(run / "pixels.json"),
    )
    assert config.target.bounds == search.tried[search.taken].bounds == (0.0, 1.0)
    assert isinstance(config.loss.scale, float)
    assert summary.target_remarks == ("images go in without the channel axis", LEFT_OUT)
    assert summary.test.clean_accuracy.rate > 0.7
    assert summary.test.success.rate > 0.3
    record = Evaluation.read(run / "evaluation" / "evaluation.json")
    assert record.success == summary.test.success
    assert "<html" in (run / "evaluation" / "report.html").read_text(encoding="utf-8")
