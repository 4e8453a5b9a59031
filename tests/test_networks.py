"""Generator, discriminator and classifiers: shapes, counts, and what keeps them alive."""

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.config.settings import DataSettings, DiscriminatorSettings, GeneratorSettings, TargetSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import ConfigurationError
from advgan.networks.description import describe
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator

pytestmark = pytest.mark.addons
MNIST = (28, 28, 1)


def digits(count: int) -> tf.Tensor:
    return tf.constant(scaled(load_dataset(DataSettings()).test.images[:count]))


def test_parameter_counts_at_mnist_size() -> None:
    assert build_generator(MNIST, GeneratorSettings()).count_params() == 86_065
    assert build_discriminator(MNIST, DiscriminatorSettings()).count_params() == 10_985


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [("lenet", 217_706), ("model_a", 3_382_346), ("model_b", 710_218), ("model_c", 312_202), ("madrylab", 3_274_634)],
)
def test_classifiers_are_pinned_by_their_parameter_counts(architecture: str, parameters: int) -> None:
    model = build_classifier(MNIST, 10, TargetSettings(architecture=architecture))
    assert model.count_params() == parameters
    assert model(tf.zeros([3, *MNIST])).shape == (3, 10)


@pytest.mark.parametrize(
    ("architecture", "layout"),
    [
        ("lenet", "valid1 pool valid1 pool flat relu linear"),
        ("model_a", "valid1 valid1 flat relu linear"),
        ("model_b", "same2 valid2 valid1 flat linear"),
        ("model_c", "valid1 valid1 pool valid1 valid1 pool flat relu relu linear"),
        ("madrylab", "same1 pool same1 pool flat relu linear"),
    ],
)
def test_classifiers_compute_what_their_papers_lay_out(architecture: str, layout: str) -> None:
    tf.keras.utils.set_random_seed(0)
    model = build_classifier((28, 28, 1), 3, TargetSettings(architecture=architecture))
    random = np.random.default_rng(0)
    model.set_weights([weights + random.normal(0, 0.02, weights.shape) for weights in model.get_weights()])
    images = random.random((2, 28, 28, 1), np.float32)
    weights, x = iter(model.get_weights()), tf.constant(images)
    for part in layout.split():
        if part == "pool":
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        elif part == "flat":
            x = tf.reshape(x, [2, -1])
        elif part in ("relu", "linear"):
            x = x @ next(weights) + next(weights)
            x = tf.nn.relu(x) if part == "relu" else x
        else:
            x = tf.nn.relu(tf.nn.conv2d(x, next(weights), int(part[-1]), part[:-1].upper()) + next(weights))
    assert next(weights, None) is None
    np.testing.assert_allclose(model(images, training=False), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "size", [(8, 8, 1), (9, 9, 3), (10, 13, 2), (28, 28, 1), (30, 31, 4), (32, 32, 3), (33, 40, 5)]
)
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_generator_gives_back_the_size_it_got(size: tuple[int, int, int], upsampling: str) -> None:
    generator = build_generator(size, GeneratorSettings(upsampling=upsampling))
    output = generator(np.random.default_rng(0).random((2, *size), np.float32)).numpy()
    assert output.shape == (2, *size)
    assert np.abs(output).max() <= 1
    assert np.ptp(output) > 0


@pytest.mark.parametrize("size", [(29, 30), (30, 29), (31, 33), (10, 13)])
def test_a_perturbation_lies_where_its_image_lies_in_the_padded_frame(size: tuple[int, int]) -> None:
    """What the same weights make of the image in a black frame that the strides divide, cut out where the image is."""
    tf.keras.utils.set_random_seed(0)
    settings = GeneratorSettings(residual_blocks=1, normalization="none")
    height, width = size
    frame = tuple(-(-side // 4) * 4 for side in size)
    small, large = build_generator((height, width, 1), settings), build_generator((*frame, 1), settings)
    large.set_weights([10 * weights for weights in small.get_weights()])  # no pixel like its neighbour
    small.set_weights(large.get_weights())
    image = np.random.default_rng(0).random((1, height, width, 1), np.float32)
    made = small(image).numpy()
    found = []
    for top, left in np.ndindex(frame[0] - height + 1, frame[1] - width + 1):
        framed = np.zeros((1, *frame, 1), np.float32)
        framed[:, top : top + height, left : left + width] = image
        cut_out = large(framed).numpy()[:, top : top + height, left : left + width]
        found.append(np.allclose(cut_out, made, atol=1e-5))
    assert sum(found) == 1


def reference_generator(generator: tf.keras.Model, settings: GeneratorSettings, images: np.ndarray) -> np.ndarray:
    """G as Xiao et al. lay it out, from its weights, in TensorFlow's own convolutions; without normalization."""

    def convolution(x: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        kernel, bias = generator.get_layer(name).get_weights()
        return tf.nn.conv2d(x, kernel, stride, "SAME") + bias

    def upsampling(x: tf.Tensor, name: str) -> tf.Tensor:
        if settings.upsampling == "resize":
            return convolution(tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2), name)
        kernel, bias = generator.get_layer(name).get_weights()
        shape = [x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[2]]
        return tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME") + bias

    x = tf.nn.relu(convolution(tf.constant(images), "c0"))
    for index in range(1, len(settings.widths)):
        x = tf.nn.relu(convolution(x, f"d{index}", 2))
    for index in range(1, settings.residual_blocks + 1):
        x = tf.nn.relu(x + convolution(tf.nn.relu(convolution(x, f"r{index}a")), f"r{index}b"))
    for index in range(1, len(settings.widths)):
        x = tf.nn.relu(upsampling(x, f"u{index}"))
    return tf.tanh(convolution(x, "c1")).numpy()


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_the_generator_computes_what_the_paper_lays_out(upsampling: str) -> None:
    tf.keras.utils.set_random_seed(0)
    settings = GeneratorSettings(widths=(3, 4, 5), residual_blocks=2, normalization="none", upsampling=upsampling)
    generator = build_generator((12, 16, 2), settings)
    random = np.random.default_rng(0)
    generator.set_weights([weights + random.normal(0, 0.3, weights.shape) for weights in generator.get_weights()])
    images = random.random((2, 12, 16, 2), np.float32)
    made = generator(images).numpy()
    assert np.ptp(made) > 0.5
    np.testing.assert_allclose(made, reference_generator(generator, settings, images), atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_discriminator_computes_what_the_paper_lays_out(padding: str) -> None:
    """Convolutions of stride 2, leaky ReLU of slope 0.2, one dense output; all but the first are normalized."""
    tf.keras.utils.set_random_seed(0)
    settings = DiscriminatorSettings(widths=(3, 4), padding=padding)
    discriminator = build_discriminator((15, 18, 2), settings)
    random = np.random.default_rng(0)
    discriminator.set_weights(
        [weights + random.normal(0, 0.3, weights.shape) for weights in discriminator.get_weights()]
    )
    images = random.random((2, 15, 18, 2), np.float32)
    kernel, bias = discriminator.get_layer("c0").get_weights()
    x = tf.nn.leaky_relu(tf.nn.conv2d(images, kernel, 2, padding.upper()) + bias, 0.2)
    (kernel,) = discriminator.get_layer("c1").get_weights()
    x = discriminator.get_layer("c1_norm")(tf.nn.conv2d(x, kernel, 2, padding.upper()))
    kernel, bias = discriminator.get_layer("score").get_weights()
    expected = tf.reshape(tf.nn.leaky_relu(x, 0.2), [2, -1]) @ kernel + bias
    np.testing.assert_allclose(discriminator(images), expected, atol=1e-4)


def test_generator_with_other_widths_and_blocks() -> None:
    generator = build_generator((32, 32, 3), GeneratorSettings(widths=(4, 8, 16, 32), residual_blocks=1))
    assert generator.output_shape == (None, 32, 32, 3)
    assert len([layer for layer in generator.layers if layer.name.startswith("r1")]) == 7
    flat = build_generator((28, 28, 1), GeneratorSettings(widths=(8,), residual_blocks=0))
    assert flat.output_shape == (None, 28, 28, 1)


def test_every_weight_of_the_generator_learns() -> None:
    generator = build_generator((10, 13, 2), GeneratorSettings())
    images = np.random.default_rng(0).random((4, 10, 13, 2), np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(generator(images, training=True) - 0.3))
    for weights, gradient in zip(
        generator.trainable_variables, tape.gradient(loss, generator.trainable_variables), strict=True
    ):
        assert np.abs(gradient.numpy()).max() > 0, weights.name


def test_too_small_images_are_refused_with_the_layer_named() -> None:
    with pytest.raises(ConfigurationError, match="8x8 or larger"):
        build_generator((7, 28, 1), GeneratorSettings())
    with pytest.raises(ConfigurationError, match=r"images of 8x8: at layer c2 \(.*\): .* of a 1x1 map"):
        build_discriminator((8, 8, 1), DiscriminatorSettings())
    with pytest.raises(ConfigurationError, match=r"images of 8x8: at layer d3: .* of a 1x1 map"):
        build_generator((8, 8, 1), GeneratorSettings(widths=(8, 8, 16, 32)))
    build_discriminator((9, 9, 1), DiscriminatorSettings())
    build_discriminator((8, 8, 1), DiscriminatorSettings(normalization="none"))


def test_the_unpadded_discriminator_of_public_implementations_is_refused() -> None:
    """28 -> 13 -> 5 -> 1: instance normalization of one pixel is constant, and D never learns."""
    with pytest.raises(ConfigurationError, match=r"at layer c2 \(4x4, stride 2, valid\): .* of a 1x1 map"):
        build_discriminator(MNIST, DiscriminatorSettings(padding="valid"))
    with pytest.raises(ConfigurationError, match=r"at layer c1 .*a kernel of 20 does not fit an input of 5"):
        build_discriminator(MNIST, DiscriminatorSettings(padding="valid", kernel=20))
    with pytest.raises(ConfigurationError, match="1x1 map"):  # the same under another name
        build_discriminator(
            MNIST, DiscriminatorSettings(padding="valid", normalization="group", widths=(4, 4, 4), groups=4)
        )
    build_discriminator(
        MNIST, DiscriminatorSettings(padding="valid", normalization="group", widths=(8, 8, 8), groups=4)
    )
    build_discriminator(MNIST, DiscriminatorSettings(padding="valid", normalization="none"))


@pytest.mark.parametrize("kernel", [1, 2, 4, 5])
def test_other_kernels_keep_the_size_of_the_image(kernel: int) -> None:
    generator = build_generator((10, 13, 2), GeneratorSettings(kernel=kernel))
    assert generator(tf.zeros([2, 10, 13, 2])).shape == (2, 10, 13, 2)
    assert build_discriminator(MNIST, DiscriminatorSettings(kernel=kernel))(tf.zeros([3, *MNIST])).shape == (3, 1)


@pytest.mark.parametrize("size", [(9, 9, 1), (28, 28, 1)])
def test_discriminator_separates_two_images_and_learns(size: tuple[int, int, int]) -> None:
    discriminator = build_discriminator(size, DiscriminatorSettings())
    images = np.random.default_rng(1).random((2, *size), np.float32)
    with tf.GradientTape() as tape:
        scores = discriminator(images, training=True)
        loss = tf.reduce_mean(tf.square(scores - 1.0))
    assert abs(float(scores[0, 0] - scores[1, 0])) > 1e-4
    for weights, gradient in zip(
        discriminator.trainable_variables, tape.gradient(loss, discriminator.trainable_variables), strict=True
    ):
        assert np.abs(gradient.numpy()).max() > 1e-7, weights.name


def test_discriminator_maps_at_mnist_size() -> None:
    discriminator = build_discriminator(MNIST, DiscriminatorSettings())
    maps = [discriminator.get_layer(f"c{index}").output.shape[1:3] for index in range(3)]
    assert [tuple(shape) for shape in maps] == [(14, 14), (7, 7), (4, 4)]


def test_no_normalization_gives_convolutions_a_bias() -> None:
    generator = build_generator(MNIST, GeneratorSettings(normalization="none"))
    assert generator.get_layer("d1").use_bias
    assert not build_generator(MNIST, GeneratorSettings()).get_layer("d1").use_bias


def test_bfloat16_is_for_convolutions_only() -> None:
    tf.keras.utils.set_random_seed(0)
    generator = build_generator(MNIST, GeneratorSettings(), "bfloat16")
    tf.keras.utils.set_random_seed(0)
    exact = build_generator(MNIST, GeneratorSettings())
    assert generator.get_layer("d1").compute_dtype == "bfloat16"
    assert generator.get_layer("d1_norm").compute_dtype == "float32"
    assert all(weights.dtype == "float32" for weights in generator.trainable_variables)
    output = generator(digits(16))
    assert output.dtype == tf.float32
    difference = np.abs(output.numpy() - exact(digits(16)).numpy())
    assert 0 < difference.max() < 0.1


def test_batch_normalization_in_a_target_is_convolution_without_bias_norm_activation() -> None:
    model = build_classifier(MNIST, 10, TargetSettings(batch_normalization=True))
    kinds = [type(layer).__name__ for layer in model.layers[:4]]
    assert kinds == ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D"]
    assert not model.layers[0].use_bias
    assert model.count_params() == 217_706 - 64 + 2 * 4 * 32  # two biases of 32 out, two norms of 4 x 32 in


def test_weight_decay_is_in_the_models_losses() -> None:
    model = build_classifier(MNIST, 10, TargetSettings(weight_decay=0.01))
    kernels = [weights.numpy() for weights in model.trainable_variables if weights.shape.rank != 1]
    assert len(kernels) == 4
    expected = sum(0.01 * np.square(kernel.astype(np.float64)).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_target_that_does_not_fit_the_images_is_refused_with_the_layer_named() -> None:
    with pytest.raises(ConfigurationError, match=r"model_c.*8x8.*layer") as refusal:
        build_classifier((8, 8, 1), 10, TargetSettings(architecture="model_c"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(32, 32, 3), (13, 21, 1)])
def test_skips_join_the_maps_from_before_each_downsampling(shape: tuple[int, int, int]) -> None:
    """Each join has twice the filters, the convolution after it makes as many as before of them."""
    settings = GeneratorSettings(widths=(4, 8, 16), residual_blocks=1, skips=True)
    generator = build_generator(shape, settings)
    described = {layer.name: layer for layer in describe(generator).layers}
    joins = [described[name].output_shape for name in ("s1_join", "s2_join", "s1", "s2")]
    assert [each[2] for each in joins] == [16, 8, 8, 4]
    assert joins[1][0] == 2 * joins[0][0]
    assert described["s1"].trained_parameters == 3 * 3 * 16 * 8
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    before = generator(images).numpy()
    assert before.shape == images.shape
    weights = generator.get_layer("d2").get_weights()
    generator.get_layer("d2").set_weights([0 * each for each in weights])  # the way below is blocked
    changed = generator(images).numpy()
    assert (changed != before).any()
    assert np.ptp(changed, axis=(1, 2)).max() > 0.01  # what is above still sees the image
