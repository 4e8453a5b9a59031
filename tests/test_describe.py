"""What every layer gives: the description against what Keras builds and runs, and the door that prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import describe
from advgan.config.loading import parse_config
from advgan.config.settings import Config
from advgan.experiments.plan import UntrainedNetworks, build_networks
from advgan.networks import convolution
from advgan.networks.convolution import ShapeError, Sides
from advgan.networks.description import NetworkDescription
from advgan.networks.description import describe as describe_network

pytestmark = pytest.mark.addons
keras = tf.keras
MNIST = (28, 28, 1)


def networks(image_shape: tuple[int, int, int] = MNIST, classes: int = 10, **sections: Any) -> UntrainedNetworks:
    return build_networks(image_shape, classes, parse_config(sections) if sections else Config())


def by_name(network: NetworkDescription) -> dict[str, Any]:
    return {layer.name: layer for layer in network.layers}


# --- The description ---------------------------------------------------------------------------------------------


def test_the_small_target_layer_by_layer() -> None:
    described = describe_network(networks().target)
    with_parameters = {layer.name: layer.trained_parameters for layer in described.layers if layer.trained_parameters}
    assert with_parameters == {"convolution_1": 832, "convolution_2": 9_248, "dense_1": 205_056, "logits": 2_570}
    layers = by_name(described)
    assert [
        layers[name].output_shape for name in ("convolution_1", "pool_1", "convolution_2", "pool_2", "flatten")
    ] == [
        (24, 24, 32),
        (12, 12, 32),
        (10, 10, 32),
        (5, 5, 32),
        (800,),
    ]
    assert layers["convolution_1"].operations == 24 * 24 * 32 * (2 * 5 * 5 + 1)
    assert layers["dense_1"].operations == 2 * 800 * 256 + 256 + 256  # weights, bias, ReLU
    assert layers["pool_1"].activation_bytes == 12 * 12 * 32 * 4
    assert (described.trained_parameters, described.kept_parameters) == (217_706, 0)


def test_padding_on_the_four_sides() -> None:
    layers = by_name(describe_network(networks((30, 33, 3)).generator))
    assert layers["pad"].padding == Sides(top=1, bottom=1, left=1, right=2)  # to 32x36, divisible by 4
    assert layers["crop"].padding == Sides(top=-1, bottom=-1, left=-1, right=-2)
    assert layers["d1"].padding == Sides(0, 1, 0, 1)
    assert layers["r1a"].padding == Sides(1, 1, 1, 1)
    assert layers["u1"].padding == Sides(0, -1, 0, -1)  # a transposed convolution's output is cut
    discriminator = by_name(describe_network(networks().discriminator))
    assert discriminator["c2"].padding == Sides(1, 2, 1, 2)  # from 7 to 4
    assert by_name(describe_network(networks().target))["convolution_1"].padding == Sides(0, 0, 0, 0)


@pytest.mark.parametrize("size", [(28, 28, 1), (33, 41, 3)])
@pytest.mark.parametrize(
    "sections",
    [
        {"generator": {"upsampling": "resize", "kernel": 5, "widths": [4, 8]}},
        {
            "generator": {"normalization": "batch", "kernel": 2},
            "discriminator": {"normalization": "layer", "kernel": 5},
        },
        {"generator": {"normalization": "group", "groups": 2}, "discriminator": {"normalization": "batch"}},
        {"generator": {"normalization": "none", "residual_blocks": 0, "widths": [6]}},
        {"discriminator": {"padding": "valid", "kernel": 3, "widths": [3, 5]}},
        {"training": {"compute_dtype": "bfloat16"}},
        *({"target": {"architecture": name}} for name in ("model_a", "model_b", "model_c", "madrylab")),
        {"target": {"architecture": "model_b", "batch_normalization": True, "weight_decay": 0.1}},
    ],
    ids=str,
)
def test_every_option_is_worked_out_as_keras_builds_and_runs_it(
    size: tuple[int, int, int], sections: dict[str, Any]
) -> None:
    for network in networks(size, 7, **sections).of_known_layers(Config()).values():
        described = describe_network(network)  # raises where Keras built something else
        assert described.trained_parameters == sum(int(np.prod(w.shape)) for w in network.trainable_weights)
        assert described.kept_parameters == sum(int(np.prod(w.shape)) for w in network.non_trainable_weights)
        outputs = keras.Model(network.inputs, [network.get_layer(layer.name).output for layer in described.layers])
        for layer, output in zip(described.layers, outputs(tf.zeros([2, *size])), strict=True):
            assert (2, *layer.output_shape) == output.shape, layer.name
            assert layer.activation_bytes * 2 == output.numpy().nbytes, layer.name


def test_images_have_their_channels_last_whatever_keras_was_told() -> None:
    keras.backend.set_image_data_format("channels_first")
    try:
        assert networks((9, 12, 3), target={"architecture": "madrylab"}).generator.output_shape == (None, 9, 12, 3)
        assert keras.backend.image_data_format() == "channels_last"
    finally:
        keras.backend.set_image_data_format("channels_last")


def test_kinds_are_told_apart() -> None:
    def kinds(normalization: str) -> set[str]:
        described = describe_network(networks(generator={"normalization": normalization, "groups": 4}).generator)
        return {layer.kind for layer in described.layers if "normalization" in layer.kind}

    assert kinds("instance") == {"instance normalization"}
    assert kinds("layer") == {"layer normalization"}
    assert kinds("group") == {"group normalization, 4 groups"}
    assert kinds("batch") == {"batch normalization"}
    assert kinds("none") == set()


def test_operations_agree_with_tensorflows_profiler() -> None:
    """The profiler counts convolutions, dense layers and biases; so the rest is left out on our side."""
    target = networks().target
    function = tf.function(lambda images: target(images, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec([1, *MNIST], tf.float32))
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph = convert_variables_to_constants_v2(concrete).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    described = describe_network(target)
    pooling_and_relu = (
        sum(layer.operations for layer in described.layers if layer.kind in ("ReLU", "max pooling")) + 256
    )
    weights = sum(layer.operations for layer in described.layers) - pooling_and_relu
    assert weights <= counted <= described.operations  # whether it counts pooling depends on its version


def test_a_disagreement_with_keras_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    right = convolution.dense_parameters
    monkeypatch.setattr(convolution, "dense_parameters", lambda *sizes, **bias: right(*sizes, **bias) + 1)
    with pytest.raises(
        ShapeError, match=r"lenet\.dense_1: parameters worked out as 205057, built by Keras as 205056: "
    ):
        describe_network(networks().target)


def test_a_layer_of_an_unknown_kind_is_refused() -> None:
    model = keras.Sequential([keras.Input(MNIST), keras.layers.GaussianNoise(0.1, name="noise")], name="other")
    with pytest.raises(ShapeError, match=r"other\.noise: layers of type GaussianNoise are not known here"):
        describe_network(model)


# --- The door ----------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert describe.main(["--config", "mnist.yaml", *arguments]) == 0
    return capsys.readouterr().out


def test_the_door_prints_three_tables(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert "# generator: 28x28x1 in, 28x28x1 out; 86,065 parameters trained; " in text
    assert "# discriminator: 28x28x1 in, 1 out; 10,985 parameters trained; " in text
    assert "# lenet: 28x28x1 in, 10 out; 217,706 parameters trained; 3,244,938 operations" in text
    [row] = [line for line in text.splitlines() if line.split()[:1] == ["d1"]]
    assert " ".join(row.split()) == "d1 convolution 3x3 2x2 0 +1 0 +1 14x14x16 1,152 451,584 12,544"
    assert max(map(len, text.splitlines())) < 160


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(printed(capsys, "--json", "--set", "target.architecture=model_c"))
    assert set(content) == {"generator", "discriminator", "target"}
    assert content["target"]["trained_parameters"] == 312_202
    d1 = next(layer for layer in content["generator"]["layers"] if layer["name"] == "d1")
    assert d1["padding"] == {"top": 0, "bottom": 1, "left": 0, "right": 1}
    assert (d1["kernel"], d1["stride"], d1["output_shape"]) == ([3, 3], [2, 2], [14, 14, 16])
    total = sum(layer["operations"] for layer in content["generator"]["layers"])
    assert content["generator"]["operations"] == total


def test_another_image_size_without_any_data_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--image", "33x40x3", "--classes", "100", "--set", "data.dataset=absent.npz")
    assert "# generator: 33x40x3 in, 33x40x3 out" in text
    assert "# lenet: 33x40x3 in, 100 out" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "discriminator.padding=valid"],
            "discriminator.padding = 'valid': does not fit images of 28x28: at layer c2 (4x4, stride 2, valid): "
            "instance normalization of a 1x1 map gives the same value for every image: use a larger image, SAME "
            "padding, fewer layers of stride 2, or another normalization",
        ),
        (
            ["--image", "12x11x1"],
            "target.architecture = 'lenet': does not fit images of 12x11: at layer pool_2: a kernel of 2 does not fit "
            "an input of 1 without padding: use a kernel of at most 1, SAME padding or a larger image",
        ),
        (
            ["--image", "28x28"],
            "argument --image: '28x28' should be height x width x channels, such as 28x28x1 (allowed: up to "
            "99999x99999x9999); python -m advgan.describe --help lists the options",
        ),
        (
            ["--classes", "1"],
            "argument --classes: '1' should be a number of classes (allowed: 2 to 999999); python -m advgan.describe "
            "--help lists the options",
        ),
        (
            ["--image", "2000x2000x3"],
            "target.architecture = 'lenet': does not fit images of 2000x2000: at layer dense_1: 2,031,649,024 "
            "parameters (allowed: up to 268,435,456); use smaller images",
        ),
        (["--config", "x" * 300], f"{'x' * 300}: File name too long"),
        (
            ["--set", "generator.kernal=5"],
            "generator.kernal = 5: unknown key; did you mean generator.kernel?",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = describe.main(["--config", "mnist.yaml", *arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {message}\n"
    assert captured.out == ""


def test_describing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed(capsys)
    assert list(tmp_path.iterdir()) == []
