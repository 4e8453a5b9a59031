"""The architectures to compare with: residual networks against their papers, and networks of keras.applications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import describe, train
from advgan.classifiers.architectures import build_classifier
from advgan.classifiers.resnet import MEAN, STD, build_resnet
from advgan.config.loading import parse_config
from advgan.config.settings import TargetSettings
from advgan.data.loading import load_dataset
from advgan.environment import prepare_environment
from advgan.errors import ConfigurationError
from advgan.networks.description import describe as describe_network
from advgan.networks.keras_file import load_network
from advgan.training.classifier import load_or_train_target

keras = tf.keras
CIFAR = (32, 32, 3)


def with_random_weights(network: Any) -> Any:
    """As after some training: every parameter drawn, the moving variances positive."""
    random = np.random.default_rng(0)
    for layer in network.layers:
        drawn = [random.normal(0, 0.3, weights.shape) for weights in layer.get_weights()]
        if isinstance(layer, keras.layers.BatchNormalization):
            drawn[3] = random.uniform(0.5, 2, drawn[3].shape)
        layer.set_weights(drawn)
    return network


def images(count: int, shape: tuple[int, int, int] = CIFAR) -> np.ndarray:
    return np.random.default_rng(1).random((count, *shape), np.float32)


# --- Residual networks -------------------------------------------------------------------------------------------


@pytest.mark.addons
@pytest.mark.parametrize(
    ("architecture", "shape", "trained", "in_total"),
    [
        ("resnet20", CIFAR, 269_722, 271_098),
        ("resnet32", CIFAR, 464_154, 466_426),
        ("resnet32", (28, 28, 1), 463_866, 466_138),
        ("wide_resnet34", CIFAR, 46_160_474, 46_182_906),
    ],
)
def test_parameter_counts_and_the_description_of_every_layer(
    architecture: str, shape: tuple[int, int, int], trained: int, in_total: int
) -> None:
    network = build_classifier(shape, 10, TargetSettings(architecture=architecture))
    described = describe_network(network)  # raises where a layer is not as Keras built it
    assert network.count_params() == described.trained_parameters + described.kept_parameters == in_total
    assert described.trained_parameters == trained
    assert described.layers[-1].output_shape == (10,)
    assert network.layers[-1].activation.__name__ == "linear"
    assert all(type(layer).__module__.split(".")[0] == "keras" for layer in network.layers)


def test_operations_of_the_added_kinds_of_layers() -> None:
    layers = {layer.name: layer for layer in describe_network(build_resnet("resnet20", CIFAR, 10)).layers}
    assert layers["normalization"].operations == 2 * 32 * 32 * 3
    assert layers["average"].operations == 8 * 8 * 64
    assert layers["stage2_block1_channels"].kind == "padding with zeros, 8 + 8 channels"
    assert layers["stage2_block1_channels"].output_shape == (16, 16, 32)
    assert layers["stage2_block1_convolution1"].operations == 2 * 16 * 16 * 3 * 3 * 16 * 32


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """A 3x3 convolution that pads 1 on each side, as its definition says."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (range(0, size, stride) for size in x.shape[1:3])
    windows = np.stack([np.stack([padded[:, i : i + 3, j : j + 3] for j in columns], 1) for i in rows], 1)
    return np.einsum("nijhwc,hwcf->nijf", windows, kernel)


def normalized(x: np.ndarray, layer: Any) -> np.ndarray:
    scale, shift, mean, variance = layer.get_weights()
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


@pytest.mark.addons
@pytest.mark.parametrize("size", [(8, 10), (7, 9)], ids=["even", "odd"])
def test_a_block_of_stride_2_is_the_one_of_option_a(size: tuple[int, int]) -> None:
    network = with_random_weights(build_resnet("resnet20", (*size, 3), 10))
    name = "stage2_block1"
    inner = [network.get_layer(layer).output for layer in ("stage1_block3_relu2", f"{name}_relu2")]
    given, answer = (tensor.numpy() for tensor in keras.Model(network.input, inner)(images(2, (*size, 3))))
    kernels = [network.get_layer(f"{name}_convolution{number}").get_weights()[0] for number in (1, 2)]
    norms = [network.get_layer(f"{name}_norm{number}") for number in (1, 2)]
    y = np.maximum(normalized(convolved(given, kernels[0], 2), norms[0]), 0)
    y = normalized(convolved(y, kernels[1], 1), norms[1])
    shortcut = np.pad(given[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_allclose(answer, np.maximum(y + shortcut, 0), rtol=1e-4, atol=1e-4)


def test_a_block_of_the_wide_network_normalizes_first() -> None:
    network, name, random = build_resnet("wide_resnet34", (4, 4, 3), 10), "stage2_block1", np.random.default_rng(0)
    for norm in ("norm1", "norm2"):
        layer = network.get_layer(f"{name}_{norm}")
        layer.set_weights([random.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    inner = [network.get_layer(layer).output for layer in ("stage1_block5_add", f"{name}_add")]
    given, answer = (tensor.numpy() for tensor in keras.Model(network.input, inner)(images(1, (4, 4, 3))))
    parts = ("convolution1", "convolution2", "shortcut")
    kernels = {part: network.get_layer(f"{name}_{part}").get_weights()[0] for part in parts}
    first = np.maximum(normalized(given, network.get_layer(f"{name}_norm1")), 0)
    y = np.maximum(normalized(convolved(first, kernels["convolution1"], 2), network.get_layer(f"{name}_norm2")), 0)
    shortcut = first[:, ::2, ::2] @ kernels["shortcut"][0, 0]
    expected = convolved(y, kernels["convolution2"], 1) + shortcut
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.addons
def test_pixels_of_three_channels_are_normalized_inside() -> None:
    network, x = build_resnet("resnet20", CIFAR, 10), images(2)
    inside = keras.Model(network.input, network.get_layer("normalization").output)(x).numpy()
    np.testing.assert_allclose(inside, (x - np.array(MEAN)) / np.array(STD), rtol=1e-5, atol=1e-5)
    grey = build_resnet("resnet20", (28, 28, 1), 10)
    assert "normalization" not in [layer.name for layer in grey.layers]


@pytest.mark.addons
def test_a_saved_network_loads_and_answers_the_same(tmp_path: Path) -> None:
    network, x = with_random_weights(build_resnet("resnet20", CIFAR, 10)), images(3)
    network.save(tmp_path / "network.keras")
    loaded = load_network(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(x, training=False), network(x, training=False))
    assert describe_network(loaded) == describe_network(network)


@pytest.mark.addons
def test_a_step_of_training_reaches_every_parameter() -> None:
    keras.utils.set_random_seed(0)
    network = build_classifier(CIFAR, 10, TargetSettings(architecture="resnet20"))
    with tf.GradientTape() as tape:
        logits = network(images(8), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(8), logits))
    gradients = tape.gradient(loss, network.trainable_variables)
    assert np.isfinite(loss)
    for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all() and np.any(gradient != 0), variable.name


@pytest.mark.addons
def test_weight_decay_is_of_every_kernel() -> None:
    network = build_classifier((8, 8, 3), 10, TargetSettings(architecture="resnet20", weight_decay=0.5))
    kernels = [w for layer in network.layers for w in layer.get_weights() if w.ndim > 1]
    assert len(kernels) == 20  # what gives the network its name
    np.testing.assert_allclose(sum(network.losses), 0.5 * sum((w**2).sum() for w in kernels), rtol=1e-5)


# --- keras.applications ------------------------------------------------------------------------------------------


@pytest.mark.addons
def test_a_network_of_keras_by_its_name(tmp_path: Path) -> None:
    network = build_classifier(CIFAR, 7, TargetSettings(architecture="MobileNetV2"))
    network.save(tmp_path / "network.keras")
    x = images(2)
    answer = network(x, training=False).numpy()
    assert answer.shape == (2, 7)
    np.testing.assert_array_equal(load_network(tmp_path / "network.keras")(x, training=False), answer)


@pytest.mark.addons
def test_no_network_scales_pixels_twice() -> None:
    """The first convolution sees pixels of [0, 1], not of [0, 1 / 255]."""
    rescaling, inner = build_classifier(CIFAR, 7, TargetSettings(architecture="EfficientNetB0")).layers
    before = keras.Model(inner.input, inner.get_layer("stem_conv_pad").input)
    np.testing.assert_allclose(before(rescaling(images(1)), training=False), images(1), rtol=1e-3)
    plain = build_classifier(CIFAR, 7, TargetSettings(architecture="MobileNetV3Small"))
    assert "Rescaling" not in [type(layer).__name__ for layer in plain.layers]


@pytest.mark.skipif(hasattr(keras, "ops"), reason="of Keras 2")
@pytest.mark.addons
def test_a_network_that_could_not_be_loaded_again_is_not_trained() -> None:
    with pytest.raises(ConfigurationError, match="Keras 2 cannot load what it saves of it"):
        build_classifier(CIFAR, 7, TargetSettings(architecture="ConvNeXtTiny"))


@pytest.mark.addons
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("resnet23", "should be lenet, model_a, model_b, model_c, madrylab, resnet20, resnet32, wide_resnet34, or a "),
        ("resnet23", "a network of keras.applications such as MobileNetV2; did you mean resnet32?"),
        ("model-a", "did you mean model_a?"),
        ("MobileNet_V2", "should be lenet, "),
        ("", "should be lenet, "),
        (3, "should be text"),
    ],
)
@pytest.mark.parametrize("section", ["target", "distillation"])
def test_a_misspelt_architecture_is_an_error_of_the_configuration(section: str, value: object, problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_config({section: {"architecture": value}, "oracle": {"black_box": "target"}})
    message = str(error.value)
    assert message.startswith(f"{section}.architecture = {value!r}: ")
    assert problem in message
    assert len(message.splitlines()) == 1


@pytest.mark.addons
@pytest.mark.parametrize(
    ("shape", "name", "problem"),
    [
        (CIFAR, "MobilNetV2", "there is no such architecture; did you mean MobileNetV2? (allowed: lenet, model_a, "),
        (CIFAR, "ResNet32", "there is no such architecture; did you mean resnet32? (allowed: lenet, "),
        (CIFAR, "Qqqq", "there is no such architecture (allowed: lenet, "),
        ((28, 28, 1), "MobileNetV2", "Keras cannot build it for images of 28x28x1: Input size must be at least 32x32"),
    ],
)
def test_a_network_that_keras_has_not_or_cannot_build(shape: tuple[int, int, int], name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        build_classifier(shape, 10, TargetSettings(architecture=name), key="distillation.architecture")
    message = str(error.value)
    assert message.startswith(f"distillation.architecture = {name!r}: {problem}")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"architecture": "resnet20", "batch_normalization": True},
            "target.batch_normalization = True: is a choice for lenet, model_a, model_b, model_c, madrylab; resnet20 "
            "has its own normalization: leave it out",
        ),
        (
            {"architecture": "VGG16", "weight_decay": 0.1},
            "target.weight_decay = 0.1: is for lenet, model_a, model_b, model_c, madrylab, resnet20, resnet32, "
            "wide_resnet34; VGG16 is used as Keras builds it: leave it out",
        ),
    ],
)
def test_options_that_an_architecture_does_not_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_config({"target": settings})
    assert str(error.value) == message


# --- Through the commands ----------------------------------------------------------------------------------------


@pytest.mark.addons
def test_describing_a_network_of_keras_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "target.architecture=MobileNetV2", "--set", "oracle.black_box=target"]
    settings += ["--set", "distillation.architecture=VGG16"]
    assert describe.main(["--config", "mnist.yaml", "--image", "32x32x3", *settings]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "# target: 2,270,794 parameters: MobileNetV2; its layers are not shown" in lines
    assert "# distilled: 33,638,218 parameters: VGG16; its layers are not shown" in lines
    assert any(line.startswith("# generator: 32x32x3 in") for line in lines)


@pytest.mark.addons
@pytest.mark.parametrize("architecture", ["resnet20", "MobileNetV2"])
def test_a_distilled_network_has_no_batch_normalization(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is trained in inference mode: resnet20 stays at chance on digits."""
    settings = ["--set", f"distillation.architecture={architecture}", "--set", "oracle.black_box=target"]
    assert describe.main(["--config", "mnist.yaml", "--image", "32x32x3", *settings]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: distillation.architecture = {architecture!r}: has batch normalization, ")
    assert "such as VGG16" in line


def test_describing_a_residual_network_lists_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(["--config", "mnist.yaml", "--image", "32x32x3", "--set", "target.architecture=resnet32"]) == 0
    text = capsys.readouterr().out
    assert "# resnet32: 32x32x3 in, 10 out; 464,154 parameters trained and 2,272 kept (moving statistics); " in text
    [row] = [line.split() for line in text.splitlines() if "stage3_block1_subsample" in line]
    assert row == ["stage3_block1_subsample", "max", "pooling", "1x1", "2x2", *"0000", "8x8x32", "0", "2,048", "8,192"]
    assert "its layers are not shown" not in text


def test_a_network_that_does_not_fit_stops_a_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--config", "mnist.yaml", "--set", "target.architecture=Xception"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: target.architecture = 'Xception': Keras cannot build it for images of 28x28x1: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.addons
def test_a_residual_target_is_trained_and_found_in_the_cache(tmp_path: Path) -> None:
    config = parse_config(
        {
            "data": {"training_images": 64, "validation_images": 16, "test_images": 16},
            "target": {"architecture": "resnet20", "epochs": 1, "batch_size": 16, "weight_decay": 1e-4},
        }
    )
    dataset, environment = load_dataset(config.data), prepare_environment(config.training)
    trained = load_or_train_target(config, dataset, environment, tmp_path)
    cached = load_or_train_target(config, dataset, environment, tmp_path)
    assert (trained.cached, cached.cached) == (False, True)
    x = images(2, dataset.image_shape)
    np.testing.assert_array_equal(cached.model(x, training=False), trained.model(x, training=False))
    untrained = build_classifier(dataset.image_shape, 10, config.target)
    moving = [network.get_layer("norm").get_weights()[2] for network in (untrained, trained.model)]
    assert np.all(moving[0] == 0) and np.all(moving[1] != 0)
