"""What ``describe --target`` found of a classifier."""

from __future__ import annotations

from advgan.metrics import Rate
from advgan.records.pixel_search import PixelSearch
from advgan.records.record import Part


class ClassifierDescription(Part):
    """A classifier: what goes in, what comes out, and what to write into a configuration."""

    name: str
    sha256: str
    image_shape: tuple[int, int, int]
    """The images that it was tried on: height, width, channels."""
    inputs: str
    """Names, shapes for one image and types; empty where only a trial tells."""
    outputs: str
    ends: str
    """``logits``, ``softmax``, ``sigmoid`` or ``log-softmax``."""
    scores: str
    """``logits``, or what a function gives whose logits could not be found: ``probabilities`` or ``per cent``."""
    remarks: tuple[str, ...]
    """What is done to images and answers."""
    classes: int
    parameters: int | None
    """None where it is no Keras network."""
    has_gradient: bool
    pixels: str
    pixel_search: PixelSearch | None = None
    """Where they were not stated, and there are data."""
    clean_accuracy: Rate | None = None
    """On the test images of the data."""
    scale: float | None = None
    """What the loss divides its logits by."""
    configuration: str
    """The lines of YAML that go with it."""
