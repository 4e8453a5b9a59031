"""A file or folder is the old one or the new one, never half of either, and nothing is left beside it."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advgan.files import (
    file_digest,
    folder_digest,
    read_json,
    whole_directory,
    write_json,
    write_text,
    write_whole,
)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, by its path."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fail_after_half(error: BaseException) -> Callable[[Path], None]:
    def write(beside: Path) -> None:
        beside.write_text("half of the n")
        raise error

    return write


ERRORS = pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), ValueError("not serializable"), KeyboardInterrupt()],
    ids=["disk full", "error", "Ctrl-C"],
)


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_written_and_nothing_else(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "summary.json"
    if old is not None:
        path.write_text(old)
    write_whole(path, lambda beside: beside.write_text("new"))
    assert contents(tmp_path) == {"summary.json": "new"}


def test_the_old_file_stays_in_place_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "generator.keras"
    path.write_text("old")
    seen: list[Path] = []

    def write(beside: Path) -> None:
        beside.write_text("new")
        assert path.read_text() == "old"
        seen.append(beside)

    write_whole(path, write)
    assert path.read_text() == "new"
    assert seen[0] != path
    assert seen[0].parent == path.parent  # a rename is atomic within a file system only
    assert seen[0].suffix == ".keras"  # Keras goes by the ending


@ERRORS
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_whole(path, fail_after_half(error))
    assert contents(tmp_path) == {"summary.json": "old"}


@ERRORS
def test_a_failed_first_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_whole(tmp_path / "summary.json", fail_after_half(error))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_before_it_made_a_file_raises_its_own_error(tmp_path: Path) -> None:
    def write(_beside: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        write_whole(tmp_path / "summary.json", write)
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_for_the_system_leaves_the_old_one(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "notes.txt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_text(path, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == {"notes.txt": "old"}


def test_what_cannot_be_renamed_into_place_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    (path / "kept.txt").write_text("kept")
    with pytest.raises(OSError):
        write_text(path, "new")
    assert contents(tmp_path) == {"taken/kept.txt": "kept"}


def test_what_a_killed_write_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    left: list[Path] = []
    write_whole(path, lambda beside: (left.append(beside), beside.write_text("first")))
    left[0].write_text("a longer piece of a write that was killed")
    write_text(path, "second")
    assert contents(tmp_path) == {"notes.txt": "second"}


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "ε ≤ 0,3 – größer\n")
    assert (tmp_path / "notes.txt").read_bytes() == "ε ≤ 0,3 – größer\n".encode()


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    content = {"rate": 0.1 + 0.2, "n": 9_980, "name": "größer", "none": None, "list": [1, 2.5, True]}
    write_json(tmp_path / "summary.json", content)
    assert read_json(tmp_path / "summary.json") == content
    assert (tmp_path / "summary.json").read_text().endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_json_are_refused_and_the_old_file_stays(tmp_path: Path, number: float) -> None:
    write_json(tmp_path / "summary.json", {"rate": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "summary.json", {"rate": number})
    assert read_json(tmp_path / "summary.json") == {"rate": 0.5}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "targets" / "digest"
    with whole_directory(path) as beside:
        (beside / "target.keras").write_text("weights")
        (beside / "plots").mkdir()
        (beside / "plots" / "loss.svg").write_text("plot")
        assert not path.exists()
    assert contents(tmp_path) == {"targets/digest/target.keras": "weights", "targets/digest/plots/loss.svg": "plot"}
    assert [child.name for child in path.parent.iterdir()] == ["digest"]


def test_a_folder_that_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "digest"
    path.mkdir()
    (path / "target.keras").write_text("complete")
    with whole_directory(path) as beside:
        (beside / "target.keras").write_text("later")
    assert contents(tmp_path) == {"digest/target.keras": "complete"}


def test_a_folder_is_replaced_on_demand_once_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "attack"
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "old").write_text("old")
    with whole_directory(path, replace=True) as beside:
        (beside / "variables").mkdir()
        (beside / "variables" / "new").write_text("new")
        assert contents(path) == {"variables/old": "old"}
    assert contents(tmp_path) == {"attack/variables/new": "new"}


@pytest.mark.parametrize(("old", "replace"), [(False, False), (True, False), (True, True)])
@ERRORS
def test_a_folder_that_failed_half_way_leaves_what_was_there(
    tmp_path: Path, error: BaseException, old: bool, replace: bool
) -> None:
    path = tmp_path / "digest"
    if old:
        path.mkdir()
        (path / "target.keras").write_text("old")
    with pytest.raises(type(error)), whole_directory(path, replace=replace) as beside:
        (beside / "target.keras").write_text("half of the n")
        raise error
    assert contents(tmp_path) == ({"digest/target.keras": "old"} if old else {})
    assert [child.name for child in tmp_path.iterdir()] == (["digest"] if old else [])


def test_what_a_killed_process_left_does_not_get_into_the_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "digest"
    with whole_directory(path) as beside:
        left = beside
    path.rmdir()
    left.mkdir()
    (left / "half.keras").write_text("half of the n")
    with whole_directory(path) as beside:
        (beside / "target.keras").write_text("new")
    assert contents(path) == {"target.keras": "new"}


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(2**21 + 7)  # more than is read at a time
    (tmp_path / "large").write_bytes(content)
    assert file_digest(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_folders_digest_is_of_names_and_contents_in_the_order_of_names(tmp_path: Path) -> None:
    names = [f"{number % 3}/{number:02d}" for number in np.random.default_rng(0).permutation(30)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    lines = [f"{name} {hashlib.sha256(f'content of {name}'.encode()).hexdigest()}\n" for name in sorted(names)]
    assert folder_digest(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "0").rename(tmp_path / "3")
    assert folder_digest(tmp_path) != hashlib.sha256("".join(lines).encode()).hexdigest()
