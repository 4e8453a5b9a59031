"""An evaluation in parts comes to the figures of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import one_line_error

from advgan.data import batches
from advgan.evaluate import main

OPTIONS = ("--images", "120", "--optimized", "50")
FOLDER = "evaluation-first-120"
TIMES = {"seconds_per_1000_images", "command", "seconds"}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def parts(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and a copy of it with an evaluation in three parts: of 40 images each."""
    folder = tmp_path_factory.mktemp("shards")
    runs = shutil.copytree(small_run, folder / "whole"), shutil.copytree(small_run, folder / "parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "VALUES_AT_ONCE", 40 * 784)
        assert main(["--run", str(runs[0]), *OPTIONS]) == 0
        for number in (3, 1, 2):
            assert main(["--run", str(runs[1]), *OPTIONS, "--shard", f"{number}/3"]) == 0
    return Path(runs[0]), Path(runs[1])


def merge(run: Path, *numbers: str, options: tuple[str, ...] = OPTIONS) -> list[str]:
    return ["--run", str(run), *options, "--merge", *(str(run / FOLDER / "shards" / each) for each in numbers)]


def test_merged_parts_have_the_figures_of_one_process(
    parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = parts
    monkeypatch.setattr(batches, "VALUES_AT_ONCE", 40 * 784)
    assert main(merge(run, "2-of-3", "1-of-3", "3-of-3")) == 0
    assert "Found already" not in capsys.readouterr().out  # nothing was found, all was put together
    texts = [(each / FOLDER / "evaluation.json").read_text() for each in (whole, run)]
    records = [json.loads(text.replace(str(whole), str(run))) for text in texts]
    for record in records:
        record["card"] = [each for each in record["card"] if each["item"] != "One command reproduces the evaluation"]
    assert timeless(records[0]) == timeless(records[1])
    with (
        np.load(whole / FOLDER / "adversarial.npz") as one,
        np.load(run / FOLDER / "adversarial.npz") as other,
    ):
        assert all((one[name] == other[name]).all() for name in one.files)


def test_parts_that_make_no_whole_are_refused(
    parts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = parts
    monkeypatch.setattr(batches, "VALUES_AT_ONCE", 40 * 784)
    monkeypatch.setattr("advgan.command_line._log_lines", _nothing)

    def refused(arguments: list[str]) -> str:
        assert main(arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "part 3/3 is missing" in refused(merge(run, "1-of-3", "2-of-3"))
    assert "is part 1/3, and so is" in refused(merge(run, "1-of-3", "1-of-3"))
    other = ("--images", "120", "--optimized", "40")
    assert "is of another evaluation" in refused(merge(run, "1-of-3", "2-of-3", "3-of-3", options=other))
    assert "it is no finished part" in refused(["--run", str(run), "--merge", str(tmp_path)])
    [stage] = (run / FOLDER / "shards" / "2-of-3" / "stages").glob("full-range-*")
    stage.rename(tmp_path / stage.name)
    shutil.rmtree(run / FOLDER / "stages", ignore_errors=True)
    assert "2-of-3 lacks the results of full-range; run this part again" in refused(
        merge(run, "1-of-3", "2-of-3", "3-of-3")
    )
    (tmp_path / stage.name).rename(stage)
    assert "200 images are 5 batches of 40" in refused(["--run", str(run), "--shard", "1/6"])


def _nothing(_options: Any) -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("shard", ["0/3", "4/3", "2", "a/b"])
def test_a_part_that_cannot_be_is_refused(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "should be K/N, such as 2/8" in one_line_error(main, capsys, "--shard", shard)
