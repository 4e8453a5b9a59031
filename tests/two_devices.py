"""A process of its own, since the devices are chosen before TensorFlow starts: the same steps on one device and on two.

It prints, as JSON, the largest difference over the states of a run of each loss term, and for each state that of the
gradients (relative norm) of G, D, the target in its training and the distilled network.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from advgan import replicas  # noqa: E402
from advgan.attacks.advgan_attack import AdvGANAttack  # noqa: E402
from advgan.classifiers.architectures import build_classifier  # noqa: E402
from advgan.classifiers.classifier import classifier_of  # noqa: E402
from advgan.config.loading import parse_config  # noqa: E402
from advgan.config.settings import AdversarialTrainingSettings, Config  # noqa: E402
from advgan.data.datasets import Split  # noqa: E402
from advgan.data.streams import FromMemory  # noqa: E402
from advgan.devices import open_strategy  # noqa: E402
from advgan.networks.forward import forward  # noqa: E402
from advgan.progress import Progress  # noqa: E402
from advgan.training.adversarial_training import build_adversary  # noqa: E402
from advgan.training.classifier import ClassifierState, ClassifierTrainer  # noqa: E402
from advgan.training.distillation import distillation_step  # noqa: E402
from advgan.training.loop import several_steps  # noqa: E402
from advgan.training.optimizers import Adam  # noqa: E402
from advgan.training.state import build_state  # noqa: E402
from advgan.training.step import Optimizers, training_step  # noqa: E402
from advgan.training.trainer import step_settings  # noqa: E402

keras = tf.keras
SHAPE, COUNT, BATCH = (12, 12, 3), 64, 32


class Kept(Adam):
    """Keeps gradients, and changes nothing."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:  # noqa: ARG002
        place = self._get_variable_index(variable) if hasattr(self, "_get_variable_index") else None
        index = self._index_dict[self._var_key(variable)] if place is None else place
        self._momentums[index].assign(gradient)


class Side:
    """Networks on some devices, and their steps."""

    def __init__(self, strategy: Any, config: Config, split: Split) -> None:
        self.strategy = strategy
        with strategy.scope():
            keras.utils.set_random_seed(1)
            self.target = build_classifier(SHAPE, 10, config.target)
            self.state = build_state(SHAPE, forward(self.target), config, 100)
            networks = self.state.networks
            self.optimizers = Optimizers(*(self._kept(each) for each in (networks.generator, networks.discriminator)))
            self.of_target, self.distilled = (
                self._kept(self.target),
                build_classifier(SHAPE, 10, config.distilled_settings),
            )
            self.of_distilled = self._kept(self.distilled)
            batches, settings = FromMemory(split.images, split.labels), step_settings(config, 100)
            self.step = several_steps(
                lambda given, number: training_step(networks, self.optimizers, *batches.batch(given), number, settings)
            )
            self.moving = several_steps(
                lambda given, number: training_step(
                    networks, self.state.optimizers, *batches.batch(given), number, settings
                )
            )
            progress = Progress("target", 1)
            self.classifier = ClassifierTrainer(
                ClassifierState(self.target, self.of_target), split, progress, config.target.augmentation
            )
            defence = AdversarialTrainingSettings(method="pgd", epsilon=0.1, steps=2)
            adversary = build_adversary(defence, 0, SHAPE, BATCH // replicas.count(), 1, ())
            learning = ClassifierState(self.target, self._kept(self.target), adversary)
            self.defended = ClassifierTrainer(learning, split, progress, config.target.augmentation)
            soft = tf.one_hot(split.labels, 10) * 0.8 + 0.02
            images = tf.constant(split.images / np.float32(255))
            self.distillation = several_steps(
                lambda given, _number: {
                    "loss": distillation_step(
                        self.distilled,
                        self.of_distilled,
                        [tuple(tf.gather(each, replicas.share_of(given)) for each in (images, soft))],
                    )
                }
            )

    @staticmethod
    def _kept(network: Any) -> Any:
        optimizer = Kept()
        optimizer.build(network.trainable_variables)
        return optimizer

    def values(self, order: np.ndarray, number: int) -> dict[str, Any]:
        """The loss terms and the gradients of one step of each kind."""
        with self.strategy.scope():
            losses = {
                **{
                    f"generator: {name}": value
                    for name, value in self.step(order[:1], number).items()
                    if not name.startswith("gradient_norm")
                },
                "target": next(iter(self.classifier.steps(number, order[:1]).values())),
                "defended target": next(iter(self.defended.steps(number, order[:1]).values())),
                "distillation": self.distillation(order[:1], number)["loss"],
            }
            kept = [*self.optimizers, self.of_target, self.of_distilled]
            gradients = [np.concatenate([np.ravel(each) for each in optimizer._momentums]) for optimizer in kept]
        return {"losses": {name: float(value[0]) for name, value in losses.items()}, "gradients": gradients}

    def networks(self) -> list[Any]:
        """Those whose weights a step depends on."""
        return [self.target, self.distilled, self.state.networks.generator, self.state.networks.discriminator]


def attacked(side: Side, split: Split, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Adversarial images, and the gradient of the target's first score, as an evaluation makes them."""
    images = split.images / np.float32(255)
    with side.strategy.scope():
        target = classifier_of(side.target, SHAPE, "target")
        attack = AdvGANAttack(side.state.networks.generator, target, config.attack)
        with tf.GradientTape() as tape:
            given = tf.constant(images)
            tape.watch(given)
            score = tf.reduce_sum(target.logits(given)[:, 0])
        return attack.generate(images), tape.gradient(score, given).numpy()


def main() -> None:
    """Compare along a run of so many steps."""
    states, overrides = int(sys.argv[1]), json.loads(sys.argv[2])
    config = parse_config({"training": {"batch_size": BATCH, "devices": 2}, **overrides})
    two = open_strategy(config.training.devices)
    random = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int32) % 10
    split = Split(random.integers(0, 256, (COUNT, *SHAPE), np.uint8), labels)
    one, both = Side(tf.distribute.get_strategy(), config, split), Side(two, config, split)
    losses: dict[str, float] = {}
    gradients = []
    for number in range(1, states + 1):
        order = random.permutation(COUNT).astype(np.int32)[np.newaxis, :BATCH]
        for here, there in zip(one.networks(), both.networks(), strict=True):
            there.set_weights(here.get_weights())
        expected, found = one.values(order, number), both.values(order, number)
        for name, value in expected["losses"].items():
            losses[name] = max(losses.get(name, 0.0), abs(value - found["losses"][name]) / max(1.0, abs(value)))
        pairs = zip(expected["gradients"], found["gradients"], strict=True)
        gradients.append([float(np.linalg.norm(here - there) / np.linalg.norm(here)) for here, there in pairs])
        one.moving(order, number)
    for here, there in zip(one.networks(), both.networks(), strict=True):
        there.set_weights(here.get_weights())
    attacks = [attacked(side, split, config) for side in (one, both)]
    attack = [float(np.abs(here - there).max()) for here, there in zip(*attacks, strict=True)]
    print(
        json.dumps({"attack": attack, "replicas": two.num_replicas_in_sync, "losses": losses, "gradients": gradients})
    )


if __name__ == "__main__":
    main()
