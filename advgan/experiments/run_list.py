"""The runs below a folder, how far each is, and whether its files are as they were. Needs no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from advgan.errors import AdvGANError
from advgan.files import file_digest, locked, read_json, write_text
from advgan.records.summary import Summary
from advgan.run_folder import RunFolder, load_run_config


@dataclass(frozen=True)
class ListedRun:
    """A run and how far it is."""

    folder: Path
    configuration: str
    state: str
    success: str
    epsilon: str
    date: str
    """When it was finished; before that, when it was begun."""

    @property
    def cells(self) -> tuple[str, ...]:
        """One line of a list."""
        return str(self.folder), self.configuration, self.state, self.success, self.epsilon, self.date


def runs_below(folder: Path) -> list[ListedRun]:
    """The runs below a folder, by their folders; those of ``--retrain`` are parts of other runs, and left out."""
    return [_listed(RunFolder(run)) for run in sorted(_folders(folder))]


def _folders(folder: Path) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        if RunFolder(Path(place)).config.name in files:
            names.clear()
            yield Path(place)


def _listed(run: RunFolder) -> ListedRun:
    newest = run.summary if run.summary.exists() else run.config
    date = f"{datetime.fromtimestamp(newest.stat().st_mtime):%Y-%m-%d %H:%M}"
    try:
        config = load_run_config(run.path)
    except AdvGANError:
        return ListedRun(run.path, "", "its config.yaml cannot be read", "", "", date)
    state, success = "finished", ""
    try:
        if run.summary.exists():
            success = f"{Summary.read(run.summary).test.success.rate:.2%}"
        else:
            state = _unfinished(run, config.generator_epochs)
    except AdvGANError:
        state = "damaged"
    return ListedRun(run.path, config.name, state, success, f"{config.attack.epsilon:.3g}", date)


def _unfinished(run: RunFolder, epochs: int) -> str:
    state = "stopped"
    if (run.path / ".lock").exists():
        try:
            with locked(run.path):
                pass
        except AdvGANError:
            state = "running"
    checkpoints = sorted(path for path in run.checkpoints.glob("*/position.json") if path.parent.name.isdigit())
    if not checkpoints:
        return f"{state}, before the generator"
    epoch = read_json(checkpoints[-1], "epoch")["epoch"]
    return f"{state}, epoch {min(epoch + 1, epochs)} of {epochs}"


def write_digests(run: RunFolder, summary: Summary) -> None:
    """Write what ``verify`` reads, in the form of ``sha256sum``: the digest of every file of a run.

    Args:
        run: all of its files are there but its summary, which is written last.
        summary: that.
    """
    temporary = run.path / f".{run.summary.name}"
    summary.write(temporary)
    digests = {run.summary.name: file_digest(temporary)}
    temporary.unlink()
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path)
        own = name.parts[0] not in (run.checkpoints.name, run.digests.name) and not name.parts[0].startswith(".")
        if own and path.is_file():
            digests[name.as_posix()] = file_digest(path)
    write_text(run.digests, "".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def verify(folder: Path) -> int:
    """Check every file of a finished run.

    Returns:
        How many there are.

    Raises:
        AdvGANError: one has changed or is gone, or it is not known what they were.
    """
    load_run_config(folder)
    run = RunFolder(folder)
    run.require(run.summary)
    if not run.digests.is_file():
        raise AdvGANError(f"{folder} has no {run.digests.name}: advgan 0.1 finished it, which kept no digests")
    lines = [line.split("  ", 1) for line in run.digests.read_text(encoding="utf-8").splitlines()]
    if not lines or any(len(line) != 2 for line in lines):
        raise AdvGANError(f"{run.digests} is damaged")
    found = []
    for digest, name in lines:
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is gone")
        elif file_digest(path) != digest:
            found.append(f"{name} has changed")
    if found:
        raise AdvGANError(f"{folder}: {len(found)} of {len(lines)} files have changed or are gone: {'; '.join(found)}")
    return len(lines)
