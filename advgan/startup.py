"""Import TensorFlow without the chatter it writes to stderr while it starts; what goes wrong still raises."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow and look for GPUs, showing what it wrote only if it fails.

    Its C++ side writes straight to the file descriptor, notes on missing CUDA drivers among them, before any log level
    applies. The run says in one line of its own which device it uses.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if sys.stderr is None:  # closed: nothing to keep clean
        import tensorflow  # noqa: F401

        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        try:
            os.dup2(chatter.fileno(), 2)
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")
        except Exception:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
