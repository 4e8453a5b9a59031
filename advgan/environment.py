"""The machine as TensorFlow sees it: device, memory growth, determinism, and a record of all that decides the bits."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

import advgan
from advgan import replicas
from advgan.config.settings import TrainingSettings
from advgan.errors import AdvGANError

keras = tf.keras
Environment = dict[str, Any]
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""TensorFlow's variables for the threads of an operator, and for the operators at a time."""
FEWEST_IN_A_PART = 8
"""Images."""
DECISIVE_VARIABLES = (
    *THREADS,
    "TF_ENABLE_ONEDNN_OPTS",
    "OMP_NUM_THREADS",
    "TF_XLA_FLAGS",
)
"""Environment variables that can change the bits of a result."""


def uses_addons() -> bool:
    """Whether TensorFlow Addons is installed with TensorFlow 2.15; its last release fails with anything newer."""
    return tf.__version__.startswith("2.15.") and importlib.util.find_spec("tensorflow_addons") is not None


def _check_process() -> None:
    policy = keras.mixed_precision.global_policy().name
    if policy != "float32":
        raise AdvGANError(
            f"this process has the global Keras policy {policy}, which would change the networks; call "
            "keras.mixed_precision.set_global_policy('float32') first; training.compute_dtype is for G and D"
        )
    if (floats := keras.backend.floatx()) != "float32":
        raise AdvGANError(f"this process has keras.backend.floatx() = {floats}; call set_floatx('float32') first")
    if tf.distribute.has_strategy():
        raise AdvGANError("this was called inside the scope of a tf.distribute strategy; call it outside")


def prepare_environment(settings: TrainingSettings) -> Environment:
    """Choose determinism, let a GPU's memory grow, and describe what the run runs on.

    Results repeat bit for bit where the returned entries are equal, ``deterministic`` being true.

    Raises:
        AdvGANError: a setting of the calling process would change every network that is built.
    """
    _check_process()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with suppress(RuntimeError):  # the device is in use already in this process, with the setting it has
            tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        _choose_threads(settings.batch_size)
    tf.config.experimental.enable_tensor_float_32_execution(settings.tf32)
    deterministic = settings.deterministic
    if deterministic == "auto":
        deterministic = not gpus and settings.xla is not True
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return {
        "device": tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        if gpus
        else _processor(),
        "deterministic": bool(deterministic),
        "cores": cores(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads() or cores(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads() or cores(),
        "variables": {name: os.environ[name] for name in DECISIVE_VARIABLES if name in os.environ},
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version("keras"),
        "numpy": np.__version__,
        "advgan": advgan.__version__,
        **({"tensorflow_addons": importlib.metadata.version("tensorflow-addons")} if uses_addons() else {}),
    }


def _choose_threads(batch_size: int) -> None:
    """Give TensorFlow the usual threads, unless the user chose otherwise."""
    threading = tf.config.threading
    chosen = threading.get_intra_op_parallelism_threads() or threading.get_inter_op_parallelism_threads()
    if not chosen and not any(name in os.environ for name in THREADS):
        of_an_operator, operators = usual_threads(cores(), batch_size)
        with suppress(RuntimeError):  # TensorFlow has started in this process: it keeps the threads that it has
            threading.set_intra_op_parallelism_threads(of_an_operator)
            threading.set_inter_op_parallelism_threads(operators)


def usual_threads(count: int, batch_size: int) -> tuple[int, int]:
    """The threads of an operator, and the operators at a time on so many cores: as many as a batch has parts.

    A rule, not a measurement: a run that is resumed has to come to the same.
    """
    parts = max(1, min(count, batch_size // FEWEST_IN_A_PART))
    return count // parts, parts


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU, and so computes there."""
    return bool(tf.config.get_visible_devices("GPU"))


def compiles_step(settings: TrainingSettings) -> bool | Literal["auto"]:
    """Whether the generator's step is compiled by XLA: yes, no, or (``auto``) if XLA can."""
    if settings.xla != "auto":
        return settings.xla
    return "auto" if has_gpu() and settings.deterministic is not True and replicas.count() == 1 else False


def parts_of(size: int) -> int:
    """How many parts of a replica's share of a batch, of this size, are worked on side by side: one for each core that
    the replicas here leave it, none below 8 images.

    One where an operator may use several cores itself, or there is a GPU.
    """
    threading = tf.config.threading
    each = threading.get_intra_op_parallelism_threads() or int(os.environ.get(THREADS[0]) or 0) or cores()
    side_by_side = threading.get_inter_op_parallelism_threads() or int(os.environ.get(THREADS[1]) or 0) or cores()
    if has_gpu():
        return 1
    of_each = cores() // each // replicas.on_this_machine()
    return max(1, min(of_each, side_by_side, size // FEWEST_IN_A_PART))


def changes_between(before: Environment, now: Environment) -> list[str]:
    """What changed between two environments, one phrase each; empty where results repeat bit for bit."""
    keys = dict.fromkeys([*now, *before])
    return [f"{key} {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def code_commit() -> str | None:
    """The git commit of the checkout this package runs from, with ``-dirty`` where files differ; None elsewhere."""
    root = Path(advgan.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def code_digest(*files: str) -> str:
    """SHA-256, in hex, of the package's Python files: what runs here, committed or not.

    Args:
        files: patterns below the package's folder, such as ``networks/*.py``; all of its files by default.

    Raises:
        ValueError: a pattern matches no file: the file was moved, and the digest would no longer cover it.
    """
    package = Path(advgan.__file__).parent
    digest = hashlib.sha256()
    found = {pattern: list(package.glob(pattern)) for pattern in files or ("**/*.py",)}
    if missing := [pattern for pattern, matches in found.items() if not matches]:
        raise ValueError(f"no file of the package matches {', '.join(missing)}")
    for file in sorted({file for matches in found.values() for file in matches}):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if platform.system() == "Darwin" else usage * 1024


def cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        fields = dict.fromkeys(("model name", "cpu family", "model", "stepping"), "")
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in fields and not fields[key.strip()]:
                fields[key.strip()] = value.strip()
        return f"{fields['model name']} ({'/'.join(list(fields.values())[1:])})".strip()
    return platform.processor() or platform.machine()
