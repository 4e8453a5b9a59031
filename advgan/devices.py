"""On which devices, and with which other machines, a run is trained: by TensorFlow's own strategies."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from advgan.cluster import VARIABLE, Cluster, meet, seconds_to_join, this_cluster
from advgan.config.values import Devices
from advgan.errors import AdvGANError, ConfigurationError
from advgan.startup import without_chatter

FEWEST_PER_GPU = 64
"""Images of a batch, for ``auto`` to take more than one GPU."""
SECONDS_TO_ANSWER = 20
"""How long another machine may be silent."""


def open_strategy(chosen: Devices, batch_size: int) -> Any:
    """The strategy for a run; made before TensorFlow computes anything.

    Args:
        chosen: ``training.devices``.
        batch_size: ``training.batch_size``, which ``auto`` looks at.

    Raises:
        ConfigurationError: a device is not there, or ``TF_CONFIG`` cannot be understood.
        AdvGANError: another machine did not come.
    """
    cluster = this_cluster()
    if cluster is not None:
        if chosen not in ("auto", "all"):
            problem = f"leave it out: {VARIABLE} is set, and each machine uses all of its GPUs"
            raise ConfigurationError("training.devices", chosen, problem)
        return _joined(cluster)
    names = _names(chosen, batch_size)
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def strategy_here() -> Any:
    """That of an evaluation: over the GPUs of this machine, if there are several."""
    names = _names("all", 0)
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def _names(chosen: Devices, batch_size: int) -> list[str]:
    """The devices on this machine; one or none leave the choice to TensorFlow."""
    gpus = [f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU")))]
    if chosen == "auto":
        fitting = [n for n in range(len(gpus), 1, -1) if batch_size % n == 0 and batch_size // n >= FEWEST_PER_GPU]
        return gpus[: fitting[0]] if fitting else []
    if chosen == "all":
        return gpus
    if isinstance(chosen, int):
        chosen = tuple(f"{'GPU' if gpus else 'CPU'}:{number}" for number in range(chosen))
    cpus = [int(name.removeprefix("CPU:")) for name in chosen if name.startswith("CPU:")]
    if len(cpus) > 1:
        _divide_the_cpu(1 + max(cpus))
    there = (
        [*gpus, *(f"CPU:{number}" for number in range(max(1, 1 + max(cpus, default=0))))]
        if len(cpus) > 1
        else [
            *gpus,
            "CPU:0",
        ]
    )
    if missing := [name for name in chosen if name not in there]:
        raise ConfigurationError("training.devices", missing[0], f"is not there (found: {', '.join(there)})")
    return list(chosen)


def _divide_the_cpu(count: int) -> None:
    """Let the processor count as so many devices.

    Raises:
        AdvGANError: TensorFlow has started with fewer.
    """
    [cpu] = tf.config.list_physical_devices("CPU")
    with suppress(RuntimeError):  # it has started; with as many, perhaps
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    if len(tf.config.list_logical_devices("CPU")) < count:
        raise AdvGANError(f"TensorFlow has started in this process with fewer than {count} CPU devices; use another")


def _joined(cluster: Cluster) -> Any:
    """The strategy over the machines, once all are there.

    Raises:
        AdvGANError: one did not come.
    """
    meet(cluster, seconds_to_join())  # TensorFlow would wait for ever, and could not be stopped
    jobs = [
        context.coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(addresses))
        for job, addresses in cluster.jobs.items()
    ]
    context.context().configure_coordination_service(  # as the strategy does it, but for the times
        service_type="standalone",
        service_leader=f"/job:{next(iter(cluster.jobs))}/replica:0/task:0",
        heartbeat_timeout_in_ms=SECONDS_TO_ANSWER * 1000,
        coordinated_jobs=jobs,
    )
    try:
        with without_chatter():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdvGANError(f"{', '.join(cluster.addresses)} cannot train together ({reason})") from None
