"""Normalization from its definition in float64: values, gradients, what is averaged over, and which layer a name means.

``instance`` is TensorFlow Addons' layer on the stack that has it and Keras's group normalization elsewhere; both are
held to the same reference, so they agree with each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.settings import DiscriminatorSettings, GeneratorSettings
from advgan.config.values import Normalization
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.networks.normalization import ADDONS, import_addons, normalization

pytestmark = pytest.mark.addons
keras = tf.keras
EPSILON = 1e-5
KINDS: tuple[Normalization, ...] = ("instance", "layer", "group", "batch")
INSTANCE = "GroupNormalization" if ADDONS is None else "InstanceNormalization"
addons_stack = pytest.mark.skipif(
    ADDONS is None, reason="needs TensorFlow Addons beside TensorFlow 2.15: pip install -e '.[addons]'"
)


def averaged(kind: Normalization, x: np.ndarray, groups: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The input with split channels, shape (n, height, width, parts, channels / parts), and the averaged axes."""
    parts = {"instance": x.shape[-1], "layer": 1, "group": groups, "batch": x.shape[-1]}[kind]
    split = x.astype(np.float64).reshape(*x.shape[:3], parts, x.shape[-1] // parts)
    return split, (0, 1, 2, 4) if kind == "batch" else (1, 2, 4)


def reference(
    kind: Normalization, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, groups: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, normalized input and standard deviation, the last with one entry for each average; all float64."""
    split, axes = averaged(kind, x, groups)
    deviation = np.sqrt(split.var(axes, keepdims=True) + EPSILON)
    normalized = ((split - split.mean(axes, keepdims=True)) / deviation).reshape(x.shape)
    return normalized * scale.astype(np.float64) + shift.astype(np.float64), normalized, deviation


def reference_gradients(
    kind: Normalization, x: np.ndarray, scale: np.ndarray, weights: np.ndarray, groups: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of ``sum(weights * output)`` with respect to input, scale and shift, float64."""
    _, normalized, deviation = reference(kind, x, scale, np.zeros_like(scale), groups)
    weights = weights.astype(np.float64)
    on_normalized, axes = averaged(kind, weights * scale, groups)
    split, _ = averaged(kind, normalized, groups)
    through_mean = on_normalized.mean(axes, keepdims=True)
    through_deviation = split * (on_normalized * split).mean(axes, keepdims=True)
    on_input = ((on_normalized - through_mean - through_deviation) / deviation).reshape(x.shape)
    return on_input, (weights * normalized).sum((0, 1, 2)), weights.sum((0, 1, 2))


def weights_and_gradients(
    layer: Any, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The layer's output in training, and the gradients of ``sum(weights * output)``: input, scale, shift."""
    image = tf.constant(x)
    layer.build(x.shape)
    layer.gamma.assign(scale)
    layer.beta.assign(shift)
    with tf.GradientTape() as tape:
        tape.watch(image)
        output = layer(image, training=True)
        loss = tf.reduce_sum(weights * output)
    return output.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, [image, layer.gamma, layer.beta])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_gradients_are_those_of_the_reference(kind: Normalization) -> None:
    random = np.random.default_rng(0)
    x, weights = random.normal(2.0, 3.0, (2, 3, 2, 4)), random.normal(size=(2, 3, 2, 4))
    scale, shift = random.normal(size=4), random.normal(size=4)

    def loss(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> float:
        return float((weights * reference(kind, x, scale, shift)[0]).sum())

    arguments = (x, scale, shift)
    for place, gradient in enumerate(reference_gradients(kind, x, scale, weights)):
        for index in np.ndindex(gradient.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [argument.copy() for argument in arguments]
                moved[place][index] += step
                ends.append(loss(*moved))
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


SHAPES = {
    "small": ((4, 5, 6, 8), 0.0, 1.0),
    "odd sizes": ((3, 7, 13, 6), 0.0, 1.0),
    "one row": ((2, 1, 9, 4), 0.0, 1.0),
    "one image, one channel": ((1, 11, 5, 1), 0.0, 1.0),
    "many channels": ((2, 4, 4, 512), 0.0, 1.0),
    "a map of the generator": ((16, 28, 28, 8), 0.0, 1.0),
    "an offset mean": ((4, 9, 8, 6), 30.0, 1.0),
    "a large scale": ((4, 9, 8, 6), -1000.0, 2000.0),
    "a small scale": ((4, 9, 8, 6), 0.0, 1e-3),
}
LAYERS: list[Any] = [
    pytest.param(
        lambda: keras.layers.GroupNormalization(groups=-1, epsilon=EPSILON, dtype="float32"), "instance", id="keras"
    ),
    *(pytest.param(lambda kind=kind: normalization(kind, 2, "norm"), kind, id=kind) for kind in KINDS),
]
"""Keras's layer for ``instance``, on both stacks, and what each name means on this one."""


@pytest.mark.parametrize(("shape", "mean", "deviation"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("make", "kind"), LAYERS)
def test_values_and_gradients_equal_the_definition_in_float64(
    make: Callable[[], Any], kind: Normalization, shape: tuple[int, ...], mean: float, deviation: float
) -> None:
    if kind == "group" and shape[-1] == 1:
        pytest.skip("one channel cannot be split into groups")
    random = np.random.default_rng(1)
    x = random.normal(mean, deviation, shape).astype(np.float32)
    scale, shift, weights = (random.normal(size=size).astype(np.float32) for size in (shape[-1:], shape[-1:], shape))
    output, gradients = weights_and_gradients(make(), x, scale, shift, weights)
    expected, _, _ = reference(kind, x, scale, shift)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
    for gradient, exact in zip(gradients, reference_gradients(kind, x, scale, weights), strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("instance", np.s_[1, :, :, 3]),
        ("layer", np.s_[1, :, :, :]),
        ("group", np.s_[1, :, :, 2:4]),
        ("batch", np.s_[:, :, :, 3]),
    ],
)
def test_a_pixel_changes_those_it_is_averaged_with_and_no_other(kind: Normalization, expected: Any) -> None:
    x = np.random.default_rng(2).normal(size=(3, 4, 5, 6)).astype(np.float32)
    changed = x.copy()
    changed[1, 2, 3, 3] += 5
    layer = normalization(kind, 3, "norm")
    difference = np.abs(layer(x, training=True).numpy() - layer(changed, training=True).numpy())
    together = np.zeros(x.shape, bool)
    together[expected] = True
    np.testing.assert_array_equal(difference > 1e-6, together)


@pytest.mark.parametrize("kind", KINDS)
def test_only_batch_normalization_distinguishes_training_from_inference(kind: Normalization) -> None:
    x = np.random.default_rng(3).normal(2.0, 3.0, (4, 6, 5, 4)).astype(np.float32)
    layer = normalization(kind, 2, "norm")
    in_training = layer(x, training=True).numpy()
    in_inference = layer(x, training=False).numpy()
    if kind == "batch":
        unbiased = tf.__version__.startswith("2.15.")  # Keras 2 keeps the sum of squares divided by n - 1, Keras 3 by n
        kept = x.var((0, 1, 2), ddof=1 if unbiased else 0)
        mean, variance = 0.1 * x.mean((0, 1, 2)), 0.9 + 0.1 * kept  # one step from 0 and 1, momentum 0.9
        np.testing.assert_allclose(in_inference, (x - mean) / np.sqrt(variance + EPSILON), atol=1e-5)
        assert np.abs(in_inference - in_training).max() > 0.1
    else:
        np.testing.assert_array_equal(in_inference, in_training)
        np.testing.assert_allclose(layer(x[1:2], training=True).numpy(), in_training[1:2], atol=1e-5)


def test_instance_normalization_of_a_single_pixel_is_its_shift_whatever_the_pixel() -> None:
    layer = normalization("instance", 1, "norm")
    layer.build((None, 1, 1, 5))
    layer.beta.assign(np.arange(5))
    x = np.random.default_rng(4).normal(size=(3, 1, 1, 5)).astype(np.float32)
    np.testing.assert_array_equal(layer(x).numpy(), np.broadcast_to(np.arange(5.0), x.shape))


def test_no_normalization_is_no_layer() -> None:
    assert normalization("none", 4, "norm") is None


# --- Which layer a name means --------------------------------------------------------------------------------------


def norms_of(network: Any) -> list[Any]:
    return [layer for layer in network.layers if layer.name.endswith("_norm")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("instance", INSTANCE),
        ("layer", "GroupNormalization"),
        ("group", "GroupNormalization"),
        ("batch", "BatchNormalization"),
    ],
)
def test_generator_and_discriminator_are_made_of_the_layer_of_that_name(kind: Normalization, expected: str) -> None:
    generator = build_generator((28, 28, 1), GeneratorSettings(normalization=kind))
    discriminator = build_discriminator((28, 28, 1), DiscriminatorSettings(normalization=kind))
    assert [layer.name for layer in norms_of(discriminator)] == ["c1_norm", "c2_norm"]
    assert len(norms_of(generator)) == 13  # after each convolution but the last
    for layer in [*norms_of(generator), *norms_of(discriminator)]:
        assert type(layer).__name__ == expected
        assert layer.epsilon == EPSILON
        np.testing.assert_array_equal(layer.gamma.numpy(), 1)
        np.testing.assert_array_equal(layer.beta.numpy(), 0)


@addons_stack
def test_the_addons_stack_uses_the_layer_of_tensorflow_addons_and_no_other() -> None:
    import tensorflow_addons

    assert type(normalization("instance", 4, "norm")) is tensorflow_addons.layers.InstanceNormalization


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("build", "settings", "convolution"),
    [(build_generator, GeneratorSettings, "d1"), (build_discriminator, DiscriminatorSettings, "c1")],
    ids=["generator", "discriminator"],
)
def test_normalization_computes_in_float32_below_bfloat16_convolutions(
    build: Callable[..., Any], settings: Callable[..., Any], convolution: str, kind: Normalization
) -> None:
    network = build((28, 28, 1), settings(normalization=kind, groups=2), "bfloat16")
    places = [network.get_layer(name).output for name in (convolution, f"{convolution}_norm")]
    image = np.random.default_rng(5).random((4, 28, 28, 1), np.float32)
    convolved, output = keras.Model(network.input, places)(image, training=True)
    assert (convolved.dtype, output.dtype) == (tf.bfloat16, tf.float32)
    channels = convolved.shape[-1]
    exact, _, _ = reference(kind, tf.cast(convolved, tf.float32).numpy(), np.ones(channels), np.zeros(channels))
    np.testing.assert_allclose(output.numpy(), exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def fake_addons(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Put a module in the place of TensorFlow Addons, which is not imported yet."""
    (folder / "tensorflow_addons.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)  # so that what is imported below is taken out again
    del sys.modules["tensorflow_addons"]


@pytest.mark.parametrize("tensorflow", ["2.14.1", "2.16.2", "2.21.0"])
def test_addons_that_are_installed_beside_another_tensorflow_are_left_alone(
    tensorflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_addons(tmp_path, monkeypatch, "raise RuntimeError('imported')")
    monkeypatch.setattr(tf, "__version__", tensorflow)
    assert import_addons() is None
    monkeypatch.setattr(tf, "__version__", "2.15.1")
    with pytest.raises(RuntimeError, match="imported"):
        import_addons()


def test_the_end_of_life_of_addons_is_not_the_users_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_addons(tmp_path, monkeypatch, "import warnings\nwarnings.warn('end of life', UserWarning)\nfound = True")
    monkeypatch.setattr(tf, "__version__", "2.15.1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_addons().found


LOADING = """
import sys
from advgan.startup import import_tensorflow
import_tensorflow()
import numpy as np
import tensorflow as tf
from advgan.networks.normalization import normalization
generator = tf.keras.models.load_model(sys.argv[1])
print(*sorted({type(layer).__name__ for layer in generator.layers if layer.name.endswith("_norm")}))
np.save(sys.argv[2], generator(np.load(sys.argv[2])).numpy())
"""


def test_a_saved_generator_loads_in_another_process_without_a_word_on_stderr(tmp_path: Path) -> None:
    generator = build_generator((28, 28, 1), GeneratorSettings())
    images = np.random.default_rng(6).random((3, 28, 28, 1), np.float32)
    generator.save(tmp_path / "generator.keras")
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(tmp_path / "generator.keras"), str(tmp_path / "images.npy")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [INSTANCE]
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), generator(images).numpy(), atol=1e-6)
