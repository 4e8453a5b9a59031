"""The command line ``python -m advgan.train``: what it refuses, in which words, and what it prints without training.

TensorFlow takes seconds to import, so most refusals go through ``main`` in this process, a few through a real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advgan import run_folder, train
from advgan.command_line import command_for
from advgan.files import read_json

CHECKOUT = Path(__file__).parent.parent
TINY_BATCHES = ("data.validation_images=10", "training.batch_size=10", "target.batch_size=10")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user starts it, in the current folder."""
    return subprocess.run(
        [sys.executable, "-m", "advgan.train", *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def with_settings(*overrides: str) -> list[str]:
    """``--set`` before each override."""
    return [argument for override in overrides for argument in ("--set", override)]


def listing(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def images_of(height: int, width: int) -> str:
    """Make a tiny dataset of noise in the current folder; return its name."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 40), ("test", 20)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, height, width), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 10
    np.savez("tiny.npz", **arrays)
    return "tiny.npz"


def forbid_tensorflow(folder: Path) -> None:
    """Put a module in TensorFlow's place; ``python -m`` looks in the current folder first."""
    (folder / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')\n", encoding="utf-8")


def refusal(here: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line with which a command is refused: exit code 2, nothing on stdout, nothing on disk."""
    before = listing(here)
    assert train.main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.endswith("\n")
    assert listing(here) == before
    prefix, _, message = printed.err.strip().partition("error: ")
    assert prefix == ""
    return message


# --- Real processes ----------------------------------------------------------------------------------------------


def test_help_has_examples_and_needs_no_tensorflow(here: Path) -> None:
    forbid_tensorflow(here)
    done = run_process("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("examples:", "python -m advgan.train --config mnist.yaml\n", "--set", "--resume", "--dry-run"):
        assert words in done.stdout


def test_an_unknown_key_is_refused_in_one_line_before_tensorflow_is_imported(here: Path) -> None:
    forbid_tensorflow(here)
    before = listing(here)
    done = run_process("--config", "mnist.yaml", "--set", "attack.epsilonn=0.2")
    assert done.returncode == 2
    assert done.stderr == "error: attack.epsilonn = 0.2: unknown key; did you mean attack.epsilon?\n"
    assert done.stdout == ""
    assert listing(here) == before


def test_what_the_data_rules_out_is_refused_in_one_line_without_tensorflows_chatter(here: Path) -> None:
    done = run_process("--config", "mnist.yaml", *with_settings("attack.goal=targeted", "attack.target_class=10"))
    assert done.returncode == 2
    assert done.stderr == "error: attack.target_class = 10: the data has 10 classes (allowed: 0 to 9)\n"
    assert done.stdout == ""
    assert listing(here) == set()


@pytest.mark.addons
def test_the_main_job_prints_what_it_runs_on_the_figures_and_what_next_and_nothing_beside_its_progress(
    here: Path,
) -> None:
    small = (
        "data.training_images=512",
        "data.validation_images=100",
        "data.test_images=100",
        "training.batch_size=64",
        "training.epochs=1",
        "target.batch_size=64",
        "target.epochs=1",
        "generator.widths=[4, 8]",
        "generator.residual_blocks=1",
    )
    done = run_process("--config", "mnist.yaml", *with_settings(*small))
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith(("advgan ", "target ", "epoch ", "note: ")), line  # no warning of a library
    run = here / "checkpoints" / "mnist" / "0"
    [process] = read_json(run / "processes.json")
    environment = process["environment"]
    stack = f"TensorFlow {environment['tensorflow']}"
    if "tensorflow_addons" in environment:
        stack += f" with Addons {environment['tensorflow_addons']}"
    exact = "bit-identical repeats" if environment["deterministic"] else "not bit-identical"
    assert f" {stack}, {exact}\n" in done.stdout
    rate = read_json(run / "summary.json")["test"]["success"]["rate"]
    assert f"{rate:.2%}" in next(line for line in done.stdout.splitlines() if "attack success rate" in line)
    own = done.stdout.splitlines()[-2]
    assert own.startswith("Your own pictures: ")
    assert own.endswith(" -m advgan.attack FOLDER --run checkpoints/mnist/0 --output adversarial/")
    label, _, following = done.stdout.splitlines()[-1].partition(": ")
    assert label == "Next"
    typed, mark, _ = following.partition("   # ")
    assert typed.endswith(" -m advgan.evaluate --run checkpoints/mnist/0") and mark
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    pasted = subprocess.run(["sh", "-c", following.replace(mark, f" --help{mark}")], env=environment, check=False)
    assert pasted.returncode == 0


# --- Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["attack.epsilon=0"], ["attack.epsilon = 0: ", "> 0, <= 1"]),
        (["attack.goal=targeted"], ["attack.target_class = None: ", "class index"]),
        (["attack.goal=targeted", "attack.target_class=10"], ["attack.target_class = 10: ", "0 to 9"]),
        (["training.xla=on", "training.deterministic=on"], ["training.xla = 'on': ", "training.deterministic"]),
        (["training.batch_size=55001"], ["training.batch_size = 55001: ", "larger", "1 to 55000"]),
        (["target.batch_size=60000"], ["target.batch_size = 60000: ", "larger", "1 to 55000"]),
        (["data.training_images=100"], ["training.batch_size = 128: ", "larger", "1 to 100"]),
        (["data.training_images=55001"], ["data.training_images = 55001: ", "1 to 55000"]),
        (["data.test_images=10001"], ["data.test_images = 10001: ", "1 to 10000"]),
        (["data.validation_images=60000"], ["data.validation_images = 60000: ", "60000 images", "1 to 59999"]),
        (["data.dataset=absent.npz"], ["data.dataset = 'absent.npz': ", "mnist", ".npz"]),
        (["generator.widths=[2, 2, 2, 2, 2, 2]"], ["generator.widths = [2, 2, 2, 2, 2, 2]: ", "28x28", "1x1"]),
        (["attack.epsilonn=1"], ["attack.epsilonn = 1: ", "attack.epsilon?"]),
        (["attack.epsilon"], ["--set = 'attack.epsilon': ", "section.key=value"]),
    ],
)
def test_an_impossible_setting_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], expected: list[str]
) -> None:
    message = refusal(here, capsys, ["--config", "mnist.yaml", *with_settings(*overrides)])
    assert message.startswith(expected[0])
    for words in expected[1:]:
        assert words in message


@pytest.mark.parametrize("directory", ["file", "file/below", "file/far/below"])
def test_an_output_folder_that_cannot_be_written_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], directory: str
) -> None:
    (here / "file").touch()  # a file in the way stops root too, permissions do not
    message = refusal(here, capsys, ["--config", "mnist.yaml", "--set", f"output.directory={directory}"])
    assert message.startswith(f"output.directory = '{directory}': cannot be written (file is not a writable folder)")


def test_images_that_are_too_small_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = with_settings(f"data.dataset={images_of(7, 7)}", *TINY_BATCHES)
    message = refusal(here, capsys, ["--config", "mnist.yaml", *settings])
    assert message.startswith("data.dataset = ")
    assert "7x7" in message
    assert "8x8 or larger" in message


def test_images_that_leave_a_norm_a_single_pixel_are_refused_with_the_layer(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = with_settings(f"data.dataset={images_of(8, 8)}", *TINY_BATCHES)
    message = refusal(here, capsys, ["--config", "mnist.yaml", *settings])
    assert message.startswith("discriminator.widths = [8, 16, 32]: ")
    assert "does not fit images of 8x8: at layer c2 (4x4, stride 2, same): instance normalization of a 1x1" in message


def test_images_that_do_not_fit_the_target_are_refused_with_the_layer(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = with_settings(f"data.dataset={images_of(9, 9)}", *TINY_BATCHES)
    message = refusal(here, capsys, ["--config", "mnist.yaml", *settings])
    assert message.startswith("target.architecture = 'lenet': does not fit images of 9x9: at layer convolution_2: ")


def test_validation_images_that_are_all_of_the_target_class_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = images_of(28, 28)
    arrays = dict(np.load(name))
    arrays["y_train"][-10:] = 3
    np.savez(name, **arrays)
    goal = ("attack.goal=targeted", "attack.target_class=3", "data.validation_split=last")
    settings = with_settings(f"data.dataset={name}", *TINY_BATCHES, *goal)
    message = refusal(here, capsys, ["--config", "mnist.yaml", *settings])
    assert message.startswith("none of the 10 validation images")
    assert "data.validation_images" in message


def test_test_images_that_are_training_images_are_named_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    name = images_of(28, 28)
    arrays = dict(np.load(name))
    arrays["x_test"] = arrays["x_train"][:20]
    np.savez(name, **arrays)
    dry = ["--config", "mnist.yaml", *with_settings(f"data.dataset={name}", *TINY_BATCHES), "--dry-run"]
    assert train.main(dry) == 0
    printed = capsys.readouterr().out
    assert "Warning: held-out images: 20 of 20 scored images are among the training and validation images." in printed
    assert "# Data: 10 classes\n" in printed
    assert "validation_split: by_class" in printed


def test_a_key_with_a_newline_in_it_is_refused_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(here, capsys, ["--config", "mnist.yaml", "--set", "a\nb=1"]).startswith("a b = 1: unknown key")


def test_a_missing_configuration_is_refused_with_those_that_ship(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(here, capsys, ["--config", "mnst.yaml"])
    assert message.startswith("--config = 'mnst.yaml': no such file")
    assert "mnist.yaml" in message


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--set", "seed=1"]], ids=" ".join)
def test_a_command_without_a_configuration_is_refused_with_an_example(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    assert "--config mnist.yaml" in capsys.readouterr().err.splitlines()[-1]
    assert listing(here) == set()


@pytest.mark.parametrize(
    "arguments", [["--dry"], ["--conf", "mnist.yaml"], ["mnist.yaml"], ["--epochs", "3"]], ids=" ".join
)
def test_unknown_and_shortened_options_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--config", "mnist.yaml", *arguments])
    assert stopped.value.code == 2
    assert f"unrecognized arguments: {' '.join(arguments)}" in capsys.readouterr().err


# --- Resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--resume"], ["--resume", "--dry-run"]], ids=" ".join)
def test_resuming_without_a_run_is_refused_with_how_to_start_one(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    message = refusal(here, capsys, arguments)
    assert message.startswith("there is no run to resume in checkpoints; ")
    assert "--config" in message


def test_the_run_that_ships_is_not_taken_for_the_latest(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = here / "checkpoints" / "reference"
    reference.mkdir(parents=True)
    (reference / "config.yaml").touch()
    monkeypatch.setattr(run_folder, "_PLACES", [reference.resolve()])
    assert refusal(here, capsys, ["--resume"]).startswith("there is no run to resume in checkpoints; ")


@pytest.mark.parametrize(
    ("python", "on_the_path", "typed"),
    [
        ("env/bin/python", "env/bin/python", "python"),
        ("env/bin/python", "elsewhere/python", "env/bin/python"),
        ("env/bin/python", None, "env/bin/python"),
    ],
)
def test_a_command_to_go_on_with_names_the_python_that_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, python: str, on_the_path: str | None, typed: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(here / python))
    monkeypatch.setattr(shutil, "which", lambda _name: None if on_the_path is None else str(here / on_the_path))
    assert command_for("train", "--resume", Path("my runs/0")) == f"{typed} -m advgan.train --resume 'my runs/0'"
    monkeypatch.chdir(here.parent)
    expected = "python" if typed == "python" else f"{here.name}/{python}"
    assert command_for("train") == f"{expected} -m advgan.train"


def test_resuming_the_latest_run_of_a_configuration_looks_where_that_one_puts_its_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_text("output: {directory: elsewhere}\n", encoding="utf-8")
    (here / "checkpoints" / "mnist" / "0").mkdir(parents=True)
    (here / "checkpoints" / "mnist" / "0" / "config.yaml").touch()
    message = refusal(here, capsys, ["--config", "mine.yaml", "--resume"])
    assert message.startswith(f"there is no run to resume in {Path('elsewhere', 'mine')}; ")


@pytest.mark.parametrize("run", ["empty", "absent", "a.file", "."])
def test_resuming_what_is_no_run_is_refused_with_an_example(
    here: Path, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    (here / "empty").mkdir()
    (here / "a.file").touch()
    message = refusal(here, capsys, ["--resume", run])
    assert message.startswith(f"{run} is not a run directory: it has no config.yaml")
    assert "checkpoints/mnist/0" in message


@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "run"], ["--config", "mnist.yaml", "--resume", "run"]])
def test_a_resumed_run_takes_no_new_settings(here: Path, capsys: pytest.CaptureFixture[str], resume: list[str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    message = refusal(here, capsys, [*resume, "--set", "seed=1"])
    assert message.startswith("--set = 'seed=1': a resumed run keeps its settings")


def test_a_run_whose_configuration_was_spoilt_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("attack: {epsilon: 2}\n", encoding="utf-8")
    assert refusal(here, capsys, ["--resume", "run"]).startswith("attack.epsilon = 2: ")


# --- Dry run -----------------------------------------------------------------------------------------------------


@pytest.mark.addons
def test_a_dry_run_prints_configuration_layers_parameters_and_steps(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--config", "mnist.yaml", "--dry-run", "--set", "attack.epsilon=51/255"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert listing(here) == set()
    for line in (
        "name: mnist",
        "# Steps: 3 epochs x 429 = 1287, then the test images",
    ):
        assert line in printed.out.splitlines()
    assert "epsilon: 0.2," in printed.out
    for total in (
        "out; 86,065 parameters trained",
        "out; 10,985 parameters trained",
        "out; 217,706 parameters trained",
    ):
        assert total in printed.out
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("  ") and ":" not in line]
    for name, shape, parameters in (
        ("pad", "28x28x1", "0"),
        ("d2", "7x7x32", "4,608"),
        ("r4b", "7x7x32", "9,216"),
        ("tanh", "28x28x1", "0"),
        ("c2", "4x4x32", "8,192"),
        ("score", "1", "513"),
        ("logits", "10", "2,570"),
    ):
        assert [name, shape, parameters] in [[row[0], *row[-4:-2]] for row in rows]
    layers = sum(int(row[-3].replace(",", "")) for row in rows if row[0] != "layer")
    assert layers == 86_065 + 10_985 + 217_706


def test_a_dry_run_counts_the_steps_of_the_settings_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """30 images in batches of 8 are 3 whole batches; 9x9 images are the smallest for the default G and D."""
    overrides = (
        f"data.dataset={images_of(9, 9)}",
        "data.validation_images=10",
        "training.batch_size=8",
        "training.epochs=5",
        "target.batch_size=8",
        "target.architecture=madrylab",
    )
    before = listing(here)
    assert train.main(["--config", "mnist.yaml", "--dry-run", *with_settings(*overrides)]) == 0
    assert "# Steps: 5 epochs x 3 = 15, " in capsys.readouterr().out
    assert listing(here) == before


def test_a_dry_run_of_a_resumed_run_prints_the_settings_it_was_started_with(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, seed in ((0, 5), (1, 6)):
        run = here / "checkpoints" / "mnist" / str(number)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"name: mnist\nseed: {seed}\n", encoding="utf-8")
        os.utime(run / "config.yaml", (1_000_000 - number, 1_000_000 - number))  # run 0 is the later one
    before = listing(here)
    for arguments, seed in ((["--resume"], 5), (["--resume", "checkpoints/mnist/1"], 6)):
        assert train.main([*arguments, "--dry-run"]) == 0
        assert f"seed: {seed}" in capsys.readouterr().out.splitlines()
    assert listing(here) == before
