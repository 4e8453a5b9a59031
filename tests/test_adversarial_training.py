"""Adversarial training: each method's images, the loss, exact resumes, and a classifier that resists."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from advgan import train
from advgan.classifiers.architectures import build_classifier
from advgan.config.loading import parse_config
from advgan.config.settings import AdversarialTrainingSettings, Config
from advgan.data.datasets import Dataset, scaled
from advgan.data.loading import load_dataset
from advgan.environment import prepare_environment
from advgan.errors import AdvGANError, ConfigurationError, Interrupted
from advgan.experiments.train import train_and_evaluate
from advgan.files import locked
from advgan.metrics import Rate
from advgan.networks.keras_file import weights_digest
from advgan.progress import Progress
from advgan.records.adversarial_training import Defence, Robustness, TrainingEpoch
from advgan.records.finding import PASS, WARN
from advgan.records.summary import Summary
from advgan.training import classifier
from advgan.training.adversarial_training import check_overfitting
from advgan.training.classifier import (
    ACCURACY,
    LOSS,
    ClassifierTrainer,
    build_classifier_state,
    load_or_train_target,
    other_target,
    target_digest,
)
from advgan.training.distillation import _compiled_steps
from advgan.training.loop import run_steps
from advgan.training.optimizers import adam
from advgan.training.state import TrainingState

keras = tf.keras
METHODS = {
    "fgsm": {"method": "fgsm", "epsilon": 0.2},
    "fast fgsm": {"method": "fgsm", "epsilon": 0.2, "random_start": True},
    "ensemble": {"method": "ensemble", "epsilon": 0.2, "others": [{"architecture": "lenet", "seed": 3, "epochs": 1}]},
    "pgd": {"method": "pgd", "epsilon": 0.2, "steps": 2, "warmup_epochs": 1, "keep": "last"},
    "advgan": {"method": "advgan", "epsilon": 0.2},
}


def configuration(method: str, output: Path = Path("checkpoints"), **target: Any) -> Config:
    """A small target that is trained by a method."""
    content = {
        "seed": 5,
        "data": {"training_images": 96, "validation_images": 40, "test_images": 40},
        "target": {"batch_size": 32, "epochs": 2, **target, "adversarial_training": METHODS[method]},
        "output": {"directory": str(output), "checkpoint_every": 2},
    }
    return parse_config(content)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(configuration("pgd").data)


class Batch:
    """A few images, and the state of a network that is to learn them."""

    def __init__(self, dataset: Dataset, method: str, **target: Any) -> None:
        config = configuration(method, **target)
        self.images = tf.constant(scaled(dataset.training.images[:32]))
        self.labels = tf.constant(dataset.training.labels[:32])
        self.others = [
            build_classifier(dataset.image_shape, 10, other_target(config, other).target)
            for other in config.target.adversarial_training.others or ()
        ]
        self.state = build_classifier_state(config, dataset, 6, self.others)
        self.model, self.adversary = self.state.model, self.state.adversary

    def attacked(self, number: int) -> np.ndarray:
        """The adversarial images of a step."""
        assert self.adversary is not None
        attack = tf.function(self.adversary.attack, autograph=False)
        return attack(self.model, self.images, self.labels, tf.constant(number)).numpy()

    def single_step(self, network: Any, epsilon: float) -> np.ndarray:
        """FGSM, by Keras and NumPy."""
        with tf.GradientTape() as tape:
            tape.watch(self.images)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(self.labels, network(self.images))
        sign = np.sign(tape.gradient(loss, self.images).numpy())
        return np.clip(self.images.numpy() + np.float32(epsilon) * sign, 0, 1)


def unlike(first: np.ndarray, second: np.ndarray) -> float:
    """The share of the pixels that differ; where a gradient is 0 to its last bits, signs may."""
    return float(np.mean(np.abs(first - second) > 1e-5))


def test_a_step_learns_clean_and_adversarial_images_as_keras_does(dataset: Dataset) -> None:
    batch = Batch(dataset, "fgsm")
    reference = build_classifier(dataset.image_shape, 10, configuration("fgsm").target)
    reference.set_weights(batch.model.get_weights())
    adversarial = batch.single_step(reference, 0.2)
    right = np.mean(np.asarray(reference(adversarial)).argmax(axis=1) == batch.labels.numpy())
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        losses = [cross_entropy(batch.labels, reference(each)) for each in (batch.images, adversarial)]
        loss = 0.5 * losses[0] + 0.5 * losses[1]
    variables = reference.trainable_variables
    keras.optimizers.SGD(1.0).apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    batch.state.optimizer = keras.optimizers.SGD(1.0)
    trainer = ClassifierTrainer(batch.state, dataset.training, Progress("target", 1))
    values = trainer.steps(1, np.arange(32, dtype=np.int32)[np.newaxis])
    np.testing.assert_allclose(values[LOSS], [loss], rtol=1e-4)
    np.testing.assert_allclose(values[ACCURACY], [right], atol=1e-6)
    for ours, theirs in zip(batch.model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_epsilon_rises_over_the_first_epochs(dataset: Dataset) -> None:
    batch = Batch(dataset, "pgd")  # three steps make an epoch
    changes = [float(np.abs(batch.attacked(number) - batch.images.numpy()).max()) for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(changes, [0.2 / 3, 0.4 / 3, 0.2, 0.2], rtol=1e-4)


def test_pgd_finds_more_than_one_step(dataset: Dataset) -> None:
    batch = Batch(dataset, "pgd")

    def loss(images: np.ndarray) -> float:
        return float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(batch.labels, batch.model(images)))

    assert loss(batch.attacked(9)) > loss(batch.images.numpy())
    assert unlike(batch.attacked(9), batch.attacked(9)) == 0 < unlike(batch.attacked(9), batch.attacked(10))


def test_an_ensemble_draws_a_network_for_each_batch(dataset: Dataset) -> None:
    batch = Batch(dataset, "ensemble")
    along = [batch.single_step(network, 0.2) for network in (batch.model, *batch.others)]
    drawn = []
    for number in range(1, 9):
        distances = [unlike(batch.attacked(number), each) for each in along]
        assert min(distances) < 0.01 < max(distances)
        drawn.append(int(np.argmin(distances)))
    assert set(drawn) == {0, 1}


def test_a_generator_learns_along_and_leaves_the_classifier_alone(dataset: Dataset) -> None:
    batch = Batch(dataset, "advgan")
    before = [weights.copy() for weights in batch.model.get_weights()]
    first, later = batch.attacked(1), batch.attacked(2)
    assert np.abs(later - batch.images.numpy()).max() <= 0.2 + 1e-6
    assert unlike(first, later) > 0.1
    for here, there in zip(before, batch.model.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.addons
@pytest.mark.parametrize(
    "method", [name if name == "ensemble" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_stopped_training_goes_on_exactly(
    method: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(method, architecture="model_c")  # it has dropout
    environment = prepare_environment(config.training)
    whole = load_or_train_target(config, dataset, environment, tmp_path / "whole")
    for stop_at in (1, 4):  # within an epoch, after one
        with monkeypatch.context() as patched:
            patched.setattr(classifier, "run_steps", stopping_after(stop_at))
            with pytest.raises(Interrupted, match=rf"stopped at step {stop_at} of the target's training"):
                load_or_train_target(config, dataset, environment, tmp_path / "parts")
    parts = load_or_train_target(config, dataset, environment, tmp_path / "parts")
    assert weights_digest(whole.model) == weights_digest(parts.model)
    timeless = [[epoch.model_copy(update={"seconds": 0}) for epoch in each.epochs] for each in (whole, parts)]
    assert timeless[0] == timeless[1]
    assert len(parts.epochs) == 2 and sum(epoch.kept for epoch in parts.epochs) == 1
    assert not list((tmp_path / "parts").glob("*.training"))
    assert load_or_train_target(config, dataset, environment, tmp_path / "parts").epochs == parts.epochs


def test_the_epoch_that_is_kept_is_the_best_or_the_last(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([(0.9, 0.5), (0.9, 0.4)] * 2)
    monkeypatch.setattr(classifier.PgdValidation, "__call__", lambda _: next(accuracies))
    found, after = {}, {}
    for keep in ("best", "last"):
        monkeypatch.setitem(METHODS, "fgsm", {**METHODS["fgsm"], "keep": keep})
        state = classifier.train_classifier(configuration("fgsm"), dataset)
        found[keep] = [epoch["kept"] for epoch in state.position.epochs]
        after[keep] = weights_digest(state.chosen), weights_digest(state.model)
    assert found == {"best": [True, False], "last": [False, True]}
    assert after["best"][1] == after["last"][0] == after["last"][1] != after["best"][0]


def stopping_after(step: int) -> Callable[..., None]:
    """``run_steps``, which saves and stops after a step."""
    real = classifier.run_steps

    def run(trainer: Any, first: int, batches: np.ndarray, stop_requested: Any) -> None:
        if step - first + 1 > len(batches):
            return real(trainer, first, batches, stop_requested)
        real(trainer, first, batches[: step - first + 1])
        trainer.save()
        raise Interrupted(f"stopped at {trainer.step_name.format(step)}; nothing is lost")

    return run


def defence(*epochs: tuple[float, float], kept: int) -> Defence:
    """Of epochs with these accuracies in training and under PGD; the classifier is that of epoch ``kept``."""
    rate = Rate.of(1, 2)
    tried = Robustness(epsilon=0.3, clean=rate, fgsm=rate, pgd_cross_entropy=rate, pgd_margin=rate, pgd=rate)
    made = [
        TrainingEpoch(
            epoch=number,
            loss=1.0,
            accuracy_in_training=in_training,
            accuracy_clean=0.9,
            accuracy_pgd=under_pgd,
            kept=number == kept,
            seconds=1.0,
        )
        for number, (in_training, under_pgd) in enumerate(epochs, 1)
    ]
    return Defence(method="fgsm", epochs=tuple(made), robustness=tried)


def test_catastrophic_overfitting_is_marked() -> None:
    settings = AdversarialTrainingSettings(method="fgsm", epsilon=0.3)
    rising = defence((0.2, 0.05), (0.5, 0.45), (0.6, 0.5), kept=3)
    assert check_overfitting(rising, settings).status == PASS  # PGD came first in the first epoch, and lost
    found = check_overfitting(defence((0.5, 0.45), (0.9, 0.02), kept=1), settings)
    assert found.status == WARN
    assert "in epoch 2 90.00% was left under its own attack and 2.00% under PGD" in found.reason
    assert "(catastrophic overfitting); the classifier is that of epoch 1" in found.reason
    assert "random_start" in found.remedy
    from_random = settings.model_copy(update={"random_start": True})
    assert "random_start" not in check_overfitting(defence((0.5, 0.45), (0.9, 0.02), kept=1), from_random).remedy
    never = defence((0.7, 0.01), (0.9, 0.02), kept=2)
    of_generator = check_overfitting(never, AdversarialTrainingSettings(method="advgan", epsilon=0.3))
    assert of_generator.status == WARN
    assert "catastrophic" not in of_generator.reason and of_generator.remedy == "Use method pgd."


def test_two_processes_that_want_one_target_train_it_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration("pgd")
    environment = prepare_environment(config.training)
    digest = target_digest(config, dataset, environment)
    first = load_or_train_target(config, dataset, environment, tmp_path / "made")
    trained: list[int] = []
    monkeypatch.setattr(classifier, "train_classifier", lambda *_: trained.append(1))

    def other_process() -> None:  # it is at work when the one here asks
        with locked(tmp_path / "cache", f".{digest}.lock"):
            began.set()
            time.sleep(1.0)
            shutil.copytree(tmp_path / "made" / digest, tmp_path / "cache" / digest)

    began = threading.Event()
    (tmp_path / "cache").mkdir()
    thread = threading.Thread(target=other_process)
    thread.start()
    began.wait()
    second = load_or_train_target(config, dataset, environment, tmp_path / "cache")
    thread.join()
    assert not trained and second.cached
    assert weights_digest(first.model) == weights_digest(second.model)


def test_a_stop_at_the_end_of_the_last_epoch_is_a_stop(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration("pgd")
    environment = prepare_environment(config.training)
    with monkeypatch.context() as patched:

        @contextmanager
        def requested() -> Iterator[Callable[[], bool]]:
            yield lambda: True

        patched.setattr(classifier, "stop_requests", requested)
        patched.setattr(classifier, "run_steps", lambda *arguments: run_steps(*arguments[:3]))  # it does not ask
        for number in (1, 2):
            with pytest.raises(Interrupted, match=f"stopped after epoch {number} of the target's training"):
                load_or_train_target(config, dataset, environment, tmp_path)
    found = load_or_train_target(config, dataset, environment, tmp_path)
    assert not found.cached and len(found.epochs) == 2


def test_bad_settings_name_key_value_and_fix() -> None:
    base = {"method": "pgd", "epsilon": 0.3}
    for settings, message in (
        ({"method": "pgd"}, r"epsilon = None: is needed by .*method: pgd, such as 0.3 or 8/255"),
        ({**base, "steps": 0}, r"steps = 0: should be greater than or equal to 1"),
        ({**base, "method": "fgsm", "steps": 3}, r"steps = 3: is for .*method: pgd; leave it out"),
        ({"epsilon": 0.3}, r"epsilon = 0.3: is for .*method: fgsm or ensemble or pgd or advgan; leave it out"),
        ({**base, "method": "PGD"}, r"method = 'PGD': should be 'none', 'fgsm', 'ensemble', 'pgd' or 'advgan'"),
        ({**base, "epsilon": 8}, r"epsilon = 8: .*for 8 of 255 levels write 8/255"),
        ({**base, "keep": "first"}, r"keep = 'first': should be 'best' or 'last'"),
        ({"keep": "last"}, r"keep = 'last': is for .*method: fgsm or ensemble or pgd or advgan; leave it out"),
        ({**base, "warmup_epochs": 3}, r"warmup_epochs = 3: should be fewer than target.epochs = 3"),
        ({**base, "method": "ensemble"}, r"others = None: is needed .*such as \[\{architecture: model_c, seed: 1\}\]"),
        ({**base, "method": "ensemble", "others": []}, r"others = \[\]: should be a list of 1 to 9 networks"),
        ({**base, "method": "ensemble", "others": [{"epochs": 0}]}, r"others.0.epochs = 0: should be greater"),
        (
            {**base, "method": "ensemble", "others": [{"architecture": "lenet"}]},
            "'lenet, seed 0': is the target itself",
        ),
        ({**base, "method": "ensemble", "others": [{"seed": 1}] * 2}, "'model_a, seed 1': is there twice"),
    ):
        with pytest.raises(ConfigurationError, match=r"^target\.adversarial_training\..*" + message) as refusal:
            parse_config({"target": {"adversarial_training": settings}})
        assert "\n" not in str(refusal.value)
    misspelt: list[dict[str, Any]] = [
        {"defense": "pgd"},
        {"target": {"defence": "pgd"}},
        {"target": {"adversarial_training": {"defense": 1}}},
    ]
    for content in misspelt:
        with pytest.raises(ConfigurationError, match=r"did you mean target\.adversarial_training\.method\?"):
            parse_config(content)
    with pytest.raises(ConfigurationError, match=r"did you mean loss\.adversarial"):
        parse_config({"adversarial": "f2"})
    owns: list[tuple[dict[str, Any], str]] = [
        ({"oracle": {"black_box": "m:f"}}, "m:f"),
        ({"target": {"file": "robust_mnist"}}, "robust_mnist"),
    ]
    for other, named in owns:
        target = {**other.get("target", {}), "adversarial_training": base}
        with pytest.raises(ConfigurationError, match=rf"method = 'pgd': is for a .* trained here; {named} is not"):
            parse_config({**other, "target": target})


def test_a_target_that_learned_nothing_is_refused_with_what_helps(tmp_path: Path) -> None:
    config = configuration("pgd", tmp_path, learning_rate=1e-8, epochs=2)
    data = config.data.model_copy(update={"test_images": 200})
    training = config.training.model_copy(update={"batch_size": 32})
    with pytest.raises(AdvGANError, match=r"no better than chance: .*target\.adversarial_training: where a network"):
        train_and_evaluate(config.model_copy(update={"data": data, "training": training}), tmp_path / "run")


def test_a_distilled_network_may_learn_images_that_pgd_on_it_changes(dataset: Dataset) -> None:
    def loss(epsilon: float) -> float:
        config = parse_config(
            {"oracle": {"black_box": "target"}, "distillation": {"pgd_epsilon": epsilon, "batch_size": 32}}
        )
        keras.utils.set_random_seed(0)
        network = build_classifier(dataset.image_shape, 10, config.distilled_settings)
        state = SimpleNamespace(distilled=network, distilled_optimizer=adam(network, 1e-3, "constant", 1))
        answers = tf.one_hot(dataset.training.labels, 10)
        data = [(tf.constant(scaled(dataset.training.images)), answers)]
        steps = _compiled_steps(cast(TrainingState, state), config)
        order = np.arange(32, dtype=np.int32).reshape(1, 1, 32)
        return float(next(iter(steps(order, 1, data).values()))[0])

    assert loss(0.0) < loss(0.1) < loss(0.3)


def test_a_run_says_how_its_target_resists_and_marks_overfitting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["data.training_images=640", "data.validation_images=100", "data.test_images=150", "training.epochs=1"]
    options += ["target.adversarial_training.method=fgsm", "target.adversarial_training.epsilon=0.1", "target.epochs=3"]
    options += ["generator.widths=[4, 8]", "generator.residual_blocks=1", f"output.directory={tmp_path}"]
    command = ["--config", "mnist.yaml", "--quiet", *(word for each in options for word in ("--set", each))]
    assert train.main(command) == 0
    summary = Summary.read(tmp_path / "mnist" / "0" / "summary.json")
    assert summary.defence is not None and len(summary.defence.epochs) == 3
    found = summary.defence.robustness
    assert found.epsilon == 0.1 and found.pgd.n == 150 and found.pgd.rate <= found.fgsm.rate <= found.clean.rate
    shown = capsys.readouterr().out
    assert f"under PGD-40, epsilon 0.1               {found.pgd.rate:>8.2%}" in shown
    names = [finding.guard for finding in summary.checks]
    assert names[-1] == "adversarial training resists its own attack alone"
