"""A PyTorch network as a black box: a function that takes images and returns its answers. Copy this file and change it.

    pip install torch
    cp examples/pytorch_classifier.py my_folder/ && cd my_folder
    export PYTORCH_MODEL=my_classifier.pt2
    python -m advgan.train --config mnist_blackbox.yaml --set oracle.black_box=pytorch_classifier:probabilities

The file is written once, where the network is:

    batch, any_number = torch.rand(2, 1, 28, 28), ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(network.eval(), (batch,), dynamic_shapes=any_number), "my_classifier.pt2")

Where the network's own code is at hand, build it in ``_network`` and load its weights instead. The run finds this
module in the folder where it starts, so --resume and advgan.evaluate start there too.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import torch


@functools.cache
def _network() -> Any:
    # Or: network = MyNetwork(); network.load_state_dict(torch.load("weights.pt")); return network.eval()
    return torch.export.load(os.environ.get("PYTORCH_MODEL", "classifier.pt2")).module()


def probabilities(images: np.ndarray) -> np.ndarray:
    """The network's answers to float32 images in [0, 1], shape (n, height, width, channels): shape (n, classes)."""
    with torch.no_grad():
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))  # (n, channels, height, width)
        # What the network wants beyond [0, 1] goes here: batch = (batch - mean) / std
        return np.asarray(torch.softmax(_network()(batch), dim=1))
