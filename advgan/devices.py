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

SECONDS_TO_ANSWER = 20
"""How long another machine may be silent."""


def open_strategy(chosen: Devices) -> Any:
    """The strategy for a run; made before TensorFlow computes anything.

    Args:
        chosen: ``training.devices``.

    Raises:
        ConfigurationError: a device is not there, or ``TF_CONFIG`` cannot be understood.
        AdvGANError: another machine did not come, or TensorFlow has started.
    """
    cluster = this_cluster()
    if cluster is not None:
        if chosen not in ("auto", "all"):
            problem = f"leave it out: {VARIABLE} is set, and each machine uses all of its GPUs"
            raise ConfigurationError("training.devices", chosen, problem)
        return _joined(cluster)
    names = [] if chosen == "auto" else _names(chosen)
    if len(names) == 1:
        _only(names[0])
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def strategy_here() -> Any:
    """That of an evaluation: over the GPUs of this machine, if there are several."""
    names = _names("all")
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def _names(chosen: Devices) -> list[str]:
    """The devices on this machine."""
    gpus = [f"GPU:{number}" for number in range(len(tf.config.get_visible_devices("GPU")))]
    if chosen == "all":
        return gpus
    if isinstance(chosen, int):
        if 0 < len(gpus) < chosen:
            raise ConfigurationError(
                "training.devices", chosen, f"there are {len(gpus)} GPUs here; use that many at most"
            )
        names = [f"{'GPU' if gpus else 'CPU'}:{number}" for number in range(chosen)]
    else:
        names = list(chosen)
    cpus = [int(name.removeprefix("CPU:")) for name in names if name.startswith("CPU:")]
    there = [*gpus, *(f"CPU:{number}" for number in range(max(cpus) + 1 if len(cpus) > 1 else 1))]
    if missing := [name for name in names if name not in there]:
        raise ConfigurationError("training.devices", missing[0], f"is not there (found: {', '.join(there)})")
    if len(cpus) > 1:
        _divide_the_cpu(max(cpus) + 1)
    return names


def _only(name: str) -> None:
    """Let TensorFlow use this device alone.

    Raises:
        AdvGANError: it has started.
    """
    kind, _, number = name.partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    wanted = [gpus[int(number)]] if kind == "GPU" else []
    if tf.config.get_visible_devices("GPU") == wanted:
        return
    try:
        tf.config.set_visible_devices(wanted, "GPU")
    except RuntimeError:
        raise AdvGANError(
            f"TensorFlow has started in this process with other devices than {name}; start a new process"
        ) from None


def _divide_the_cpu(count: int) -> None:
    """Let the processor count as so many devices.

    Raises:
        AdvGANError: TensorFlow has started with fewer.
    """
    [cpu] = tf.config.list_physical_devices("CPU")
    with suppress(RuntimeError):  # it has started; with as many, perhaps
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    if len(tf.config.list_logical_devices("CPU")) < count:
        raise AdvGANError(
            f"TensorFlow has started in this process with fewer than {count} CPU devices; start a new process"
        )


def _joined(cluster: Cluster) -> Any:
    """The strategy over the machines, once all are there.

    Raises:
        AdvGANError: one did not come.
    """
    gpus = len(tf.config.get_visible_devices("GPU"))
    meet(cluster, seconds_to_join(), f"{gpus} GPUs")  # TensorFlow would wait for ever, and could not be stopped
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
