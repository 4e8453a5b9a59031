"""A black box behind a counter: every answer is kept, no image is a query twice, and a budget is a budget.

Answers go into a journal as they come, so a killed process loses at most the request that was under way.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from advgan.classifiers.classifier import Classifier
from advgan.errors import AdvGANError

Purpose = Literal["clean", "adversarial", "validation", "scoring"]
PURPOSES: tuple[Purpose, ...] = ("clean", "adversarial", "validation", "scoring")
"""What a query is for. Scoring the finished attack is no part of the attack: it is counted, but not limited."""


def queries_in(journal: Path, classes: int) -> dict[Purpose, int]:
    """How many answers a journal holds, by purpose; it is read only, and a record that was cut short is left out.

    Args:
        journal: of a ``QueryCounter``.
        classes: how many the black box tells apart.
    """
    content, size = journal.read_bytes(), _record_size(classes)
    first = np.frombuffer(content[: len(content) // size * size], np.uint8).reshape(-1, size)[:, 0]
    return {purpose: int((first == number).sum()) for number, purpose in enumerate(PURPOSES)}


def _record_size(classes: int) -> int:
    """Bytes of a purpose, a digest, an answer and a checksum."""
    return 1 + 32 + 4 * classes + 4


class QueryCounter:
    """Queries a black box, counts the images, and keeps the answers.

    Args:
        black_box: as ``load_black_box`` makes it.
        classes: how many it tells apart.
        labels_only: whether of an answer only the class is looked at; it then comes as a one-hot row.
        budget: the most queries for all purposes but scoring; None for no limit.
        per_request: images in a request.
        journal: a file for the answers; None keeps them in memory.

    Raises:
        AdvGANError: the journal is damaged, or of a black box with another number of classes.
    """

    def __init__(
        self,
        black_box: Classifier,
        classes: int,
        labels_only: bool = False,
        budget: int | None = None,
        per_request: int = 500,
        journal: Path | None = None,
    ) -> None:
        self.black_box, self.classes, self.labels_only = black_box, classes, labels_only
        self.budget, self.per_request, self._journal = budget, per_request, journal
        self.queries: dict[Purpose, int] = dict.fromkeys(PURPOSES, 0)
        """Images, by purpose; repeated ones count once."""
        self._known: dict[bytes, np.ndarray] = {}
        if journal is not None and journal.exists():
            self._read(journal)

    @property
    def spent(self) -> int:
        """The queries of the attack itself."""
        return sum(count for purpose, count in self.queries.items() if purpose != "scoring")

    @cached_property
    def classifier(self) -> Classifier:
        """The black box as a classifier to score: its queries go through this counter, as scoring."""
        return replace(self.black_box, function=lambda images: self.query(np.asarray(images), "scoring"))

    def query(
        self, images: np.ndarray, purpose: Purpose, advance: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """The answers on images: probabilities, or one-hot labels; float32 of shape (n, classes).

        Args:
            images: float32 in [0, 1], shape (n, height, width, channels).
            purpose: what for.
            advance: called after each request with the number of images it answered; may raise, and nothing is
                lost then.

        Raises:
            BlackBoxUnavailable: it does not answer at the moment; what it answered before is kept.
            AdvGANError: it answers with something else, or the budget is spent.
        """
        images = np.ascontiguousarray(images, np.float32)
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in self._known}
        new = sorted(first.values())
        if self.budget is not None and purpose != "scoring" and self.spent + len(new) > self.budget:
            raise AdvGANError(
                f"oracle.query_budget = {self.budget}: {len(new)} more queries after {self.spent} exceed it; raise it"
            )
        advance(len(keys) - len(new))
        for start in range(0, len(new), self.per_request):
            here = new[start : start + self.per_request]
            answers = np.asarray(self.black_box.logits(images[here]), np.float32)
            self._keep([keys[index] for index in here], answers, purpose)
            advance(len(here))
        found = np.stack([self._known[key] for key in keys]) if keys else np.empty((0, self.classes), np.float32)
        return np.eye(self.classes, dtype=np.float32)[found.argmax(axis=1)] if self.labels_only else found

    def _keep(self, keys: list[bytes], answers: np.ndarray, purpose: Purpose) -> None:
        if self._journal is not None:
            number = bytes([PURPOSES.index(purpose)])
            records = [number + key + answer.tobytes() for key, answer in zip(keys, answers, strict=True)]
            with self._journal.open("ab") as file:
                file.write(b"".join(record + zlib.crc32(record).to_bytes(4, "little") for record in records))
                file.flush()
                os.fsync(file.fileno())  # an answer may have been paid for
        self._known.update(zip(keys, answers, strict=True))
        self.queries[purpose] += len(keys)

    def _read(self, journal: Path) -> None:
        """Read what is there; a record that a killed process left unfinished is cut off."""
        size, content, whole = _record_size(self.classes), journal.read_bytes(), 0
        while len(record := content[whole : whole + size]) == size:
            body = record[:-4]
            if zlib.crc32(body).to_bytes(4, "little") != record[-4:] or body[0] >= len(PURPOSES):
                break
            self._known[body[1:33]] = np.frombuffer(body[33:], np.float32)
            self.queries[PURPOSES[body[0]]] += 1
            whole += size
        if len(content) - whole >= size:  # more than a last record that was cut short
            raise AdvGANError(f"{journal} is damaged, or belongs to another black box; delete it to query again")
        with journal.open("r+b") as file:
            file.truncate(whole)
