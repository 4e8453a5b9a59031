"""The wheel: what is in it, and that it works from a folder that is no checkout."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import advgan

CHECKOUT = Path(__file__).parent.parent
REFERENCE = "advgan/checkpoints/reference"
METADATA = f"advgan-{advgan.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made by the build backend that pip calls."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.namelist()
    assert len(listed) == len(set(listed))
    return set(listed)


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name == f"advgan-{advgan.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 20_000_000


@pytest.mark.parametrize(
    "name",
    [
        "advgan/py.typed",
        "advgan/data/mnist.npz",
        "advgan/data/LICENSE-MNIST.md",
        "advgan/configs/mnist.yaml",
        f"{METADATA}/licenses/LICENSE",
        f"{METADATA}/licenses/advgan/data/LICENSE-MNIST.md",
    ],
)
def test_the_wheel_holds_data_configurations_and_licences(names: set[str], name: str) -> None:
    assert name in names


def test_the_wheel_holds_every_module_and_every_configuration(names: set[str]) -> None:
    modules = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "advgan").rglob("*.py")}
    assert "advgan/train.py" in modules
    assert modules <= names
    configurations = {
        f"advgan/{path.relative_to(CHECKOUT).as_posix()}" for path in (CHECKOUT / "configs").rglob("*.yaml")
    }
    assert "advgan/configs/tables/results.yaml" in configurations
    assert {name for name in names if name.endswith(".yaml")} == configurations | {f"{REFERENCE}/config.yaml"}


def test_the_wheel_holds_the_reference_run_and_no_other(names: set[str]) -> None:
    run = CHECKOUT / "checkpoints" / "reference"
    files = [path for folder in (run, run / "evaluation") for path in folder.iterdir() if path.is_file()]
    shipped = {f"advgan/{path.relative_to(CHECKOUT).as_posix()}" for path in files}
    assert f"{REFERENCE}/generator.keras" in shipped
    assert shipped == {name for name in names if name.startswith("advgan/checkpoints/")}


def test_the_wheel_holds_nothing_but_the_package(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"advgan", METADATA}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".log"))]
    assert {name.rsplit("/", 1)[0] for name in names if name.endswith(".keras")} == {REFERENCE}


def test_the_digits_in_the_wheel_are_those_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = hashlib.sha256(archive.read("advgan/data/mnist.npz")).hexdigest()
    assert packed == hashlib.sha256((CHECKOUT / "advgan" / "data" / "mnist.npz").read_bytes()).hexdigest()


def test_the_metadata_name_both_licences_and_the_python_versions(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_string(archive.read(f"{METADATA}/METADATA").decode())
    assert metadata["Version"] == advgan.__version__
    assert metadata["License-Expression"] == "MIT AND CC-BY-SA-3.0"
    assert set(str(metadata["Requires-Python"]).split(",")) == {">=3.10", "<3.14"}


def test_an_unpacked_wheel_runs_from_any_folder_with_the_configuration_it_brings(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    configuration = unpacked / "advgan" / "configs" / "mnist.yaml"
    text = configuration.read_text(encoding="utf-8")
    assert text.count("\nseed: 0\n") == 1
    configuration.write_text(text.replace("\nseed: 0\n", "\nseed: 4242\n"), encoding="utf-8")  # to know it again
    done = subprocess.run(
        [sys.executable, "-m", "advgan.train", "--config", "mnist.yaml", "--dry-run"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "seed: 4242" in done.stdout.splitlines()
    assert "# generator: 28x28x1 in, 28x28x1 out; 86,065 parameters trained" in done.stdout
    assert not list(elsewhere.iterdir())
