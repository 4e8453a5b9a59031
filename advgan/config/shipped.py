"""The configurations that ship, as the comments at their head describe them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from advgan.config.loading import shipped_folders

EXPECTED, TIME = "Expected: ", "Time: "


@dataclass(frozen=True)
class ShippedConfig:
    """A configuration that ships."""

    name: str
    """Of its file."""
    what: str
    expected: str
    """What a run of it comes to."""
    time: str


def shipped_configs() -> list[ShippedConfig]:
    """All configurations that ship, by name."""
    found = {path.name: path for folder in reversed(shipped_folders("configs")) for path in folder.glob("*.yaml")}
    return [_described(path) for _, path in sorted(found.items())]


def _described(path: Path) -> ShippedConfig:
    head = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    stated = {
        key: next((line.removeprefix(key) for line in head if line.startswith(key)), "not measured")
        for key in (EXPECTED, TIME)
    }
    return ShippedConfig(path.name, head[0] if head else "", stated[EXPECTED], stated[TIME])
