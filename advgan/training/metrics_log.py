"""The numbers of a run as they happen: ``metrics.jsonl`` and TensorBoard, both exact after a resume."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from advgan.files import write_text
from advgan.run_folder import RunFolder

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard's event files.

    Opening it drops the rows after ``step`` and of rounds after ``rounds``, which a resumed run will come to again. The
    event files, which cannot be cut, are written again from the rows that stay and from the picture of each epoch.
    """

    def __init__(self, run_directory: Path, step: int, rounds: int = 0) -> None:
        run = RunFolder(run_directory)
        self.path = run.metrics
        rows = [row for row in read_rows(self.path) if row["step"] <= step and row.get("round", 0) <= rounds]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        events = run.tensorboard
        shutil.rmtree(events, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(events))
        self._file = self.path.open("a", encoding="utf-8")
        for row in rows:
            self._summarize(row)
            picture = run.samples / f"epoch-{row['epoch']:03d}.png"
            if row["kind"] == "epoch" and picture.exists():
                self.add_image("samples", row["step"], picture)

    def add(self, kind: str, epoch: int, step: int, values: dict[str, float]) -> None:
        """Write one row; ``kind`` is ``steps`` (means over a few), ``validation``, ``epoch`` or ``distillation``."""
        row = {"kind": kind, "epoch": epoch, "step": step, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._summarize(row)

    def add_image(self, name: str, step: int, picture: Path) -> None:
        """Show a PNG file in TensorBoard."""
        with self._writer.as_default():
            tf.summary.image(name, tf.io.decode_png(picture.read_bytes(), channels=3)[tf.newaxis], step=step)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._writer.close()

    def _summarize(self, row: Row) -> None:
        with self._writer.as_default():
            for name, value in row.items():
                if name not in ("kind", "epoch", "step") and value is not None and math.isfinite(value):
                    tf.summary.scalar(f"{row['kind']}/{name}", value, step=row["step"])


def read_rows(path: Path) -> list[Row]:
    """Read ``metrics.jsonl``; a line that is no row, as a killed process leaves it, ends it."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not {"kind", "epoch", "step"} <= row.keys():
            break
        rows.append(row)
    return rows
