"""The command ``advgan``: the commands by one name, the configurations that ship, the runs of a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advgan import __main__ as script
from advgan import runs, train
from advgan.config.loading import load_config, shipped_folders
from advgan.config.shipped import shipped_configs
from advgan.files import locked, read_json
from advgan.run_folder import RunFolder

CHECKOUT = Path(__file__).parent.parent


def printed_by(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    """What the command writes to stdout and to stderr."""
    try:
        found = script.main(arguments)
    except SystemExit as done:
        found = done.code if isinstance(done.code, int) else 1
    assert found == code
    return tuple(capsys.readouterr())


@pytest.mark.parametrize("name", [None, *script.COMMANDS])
def test_help_has_examples_and_imports_no_tensorflow(name: str | None, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    done = subprocess.run(
        [sys.executable, "-m", "advgan", *([] if name is None else [name]), "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:" in done.stdout
    for each in script.COMMANDS if name is None else ():
        assert f"\n  {each} " in done.stdout


def test_a_misspelt_command_and_none_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    _, error = printed_by(["trian"], capsys, code=2)
    assert error == "error: trian: no such command; did you mean train?\n"
    assert "commands: train, evaluate" in printed_by(["?"], capsys, code=2)[1]
    assert printed_by([], capsys)[0] == printed_by(["--help"], capsys)[0]
    assert printed_by(["--version"], capsys)[0].startswith("advgan 0.")


def test_the_script_names_itself_where_a_module_names_its_module(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_module = printed_by(["train", "--help"], capsys)[0]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/advgan", "train"])
    by_script = printed_by(["train", "--help"], capsys)[0]
    assert "usage: advgan train" in by_script and "  advgan train --config mnist.yaml\n" in by_script
    assert "python -m advgan" not in by_script
    assert "usage: python -m advgan.train" in by_module
    assert printed_by(["train"], capsys, code=2)[1].endswith("advgan train --help lists the options\n")


def test_every_configuration_that_ships_says_what_it_is_and_what_it_comes_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = shipped_configs()
    [folder] = [folder for folder in shipped_folders("configs") if folder.is_dir()]
    assert [each.name for each in listed] == sorted(path.name for path in folder.glob("*.yaml"))
    lines = printed_by(["configs"], capsys)[0].splitlines()
    for each in listed:
        load_config(folder / each.name)
        assert each.what.endswith(".") and len(each.what) < 125
        assert lines[lines.index(each.name) + 1].strip() == each.what
        measured = [text != "not measured" for text in (each.expected, each.time)]
        assert all(measured) or each.name in ("cifar10_defended.yaml", "cifar10_wide_resnet34.yaml"), each.name


def test_runs_are_listed_with_how_far_they_are(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished, stopped, begun, damaged = (tmp_path / "mnist" / name for name in ("0", "1", "2", "3"))
    shutil.copytree(small_run, finished)
    shutil.copytree(small_run, stopped)
    (stopped / "summary.json").unlink()
    for folder in (begun, damaged):
        folder.mkdir()
        shutil.copy(small_run / "config.yaml", folder)
    (damaged / "summary.json").write_text("{}")
    with locked(begun):
        listed = {each.folder: each for each in runs.runs_below(tmp_path)}
    assert list(listed) == [finished, stopped, begun, damaged]
    assert [each.state for each in listed.values()] == [
        "finished",
        "stopped, epoch 2 of 2",
        "running, before the generator",
        "damaged",
    ]
    rate = read_json(finished / "summary.json")["test"]["success"]["rate"]
    assert (listed[finished].success, listed[finished].epsilon) == (f"{rate:.2%}", "0.3")
    lines = printed_by(["runs", str(tmp_path)], capsys)[0].splitlines()
    assert len(lines) == 5 and lines[0].split() == ["run", "configuration", "state", "success", "epsilon", "date"]
    assert lines[1].startswith(str(finished)) and listed[finished].date in lines[1]


def test_no_run_and_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed_by(["runs"], capsys)[0].startswith("No run in checkpoints; train one with")
    assert printed_by(["runs", "nowhere"], capsys, code=2)[1] == "error: FOLDER = 'nowhere': no such folder\n"
    assert "give one of them" in printed_by(["runs", "here", "--verify", "there"], capsys, code=2)[1]
    assert "nowhere is not a run" in printed_by(["runs", "--verify", "nowhere"], capsys, code=2)[1]


def test_a_run_is_verified_by_the_digest_of_every_file(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(small_run, run.path)
    names = {line.split("  ")[1] for line in run.digests.read_text().splitlines()}
    assert {"summary.json", "config.yaml", "generator.keras", "target.keras", "samples/epoch-001.png"} <= names
    done = subprocess.run(["sha256sum", "--check", "--quiet", run.digests.name], cwd=run.path, check=False)
    assert done.returncode == 0
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation" / "more.txt").write_text("came later")
    assert f"all {len(names)} files are unchanged" in printed_by(["runs", "--verify", str(run.path)], capsys)[0]
    content = bytearray(run.generator.read_bytes())
    content[100] ^= 1
    run.generator.write_bytes(content)
    run.curves.unlink()
    error = printed_by(["runs", "--verify", str(run.path)], capsys, code=2)[1]
    assert f"2 of {len(names)} files have changed or are gone" in error
    assert "curves.png is gone" in error and "generator.keras has changed" in error
    run.digests.unlink()
    assert "has no files.sha256: advgan 0.1" in printed_by(["runs", "--verify", str(run.path)], capsys, code=2)[1]
    run.summary.unlink()
    assert "is not finished" in printed_by(["runs", "--verify", str(run.path)], capsys, code=2)[1]


def test_the_script_is_the_same_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config", "mnist.yml_"]) == script.main(["train", "--config", "mnist.yml_"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
