"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from advgan.cluster import speaker

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows how far a long piece of work is; nothing where stderr is closed, or where the package logs only warnings.

    With ``rate``, plain lines show units per second, as the bar does.
    """

    def __init__(self, label: str, total: int, start: int = 0, unit: str = "step", rate: bool = False) -> None:
        quiet = logging.getLogger("advgan").level > logging.INFO
        self._label, self._total, self._stream = f"{speaker()}{label}", total, None if quiet else sys.stderr
        self.done = start
        self._bar = None
        if self._stream is not None and self._stream.isatty():
            self._bar = tqdm(
                total=total, initial=start, desc=self._label, unit=unit, file=self._stream, dynamic_ncols=True
            )
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._rate_unit = unit if rate else None
        self._first, self._begun = start, time.monotonic()

    def advance(self, steps: int, status: str) -> None:
        """Count ``steps`` more and show the status."""
        self.done += steps
        if self._bar is not None:
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() >= self._next_line:
            if self._rate_unit is not None:
                rate = (self.done - self._first) / (time.monotonic() - self._begun)
                status = f"{rate:,.1f} {self._rate_unit}s/s  {status}".rstrip()
            if self._stream is not None:
                print(f"{self._label} {self.done}/{self._total}  {status}", file=self._stream, flush=True)
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
