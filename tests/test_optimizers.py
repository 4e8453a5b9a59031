"""Learning rates step by step, from what Adam makes of known gradients: with a gradient of 1 it moves by its rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.loading import parse_config
from advgan.config.values import Schedule
from advgan.training.optimizers import adam
from advgan.training.state import build_state
from advgan.training.trainer import total_steps

pytestmark = pytest.mark.addons
keras = tf.keras


def moves(network: keras.Model, optimizer: keras.optimizers.Optimizer, gradients: list[float]) -> list[float]:
    """How far the first weight goes down at each step."""
    variables, positions = network.trainable_variables, []
    for gradient in gradients:
        before = variables[0].numpy().ravel()[0].astype(np.float64)
        optimizer.apply_gradients([(tf.fill(variable.shape, gradient), variable) for variable in variables])
        positions.append(float(before - variables[0].numpy().ravel()[0]))
    return positions


def one_weight() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        ("constant", lambda _: 1.0),
        ("linear", lambda done: max(1 - done, 0.0)),
        ("cosine", lambda done: (1 + np.cos(np.pi * min(done, 1))) / 2),
    ],
)
def test_the_rate_falls_to_0_over_the_steps_of_the_run(schedule: Schedule, share: Callable[[float], float]) -> None:
    network = one_weight()
    found = moves(network, adam(network, 0.01, schedule, 8), [1.0] * 10)
    assert found == pytest.approx([0.01 * share(step / 8) for step in range(10)], abs=1e-6)


@pytest.mark.parametrize("beta_1", [0.0, 0.5, 0.9])
def test_the_first_decay_rate_is_the_one_that_is_set(beta_1: float) -> None:
    network = one_weight()
    found = moves(network, adam(network, 0.01, "constant", 8, beta_1), [1.0, -1.0])
    second = (beta_1 * (1 - beta_1) - (1 - beta_1)) / (1 - beta_1**2)
    assert found == pytest.approx([0.01, 0.01 * second], abs=1e-6)


@pytest.mark.parametrize("black_box", [False, True])
def test_both_networks_come_to_rest_at_the_end_of_the_run(black_box: bool) -> None:
    """D is updated three times for each update of G; a black-box run has its epochs in every round."""
    config = parse_config(
        {
            "generator": {"widths": [2, 2], "residual_blocks": 0, "schedule": "linear", "learning_rate": 0.01},
            "discriminator": {"widths": [2, 2], "schedule": "linear", "learning_rate": 0.02, "steps": 3},
            "training": {"epochs": 2, "batch_size": 10},
            **({"oracle": {"black_box": "target"}, "distillation": {"rounds": 3}} if black_box else {}),
        }
    )
    steps = total_steps(25, config)
    assert steps == 2 * 2 * (3 if black_box else 1)  # two full batches in each epoch
    state = build_state((9, 9, 1), one_weight(), config, steps)
    for network, optimizer, rate, updates in (
        (state.networks.generator, state.optimizers.generator, 0.01, steps),
        (state.networks.discriminator, state.optimizers.discriminator, 0.02, 3 * steps),
    ):
        found = moves(network, optimizer, [1.0] * (updates + 1))
        assert found == pytest.approx([rate * (1 - step / updates) for step in range(updates + 1)], abs=2e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_it_is_the_adam_of_keras(schedule: Schedule) -> None:
    ours, theirs = (keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]) for _ in range(2))
    theirs.set_weights(ours.get_weights())
    rate = keras.optimizers.schedules.CosineDecay(0.01, 20) if schedule == "cosine" else 0.01
    adams = [adam(ours, 0.01, schedule, 20, 0.5), keras.optimizers.Adam(rate, beta_1=0.5)]

    @tf.function
    def compiled(gradients: list[tf.Tensor]) -> None:
        for network, each in zip((ours, theirs), adams, strict=True):
            each.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    adams[1].build(theirs.trainable_variables)
    for number in range(12):
        gradients = [tf.random.stateless_normal(each.shape, [number, 1]) for each in ours.trainable_variables]
        (compiled if number % 2 else compiled.python_function)(gradients)
    for weights, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(weights, reference, rtol=1e-5, atol=1e-6)
    assert int(adams[0].iterations) == 12
