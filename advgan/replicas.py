"""What a step needs to know of the devices it runs on: which share of a batch is its own, and what all come to.

A replica is one device's copy of the networks (``tf.distribute``). With one device, and outside of a step, all of this
does nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from advgan.errors import AdvGANError, Interrupted

logger = logging.getLogger(__name__)
Tensor = Any
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
"""What TensorFlow raises when a machine does not answer any more."""


def count() -> int:
    """The replicas of the strategy in force, over all machines."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _context() -> Any:
    """Of a step on one of several replicas; None elsewhere."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def here() -> int:
    """How many replicas the present step is one of; 1 outside of a step."""
    context = _context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def share_of(tensor: Tensor) -> Tensor:
    """The rows of this replica, as many as every other has.

    Args:
        tensor: what belongs to the whole batch, its first axis known and divided by the replicas.
    """
    context = _context()
    if context is None:
        return tensor
    size, rest = tensor.shape[0] // context.num_replicas_in_sync, len(tensor.shape) - 1
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * size
    return tf.slice(tensor, [first, *[0] * rest], [size, *tensor.shape[1:]])


def sum_of(tensor: Tensor) -> Tensor:
    """The sum over the replicas."""
    context = _context()
    return tensor if context is None else context.all_reduce("SUM", tensor)


def means_of(tensors: list[Tensor]) -> list[Tensor]:
    """The mean of each over the replicas: of gradients of a mean over one's own rows, that of a mean over all rows."""
    context = _context()
    return tensors if context is None else context.all_reduce("MEAN", tensors)


def on_each(step: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """A step that runs on every replica; its values are means over them.

    Args:
        step: from whatever it is given, the same on each replica, to float32 scalars by name.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return step

    def call(*given: Any) -> dict[str, Tensor]:
        def on_one() -> dict[str, Tensor]:
            values = step(*given)
            return dict(zip(values, means_of(list(values.values())), strict=True))

        values = strategy.run(on_one)
        return {name: strategy.experimental_local_results(value)[0] for name, value in values.items()}

    return call


def devices_here() -> list[str]:
    """The devices of the replicas of this process; none where there is one replica."""
    strategy = tf.distribute.get_strategy()
    return list(strategy.extended.worker_devices) if strategy.num_replicas_in_sync > 1 else []


def number_here() -> int:
    """Which of the replicas of this process the present step is on, from 0."""
    context = _context()
    if context is None:
        return 0
    return int(tf.get_static_value(context.replica_id_in_sync_group)) % len(devices_here())


def on_this_machine() -> int:
    """The replicas whose devices this process can use by itself: all of them on one machine, none of several."""
    return 1 if worker()[1] > 1 else count()


def rows_on_each(function: Callable[..., Any], images: Tensor, *others: Tensor) -> Any:
    """A function of images, computed by every replica for its rows; on several machines each computes all.

    Args:
        function: from any number of images, and what else is the same for each row, to tensors with as many rows.
    """
    devices = on_this_machine()
    if devices == 1:
        return function(images, *others)
    strategy = tf.distribute.get_strategy()

    def on_one() -> Any:
        number = tf.cast(_context().replica_id_in_sync_group, tf.int32)
        size = tf.shape(images)[0]
        return function(images[size * number // devices : size * (number + 1) // devices], *others)

    made = strategy.run(on_one)
    return tf.nest.map_structure(lambda each: tf.concat(strategy.experimental_local_results(each), 0), made)


def worker() -> tuple[int, int]:
    """The number of this process among those that train together, from 0; and how many they are."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    jobs = {} if resolver is None else resolver.cluster_spec().as_dict()
    tasks = [(job, number) for job in ("chief", "worker") for number in range(len(jobs.get(job, [])))]
    return (tasks.index((resolver.task_type, resolver.task_id)), len(tasks)) if tasks else (0, 1)


@contextmanager
def all_answer() -> Iterator[None]:
    """Say in one line that another process has gone, if that ends the block.

    Raises:
        Interrupted: it has.
    """
    try:
        yield
    except LOST as error:
        if worker()[1] == 1:
            raise
        logger.debug("TensorFlow: %s", error)
        raise Interrupted("another machine does not answer any more; the last checkpoint holds") from None


_totals: MutableMapping[Any, Callable[..., Any]] = WeakKeyDictionary()
"""What adds up over processes, made once for each strategy."""


def of_workers(*numbers: int) -> np.ndarray:
    """What each process says, whole numbers as float64 (processes, numbers); all have to ask at the same point."""
    strategy, (own, many) = tf.distribute.get_strategy(), worker()
    if many == 1:
        return np.asarray([numbers], np.float64)
    rows = np.zeros([many, len(numbers)])
    rows[own] = numbers
    if strategy not in _totals:

        @tf.function(autograph=False)
        def total(said: Tensor) -> Any:
            return strategy.run(lambda: sum_of(tf.identity(said)))  # which has a device

        _totals[strategy] = total
    summed = strategy.experimental_local_results(_totals[strategy](tf.constant(rows)))[0]
    return np.rint(np.asarray(summed) * many / strategy.num_replicas_in_sync)  # each of its replicas said it


def check_same(facts: dict[str, object]) -> None:
    """Raise where processes that train together differ.

    Args:
        facts: by what they are called.

    Raises:
        AdvGANError: that one does; the message names what differs.
    """
    numbers = [_number(fact) for fact in facts.values()]
    for rows, names in (
        (of_workers(len(facts), _number(list(facts))), ["the version of advgan"] * 2),
        (of_workers(*numbers), list(facts)),
    ):
        for process, row in enumerate(rows):
            if found := [name for name, here, there in zip(names, row, rows[0], strict=True) if here != there]:
                listed = ", ".join(dict.fromkeys(found[:3]))
                raise AdvGANError(f"worker {process} and worker 0 differ in {listed}; start the same on both")


def _number(fact: object) -> int:
    """Of 48 bits, which a float64 holds."""
    return int(hashlib.sha256(str(fact).encode()).hexdigest()[:12], 16)
