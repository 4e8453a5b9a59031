"""Which images each round queries, and what the distilled network learns of them: chosen again in NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.query_counter import QueryCounter
from advgan.config.loading import parse_config
from advgan.config.settings import Config, DataSettings
from advgan.data.datasets import Split
from advgan.data.loading import load_dataset
from advgan.goals import Targeted, Untargeted
from advgan.training.distillation import Distillation, _batches
from advgan.training.metrics_log import MetricsLog, read_rows
from advgan.training.queries import Queries
from advgan.training.query_plan import query_plan
from advgan.training.state import build_state
from advgan.training.validation import BlackBoxValidation, TargetValidation

keras = tf.keras
COUNT, EPSILON = 60, 0.2
RANDOM = np.random.default_rng(0)
IMAGES = Split(RANDOM.integers(0, 256, (COUNT, 8, 8, 1), np.uint8), RANDOM.integers(0, 3, COUNT).astype(np.int32))
KERNEL = RANDOM.normal(0, 0.2, (64, 3)).astype(np.float32)
KERNEL += np.float32([0.01, 0.0, -0.01]) - KERNEL.mean(axis=0)


def probabilities(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    powers = np.exp(images.reshape(-1, 64) @ kernel)
    return powers / powers.sum(axis=1, keepdims=True)


def black_box(images: np.ndarray) -> np.ndarray:
    """Not what the distilled network answers."""
    return probabilities(images, KERNEL[::-1])


class Round:
    """One attacker: his images, a generator that takes contrast away, a distilled network that is linear."""

    def __init__(self, folder: Path, budget: int | None = None, attack: dict[str, Any] | None = None, **settings: Any):
        self.config: Config = parse_config(
            {
                "attack": {"epsilon": EPSILON, **(attack or {})},
                "oracle": {"black_box": "target", "query_budget": budget, "validation_queries": 0},
                "distillation": {"rounds": 4, "batch_size": 8, "first_epochs": 3, "epochs": 2, **settings},
                "target": {"check_accuracy": False},
                "generator": {"widths": [2], "residual_blocks": 0},
                "discriminator": {"widths": [2]},
                "training": {"epochs": 2},
            }
        )
        self.distilled = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        self.distilled.layers[-1].set_weights([KERNEL, np.zeros(3, np.float32)])
        image = keras.Input((8, 8, 1))
        convolution = keras.layers.Conv2D(1, 1, activation="tanh")
        self.generator = keras.Model(image, convolution(image))
        convolution.set_weights([np.full((1, 1, 1, 1), -6, np.float32), np.full(1, 3, np.float32)])
        self.seen: list[np.ndarray] = []
        self.counter = QueryCounter(Classifier("box", "0", (8, 8, 1), self.answer, is_black_box=True), 3)
        self.attack = AdvGANAttack(self.generator, self.distilled, self.config.attack)
        plan = query_plan(self.config, COUNT, 10)
        self.queries = Queries(self.counter, self.attack, IMAGES, self.config, plan, folder / "rounds")

    def answer(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        return black_box(images)

    def data(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        found: list[tuple[Any, Any]] = self.queries.of_round(number, lambda: False)
        return [(np.asarray(images), np.asarray(answers)) for images, answers in found]


def of_generator() -> np.ndarray:
    return np.tanh(3 - 6 * (IMAGES.images / 255))


def attacked() -> np.ndarray:
    """Every image under attack, at its nearest level; in every round the same, as G is not trained here."""
    return np.rint(255 * np.clip(IMAGES.images / 255 + EPSILON * of_generator(), 0, 1)).astype(np.uint8)


def places(images: np.ndarray, among: np.ndarray) -> list[int]:
    """Where each image is among others, which differ from each other."""
    return [int(np.flatnonzero((among == image).all(axis=(1, 2, 3)))[0]) for image in images]


def test_every_answer_is_learned_with_its_own_image(tmp_path: Path) -> None:
    round_ = Round(tmp_path, budget=100)
    ((clean, on_clean),) = round_.data(0)
    assert places(clean, IMAGES.images) == sorted(set(places(clean, IMAGES.images)))
    np.testing.assert_allclose(on_clean, black_box(clean.astype(np.float32) / np.float32(255)), atol=1e-6)
    again, (adversarial, on_adversarial) = round_.data(1)
    np.testing.assert_array_equal(again[0], clean)
    assert len(clean) == len(set(places(adversarial, attacked()))) == 25
    np.testing.assert_allclose(on_adversarial, black_box(adversarial.astype(np.float32) / np.float32(255)), atol=1e-6)
    assert round_.counter.queries == {"clean": 25, "adversarial": 25, "validation": 0, "scoring": 0}


@pytest.mark.parametrize("replay", [True, False])
def test_the_images_of_every_earlier_round_are_learned_again_or_those_of_none(tmp_path: Path, replay: bool) -> None:
    round_ = Round(tmp_path, replay=replay, budget=40)
    rounds = [places(round_.data(number)[1][0], attacked()) for number in (1, 2, 3)]
    assert rounds[1] != rounds[2]
    latest = [found[-10:] for found in rounds]
    assert latest[0] != latest[1] != latest[2]
    expected = [latest[0], latest[0] + latest[1], latest[0] + latest[1] + latest[2]] if replay else latest
    assert rounds == expected


def test_the_images_that_the_distilled_network_is_least_sure_of_are_queried(tmp_path: Path) -> None:
    (adversarial, _) = Round(tmp_path, budget=40, choose="uncertain").data(1)[1]
    answers = np.sort(probabilities(attacked() / 255, KERNEL.astype(np.float64)), axis=1)
    margins = answers[:, -1] - answers[:, -2]
    assert set(places(adversarial, attacked())) == set(np.argsort(margins)[:10].tolist())


def test_each_round_is_distilled_once_before_its_first_epoch_for_as_long_as_it_says(tmp_path: Path) -> None:
    round_ = Round(tmp_path, rounds=2)
    state = build_state((8, 8, 1), round_.distilled, round_.config, 10, distilled=round_.distilled)
    log = MetricsLog(tmp_path, 0)
    dataset = replace(
        load_dataset(DataSettings()), training=IMAGES, validation=IMAGES, test=IMAGES, number_of_classes=3
    )
    distil = Distillation(state, round_.counter, round_.attack, dataset, round_.config, tmp_path / "rounds", log)
    done = []
    for epoch in range(4):  # two in each round
        state.position.epoch = epoch
        distil(lambda: False, lambda: None)
        done.append((state.position.round, int(state.distilled_optimizer.iterations)))
    log.close()
    per_epoch = COUNT // 8
    assert done == [(1, 3 * per_epoch)] * 2 + [(2, 5 * per_epoch)] * 2
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["epoch"], row["round"], row["queries"]) for row in rows] == [(1, 1, COUNT), (3, 2, 2 * COUNT)]


def test_batches_go_through_all_images_again_and_again_in_new_orders() -> None:
    found = _batches(10, 4, 25, [0, 1, 0])
    assert found.shape == (25, 4)
    passes = found.reshape(10, 10)
    assert (np.sort(passes, axis=1) == np.arange(10)).all()
    assert len(np.unique(passes, axis=0)) == 10
    for other in ([1, 1, 0], [0, 2, 0], [0, 1, 1]):  # seed, round, clean or adversarial
        assert (_batches(10, 4, 25, other) != found).any()


@pytest.mark.parametrize("target_class", [None, 0])
def test_a_validation_counts_images_and_not_batches_or_all(tmp_path: Path, target_class: int | None) -> None:
    attack = {} if target_class is None else {"goal": "targeted", "target_class": target_class}
    round_ = Round(tmp_path, attack=attack)
    goal = Untargeted() if target_class is None else Targeted(target_class)
    clean, adversarial = IMAGES.images / 255, np.clip(IMAGES.images / 255 + EPSILON * of_generator(), 0, 1)
    whole = attacked() / 255
    box, distilled = (
        {name: scores(images).argmax(axis=1) for name, images in (("clean", clean), ("whole", whole))}
        for scores in (black_box, lambda images: probabilities(images, KERNEL))
    )

    counted = np.asarray(goal.eligible(IMAGES.labels, distilled["clean"]))
    on_distilled = probabilities(adversarial, KERNEL).argmax(axis=1)
    success = np.asarray(goal.reached(IMAGES.labels, on_distilled))[counted].mean()
    assert 0 < success < 1 and 0 < counted.sum() < COUNT
    assert TargetValidation(round_.attack, IMAGES)() == {"validation_success": pytest.approx(success)}

    count = 50
    found = BlackBoxValidation(round_.counter, round_.attack, IMAGES, count, round_.config)()
    labels = IMAGES.labels[:count]
    counted = np.asarray(goal.eligible(labels, box["clean"][:count]))
    assert 0 < counted.sum() < count
    for name, answers in (("validation_success", box), ("validation_success_distilled", distilled)):
        assert found[name] == pytest.approx(np.asarray(goal.reached(labels, answers["whole"][:count]))[counted].mean())
    for name, images in (("agreement_clean", "clean"), ("agreement_adversarial", "whole")):
        assert found[name] == pytest.approx((box[images] == distilled[images])[:count].mean())
    assert found["queries"] == 2 * count
    levels = 255 * np.concatenate(round_.seen).astype(np.float64)
    np.testing.assert_allclose(levels, np.concatenate([IMAGES.images[:count], attacked()[:count]]), atol=1e-4)
