"""The epsilon ball, the pixel box and the 8-bit rounding hold, in float64 and in whole levels."""

import numpy as np
import pytest
import tensorflow as tf

from advgan.perturbation import FLOAT_TOLERANCE, measure, perturb, to_8_bits

pytestmark = pytest.mark.addons
EPSILONS = [0.01, 8 / 255, 0.1, 0.2, 0.3, 0.5, 1.0]
LEVELS = {0.3: 76, 8 / 255: 8, 0.1: 25, 0.01: 2, 4 / 255: 4, 1 / 255: 1, 77 / 255: 77, 0.001: 0, 1.0: 255}
"""The largest whole number of levels in epsilon, by hand: 0.3 is 76.5 levels, 0.1 is 25.5, 0.01 is 2.55."""


def images_and_outputs(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """All corners of the box and of the ball, all 256 levels, and values between."""
    random = np.random.default_rng(0)
    images = random.random((count, 16, 16, 1), np.float32)
    images[0] = (np.arange(256) / 255).reshape(16, 16, 1)
    images[1] = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16, 1)
    images[2], images[3] = 0.0, 1.0
    outputs = random.uniform(-1, 1, images.shape).astype(np.float32)
    outputs[:, ::3], outputs[:, 1::3] = 1.0, -1.0
    return images, outputs


@pytest.mark.parametrize("form", ["tanh", "clipped"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_float32_adversarial_images_stay_in_the_ball_and_in_the_box(epsilon: float, form: str) -> None:
    images, outputs = images_and_outputs()
    p, adversarial = perturb(tf.constant(images), tf.constant(outputs), epsilon, form)
    assert p.dtype == adversarial.dtype == tf.float32
    assert FLOAT_TOLERANCE == 1e-6
    distance = np.abs(adversarial.numpy().astype(np.float64) - images.astype(np.float64))
    assert distance.max() <= epsilon + 1e-6
    assert distance.max() >= epsilon - 1e-6  # the ball is used up to its edge
    assert adversarial.numpy().min() >= 0 and adversarial.numpy().max() <= 1


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_tanh_form_scales_the_output(epsilon: float) -> None:
    images, outputs = (array.astype(np.float64) for array in images_and_outputs())
    p, adversarial = perturb(tf.constant(images), tf.constant(outputs), epsilon)
    np.testing.assert_allclose(p, epsilon * outputs, rtol=1e-15)
    np.testing.assert_allclose(adversarial, np.minimum(np.maximum(images + epsilon * outputs, 0), 1), rtol=1e-15)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_clipped_form_cuts_the_output(epsilon: float) -> None:
    images, outputs = (array.astype(np.float64) for array in images_and_outputs())
    p, adversarial = perturb(tf.constant(images), tf.constant(outputs), epsilon, "clipped")
    cut = np.minimum(np.maximum(outputs, -epsilon), epsilon)
    np.testing.assert_allclose(p, cut, rtol=1e-15)
    np.testing.assert_allclose(adversarial, np.minimum(np.maximum(images + cut, 0), 1), rtol=1e-15)


def test_the_perturbation_is_returned_as_it_was_before_the_pixel_box() -> None:
    white, up = tf.ones([1, 2, 2, 1]), tf.ones([1, 2, 2, 1])
    p, adversarial = perturb(white, up, 0.25)
    assert np.all(p.numpy() == 0.25)
    assert np.all(adversarial.numpy() == 1)


@pytest.mark.parametrize("form", ["tanh", "clipped"])
def test_epsilon_zero_changes_nothing(form: str) -> None:
    images, outputs = images_and_outputs()
    p, adversarial = perturb(tf.constant(images), tf.constant(outputs), 0.0, form)
    assert not p.numpy().any()
    np.testing.assert_array_equal(adversarial, images)


def test_the_gradient_reaches_the_output_except_through_the_box() -> None:
    images = tf.constant([0.5, 1.0, 1.0, 0.0], tf.float64)
    outputs = tf.constant([0.5, 0.5, -0.5, -0.5], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        _, adversarial = perturb(images, outputs, 0.2)
    np.testing.assert_allclose(tape.gradient(adversarial, outputs), [0.2, 0.0, 0.2, 0.0])


@pytest.mark.parametrize(("epsilon", "levels"), LEVELS.items())
def test_every_pair_of_clean_and_adversarial_levels(epsilon: float, levels: int) -> None:
    clean, adversarial = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    result = to_8_bits(clean / 255, adversarial / 255, epsilon)
    assert result.dtype == np.uint8
    expected = [[min(max(there, here - levels, 0), here + levels, 255) for there in range(256)] for here in range(256)]
    np.testing.assert_array_equal(result, expected)
    assert np.abs(result.astype(int) - clean).max() == levels


@pytest.mark.parametrize("epsilon", [0.3, 8 / 255, 0.1])
def test_an_attack_at_the_edge_of_the_ball_moves_each_clean_level_by_the_whole_levels_of_epsilon(
    epsilon: float,
) -> None:
    clean = np.arange(256, dtype=np.float32) / np.float32(255)
    for sign in (-1.0, 1.0):
        _, adversarial = perturb(tf.constant(clean), tf.fill([256], np.float32(sign)), epsilon)
        moved = to_8_bits(clean, adversarial.numpy(), epsilon).astype(int) - np.arange(256)
        inside = (np.arange(256) + sign * LEVELS[epsilon] >= 0) & (np.arange(256) + sign * LEVELS[epsilon] <= 255)
        assert np.all(moved[inside] == sign * LEVELS[epsilon])
        assert np.abs(moved).max() == LEVELS[epsilon]


@pytest.mark.parametrize("epsilon", list(LEVELS))
def test_clean_images_between_levels_are_held_to_the_nearest_level(epsilon: float) -> None:
    random = np.random.default_rng(2)
    clean = random.random(20_000)
    adversarial = np.clip(clean + random.uniform(-1.2, 1.2, clean.shape) * epsilon, 0, 1)
    result = to_8_bits(clean, adversarial, epsilon).astype(int)
    nearest = np.array([int(np.abs(np.arange(256) - 255 * pixel).argmin()) for pixel in clean[:2000]])
    assert np.abs(result[:2000] - nearest).max() <= LEVELS[epsilon]
    free = np.abs(np.floor(255 * adversarial[:2000] + 0.5) - nearest) <= LEVELS[epsilon]
    np.testing.assert_array_equal(result[:2000][free], np.floor(255 * adversarial[:2000] + 0.5)[free])
    assert np.abs(result / 255 - clean).max() <= (LEVELS[epsilon] + 0.5) / 255 + 1e-12
    np.testing.assert_array_equal(to_8_bits(clean, result / 255, epsilon), result)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epsilon", [0.3, 8 / 255])
def test_rounding_to_8_bits_twice_changes_nothing(epsilon: float, dtype: type) -> None:
    images, outputs = images_and_outputs()
    _, adversarial = perturb(tf.constant(images), tf.constant(outputs), epsilon)
    once = to_8_bits(images, adversarial.numpy(), epsilon)
    assert once.shape == images.shape
    assert len(np.unique(once)) == 256
    np.testing.assert_array_equal(to_8_bits(images, once.astype(dtype) / dtype(255), epsilon), once)


def test_norms_are_measured_image_by_image_in_float64() -> None:
    images, outputs = images_and_outputs()
    adversarial = np.clip(images + np.float32(0.3) * outputs, 0, 1)
    norms = measure(images, adversarial)
    assert norms.linf.dtype == norms.l2.dtype == np.float64
    assert norms.linf.shape == norms.l2.shape == (40,)
    for i in range(40):
        difference = [float(a) - float(b) for a, b in zip(adversarial[i].flat, images[i].flat, strict=True)]
        assert norms.linf[i] == max(map(abs, difference))
        assert norms.l2[i] == pytest.approx(sum(d * d for d in difference) ** 0.5, rel=1e-12)


def test_float32_excess_over_epsilon_is_seen_not_rounded_away() -> None:
    clean, adversarial = np.zeros((1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1), 0.3, np.float32)
    assert measure(clean, adversarial).linf[0] == float(np.float32(0.3)) > 0.3


def test_norms_of_worked_examples() -> None:
    clean = np.zeros((3, 2, 2, 1))
    adversarial = clean.copy()
    adversarial[0, 0, 0, 0], adversarial[0, 1, 1, 0] = 0.3, -0.4
    adversarial[1] = 0.5
    norms = measure(clean, adversarial)
    np.testing.assert_allclose(norms.linf, [0.4, 0.5, 0.0])
    np.testing.assert_allclose(norms.l2, [0.5, 1.0, 0.0])


def test_norms_of_colour_images_count_each_channel_for_itself() -> None:
    clean = np.full((3, 4, 5, 3), 0.5)
    changed = clean.copy()
    changed[1, 2, 3] += [0.3, -0.4, 0.0]
    changed[2] -= 0.25
    found = measure(clean, changed)
    np.testing.assert_allclose(found.linf, [0, 0.4, 0.25], atol=1e-12)
    np.testing.assert_allclose(found.l2, [0, 0.5, 0.25 * np.sqrt(60)], atol=1e-12)
    assert found.l0.tolist() == [0, 2, 60]
