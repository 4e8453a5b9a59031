"""The losses against NumPy in float64, values and gradients, and the training step that puts them together."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.architectures import build_classifier
from advgan.config.settings import (
    AttackSettings,
    DataSettings,
    DiscriminatorSettings,
    GeneratorSettings,
    LossSettings,
    TargetSettings,
)
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.goals import Goal, Targeted, Untargeted
from advgan.losses import (
    adversarial_loss,
    discriminator_loss,
    distillation_loss,
    falling_temperature,
    gan_loss,
    hinge_loss,
    margin,
)
from advgan.networks.discriminator import build_discriminator
from advgan.networks.generator import build_generator
from advgan.training.distillation import distillation_step
from advgan.training.step import Networks, Optimizers, StepSettings, training_step

pytestmark = pytest.mark.addons
keras = tf.keras
GOALS: list[Goal] = [Untargeted(), Targeted(0), Targeted(3)]
MNIST = (28, 28, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def reference_adversarial_loss(
    logits: np.ndarray, labels: np.ndarray, target: int | None, kappa: float, form: str
) -> float:
    scores = logits if form == "f6" else softmax(logits)
    terms = []
    for row, label in zip(scores, labels, strict=True):
        if target is None:
            difference = row[label] - max(score for i, score in enumerate(row) if i != label)
        else:
            difference = max(score for i, score in enumerate(row) if i != target) - row[target]
        terms.append(max(difference, -kappa))
    return float(np.mean(terms))


def reference_hinge_loss(perturbation: np.ndarray, c: float) -> float:
    return float(np.mean([max(0.0, float(np.linalg.norm(p.ravel())) - c) for p in perturbation]))


def central_differences(function: Callable[[np.ndarray], float], at: np.ndarray, width: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = width
        gradient[index] = (function(at + step) - function(at - step)) / (2 * width)
    return gradient


def value_and_gradient(function: Callable[[tf.Tensor], tf.Tensor], at: np.ndarray) -> tuple[float, np.ndarray]:
    point = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = function(point)
    assert value.shape == ()
    assert value.dtype == point.dtype
    return float(value), tape.gradient(value, point).numpy()


def some_logits(count: int = 24, classes: int = 5, scale: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    return random.normal(scale=scale, size=(count, classes)), random.integers(classes, size=count, dtype=np.int32)


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize(("form", "kappa"), [("f6", 0.0), ("f6", 2.5), ("f6", 5.0), ("f2", 0.0), ("f2", 0.4)])
def test_adversarial_loss_and_its_gradient_are_those_of_the_definition(goal: Goal, form: str, kappa: float) -> None:
    logits, labels = some_logits()
    target = goal.target_class if isinstance(goal, Targeted) else None

    def reference(at: np.ndarray) -> float:
        return reference_adversarial_loss(at, labels, target, kappa, form)

    value, gradient = value_and_gradient(
        lambda at: adversarial_loss(at, tf.constant(labels), goal, kappa, form), logits
    )
    assert value == pytest.approx(reference(logits), rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(gradient, central_differences(reference, logits), atol=1e-8)
    active = np.abs(gradient).max(axis=1) > 0
    assert active.any() and not active.all()  # both sides of the clip are in this batch


@pytest.mark.parametrize(
    ("logits", "kappa", "expected"),
    [
        ([[2.0, 5.0, 1.0]], 0.0, 3.0),  # still class 1 by 3
        ([[2.0, 5.0, 1.0]], 5.0, 3.0),  # max(margin, kappa) would say 5
        ([[2.0, -5.0, 1.0]], 0.0, 0.0),  # fooled by 7: nothing left to gain
        ([[2.0, -5.0, 1.0]], 5.0, -5.0),  # clipped at -kappa
        ([[2.0, -1.0, 1.0]], 5.0, -3.0),  # fooled, not yet by kappa
        ([[2.0, 5.0, 1.0], [2.0, -5.0, 1.0]], 0.0, 1.5),  # the mean of clipped margins, not the clipped mean
    ],
)
def test_untargeted_loss_on_worked_examples(logits: list[list[float]], kappa: float, expected: float) -> None:
    labels = tf.ones([len(logits)], tf.int32)
    assert float(adversarial_loss(tf.constant(logits), labels, Untargeted(), kappa)) == expected


@pytest.mark.parametrize(
    ("logits", "kappa", "expected"),
    [
        ([[2.0, 5.0, 1.0]], 0.0, 4.0),  # class 2 trails by 4
        ([[2.0, 5.0, 1.0]], 5.0, 4.0),
        ([[2.0, 5.0, 9.0]], 0.0, 0.0),  # reached
        ([[2.0, 5.0, 9.0]], 5.0, -4.0),
        ([[2.0, 5.0, 19.0]], 5.0, -5.0),
        ([[2.0, 5.0, 1.0], [2.0, 5.0, 19.0]], 0.0, 2.0),
    ],
)
def test_targeted_loss_on_worked_examples(logits: list[list[float]], kappa: float, expected: float) -> None:
    labels = tf.ones([len(logits)], tf.int32)
    assert float(adversarial_loss(tf.constant(logits), labels, Targeted(2), kappa)) == expected


def test_f2_is_a_difference_of_probabilities_and_f6_of_logits() -> None:
    probabilities = np.array([[0.2, 0.7, 0.1]])
    logits, labels = tf.constant(np.log(probabilities) + 11.0), tf.constant([1])
    assert float(adversarial_loss(logits, labels, Untargeted(), 0.0, "f2")) == pytest.approx(0.5)
    assert float(adversarial_loss(logits, labels, Untargeted(), 0.0, "f6")) == pytest.approx(np.log(0.7 / 0.2))
    assert float(adversarial_loss(logits, labels, Targeted(2), 0.0, "f2")) == pytest.approx(0.6)
    assert float(adversarial_loss(logits, labels, Targeted(0), 0.0)) == pytest.approx(
        np.log(0.7 / 0.2)
    )  # f6 by default


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize("temperature", [0.3, 2.0, 10.0])
def test_a_temperature_softens_the_maximum_over_the_other_classes(goal: Goal, temperature: float) -> None:
    logits, labels = some_logits()
    kappa = 1.0

    def reference(at: np.ndarray) -> float:
        terms = []
        for row, label in zip(at, labels, strict=True):
            k = goal.target_class if isinstance(goal, Targeted) else label
            others = np.delete(row, k)
            difference = temperature * np.log(np.mean(np.exp(others / temperature))) - row[k]
            terms.append(max(difference if isinstance(goal, Targeted) else -difference, -kappa))
        return float(np.mean(terms))

    value, gradient = value_and_gradient(
        lambda at: adversarial_loss(at, tf.constant(labels), goal, kappa, temperature=tf.constant(temperature)), logits
    )
    assert value == pytest.approx(reference(logits), rel=1e-6)
    np.testing.assert_allclose(gradient, central_differences(reference, logits), atol=1e-6)


@pytest.mark.parametrize("magnitude", [1.0, 1e4])
def test_a_temperature_of_0_is_the_maximum_itself_gradient_included(magnitude: float) -> None:
    logits, labels = some_logits()
    logits = (logits * magnitude).astype(np.float32)
    for temperature in (0.0, tf.constant(0.0)):
        value, gradient = value_and_gradient(
            lambda at, now=temperature: tf.reduce_sum(margin(at, tf.constant(labels), now)), logits
        )
        expected = [np.delete(row, label).max() - row[label] for row, label in zip(logits, labels, strict=True)]
        assert value == pytest.approx(np.sum(expected, dtype=np.float64), rel=1e-5)
        assert set(np.unique(gradient)) == {-1.0, 0.0, 1.0}


def test_the_temperature_falls_to_0_by_its_share_of_the_run() -> None:
    at = [float(falling_temperature(10.0, 0.5, tf.constant(step), 100)) for step in (1, 26, 51, 52, 100)]
    assert at == pytest.approx([10.0, 5.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_f6_gradient_moves_exactly_two_logits_of_an_image_or_none(goal: Goal) -> None:
    logits, labels = some_logits()
    count, kappa = len(labels), 1.0
    expected = np.zeros_like(logits)
    for i, label in enumerate(labels):
        pushed = goal.target_class if isinstance(goal, Targeted) else label
        others = np.where(np.arange(logits.shape[1]) == pushed, -np.inf, logits[i])
        best = int(others.argmax())
        sign = 1.0 if isinstance(goal, Targeted) else -1.0
        if sign * (logits[i, best] - logits[i, pushed]) > -kappa:
            expected[i, best], expected[i, pushed] = sign / count, -sign / count
    _, gradient = value_and_gradient(lambda at: adversarial_loss(at, tf.constant(labels), goal, kappa), logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-15)


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize("form", ["f6", "f2"])
def test_a_gradient_descent_step_on_the_loss_brings_the_goal_nearer(goal: Goal, form: str) -> None:
    logits, labels = some_logits(scale=1.0)
    target = goal.target_class if isinstance(goal, Targeted) else None
    _, gradient = value_and_gradient(lambda at: adversarial_loss(at, tf.constant(labels), goal, 0.0, form), logits)

    def share(at: np.ndarray) -> float:
        answers = at.argmax(axis=1)
        return float(np.mean(answers != labels if target is None else answers == target))

    assert share(logits - 40 * len(labels) * gradient) > share(logits)
    assert share(logits + 40 * len(labels) * gradient) <= share(logits)


@pytest.mark.parametrize("form", ["f6", "f2"])
@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_confident_float32_logits_give_finite_losses_and_gradients(goal: Goal, form: str) -> None:
    logits, labels = some_logits(scale=1e4)
    value, gradient = value_and_gradient(
        lambda at: adversarial_loss(at, tf.constant(labels), goal, 0.0, form), logits.astype(np.float32)
    )
    target = goal.target_class if isinstance(goal, Targeted) else None
    assert value == pytest.approx(reference_adversarial_loss(logits, labels, target, 0.0, form), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_labels_may_be_numpy_or_tensorflow_integers(dtype: type) -> None:
    logits, labels = some_logits()
    labels = labels.astype(dtype)
    expected = reference_adversarial_loss(logits, labels, None, 0.0, "f6")
    assert float(adversarial_loss(tf.constant(logits), labels, Untargeted(), 0.0)) == pytest.approx(expected)
    assert float(adversarial_loss(tf.constant(logits), tf.constant(labels), Untargeted(), 0.0)) == pytest.approx(
        expected
    )


def test_discriminator_loss_and_its_gradients() -> None:
    random = np.random.default_rng(3)
    on_real, on_fake = random.normal(size=(6, 1)), random.normal(size=(6, 1))
    expected = 0.5 * np.mean((on_real - 1) ** 2) + 0.5 * np.mean(on_fake**2)
    value, gradient = value_and_gradient(lambda at: discriminator_loss(at, tf.constant(on_fake)), on_real)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, (on_real - 1) / 6, rtol=1e-13)
    value, gradient = value_and_gradient(lambda at: discriminator_loss(tf.constant(on_real), at), on_fake)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, on_fake / 6, rtol=1e-13)


def test_gan_loss_and_its_gradient() -> None:
    on_fake = np.random.default_rng(4).normal(size=(6, 1))
    value, gradient = value_and_gradient(gan_loss, on_fake)
    assert value == pytest.approx(0.5 * np.mean((on_fake - 1) ** 2), rel=1e-14)
    np.testing.assert_allclose(gradient, (on_fake - 1) / 6, rtol=1e-13)


def test_least_squares_losses_at_their_landmarks() -> None:
    ones, zeros, halves = tf.ones([4, 1]), tf.zeros([4, 1]), tf.fill([4, 1], 0.5)
    assert float(discriminator_loss(ones, zeros)) == 0.0  # D has won
    assert float(discriminator_loss(zeros, ones)) == 1.0
    assert float(discriminator_loss(halves, halves)) == 0.25  # D cannot tell
    assert (float(gan_loss(ones)), float(gan_loss(zeros)), float(gan_loss(halves))) == (0.0, 0.5, 0.125)


@pytest.mark.parametrize("c", [0.0, 0.6, 100.0])
def test_hinge_loss_and_its_gradient(c: float) -> None:
    random = np.random.default_rng(5)
    perturbation = random.normal(size=(5, 4, 3, 2)) * np.array([0.02, 0.05, 0.2, 0.5, 1.0]).reshape(5, 1, 1, 1)
    norms = np.sqrt((perturbation**2).sum(axis=(1, 2, 3)))
    value, gradient = value_and_gradient(lambda at: hinge_loss(at, c), perturbation)
    assert value == pytest.approx(reference_hinge_loss(perturbation, c), rel=1e-12)
    expected = perturbation / norms.reshape(5, 1, 1, 1) * (norms > c).reshape(5, 1, 1, 1) / 5
    np.testing.assert_allclose(gradient, expected, atol=1e-14)
    if c == 0.6:
        assert set(norms > c) == {True, False}


def test_hinge_is_on_the_norm_of_an_image_not_of_a_pixel_a_channel_or_the_batch() -> None:
    perturbation = tf.constant(np.full((2, 2, 2, 3), 0.5))  # norm of each image: sqrt(12 * 0.25)
    assert float(hinge_loss(perturbation, 1.0)) == pytest.approx(np.sqrt(3) - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [0.0, 3.0])
def test_hinge_gradient_at_zero_perturbation_is_zero_even_beside_others(dtype: type, c: float) -> None:
    perturbation = np.zeros((3, 28, 28, 1), dtype)
    perturbation[1] = 0.3
    value, gradient = value_and_gradient(lambda at: hinge_loss(at, c), perturbation)
    assert value == pytest.approx((0.3 * 28 - c) / 3, rel=1e-6)
    assert np.all(gradient[[0, 2]] == 0)
    np.testing.assert_allclose(gradient[1], 1 / 28 / 3, rtol=1e-5)


def test_distillation_loss_and_its_gradient() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4, 5))
    answers = softmax(random.normal(0, 2, (4, 5)))
    answers[3] = np.eye(5)[2]  # a label
    value, gradient = value_and_gradient(lambda at: distillation_loss(at, tf.constant(answers)), logits)
    assert value == pytest.approx(-(answers * np.log(softmax(logits))).sum() / 4, rel=1e-12)
    keras_value = keras.losses.CategoricalCrossentropy(from_logits=True)(answers, logits)
    assert value == pytest.approx(float(keras_value), rel=1e-6)
    np.testing.assert_allclose(gradient, (softmax(logits) - answers) / 4, atol=1e-12)


@pytest.mark.parametrize(("terms", "shift"), [(1, 0.0), (2, 0.0), (2, 0.25)])
def test_a_distillation_step_descends_on_the_sum_of_its_terms(terms: int, shift: float) -> None:
    random = np.random.default_rng(0)
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    matrix, bias = (weights.astype(np.float64) for weights in network.get_weights())
    batches, expected = [], 0.0
    for count in (6, 3)[:terms]:
        images, answers = random.random((count, 2, 2, 1), np.float32), softmax(random.normal(0, 1, (count, 3)))
        batches.append((tf.constant(images), tf.constant(answers, tf.float32)))
        images += shift if count == 6 else 0  # what is learned in the place of the clean images
        difference = (softmax(images.reshape(-1, 4) @ matrix + bias) - answers) / count
        expected = expected + images.reshape(-1, 4).T @ difference
    changed = (lambda images, _: images + shift) if shift else None
    distillation_step(network, plain_descent(network, 0.5), batches, changed)
    np.testing.assert_allclose(matrix - network.get_weights()[0], 0.5 * expected, atol=1e-6)


@pytest.mark.parametrize("times", [2, 5])
def test_a_repeated_batch_has_the_same_losses_and_a_gradient_shared_among_its_copies(times: int) -> None:
    random = np.random.default_rng(6)
    logits, labels = some_logits(count=8)
    scores = random.normal(size=(8, 1))
    perturbation = random.normal(size=(8, 3, 3, 1))
    cases: list[tuple[Callable[[tf.Tensor], tf.Tensor], np.ndarray]] = [
        (lambda at: adversarial_loss(at, np.resize(labels, len(at)), Untargeted(), 5.0), logits),
        (lambda at: adversarial_loss(at, np.resize(labels, len(at)), Targeted(2), 0.3, "f2"), logits),
        (lambda at: discriminator_loss(at, at + 0.25), scores),
        (gan_loss, scores),
        (lambda at: hinge_loss(at, 2.0), perturbation),
    ]
    for loss, once in cases:
        value, gradient = value_and_gradient(loss, once)
        repeated_value, repeated_gradient = value_and_gradient(loss, np.concatenate([once] * times))
        assert value != 0
        assert repeated_value == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(repeated_gradient * times, np.concatenate([gradient] * times), rtol=1e-12)


def tiny_networks() -> Networks:
    keras.utils.set_random_seed(11)
    generator = build_generator(MNIST, GeneratorSettings(widths=(4, 8), residual_blocks=1))
    discriminator = build_discriminator(MNIST, DiscriminatorSettings(widths=(4, 8)))
    # Dropout and batch normalization both show a target that is not in inference mode.
    target = build_classifier(MNIST, 10, TargetSettings(architecture="model_c", batch_normalization=True))
    target.trainable = False
    return Networks(generator, discriminator, target)


def eight_digits() -> tuple[tf.Tensor, tf.Tensor]:
    test = load_dataset(DataSettings()).test.first(8)
    return tf.constant(scaled(test.images)), tf.constant(test.labels)


def plain_descent(network: keras.Model, rate: float) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(network.trainable_variables)
    return optimizer


def descend(network: keras.Model, rate: float, loss: Callable[[], tf.Tensor]) -> float:
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(value, network.trainable_variables), strict=True
    ):
        variable.assign(variable - rate * gradient)
    return float(value)


def test_the_step_softens_the_maximum_at_first_and_not_when_the_temperature_has_fallen() -> None:
    """Of a run of 10 steps with cooling 0.5, the first has temperature 8, the sixth 0."""
    images, labels = eight_digits()
    found = []
    for step, temperature in ((1, 8.0), (6, 8.0), (1, 0.0)):
        networks = tiny_networks()
        settings = StepSettings(
            AttackSettings(), LossSettings(temperature=temperature), DiscriminatorSettings(widths=(4, 8)), 0, steps=10
        )
        optimizers = Optimizers(plain_descent(networks.generator, 0.1), plain_descent(networks.discriminator, 0.1))
        found.append(
            float(training_step(networks, optimizers, images, labels, tf.constant(step), settings)["loss_adv"])
        )
    generator, _, target = tiny_networks()
    logits = target(tf.clip_by_value(images + 0.3 * generator(images), 0, 1)).numpy().astype(np.float64)
    soft = []
    for row, label in zip(logits, labels.numpy(), strict=True):
        others = np.delete(row, label)
        soft.append(max(row[label] - 8.0 * np.log(np.mean(np.exp(others / 8.0))), -5.0))
    hard = reference_adversarial_loss(logits, labels.numpy(), None, 5.0, "f6")
    assert found == pytest.approx([np.mean(soft), hard, hard], rel=1e-2)
    assert abs(np.mean(soft) - hard) > 1e-3


@pytest.mark.parametrize(("steps", "attack"), [(1, {}), (2, {"goal": "targeted", "target_class": 3})])
def test_training_step_updates_discriminator_then_generator_on_the_combined_loss(steps: int, attack: dict) -> None:
    networks, (images, labels) = tiny_networks(), eight_digits()
    generator, discriminator = tiny_networks()[:2]  # the same weights, for the reference
    target_before = [weights.copy() for weights in networks.target.get_weights()]
    epsilon, kappa, alpha, beta, c, rate = 0.2, 5.0, 3.0, 0.7, 0.4, 0.05
    settings = StepSettings(
        AttackSettings(epsilon=epsilon, **attack),
        LossSettings(kappa=kappa, alpha=alpha, beta=beta, c=c),
        DiscriminatorSettings(widths=(4, 8), steps=steps),
        seed=0,
        steps=1,
    )
    optimizers = Optimizers(plain_descent(networks.generator, rate), plain_descent(networks.discriminator, rate))
    metrics = {
        name: float(value)
        for name, value in training_step(networks, optimizers, images, labels, tf.constant(1), settings).items()
    }

    adversarial = tf.constant(np.clip(images.numpy() + epsilon * generator(images).numpy(), 0, 1))
    for _ in range(steps):
        loss_discriminator = descend(
            discriminator,
            rate,
            lambda: (
                tf.reduce_mean((discriminator(images) - 1) ** 2) / 2
                + tf.reduce_mean(discriminator(adversarial) ** 2) / 2
            ),
        )
    logits = networks.target(adversarial, training=False).numpy().astype(np.float64)
    perturbation = epsilon * generator(images).numpy().astype(np.float64)
    loss_adv = reference_adversarial_loss(logits, labels.numpy(), attack.get("target_class"), kappa, "f6")
    loss_gan = 0.5 * float(np.mean((discriminator(adversarial).numpy().astype(np.float64) - 1) ** 2))
    loss_hinge = reference_hinge_loss(perturbation, c)
    assert loss_hinge > 0
    assert metrics["loss_discriminator"] == pytest.approx(loss_discriminator, rel=1e-5)
    assert metrics["loss_adv"] == pytest.approx(loss_adv, rel=1e-4)
    assert metrics["loss_gan"] == pytest.approx(loss_gan, rel=1e-4)
    assert metrics["loss_hinge"] == pytest.approx(loss_hinge, rel=1e-4)
    assert metrics["loss_generator"] == pytest.approx(loss_adv + alpha * loss_gan + beta * loss_hinge, rel=1e-4)

    def combined() -> tf.Tensor:
        p = epsilon * generator(images)
        attacked = tf.clip_by_value(images + p, 0, 1)
        z = networks.target(attacked, training=False)
        rows = []
        for i in range(8):
            pushed = attack.get("target_class", int(labels[i]))
            others = tf.reduce_max(tf.concat([z[i, :pushed], z[i, pushed + 1 :]], axis=0))
            rows.append(others - z[i, pushed] if attack else z[i, pushed] - others)
        hinge = tf.reduce_mean([tf.maximum(0.0, tf.norm(p[i]) - c) for i in range(8)])
        gan = tf.reduce_mean((discriminator(attacked) - 1) ** 2) / 2
        return tf.reduce_mean(tf.maximum(tf.stack(rows), -kappa)) + alpha * gan + beta * hinge

    before = generator.get_weights()
    descend(generator, rate, combined)
    assert max(np.abs(new - old).max() for new, old in zip(generator.get_weights(), before, strict=True)) > 1e-3
    for ours, expected in ((networks.generator, generator), (networks.discriminator, discriminator)):
        for weights, reference in zip(ours.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(weights, reference, atol=5e-6)
    for weights, reference in zip(networks.target.get_weights(), target_before, strict=True):
        np.testing.assert_array_equal(weights, reference)
    assert (int(optimizers.discriminator.iterations), int(optimizers.generator.iterations)) == (steps, 1)


class Watched:
    """A discriminator that keeps what it was shown and what it said."""

    def __init__(self, network: keras.Model) -> None:
        self.network, self.trainable_variables = network, network.trainable_variables
        self.shown: list[np.ndarray] = []
        self.said: list[np.ndarray] = []

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        said = self.network(images, training=training)
        looks = len(images) // 8  # clean and adversarial images at once are two
        self.shown += np.split(images.numpy().astype(np.float64), looks)
        self.said += np.split(said.numpy(), looks)
        return said


def flat(weights: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([each.astype(np.float64).ravel() for each in weights])


def watched_steps(noise: float, seed: int = 0) -> tuple[list[np.ndarray], Watched, dict[str, float]]:
    """Two steps with two updates of D each: the noise in all that D was shown, D, what the second step returns."""
    networks, (images, labels) = tiny_networks(), eight_digits()
    watched = Watched(networks.discriminator)
    settings = StepSettings(
        AttackSettings(), LossSettings(), DiscriminatorSettings(widths=(4, 8), steps=2, noise=noise), seed, steps=2
    )
    optimizers = Optimizers(plain_descent(networks.generator, 0.01), plain_descent(networks.discriminator, 0.01))
    found, values = [], {}
    for step in (1, 2):
        adversarial = np.clip(images.numpy() + np.float32(0.3) * networks.generator(images).numpy(), 0, 1)
        before = flat(networks.generator.get_weights())
        values = training_step(
            networks._replace(discriminator=watched), optimizers, images, labels, tf.constant(step), settings
        )
        plain = (images.numpy(), adversarial, images.numpy(), adversarial, adversarial)
        found += [shown - clean for shown, clean in zip(watched.shown[-5:], plain, strict=True)]
    change = np.linalg.norm(before - flat(networks.generator.get_weights()))
    assert float(values["gradient_norm_generator"]) == pytest.approx(change / 0.01, rel=1e-3)
    answers = networks.target(adversarial, training=False).numpy().argmax(axis=1)
    assert float(values["batch_success"]) == np.mean(answers != labels.numpy())
    return found, watched, {name: float(value) for name, value in values.items()}


def test_noise_on_what_the_discriminator_sees_is_drawn_for_each_look() -> None:
    noise, _, _ = watched_steps(0.25)
    assert [each.std() for each in noise] == pytest.approx([0.25] * 10, rel=0.05)
    correlations = np.corrcoef([each.ravel() for each in noise]) - np.eye(10)
    assert np.abs(correlations).max() < 0.06  # 6,272 values: 0.013 is one standard deviation
    again, other = watched_steps(0.25)[0], watched_steps(0.25, seed=1)[0]
    np.testing.assert_array_equal(again[0], noise[0])
    assert np.abs(other[0] - noise[0]).max() > 0.1
    assert max(np.abs(each).max() for each in watched_steps(0.0)[0]) < 2e-5


def test_a_step_returns_how_the_discriminator_did_at_its_last_update() -> None:
    _, watched, values = watched_steps(0.0)
    on_real, on_adversarial, after = watched.said[-3:]
    assert values["discriminator_accuracy_real"] == np.mean(on_real > 0.5)
    assert values["discriminator_accuracy_adversarial"] == np.mean(on_adversarial < 0.5)
    assert values["discriminator_gap"] == pytest.approx(on_real.mean() - on_adversarial.mean(), abs=1e-6)
    assert abs(values["discriminator_gap"]) > 1e-4
    assert values["loss_gan"] == pytest.approx(0.5 * np.mean(np.square(after - 1)), rel=1e-5)
