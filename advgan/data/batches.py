"""The order in which images are seen: a function of (seed, epoch), so a resumed run needs nothing saved for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, int32, the same whenever seed and epoch are the same."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in an epoch; the images left over change with the order, so none is left out for good."""
    return count // batch_size


def slices(count: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices that cover ``range(count)``, the last one included whatever its size."""
    for start in range(0, count, batch_size):
        yield slice(start, min(start + batch_size, count))
