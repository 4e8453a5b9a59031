"""Files that are written whole or not at all: write a temporary file, flush to disk, then rename."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from advgan.errors import AdvGANError, ConfigurationError

logger = logging.getLogger(__name__)
PARTIAL = ".partial"
"""How the names of unfinished folders end."""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` with a temporary path of the same ending, then put that file in the place of ``path``.

    Raises:
        OSError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)
    logger.debug("wrote %s", path)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all. NaN is an error: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *needed: str) -> Any:
    """Read a JSON file; where keys are named, one that holds an object with these.

    Raises:
        AdvGANError: it is not JSON, or not such an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdvGANError(f"{path} is damaged ({error})") from None
    for key in needed:
        if not isinstance(content, dict) or key not in content:
            raise AdvGANError(f"{path} is damaged (it has no {key!r})")
    return content


@contextmanager
def locked(folder: Path, name: str = ".lock", waits: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; the system lets go when a process is killed.

    Args:
        folder: it is there.
        name: of the file that stands for what is locked.
        waits: for the other process to finish.

    Raises:
        AdvGANError: another process is in it, and this one does not wait.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            raise AdvGANError(f"{folder} is in use by another process; wait for it, or start a new run") from None
        yield


@contextmanager
def whole_directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    A folder that is there already is complete, so it stays, and the new one goes; with ``replace`` the other way round.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
    temporary.chmod(0o755)  # mkdtemp keeps others out
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        if replace and path.exists():
            shutil.rmtree(path)
        try:
            temporary.replace(path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush(path.parent)


def copy_whole(given: Path, path: Path) -> None:
    """Copy a file, or a folder with all that is in it, whole or not at all."""
    if given.is_dir():
        with whole_directory(path, replace=True) as folder:
            shutil.copytree(given, folder, dirs_exist_ok=True)
    else:
        write_whole(path, partial(shutil.copyfile, given))


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256, in hex, of the names and contents of all files below a folder."""
    content = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content.update(f"{file.relative_to(folder)} {file_digest(file)}\n".encode())
    return content.hexdigest()


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files."""
    return folder_digest(path) if path.is_dir() else file_digest(path)


def digest_of(content: object) -> str:
    """SHA-256, in hex, of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_writable(key: str, folder: Path, given: Path | None = None) -> None:
    """Check before any work that a folder can be written.

    Args:
        key: the setting or option that names it.
        folder: it need not be there yet.
        given: what the user gave, where that is not the folder itself.

    Raises:
        ConfigurationError: what is there of it is no folder, or may not be written.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = f"cannot be written ({existing} is not a writable folder); choose another"
        raise ConfigurationError(key, str(given or folder), problem)
