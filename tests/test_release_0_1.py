"""A run of release 0.1, kept in ``release_0_1``: data of its user's own, whose last training images validate.

``run`` is that run as a process killed at step 15 of 30 leaves it, ``finished`` what it wrote at its end. Made at
commit 9108c35 by ``python -m advgan.train --config c.yaml``, with the settings of ``run/config.yaml``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from advgan import evaluate, train
from advgan.data.loading import load_dataset
from advgan.environment import changes_between
from advgan.files import read_json
from advgan.run_folder import load_run_config

KEPT = Path(__file__).parent / "release_0_1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, killed in its second epoch, where its user left it."""
    monkeypatch.chdir(tmp_path)
    for name in ("digits.npz", "own.keras"):
        shutil.copy(KEPT / name, tmp_path)
    run = tmp_path / "runs" / "digits" / "0"
    shutil.copytree(KEPT / "run", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("FOLDER", str(tmp_path)))
    return run


def test_it_resumes_with_the_validation_images_it_had(run: Path) -> None:
    data = load_run_config(run).data
    archive = np.load(run.parents[2] / "digits.npz")
    assert data.validation_split == "last"
    np.testing.assert_array_equal(load_dataset(data).validation.images[..., 0], archive["x_train"][-100:])
    assert train.main(["--resume", str(run)]) == 0
    summary, kept = read_json(run / "summary.json"), read_json(KEPT / "finished" / "summary.json")
    assert summary["steps"] == kept["steps"] == 30
    assert summary["validation_success"] == pytest.approx(kept["validation_success"], abs=0.05)
    first, second = (process["environment"] for process in read_json(run / "processes.json"))
    if not changes_between(first, second):
        assert summary["generator_weights_sha256"] == kept["generator_weights_sha256"]


def test_it_is_evaluated(run: Path) -> None:
    shutil.copytree(KEPT / "finished", run, dirs_exist_ok=True)
    assert evaluate.main(["--run", str(run), "--optimized", "3"]) == 0
    found, kept = read_json(run / "evaluation" / "evaluation.json"), read_json(run / "summary.json")["test"]
    for name in ("success", "success_8_bit", "clean_accuracy"):
        assert found[name]["n"] == pytest.approx(kept[name]["n"], abs=1)  # one image may lie on the border elsewhere
        assert found[name]["successes"] == pytest.approx(kept[name]["successes"], abs=1)
