"""The output folder of an attack on files: what is in it already, results that outlive a process, the table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from advgan.errors import AdvGANError, ConfigurationError
from advgan.files import read_json, write_json, write_whole
from advgan.records.attack import BegunAttack, FinishedAttack, Row

RECORD, TABLE, PICTURE = "attack.json", "attack.csv", "attack.png"
ROWS, BEGUN, LOCK = ".attack.partial.jsonl", ".attack.partial.json", ".lock"
COLUMNS = ("file", "clean_class", "adversarial_class", "success", "linf", "l2", "output")


class AttackFolder:
    """The output of one attack on files, known by a digest of all that determines it.

    Args:
        path: of the folder; it need not be there yet.
        digest: of this attack.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self._digest = path, digest

    def check(self, overwrite: bool) -> None:
        """Check that the folder may be written into: it is empty, or holds this attack.

        Raises:
            ConfigurationError: it holds something else, and ``overwrite`` is not set.
        """
        if overwrite or not self._holds_anything() or self._is_same():
            return
        if (self.path / RECORD).is_file():
            problem = "holds the attack of other images, another run or other options"
        else:
            problem = f"is not empty and holds no {RECORD}"
        raise ConfigurationError("--output", str(self.path), f"{problem}; choose another folder, or add --overwrite")

    def complete(self) -> bool:
        """Whether this attack was finished before."""
        return self._is_same() and BegunAttack.read(self.path / RECORD).complete

    def prepare(self, overwrite: bool) -> int:
        """Keep what an earlier process did of this attack, or remove another's files; return how many images are done.

        Args:
            overwrite: whether a finished one is done again.
        """
        if not self._is_same() or (overwrite and self.complete()):
            self._clear()
            return 0
        done, end = 0, 0
        if not (self.path / ROWS).is_file():
            return 0
        with (self.path / ROWS).open("rb+") as file:
            for line in file:
                if (parsed := _parsed(line)) is None:  # the process was killed while it wrote this
                    break
                done, end = parsed[0], end + len(line)
            file.truncate(end)
        return done

    def forget(self) -> None:
        """Drop the results of an earlier process."""
        for name in (ROWS, BEGUN):
            (self.path / name).unlink(missing_ok=True)

    def begin(self, outputs: list[str]) -> None:
        """Note which files a batch is about to write: where it is killed, another attack can remove them."""
        write_json(self.path / BEGUN, outputs)

    def append(self, stop: int, rows: list[Row]) -> None:
        """Keep the results of a batch of images; ``stop`` is how many images are done then."""
        with (self.path / ROWS).open("ab") as file:
            file.write(json.dumps([stop, rows]).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> Iterator[Row]:
        """The results so far, in the order of the images."""
        with (self.path / ROWS).open("rb") as file:
            for line in file:
                parsed = _parsed(line)
                yield from () if parsed is None else parsed[1]

    def record(self) -> FinishedAttack:
        """What ``attack.json`` holds, of an attack that is complete."""
        return FinishedAttack.read(self.path / RECORD)

    def write_table(self, names: tuple[str, ...] | None) -> None:
        """Write ``attack.csv`` from the results, without the images that cannot be used.

        Args:
            names: of the classes; their indices are written where there are none.
        """

        def named(answer: int | None) -> str:
            if answer is None:
                return ""
            return str(answer) if names is None or answer >= len(names) else names[answer]

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                for row in self.rows():
                    if not row.problem:
                        success = "" if not row.counts else "yes" if row.success else "no"
                        sizes = (f"{row.linf:.6f}", f"{row.l2:.6f}")
                        writer.writerow(
                            (row.file, named(row.clean), named(row.adversarial), success, *sizes, row.output)
                        )

        write_whole(self.path / TABLE, write)

    def _holds_anything(self) -> bool:
        return self.path.is_dir() and any(entry.name != LOCK for entry in self.path.iterdir())

    def _is_same(self) -> bool:
        with suppress(AdvGANError):  # damaged
            return (self.path / RECORD).is_file() and BegunAttack.read(self.path / RECORD).digest == self._digest
        return False

    def _clear(self) -> None:
        """Remove what an attack left here; files of others stay."""
        outputs = {row.output for row in self.rows()} if (self.path / ROWS).is_file() else set()
        with suppress(AdvGANError, OSError):  # there is none, or it is damaged
            outputs |= set(read_json(self.path / BEGUN))
        if (self.path / RECORD).is_file() and (self.path / TABLE).is_file():
            with (self.path / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                outputs |= {row.get("output") or "" for row in csv.DictReader(file)}
        if (self.path / RECORD).is_file():
            outputs |= {RECORD, TABLE, PICTURE}
        for output in filter(None, outputs):
            path = self.path / output
            if ".." in path.parts or not path.is_relative_to(self.path):
                continue
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.path:
                    break
                with suppress(OSError):  # not empty
                    folder.rmdir()
        self.forget()


def _parsed(line: bytes) -> tuple[int, list[Row]] | None:
    """How many images are done and the rows of the last batch, or None for a line that was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    try:
        stop, rows = json.loads(line)
        return int(stop), [Row(*row) for row in rows]
    except (ValueError, TypeError):
        return None
