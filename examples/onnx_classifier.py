"""An ONNX file as a black box: a function that takes images and returns its answers. Copy this file and change it.

    pip install onnxruntime
    cp examples/onnx_classifier.py my_folder/ && cd my_folder
    export ONNX_MODEL=my_classifier.onnx
    python -m advgan.train --config mnist_blackbox.yaml --set oracle.black_box=onnx_classifier:probabilities

The run finds this module in the folder where it starts, so --resume and advgan.evaluate start there too. Logits will do
as well as probabilities; docs/black-box.md says how they are distinguished.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import onnxruntime


@functools.cache
def _session() -> Any:
    return onnxruntime.InferenceSession(
        os.environ.get("ONNX_MODEL", "classifier.onnx"), providers=["CPUExecutionProvider"]
    )


def probabilities(images: np.ndarray) -> np.ndarray:
    """The answers of the ONNX file to images.

    Args:
        images: float32 in [0, 1], shape (n, height, width, channels). What the file's network wants beyond that, such
            as a mean and a standard deviation, is to be added here.

    Returns:
        Its first output, shape (n, classes).
    """
    session = _session()
    given = session.get_inputs()[0]
    if given.shape[1] == images.shape[3] != given.shape[3]:
        images = images.transpose(0, 3, 1, 2)  # to (n, channels, height, width)
    images = np.ascontiguousarray(images, np.float32)
    size = given.shape[0] if isinstance(given.shape[0], int) else len(images)  # else it takes any number at once
    answers = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        rest = np.zeros((size - len(part), *part.shape[1:]), np.float32)  # to fill up a fixed number
        answers.append(session.run(None, {given.name: np.concatenate([part, rest])})[0][: len(part)])
    return np.concatenate(answers)
