"""Classifiers as people have them, in one form: what goes in, what comes out, logits before a softmax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.classifier import classifier_of
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.pixels import Pixels
from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError

keras = tf.keras
layers = keras.layers
GREY, COLOUR = (6, 5, 1), (6, 5, 3)
pytestmark = pytest.mark.addons


def images_of(shape: tuple[int, int, int], count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).random((count, *shape), np.float32)


def network(
    shape: tuple[int, ...], *before: Any, after: tuple[Any, ...] = (), units: int = 4, dtype: Any = None
) -> Any:
    """A linear network of large random weights with layers around it."""
    keras.utils.set_random_seed(3)
    dense = layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0), name="dense")
    return keras.Sequential([keras.Input(shape, dtype=dtype), *before, layers.Flatten(), dense, *after])


def logits_of(made: Any, images: np.ndarray) -> np.ndarray:
    """The linear part, in NumPy."""
    kernel, bias = made.get_layer("dense").get_weights()
    return images.reshape(len(images), -1) @ kernel + bias


def is_the_same(classifier: Any, images: np.ndarray, expected: np.ndarray) -> None:
    """Scores, classes and the gradient of the classifier are those of a linear network."""
    scores = classifier.logits(tf.constant(images))
    assert scores.dtype == tf.float32 and scores.shape == expected.shape
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(classifier.predict(images), expected.argmax(axis=1))
    assert classifier.has_gradient


# --- What comes out ----------------------------------------------------------------------------------------------


def with_activation(name: str) -> Any:
    keras.utils.set_random_seed(3)
    dense = layers.Dense(4, name, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0), name="dense")
    return keras.Sequential([keras.Input(COLOUR), layers.Flatten(), dense])


def nested(inner: Any) -> Any:
    images = keras.Input(COLOUR)
    return keras.Model(images, inner(images))


@pytest.mark.parametrize(
    ("make", "ends"),
    [
        (lambda: network(COLOUR, after=(layers.Softmax(),)), "softmax"),
        (lambda: network(COLOUR, after=(layers.Activation("softmax"),)), "softmax"),
        (lambda: with_activation("softmax"), "softmax"),
        (lambda: nested(with_activation("softmax")), "softmax"),
        (lambda: network(COLOUR, after=(layers.Softmax(), layers.Reshape((4,)))), "softmax"),
        (lambda: network(COLOUR, after=(layers.Softmax(), layers.Dropout(0.5))), "softmax"),
        (lambda: with_activation("sigmoid"), "sigmoid"),
        (lambda: network(COLOUR, after=(layers.Activation("sigmoid"),)), "sigmoid"),
    ],
)
def test_the_logits_before_a_softmax_or_sigmoid_are_exact(make: Callable[[], Any], ends: str) -> None:
    made, images = make(), images_of(COLOUR)
    classifier = classifier_of(made, COLOUR, "own")
    assert classifier.ends == ends and f"its {ends} is left out" in classifier.remarks[0]
    logits = classifier.logits(tf.constant(images))
    assert np.abs(logits).max() > 5  # not probabilities
    again = (tf.nn.softmax if ends == "softmax" else tf.nn.sigmoid)(logits)
    np.testing.assert_array_equal(again, made(images, training=False))
    assert classifier.has_gradient


def test_logits_and_log_probabilities_stay_as_they_are() -> None:
    images = images_of(COLOUR)
    for made, ends in ((network(COLOUR), "logits"), (with_activation("log_softmax"), "log-softmax")):
        classifier = classifier_of(made, COLOUR, "own")
        np.testing.assert_array_equal(classifier.logits(tf.constant(images)), made(images))
        assert classifier.ends == ends and classifier.remarks == []
    hidden = network(COLOUR, layers.Softmax(), after=(layers.Dense(3, name="end"),))  # a softmax that is not the end
    np.testing.assert_array_equal(classifier_of(hidden, COLOUR, "own").logits(tf.constant(images)), hidden(images))


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_unit_is_two_classes(activation: str | None) -> None:
    made = network(COLOUR, units=1, after=(layers.Activation(activation),) if activation else ())
    images = images_of(COLOUR)
    classifier = classifier_of(made, COLOUR, "own")
    expected = np.concatenate([np.zeros((7, 1)), logits_of(made, images)], axis=1)
    is_the_same(classifier, images, expected)
    assert classifier.number_of_classes == 2
    assert any("(0, z)" in remark for remark in classifier.remarks)
    if activation:
        np.testing.assert_array_equal(classifier.predict(images), made(images).numpy()[:, 0] > 0.5)


def test_a_score_map_of_one_pixel_is_a_row_of_scores() -> None:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input(COLOUR), layers.Conv2D(4, (6, 5)), layers.Softmax()])
    classifier = classifier_of(made, COLOUR, "own")
    images = images_of(COLOUR)
    np.testing.assert_allclose(tf.nn.softmax(classifier.logits(tf.constant(images))), made(images)[:, 0, 0], atol=1e-6)


def several(form: type) -> Any:
    images = keras.Input(COLOUR)
    first, second = layers.Flatten(name="features")(images), None
    second = layers.Softmax(name="probabilities")(layers.Dense(4, name="scores")(first))
    made = {"features": first, "probabilities": second} if form is dict else [first, second]
    return keras.Model(images, made)


@pytest.mark.parametrize("form", [dict, list])
def test_one_of_several_outputs_is_chosen_by_name_or_number(form: type) -> None:
    made, images = several(form), images_of(COLOUR)
    with pytest.raises(AdvGANError, match=r"^own has 2 outputs \(.*\); name the one .* target\.output="):
        classifier_of(made, COLOUR, "own")
    with pytest.raises(AdvGANError, match=r"^own has 2 outputs \(.*\), and none is digit; give target\.output as a"):
        classifier_of(made, COLOUR, "own", output="digit")
    answered = made(images)
    expected = answered["probabilities"] if form is dict else answered[1]
    for chosen in ("1", *made.output_names[1:]):
        classifier = classifier_of(made, COLOUR, "own", output=chosen)
        np.testing.assert_array_equal(tf.nn.softmax(classifier.logits(tf.constant(images))), expected)


# --- What goes in ------------------------------------------------------------------------------------------------


def test_the_channel_axis_may_be_missing_and_images_may_be_flat() -> None:
    images = images_of(GREY)
    for made, words in (
        (network((6, 5)), "without the channel axis"),
        (network((30,)), "flat"),
        (network((1, 6, 5)), "channels first"),
    ):
        classifier = classifier_of(made, GREY, "own")
        is_the_same(classifier, images, logits_of(made, images))
        assert words in classifier.remarks[0]


def test_channels_may_come_first_and_flat_images_have_theirs_last() -> None:
    images = images_of(COLOUR)
    first = network((3, 6, 5))
    is_the_same(classifier_of(first, COLOUR, "own"), images, logits_of(first, images.transpose(0, 3, 1, 2)))
    flat = network((90,))
    is_the_same(classifier_of(flat, COLOUR, "own"), images, logits_of(flat, images))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_size_takes_any_number_of_images(batch: int) -> None:
    inputs = keras.Input(batch_shape=(batch, *COLOUR))
    made = keras.Model(inputs, layers.Softmax()(layers.Dense(4, name="dense")(layers.Flatten()(inputs))))
    images = images_of(COLOUR)
    classifier = classifier_of(made, COLOUR, "own")
    is_the_same(classifier, images, logits_of(made, images))
    for count in (1, 3, 6):
        assert classifier.logits(tf.constant(images[:count])).shape == (count, 4)
    assert classifier.predict(images[:0]).shape == (0,)


def test_whole_numbers_go_in_rounded_with_a_gradient() -> None:
    made = network(COLOUR, layers.Rescaling(1 / 255), dtype="uint8")
    images = images_of(COLOUR)
    classifier = classifier_of(made, COLOUR, "own", pixels=Pixels((0.0, 255.0)))
    np.testing.assert_allclose(
        classifier.logits(tf.constant(images)), made(np.rint(images * 255).astype(np.uint8)), atol=1e-5
    )
    assert classifier.has_gradient


def test_a_classifier_without_a_size_of_its_own_takes_any() -> None:
    keras.utils.set_random_seed(0)
    pooled = [layers.Conv2D(5, 3), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    made = keras.Sequential([keras.Input((None, None, 3)), *pooled])
    for shape in ((6, 5, 3), (11, 9, 3)):
        images = images_of(shape)
        np.testing.assert_array_equal(classifier_of(made, shape, "own").logits(tf.constant(images)), made(images))


@pytest.mark.parametrize("shape", [(6, 6, 3), (5, 6, 3), (6, 5), (6, 5, 1), (91,), (90, 1)])
def test_other_images_are_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(AdvGANError, match=r"^own takes images of \(.*\), the run's are \(6, 5, 3\); give a classifier"):
        classifier_of(network(shape), COLOUR, "own")


def test_two_inputs_are_one_line() -> None:
    images, more = keras.Input(COLOUR, name="image"), keras.Input((3,), name="meta")
    made = keras.Model([images, more], layers.Concatenate()([layers.Flatten()(images), more]))
    with pytest.raises(AdvGANError, match=r"own has 2 inputs \(image \(6, 5, 3\), meta \(3,\)\); .*wrap it in a model"):
        classifier_of(made, COLOUR, "own")


def test_pixels_are_scaled_by_bounds_mean_and_std_of_each_channel() -> None:
    images, made = images_of(COLOUR), network(COLOUR)
    mean, std = np.array([120, 110, 100], np.float32), np.array([60, 50, 40], np.float32)
    classifier = classifier_of(made, COLOUR, "own", pixels=Pixels((0.0, 255.0), tuple(mean), tuple(std)))
    is_the_same(classifier, images, logits_of(made, (255 * images - mean) / std))
    for given in (Pixels(mean=(0.5, 0.5)), Pixels(std=(0.5, 0.5))):
        with pytest.raises(AdvGANError, match=r"target\.(mean|std) has 2 values, the images have 3 channels"):
            classifier_of(made, COLOUR, "own", pixels=given)


def test_the_adapted_classifier_is_a_keras_model_for_other_libraries() -> None:
    images, made = images_of(GREY), network((6, 5), after=(layers.Softmax(),))
    classifier = classifier_of(made, GREY, "own", pixels=Pixels((-1.0, 1.0)))
    np.testing.assert_array_equal(classifier.model(images), classifier.logits(tf.constant(images)))
    assert classifier.model.output_shape == (None, 4)
    plain = network(GREY)
    assert classifier_of(plain, GREY, "own").model is plain


# --- SavedModels and functions -----------------------------------------------------------------------------------


def test_a_saved_model_is_one_graph_whose_logits_are_found(tmp_path: Path) -> None:
    images, made = images_of(GREY), network((6, 5), after=(layers.Softmax(),))
    tf.saved_model.save(made, str(tmp_path / "saved"))
    made.export(str(tmp_path / "exported"))
    for folder in ("saved", "exported"):
        classifier = load_classifier(tmp_path / folder, GREY)
        is_the_same(classifier, images, logits_of(made, images))
        assert classifier.ends == "softmax" and "channel axis" in classifier.remarks[0]
        assert classifier.inputs and classifier.outputs


def test_a_saved_model_of_a_module_without_signatures_is_called(tmp_path: Path) -> None:
    class Own(tf.Module):
        def __init__(self) -> None:
            self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, *COLOUR])])
        def __call__(self, images: Any) -> Any:
            return tf.nn.softmax(tf.reshape(images, [-1, 90]) @ self.kernel)

    own, images = Own(), images_of(COLOUR)
    tf.saved_model.save(own, str(tmp_path / "own"))
    classifier = load_classifier(tmp_path / "own", COLOUR)
    is_the_same(classifier, images, images.reshape(-1, 90) @ own.kernel.numpy())
    assert classifier.ends == "softmax"


def test_a_saved_model_of_whole_numbers_and_one_batch_size(tmp_path: Path) -> None:
    made = network(COLOUR, layers.Rescaling(1 / 255))

    @tf.function(input_signature=[tf.TensorSpec([2, *COLOUR], tf.uint8)])
    def serve(images: Any) -> Any:
        return {"scores": made(tf.cast(images, tf.float32)), "index": tf.argmax(made(tf.cast(images, tf.float32)), 1)}

    module = tf.Module()
    module.made = made
    tf.saved_model.save(module, str(tmp_path / "own"), signatures=serve)
    with pytest.raises(AdvGANError, match=r"has 2 outputs \(index \(\), scores \(4,\)\); name the one"):
        load_classifier(tmp_path / "own", COLOUR)
    settings = TargetSettings(bounds=(0, 255), output="scores")
    classifier = load_classifier(tmp_path / "own", COLOUR, settings)
    images = images_of(COLOUR)
    np.testing.assert_allclose(classifier.logits(tf.constant(images)), made(np.rint(255 * images)), atol=1e-4)
    assert not classifier.has_gradient  # whole numbers go into a graph, which has none


FUNCTIONS = """
import numpy as np
import tensorflow as tf
kernel = np.load("kernel.npy")
def softmax(images):
    return tf.nn.softmax(tf.reshape(images, [-1, 90]) @ kernel)
@tf.function
def compiled(images):
    return softmax(images)
def in_numpy(images):
    scores = np.reshape(images, [-1, 90]) @ kernel
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
def through_numpy(images):
    return tf.nn.softmax(tf.numpy_function(lambda x: x.reshape(-1, 90) @ kernel, [images], tf.float32))
calls = []
def noisy(images):
    calls.append(np.random.normal())
    return tf.nn.softmax(tf.reshape(images, [-1, 90]) @ kernel + calls[-1] * np.eye(4, dtype=np.float32)[0])
def model():
    dense = tf.keras.layers.Dense(4, "softmax", use_bias=False)
    made = tf.keras.Sequential([tf.keras.Input((6, 5, 3)), tf.keras.layers.Flatten(), dense])
    dense.set_weights([kernel])
    return made
def nothing():
    return 3
def broken(images):
    raise RuntimeError("no such luck")
"""


def test_functions_and_what_they_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(tmp_path))}"
    Path(f"{name}.py").write_text(FUNCTIONS)
    kernel = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    np.save("kernel.npy", kernel)
    images = images_of(COLOUR)
    expected = images.reshape(-1, 90) @ kernel
    for function in ("softmax", "compiled", "model"):
        classifier = load_classifier(f"{name}:{function}", COLOUR)
        is_the_same(classifier, images, expected)
        assert classifier.ends == "softmax"
    probabilities = tf.nn.softmax(expected)
    for function in ("in_numpy", "through_numpy"):  # what leaves TensorFlow stays as it is
        classifier = load_classifier(f"{name}:{function}", COLOUR)
        np.testing.assert_allclose(classifier.logits(tf.constant(images)), probabilities, atol=1e-5)
        assert not classifier.has_gradient
    noisy = load_classifier(f"{name}:noisy", COLOUR)  # its graph would repeat one draw, so it is not used
    assert np.abs(noisy.logits(tf.constant(images)) - noisy.logits(tf.constant(images))).max() > 1e-4
    for function, message in (
        ("nothing", "returns int; it should take images, or return a Keras model"),
        ("broken", r"fails on images of \(6, 5, 3\) \(no such luck\)"),
        ("absent", "has no function absent"),
    ):
        with pytest.raises(AdvGANError, match=rf"^{name}:{function}:? .*{message}"):
            load_classifier(f"{name}:{function}", COLOUR)
