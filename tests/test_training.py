"""Training on a small slice of real MNIST: what it reaches, what it leaves alone, what it writes, when it stops."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from log_lines import logged

import advgan
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.classifiers.architectures import build_classifier
from advgan.config.loading import dump_config, parse_config
from advgan.config.settings import Config, DataSettings
from advgan.data.datasets import Split, scaled
from advgan.data.loading import load_dataset
from advgan.environment import prepare_environment
from advgan.errors import NonFiniteError
from advgan.experiments import plan
from advgan.experiments.train import train_and_evaluate
from advgan.files import read_json
from advgan.networks.keras_file import load_network, weights_digest
from advgan.records.summary import Summary
from advgan.reports.terminal import run_results
from advgan.run_folder import latest_run, new_run_directory
from advgan.training import classifier
from advgan.training.classifier import (
    load_or_train_target,
    target_digest,
    train_classifier,
)
from advgan.training.metrics_log import read_rows
from advgan.training.validation import (
    BlackBoxValidation,
    DistilledValidation,
    TargetValidation,
    Validation,
    discriminator_health,
)

keras = tf.keras


def small(folder: Path, **changes: dict[str, Any]) -> Config:
    settings: dict[str, dict[str, Any]] = {
        "data": {"training_images": 6000, "validation_images": 500, "test_images": 1000},
        "target": {"epochs": 3, "batch_size": 64, "learning_rate": 2e-3},
        "training": {"epochs": 3, "batch_size": 64},
        "output": {"directory": str(folder)},
    }
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    return parse_config(settings)


def tiny(folder: Path, **changes: dict[str, Any]) -> Config:
    data = {"training_images": 512, "validation_images": 100, "test_images": 150}
    defaults: dict[str, dict[str, Any]] = {
        "data": data,
        "target": {"epochs": 1},
        "generator": {"widths": [4, 8, 16], "residual_blocks": 1},
        "training": {"epochs": 2},
    }
    return small(folder, **{key: {**defaults.get(key, {}), **changes.get(key, {})} for key in {**defaults, **changes}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, dict[str, Any], list[str]]:
    config = small(tmp_path_factory.mktemp("runs"))
    run = new_run_directory(config)
    with logged() as lines:
        summary = train_and_evaluate(config, run).as_json()
    return config, run, summary, lines


@pytest.mark.addons
def test_the_main_job_fools_a_good_classifier(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    _, _, summary, _ = trained
    test = summary["test"]
    assert test["clean_accuracy"]["rate"] > 0.94
    assert test["success"]["rate"] > 0.9
    assert test["success"]["n"] == test["clean_accuracy"]["successes"]
    assert test["largest_linf"] <= 0.3 + 1e-6
    assert abs(test["success_8_bit"]["rate"] - test["success"]["rate"]) < 0.02


@pytest.mark.addons
def test_the_summary_agrees_with_an_independent_count(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    config, run, summary, _ = trained
    dataset = load_dataset(config.data)
    images, labels = scaled(dataset.test.images), dataset.test.labels
    generator, target = keras.models.load_model(run / "generator.keras"), keras.models.load_model(run / "target.keras")
    adversarial = np.clip(images + np.float32(0.3) * generator.predict(images, batch_size=77, verbose=0), 0, 1)
    clean_answers = target.predict(images, verbose=0).argmax(1)
    answers = target.predict(adversarial, verbose=0).argmax(1)
    right = clean_answers == labels
    assert summary["test"]["success"]["n"] == right.sum()
    assert abs(summary["test"]["success"]["successes"] - (answers[right] != labels[right]).sum()) <= 1
    assert weights_digest(target) == summary["target_weights_sha256"]


@pytest.mark.addons
def test_a_run_leaves_what_it_promises(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    config, run, summary, lines = trained
    for name in (
        "config.yaml",
        "target.keras",
        "generator-last.keras",
        "discriminator.keras",
        "result.png",
        "curves.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert [path.name for path in sorted((run / "samples").iterdir())] == [f"epoch-00{i}.png" for i in (1, 2, 3)]
    assert len(list((run / "state").iterdir())) == config.output.keep_checkpoints
    rows = read_rows(run / "metrics.jsonl")
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert max(row["validation_success"] for row in epochs) == summary["validation_success"]
    assert epochs[summary["best_epoch"] - 1]["validation_success"] == summary["validation_success"]
    steps = [row for row in rows if row["kind"] == "steps"]
    assert {"loss_adv", "loss_gan", "loss_hinge", "discriminator_accuracy_adversarial"} <= steps[0].keys()
    assert summary["processes"][0]["environment"]["tensorflow"] == tf.__version__
    assert summary["steps"] == 3 * (6000 // 64)
    assert latest_run(Path(config.output.directory)) == run
    text = "\n".join(lines)
    assert "untargeted" in text and "semi-white-box" in text
    assert any("attack success rate" in line for line in run_results(Summary.read(run / "summary.json"), run))


@pytest.mark.addons
def test_tensorboard_has_scalars_and_pictures(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    _, run, _, _ = trained
    tags: dict[str, list[int]] = {}
    for file in (run / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    assert tags["samples"] == tags["epoch/validation_success"] == [93, 186, 279]
    assert tags["steps/loss_adv"][:2] == [10, 20]


@pytest.mark.addons
def test_epochs_equal_the_mean_of_their_steps(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    _, run, _, _ = trained
    rows = read_rows(run / "metrics.jsonl")
    steps = [row for row in rows if row["kind"] == "steps" and row["epoch"] == 1]
    counts = np.diff([0, *(row["step"] for row in steps)])
    assert counts.sum() == 93
    mean = np.average([row["loss_adv"] for row in steps], weights=counts)
    assert next(row for row in rows if row["kind"] == "epoch")["loss_adv"] == pytest.approx(mean)


def test_a_targeted_attack_reaches_its_class(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    config, _, untargeted, _ = trained
    targeted = parse_config({**config.model_dump(), "attack": {"goal": "targeted", "target_class": 7}})
    run = new_run_directory(targeted)
    with logged() as lines:
        summary = train_and_evaluate(targeted, run).as_json()
    assert summary["test"]["success"]["rate"] > 0.9
    assert summary["test"]["success"]["n"] < untargeted["test"]["success"]["n"]
    assert summary["target_weights_sha256"] == untargeted["target_weights_sha256"]
    assert any("loaded" in line for line in lines)  # the target came from the cache


def test_training_stops_at_the_chosen_success_rate(tmp_path: Path) -> None:
    config = tiny(tmp_path, training={"epochs": 4, "stop_at_success": 0.001})
    summary = train_and_evaluate(config, new_run_directory(config)).as_json()
    assert summary["steps"] == 512 // 64 // 4  # at the first validation


def test_the_earlier_generator_is_kept_on_a_tie(tmp_path: Path) -> None:
    config = tiny(tmp_path, attack={"epsilon": 1e-6})  # too little to fool anything, so all generators tie
    run = new_run_directory(config)
    summary = train_and_evaluate(config, run)
    epochs = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "epoch"]
    assert [row["validation_success"] for row in epochs] == [0.0, 0.0]
    assert summary.best_epoch == 1
    assert summary.generator_weights_sha256 != summary.generator_last_weights_sha256


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        (TargetValidation, {"better": True, "equal": False, "worse": False}),
        (BlackBoxValidation, {"better": True, "equal": True, "worse": False}),
        (DistilledValidation, {"better": True, "equal": True, "worse": True}),
    ],
)
def test_each_validation_says_whether_a_generator_improves_on_the_best(
    validation: type[Validation], expected: dict[str, bool]
) -> None:
    improves = validation.improves
    assert {"better": improves(0.6, 0.5), "equal": improves(0.5, 0.5), "worse": improves(0.4, 0.5)} == expected
    assert improves(0.0, -1.0)  # the first


def test_divergence_stops_the_run_and_names_term_and_step(tmp_path: Path) -> None:
    config = tiny(tmp_path, loss={"beta": 3e38, "c": 0.0})
    run = new_run_directory(config)
    with pytest.raises(NonFiniteError, match=r"loss_generator is not finite at step 1\b"):
        train_and_evaluate(config, run)
    assert not (run / "generator.keras").exists()
    assert not (run / "state").exists() or not list((run / "state").iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"attack": {"output": "clipped"}},
        {"generator": {"upsampling": "resize", "normalization": "batch", "schedule": "linear"}},
        {
            "generator": {"normalization": "layer"},
            "discriminator": {"normalization": "group", "steps": 3, "noise": 0.1},
        },
        {"generator": {"normalization": "none"}, "discriminator": {"normalization": "none"}},
        {"loss": {"adversarial": "f2", "kappa": 0.5}, "training": {"compute_dtype": "bfloat16"}},
        {"target": {"weight_decay": 1e-3, "batch_normalization": True, "architecture": "model_b"}},
    ],
    ids=["clipped", "resize-batch", "layer-group", "none", "f2-bfloat16", "model_b"],
)
def test_every_option_trains_and_keeps_the_bound(changes: dict[str, Any], tmp_path: Path) -> None:
    training = {"epochs": 1, **changes.get("training", {})}
    config = tiny(tmp_path, **{**changes, "training": training})
    run = new_run_directory(config)
    summary = train_and_evaluate(config, run).as_json()
    assert summary["test"]["largest_linf"] <= 0.3 + 1e-6
    assert summary["processes"][0]["environment"]["deterministic"]
    row = read_rows(run / "metrics.jsonl")[-1]
    assert row["gradient_norm_generator"] > 0
    assert row["gradient_norm_discriminator"] > 0


def test_memory_growth_is_set_before_the_first_network_starts_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    configuration = tf.config.experimental
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
    monkeypatch.setattr(configuration, "set_memory_growth", lambda device, on: happened.append(f"{device} {on}"))
    monkeypatch.setattr(configuration, "get_device_details", lambda _: {"device_name": "a GPU"})
    monkeypatch.setattr(plan, "build_generator", lambda *_: happened.append("network"))
    environment = plan.check(tiny(tmp_path)).environment
    assert happened == ["GPU:0 True", "network"]
    assert environment["device"] == "a GPU"
    assert environment["deterministic"] is False


def test_xla_trains_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Determinism, once on, stays on in a process, and XLA's max-pool has no deterministic gradient."""
    settings = tmp_path / "xla.yaml"
    settings.write_text(dump_config(tiny(tmp_path, training={"epochs": 1, "xla": True})))
    command = [sys.executable, "-m", "advgan.train", "--config", str(settings), "--set", "name=xla"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "not bit-identical" in finished.stdout
    summary = read_json(tmp_path / "xla" / "0" / "summary.json")
    assert summary["processes"][0]["environment"]["deterministic"] is False
    assert summary["test"]["largest_linf"] <= 0.3 + 1e-6


def test_images_of_the_users_own(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    images = generator.integers(0, 90, (400, 13, 10, 3))
    images[np.arange(400), :, :, labels] += 120
    file = tmp_path / "colours.npz"
    np.savez(file, x_train=images[:300].astype(np.uint8), y_train=labels[:300],
             x_test=images[300:].astype(np.uint8), y_test=labels[300:])  # fmt: skip
    config = tiny(
        tmp_path,
        data={"dataset": str(file), "training_images": 256, "validation_images": 44, "test_images": 100},
        target={"architecture": "madrylab", "epochs": 4},
    )
    summary = train_and_evaluate(config, new_run_directory(config)).as_json()
    assert summary["test"]["clean_accuracy"]["rate"] == 1.0
    assert summary["test"]["largest_linf"] <= 0.3 + 1e-6


def test_the_target_is_cached_by_all_that_determines_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path)
    dataset, environment = load_dataset(config.data), prepare_environment(config.training)
    first = load_or_train_target(config, dataset, environment, tmp_path)
    again = load_or_train_target(config, dataset, environment, tmp_path)
    assert (first.cached, again.cached) == (False, True)
    assert weights_digest(first.model) == weights_digest(again.model)
    assert not again.model.trainable_variables
    others = [
        tiny(tmp_path, target={"epochs": 2}),
        tiny(tmp_path, target={"seed": 1}),
        tiny(tmp_path, data={"training_images": 511}),
    ]
    digests = {target_digest(other, load_dataset(other.data), environment) for other in others}
    assert len(digests | {first.digest}) == 4
    attack_only = tiny(tmp_path, attack={"epsilon": 0.1})
    assert target_digest(attack_only, dataset, environment) == first.digest
    assert all(any(Path(advgan.__file__).parent.glob(pattern)) for pattern in classifier.TRAINED_BY)
    monkeypatch.setattr(classifier, "code_digest", lambda *_files: "of other code")
    assert target_digest(config, dataset, environment) != first.digest


@pytest.mark.parametrize(("schedule", "batch_normalization"), [("linear", False), ("cosine", True)])
def test_a_target_is_trained_as_keras_trains_it(schedule: str, batch_normalization: bool) -> None:
    """Keras's own loop on the same batches, which numbers drawn by the seed and the epoch give."""
    config = parse_config(
        {
            "seed": 1,
            "target": {
                "seed": 5,
                "epochs": 2,
                "batch_size": 4,
                "learning_rate": 0.01,
                "schedule": schedule,
                "weight_decay": 0.02,
                "batch_normalization": batch_normalization,
            },
        }
    )
    random = np.random.default_rng(0)
    images = Split(random.integers(0, 256, (14, 12, 12, 1), np.uint8), random.integers(0, 3, 14).astype(np.int32))
    dataset = replace(load_dataset(DataSettings()), training=images, number_of_classes=3)
    trained = train_classifier(config, dataset).chosen

    keras.utils.set_random_seed(5)
    reference = build_classifier((12, 12, 1), 3, config.target)
    schedules = keras.optimizers.schedules
    rate = schedules.CosineDecay(0.01, 6) if schedule == "cosine" else schedules.PolynomialDecay(0.01, 6, 0.0)
    reference.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for epoch in range(2):
        order = np.random.default_rng([5, epoch]).permutation(14)
        for start in (0, 4, 8):  # two images are left over
            here = order[start : start + 4]
            reference.train_on_batch(images.images[here] / np.float32(255), images.labels[here])
    shown = scaled(images.images)
    np.testing.assert_allclose(trained(shown, training=False), reference(shown, training=False), atol=1e-3)
    assert np.abs(trained(shown, training=False).numpy()).max() > 0.1


def test_weight_decay_shrinks_the_weights_of_a_target(tmp_path: Path) -> None:
    dataset = load_dataset(tiny(tmp_path).data)

    def size(weight_decay: float) -> float:
        config = tiny(tmp_path, target={"weight_decay": weight_decay, "epochs": 3})
        kernels = [w.numpy() for w in train_classifier(config, dataset).chosen.trainable_variables if w.shape.rank != 1]
        return float(sum(np.square(kernel).sum() for kernel in kernels))

    assert size(0.01) < 0.8 * size(0.0)


def test_a_damaged_target_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "target.keras").write_bytes(b"not a model")
    with pytest.raises(Exception, match=r"cannot be loaded .*; train it again") as refusal:
        load_network(tmp_path / "target.keras", "train it again")
    assert "\n" not in str(refusal.value)


def test_the_health_of_the_discriminator_is_told_in_words() -> None:
    alive = {"discriminator_gap": 0.5, "discriminator_accuracy_real": 0.9, "discriminator_accuracy_adversarial": 0.9}
    assert discriminator_health(alive) == ""
    assert "dead" in discriminator_health({**alive, "discriminator_gap": 0.0})
    won = {"discriminator_gap": 1.0, "discriminator_accuracy_real": 1.0, "discriminator_accuracy_adversarial": 0.999}
    assert "dominates" in discriminator_health(won)


@pytest.mark.addons
def test_attacking_one_image_and_many_gives_the_same(trained: tuple[Config, Path, dict[str, Any], list[str]]) -> None:
    config, run, _, _ = trained
    generator, target = keras.models.load_model(run / "generator.keras"), keras.models.load_model(run / "target.keras")
    attack = AdvGANAttack(generator, target, config.attack)
    images = scaled(load_dataset(config.data).test.images[:501])
    many, one = attack.generate(images), attack.generate(images[500:])
    np.testing.assert_allclose(many[500:], one, atol=1e-5)
