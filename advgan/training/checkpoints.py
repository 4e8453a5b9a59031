"""The checkpoints of a training, written whole or not at all.

A checkpoint is a folder ``<number>`` (``Position.number``: the step, but for black-box runs) with TensorFlow's files
and ``position.json``; it is made under another name, flushed to disk and renamed, so a folder with a number for a name
is complete.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from advgan import replicas
from advgan.errors import AdvGANError
from advgan.files import PARTIAL, read_json, whole_directory, write_json


class State(Protocol):
    """All that a training changes."""

    @property
    def position(self) -> Any:
        """How far it is: a dataclass whose ``number`` grows with every change."""

    @position.setter
    def position(self, value: Any) -> None: ...

    def checkpoint(self) -> Any:
        """The part that TensorFlow saves."""


class Checkpoints:
    """The checkpoints of one training, in ``folder``; the ``keep`` newest stay.

    Of several machines that train together one ``writes``, and the others wait until it has.
    """

    def __init__(self, folder: Path, keep: int, writes: bool = True) -> None:
        self.folder, self.keep, self._writes = folder, keep, writes
        for left in folder.glob(f".*{PARTIAL}") if writes else ():  # by a killed process
            shutil.rmtree(left)

    def numbers(self) -> list[int]:
        """The positions (``Position.number``) that have a complete checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def save(self, state: State) -> None:
        """Write the state, then delete the oldest checkpoints beyond ``keep``.

        Raises:
            OSError: the disk is full or the folder cannot be written; the checkpoints are then as they were.
        """
        if self._writes:
            self._write(state)
        replicas.of_workers(0)

    def _write(self, state: State) -> None:
        with whole_directory(self.folder / f"{state.position.number:08d}") as folder:
            try:
                state.checkpoint().write(str(folder / "state"))
            except tf.errors.OpError as error:  # TensorFlow's own word for it
                raise OSError(str(error.message).split("; ")[-1].split(" [Op:")[0]) from None
            write_json(folder / "position.json", dataclasses.asdict(state.position))
        for number in self.numbers()[: -self.keep]:
            doomed = self.folder / f".{number:08d}{PARTIAL}"
            (self.folder / f"{number:08d}").replace(doomed)  # a folder that has a number for a name is complete
            shutil.rmtree(doomed)

    def restore_latest(self, state: State) -> bool:
        """Put the newest checkpoint into the state; False when there is none.

        Raises:
            AdvGANError: the checkpoint does not fit the networks, or is damaged.
        """
        numbers = self.numbers()
        if not numbers:
            return False
        folder = self.folder / f"{numbers[-1]:08d}"
        try:
            state.checkpoint().read(str(folder / "state")).assert_consumed()
            fields = [field.name for field in dataclasses.fields(state.position)]
            state.position = type(state.position)(**read_json(folder / "position.json", *fields))
        except Exception as error:  # TensorFlow and Keras raise nearly anything when a file is damaged
            reason = " ".join(str(error).split())[:200]
            raise AdvGANError(
                f"the checkpoint {folder} cannot be restored ({reason}); delete it to continue from the one before, or "
                "to start again"
            ) from None
        return True
