"""What a data set is: the part of ``summary.json`` and ``evaluation.json`` that describes it."""

from __future__ import annotations

from advgan.records.record import Part


class DataCard(Part):
    """A data set, and how it was divided."""

    source: str
    """What the user named."""
    kind: str
    """What that is, in words."""
    sha256: str
    """Of the file; of a folder, of the names and contents of its pictures; of a data set by name, of its arrays."""
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    resized: str | None = None
    """How the images came to this size, where they had another."""
    training: int
    """Images; so for the next two."""
    validation: int
    test: int
    test_available: int
    classes: int
    class_names: tuple[str, ...] | None = None
    empty_classes: str = ""
    """Those without a training or a test image, in words."""
    split: str
    """The rule, in words."""
    streamed: bool = False
    """Whether training images are read from the disk batch by batch."""
