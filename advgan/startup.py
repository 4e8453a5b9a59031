"""Import TensorFlow without the chatter it writes to stderr while it starts; what goes wrong still raises."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from advgan.cluster import speaker
from advgan.errors import AdvGANError


def import_tensorflow() -> None:
    """Import TensorFlow and look for GPUs, showing what it wrote only if it fails.

    Its C++ side writes straight to the file descriptor, notes on missing CUDA drivers among them, before any log level
    applies. The run says in one line of its own which device it uses.

    Raises:
        AdvGANError: the environment asks for another Keras than TensorFlow's own.
    """
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "2" if not speaker() else "3"
    )  # of several, the loss of one is an error
    backend, legacy = os.environ.get("KERAS_BACKEND"), os.environ.get("TF_USE_LEGACY_KERAS", "")
    if backend not in (None, "", "tensorflow"):
        raise AdvGANError(f"KERAS_BACKEND = {backend!r}: advgan needs Keras on TensorFlow; unset this variable")
    if legacy.lower() in ("1", "true"):
        raise AdvGANError(f"TF_USE_LEGACY_KERAS = {legacy!r}: advgan needs TensorFlow's own Keras; unset this variable")
    with without_chatter():
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
        try:
            backend = tf.keras.backend.backend()
        except ImportError as error:  # of the backend that keras.json names
            backend = f"none that can be imported ({error})"
        if backend != "tensorflow":
            raise AdvGANError(f'Keras\'s backend is {backend}: write "backend": "tensorflow" into ~/.keras/keras.json')
    logging.getLogger("tensorflow").addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    """Not so a warning of retracing: each attack and each run compiles functions of its own, once, and TensorFlow takes
    them for one function that is traced again and again."""
    return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep back what the block writes to stderr, from C++ too, and show it only if the block fails without a remedy."""
    if sys.stderr is None:  # closed: nothing to keep clean
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        try:
            os.dup2(chatter.fileno(), 2)
            yield
        except AdvGANError:
            raise
        except Exception:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
