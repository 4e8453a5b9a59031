"""Refusals of networks that do not fit the images, before they are built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from advgan.convolution import ShapeError
from advgan.errors import ConfigurationError


@contextmanager
def fitting(image_shape: tuple[int, int, int], key: str, value: object, layer: str) -> Iterator[None]:
    """Turn a ``ShapeError`` raised inside the ``with`` block into the refusal of a setting.

    Args:
        image_shape: height, width, channels; named in the message.
        key: dotted key of the setting at fault.
        value: what it was set to.
        layer: the layer that is worked out inside; named in the message.

    Raises:
        ConfigurationError: the layer does not fit.
    """
    try:
        yield
    except ShapeError as error:
        height, width, _ = image_shape
        raise ConfigurationError(
            key, value, f"does not fit images of {height}x{width}: at layer {layer}: {error}"
        ) from None
