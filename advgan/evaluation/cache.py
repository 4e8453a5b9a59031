"""Results that outlive the process that worked them out: a killed evaluation finds them again and goes on."""

from __future__ import annotations

import logging
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.baselines import Advance, Arrays
from advgan.errors import AdvGANError
from advgan.files import digest_of, write_whole

logger = logging.getLogger(__name__)
Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows how far a stage is: called with its name and its number of images."""


class ResultCache:
    """The stages of an evaluation, each a file of arrays that is written whole and found again by a digest.

    Args:
        folder: where the files are; it may be deleted at any time, the stages are then worked out again.
        determinants: what decides every stage's result: weights, data, versions. JSON can hold it.
        watch: shows how far a stage is.
        shards: caches of the parts of the images, in their order: a stage that is not here is put together from them.
    """

    def __init__(
        self,
        folder: Path,
        determinants: Mapping[str, Any],
        watch: Watch,
        shards: Sequence[ResultCache] = (),
    ) -> None:
        self._folder, self._determinants, self._watch = folder, dict(determinants), watch
        self._shards = shards
        self.found: list[str] = []
        """Names of the stages whose results were there already."""

    def result(
        self,
        name: str,
        settings: Mapping[str, Any],
        total: int,
        work: Callable[[Advance], Arrays],
        whole: bool = False,
    ) -> Arrays:
        """The arrays of a stage: read where they are there, worked out and kept otherwise.

        Args:
            name: of the stage, also the start of its file's name.
            settings: what decides the result besides the determinants. JSON can hold it.
            total: how many images ``work`` goes through.
            work: what the stage does; it tells how far it is, and returns arrays of numbers or booleans.
            whole: the parts of an evaluation do not have this stage.

        Raises:
            AdvGANError: a part of the evaluation lacks it.
        """
        digest = self._digest(name, settings)
        if (kept := self.kept(name, settings)) is not None:
            self.found.append(name)
            return kept
        if self._shards and not whole:
            arrays = _joined([shard.of_part(name, settings) for shard in self._shards])
            self._write(name, digest, arrays)
            return arrays
        begun = time.monotonic()
        with self._watch(name, total) as advance:
            arrays = {key: np.asarray(value) for key, value in work(advance).items()}
        logger.debug("%s took %.1f s", name, time.monotonic() - begun)
        self._write(name, digest, arrays)
        return arrays

    def kept(self, name: str, settings: Mapping[str, Any]) -> Arrays | None:
        """The arrays of a stage, where they are there."""
        digest = self._digest(name, settings)
        return _read(self._path(name, digest), digest)

    def of_part(self, name: str, settings: Mapping[str, Any]) -> Arrays:
        """The arrays of a stage of a part of an evaluation.

        Raises:
            AdvGANError: they are not there.
        """
        if (kept := self.kept(name, settings)) is None:
            raise AdvGANError(f"{self._folder.parent} lacks the results of {name}; run this part again with --shard")
        return kept

    def _digest(self, name: str, settings: Mapping[str, Any]) -> str:
        return digest_of([name, self._determinants, dict(settings)])

    def _path(self, name: str, digest: str) -> Path:
        return self._folder / f"{name}-{digest[:16]}.npz"

    def _write(self, name: str, digest: str, arrays: Arrays) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(
            self._path(name, digest),
            lambda temporary: np.savez(temporary, _digest=np.array(digest), **arrays),  # type: ignore[arg-type]
        )


def _joined(parts: list[Arrays]) -> Arrays:
    """One after the other; what is one number for all images, such as seconds, is added."""
    return {
        key: (np.sum if parts[0][key].ndim == 0 else np.concatenate)([part[key] for part in parts]) for key in parts[0]
    }


def _read(path: Path, digest: str) -> Arrays | None:
    """What a stage left; None where there is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return arrays if str(arrays.pop("_digest", "")) == digest else None
