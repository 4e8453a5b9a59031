"""The architectures of the target classifiers, by name. Each maps images in [0, 1] to logits.

Parameter counts for 28x28x1 images and ten classes: lenet 217,706; model_a 3,382,346; model_b 710,218; model_c 312,202;
madrylab 3,274,634. The residual networks are in ``classifiers/resnet.py``; any other name is that of a network of
``keras.applications``.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from advgan.classifiers.resnet import BLOCKS, build_resnet
from advgan.config.settings import TargetSettings
from advgan.config.values import ARCHITECTURE_KINDS, ARCHITECTURES, nearest
from advgan.errors import ConfigurationError
from advgan.networks.convolution import ShapeError, dense_parameters, fitting, output_size

keras = tf.keras
MOST_DENSE_PARAMETERS = 2**28
"""Of the first dense layer, which grows with the image: 1 GiB of weights."""


def build_classifier(
    image_shape: tuple[int, int, int],
    number_of_classes: int,
    settings: TargetSettings,
    key: str = "target.architecture",
) -> Any:
    """Build an untrained classifier by name.

    Args:
        image_shape: height, width, channels.
        number_of_classes: the size of its last layer.
        settings: architecture, weight decay (L2, added to the model's own losses) and batch normalization
            (convolution without bias, then normalization, then ReLU).
        key: dotted key of the architecture's setting, for errors.

    Returns:
        A Keras model from images in [0, 1], shape (n, height, width, channels), to logits (n, number_of_classes).

    Raises:
        ConfigurationError: the architecture does not fit images of this size, or ``keras.applications`` has none of
            this name.
    """
    if settings.architecture in BLOCKS:
        return build_resnet(settings.architecture, image_shape, number_of_classes, settings.weight_decay)
    if settings.architecture not in ARCHITECTURES:
        return _of_keras_applications(image_shape, number_of_classes, settings.architecture, key)
    pieces = _Layers(settings)
    layers = _ARCHITECTURES[settings.architecture](pieces)
    logits = pieces.logits(number_of_classes)
    height, width, channels = image_shape
    for layer in [*layers, logits]:
        at_fault = (key, settings.architecture, layer.name)
        if isinstance(layer, keras.layers.Dense):
            with fitting(image_shape, *at_fault):
                _require_moderate(dense_parameters(height * width * channels, layer.units))
            break
        channels = getattr(layer, "filters", channels)
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel is None:
            continue
        with fitting(image_shape, *at_fault):
            height = output_size(height, kernel[0], layer.strides[0], layer.padding)
            width = output_size(width, kernel[1], layer.strides[1], layer.padding)
    return keras.Sequential([keras.Input(image_shape), *layers, logits], name=settings.architecture)


def _of_keras_applications(image_shape: tuple[int, int, int], number_of_classes: int, name: str, key: str) -> Any:
    """A network of ``keras.applications``, untrained; its own scaling of pixels left out or undone."""
    offered = [word for word in dir(keras.applications) if word[0].isupper()]
    if name not in offered:
        close = nearest(name, [*ARCHITECTURES, *offered])
        raise ConfigurationError(key, name, f"there is no such architecture{close} (allowed: {ARCHITECTURE_KINDS})")
    if name.startswith("ConvNeXt") and not hasattr(keras, "ops"):
        raise ConfigurationError(key, name, "Keras 2 cannot load what it saves of it; choose another, or use Keras 3")
    build = getattr(keras.applications, name)
    has_choice = "include_preprocessing" in inspect.signature(build).parameters
    options = {"include_preprocessing": False} if has_choice else {}
    try:
        network = build(
            include_top=True,
            weights=None,
            input_shape=image_shape,
            classes=number_of_classes,
            classifier_activation=None,
            **options,
        )
    except ValueError as error:  # of too small a size, in words of Keras
        size, reason = "x".join(map(str, image_shape)), " ".join(str(error).split())[:160]
        raise ConfigurationError(key, name, f"Keras cannot build it for images of {size}: {reason}") from None
    if name.startswith("EfficientNetB"):  # it divides pixels by 255, without a choice
        return keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(255.0), network], name=network.name)
    return network


def _require_moderate(parameters: int) -> None:
    """Refuse the dense layer of images that are far too large for the architecture, before its weights are made."""
    if parameters > MOST_DENSE_PARAMETERS:
        raise ShapeError(f"{parameters:,} parameters (allowed: up to {MOST_DENSE_PARAMETERS:,}); use smaller images")


class _Layers:
    """The pieces that the architectures are made of, named and numbered by kind, with the options applied."""

    def __init__(self, settings: TargetSettings) -> None:
        self.batch_normalization = settings.batch_normalization
        self.weight_decay = settings.weight_decay
        self.made: Counter[str] = Counter()

    def _name(self, kind: str) -> str:
        self.made[kind] += 1
        return f"{kind}_{self.made[kind]}"

    def _regularizer(self) -> Any:
        return keras.regularizers.L2(self.weight_decay) if self.weight_decay else None

    def convolution(self, filters: int, kernel: int, strides: int = 1, padding: str = "valid") -> list[Any]:
        """Convolution and ReLU, with batch normalization between them by option."""
        name = self._name("convolution")
        convolution = keras.layers.Conv2D(
            filters,
            kernel,
            strides=strides,
            padding=padding,
            use_bias=not self.batch_normalization,
            kernel_regularizer=self._regularizer(),
            name=name,
        )
        norm = [keras.layers.BatchNormalization(name=f"{name}_norm")] if self.batch_normalization else []
        return [convolution, *norm, keras.layers.ReLU(name=f"{name}_relu")]

    def dense(self, units: int) -> Any:
        return keras.layers.Dense(
            units, activation="relu", kernel_regularizer=self._regularizer(), name=self._name("dense")
        )

    def logits(self, number_of_classes: int) -> Any:
        return keras.layers.Dense(number_of_classes, kernel_regularizer=self._regularizer(), name="logits")

    def dropout(self, rate: float) -> Any:
        return keras.layers.Dropout(rate, name=self._name("dropout"))

    def pool(self) -> Any:
        return keras.layers.MaxPooling2D(2, name=self._name("pool"))

    def flatten(self) -> Any:
        return keras.layers.Flatten(name="flatten")


def _lenet(layer: _Layers) -> list[Any]:
    """The project's small network, LeNet's layout with ReLU: 832 + 9,248 + 205,056 + 2,570 parameters."""
    return [
        *layer.convolution(32, 5),
        layer.pool(),
        *layer.convolution(32, 3),
        layer.pool(),
        layer.flatten(),
        layer.dense(256),
    ]


def _model_a(layer: _Layers) -> list[Any]:
    """Model A of Tramer et al. 2018 and of the paper."""
    return [
        *layer.convolution(64, 5),
        *layer.convolution(64, 5),
        layer.dropout(0.25),
        layer.flatten(),
        layer.dense(128),
        layer.dropout(0.5),
    ]


def _model_b(layer: _Layers) -> list[Any]:
    """Model B of Tramer et al. 2018 and of the paper."""
    return [
        layer.dropout(0.2),
        *layer.convolution(64, 8, strides=2, padding="same"),
        *layer.convolution(128, 6, strides=2),
        *layer.convolution(128, 5),
        layer.dropout(0.5),
        layer.flatten(),
    ]


def _model_c(layer: _Layers) -> list[Any]:
    """Model C of the paper: the network of Carlini & Wagner 2017."""
    return [
        *layer.convolution(32, 3),
        *layer.convolution(32, 3),
        layer.pool(),
        *layer.convolution(64, 3),
        *layer.convolution(64, 3),
        layer.pool(),
        layer.flatten(),
        layer.dense(200),
        layer.dropout(0.5),
        layer.dense(200),
    ]


def _madrylab(layer: _Layers) -> list[Any]:
    """The network of the MadryLab MNIST challenge (Madry et al. 2018)."""
    return [
        *layer.convolution(32, 5, padding="same"),
        layer.pool(),
        *layer.convolution(64, 5, padding="same"),
        layer.pool(),
        layer.flatten(),
        layer.dense(1024),
    ]


_ARCHITECTURES: dict[str, Callable[[_Layers], list[Any]]] = {
    "lenet": _lenet,
    "model_a": _model_a,
    "model_b": _model_b,
    "model_c": _model_c,
    "madrylab": _madrylab,
}
