"""A classifier served over HTTP by TensorFlow Serving's REST protocol, asked for probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def served_black_box(url: str, timeout: float, retries: int) -> tuple[str, str, Callable[[np.ndarray], np.ndarray]]:
    """Name, digest and answers of a served classifier."""
    raise NotImplementedError


def check_served(url: str, timeout: float) -> None:
    """See that a server is there."""
    raise NotImplementedError
