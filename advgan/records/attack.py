"""``attack.json`` and what became of each image."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """What became of one image."""

    file: str
    output: str
    """Its adversarial image, relative to the folder."""
    clean: int | None = None
    """The classifier's answer on the clean image; None where there is no classifier, or the image cannot be used."""
    adversarial: int | None = None
    """Its answer on the adversarial image as it is in the file."""
    counts: bool = False
    """Whether it enters the success rate."""
    success: bool = False
    linf: float = 0.0
    """The largest change of a pixel, in [0, 1]."""
    l2: float = 0.0
    problem: str = ""
    """Why the image cannot be used; empty where it was attacked."""
