"""What a check found, as records keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "not checked"]
PASS: Status = "pass"
WARN: Status = "warn"
NOT_CHECKED: Status = "not checked"


@dataclass(frozen=True)
class Finding:
    """What a guard found."""

    guard: str
    status: Status
    reason: str
    remedy: str = ""
    """What to do where it warns; empty elsewhere."""
