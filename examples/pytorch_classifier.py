"""A PyTorch network as a black box: a function that takes images and returns its answers. Copy this file and change it.

    pip install torch
    cp examples/pytorch_classifier.py my_folder/ && cd my_folder        and put your network into it
    export PYTORCH_WEIGHTS=my_weights.pt                                from torch.save(network.state_dict(), ...)
    python -m advgan.train --config mnist_blackbox.yaml --set oracle.black_box=pytorch_classifier:probabilities

The run finds this module in the folder where it starts, so --resume and advgan.evaluate start there too. Leave
torch.compile and torch.export out: Triton, which they load, and TensorFlow crash in one process (torch 2.14). For such
a network write an ONNX file, see onnx_classifier.py, or serve it.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import torch
from torch import nn


@functools.cache
def _network() -> Any:
    network = nn.Sequential(  # your network
        *(nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    )
    network.load_state_dict(torch.load(os.environ.get("PYTORCH_WEIGHTS", "weights.pt"), map_location="cpu"))
    return network.eval()


def probabilities(images: np.ndarray) -> np.ndarray:
    """The network's answers to float32 images in [0, 1], shape (n, height, width, channels): shape (n, classes)."""
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))  # (n, channels, height, width)
    # What the network wants beyond [0, 1] goes here: batch = (batch - mean) / std
    with torch.no_grad():
        return np.asarray(torch.softmax(_network()(batch), dim=1))
