"""Residual networks for small images, to compare with: ResNet-20 and ResNet-32 of CIFAR-10, and Wide ResNet-34-10.

Every layer is one of Keras's own, so a saved network loads wherever Keras is, without code from here. Convolutions of
3x3 have no bias and pad 1 pixel on each side, also at stride 2, where TensorFlow's SAME would pad an even size at the
end alone. Batch normalization has PyTorch's defaults. So weights that were trained in PyTorch give the same answers.

Parameters for 32x32x3 images and ten classes, moving statistics counted: resnet20 271,098; resnet32 466,426;
wide_resnet34 46,182,906, of which 46,160,474 are trained.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

keras = tf.keras
BLOCKS = {"resnet20": 3, "resnet32": 5, "wide_resnet34": 5}
"""The architectures of this module, and the residual blocks in each of their three stages."""
WIDTHS = (16, 32, 64)
WIDENING = 10
"""Of the Wide ResNet: its stages have so many times these widths."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, channel by channel, which CIFAR's networks are often normalized by too."""


def build_resnet(
    architecture: str, image_shape: tuple[int, int, int], number_of_classes: int, weight_decay: float = 0.0
) -> Any:
    """Build a residual network.

    Args:
        architecture: ``resnet20`` or ``resnet32`` (He et al. 2016, section 4.2, shortcuts without parameters), whose
            first layer normalizes images of 3 channels; or ``wide_resnet34`` (Zagoruyko and Komodakis 2016, width 10,
            without dropout), which takes the pixels as they are, as in TRADES and RobustBench.
        image_shape: height, width, channels; of any size.
        number_of_classes: the size of the last layer.
        weight_decay: L2 of every kernel, added to the model's own losses.

    Returns:
        A Keras model from images in [0, 1], shape (n, height, width, channels), to logits (n, number_of_classes).
    """
    layers = _Layers(weight_decay)
    images = keras.Input(image_shape)
    build = _wide_resnet if architecture == "wide_resnet34" else _resnet
    features = keras.layers.GlobalAveragePooling2D(name="average")(build(layers, images, BLOCKS[architecture]))
    logits = keras.layers.Dense(number_of_classes, kernel_regularizer=layers.regularizer(), name="logits")(features)
    return keras.Model(images, logits, name=architecture)


class _Layers:
    """The pieces of both kinds of networks, each applied to a tensor."""

    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = weight_decay

    def regularizer(self) -> Any:
        return keras.regularizers.L2(self.weight_decay) if self.weight_decay else None

    def convolution(self, x: Any, filters: int, name: str, kernel: int = 3, stride: int = 1) -> Any:
        """A convolution without bias that pads by half its kernel on each side."""
        if kernel > 1 and stride > 1:  # at stride 1 this is what SAME does, and 1x1 pads nothing
            x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.regularizer(),
            name=name,
        )(x)

    def norm(self, x: Any, name: str) -> Any:
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def relu(self, x: Any, name: str) -> Any:
        return keras.layers.ReLU(name=name)(x)

    def add(self, x: Any, shortcut: Any, name: str) -> Any:
        return keras.layers.Add(name=name)([x, shortcut])


def _resnet(layer: _Layers, x: Any, blocks: int) -> Any:
    if x.shape[-1] == len(MEAN):
        scale = [1 / std for std in STD]
        offset = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
        x = keras.layers.Rescaling(scale, offset, name="normalization")(x)
    x = layer.convolution(x, WIDTHS[0], "convolution")
    x = layer.relu(layer.norm(x, "norm"), "relu")
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(layer, x, width, stride, f"stage{stage}_block{block}")
    return x


def _block(layer: _Layers, x: Any, width: int, stride: int, name: str) -> Any:
    """Two convolutions, and the input added to them; where their shape differs every second pixel of it, between
    channels of zeros (option A)."""
    y = layer.convolution(x, width, f"{name}_convolution1", stride=stride)
    y = layer.relu(layer.norm(y, f"{name}_norm1"), f"{name}_relu1")
    y = layer.norm(layer.convolution(y, width, f"{name}_convolution2"), f"{name}_norm2")
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_subsample")(x)
        half = (width - x.shape[-1]) // 2
        # Taken for (channels, height, width), an image's channels are what is padded on the left and right.
        x = keras.layers.ZeroPadding2D((0, half), data_format="channels_first", name=f"{name}_channels")(x)
    return layer.relu(layer.add(y, x, f"{name}_add"), f"{name}_relu2")


def _wide_resnet(layer: _Layers, x: Any, blocks: int) -> Any:
    x = layer.convolution(x, WIDTHS[0], "convolution")
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _wide_block(layer, x, WIDENING * width, stride, f"stage{stage}_block{block}")
    return layer.relu(layer.norm(x, "norm"), "relu")


def _wide_block(layer: _Layers, x: Any, width: int, stride: int, name: str) -> Any:
    """Normalization and ReLU before each of two convolutions, and the input added to them; where their shape differs a
    1x1 convolution of the input after its first normalization and ReLU."""
    y = layer.relu(layer.norm(x, f"{name}_norm1"), f"{name}_relu1")
    if x.shape[-1] != width:
        x = layer.convolution(y, width, f"{name}_shortcut", kernel=1, stride=stride)
    y = layer.convolution(y, width, f"{name}_convolution1", stride=stride)
    y = layer.relu(layer.norm(y, f"{name}_norm2"), f"{name}_relu2")
    return layer.add(layer.convolution(y, width, f"{name}_convolution2"), x, f"{name}_add")
