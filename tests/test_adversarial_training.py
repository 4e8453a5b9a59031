"""Adversarial training: each method's images, the loss, exact resumes, and a classifier that resists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.loading import parse_config
from advgan.config.settings import Config
from advgan.data.datasets import Dataset
from advgan.data.loading import load_dataset
from advgan.environment import prepare_environment
from advgan.errors import Interrupted
from advgan.networks.keras_file import weights_digest
from advgan.training import classifier
from advgan.training.classifier import load_or_train_target

keras = tf.keras
METHODS = {
    "fgsm": {"method": "fgsm", "epsilon": 0.2},
    "fast fgsm": {"method": "fgsm", "epsilon": 0.2, "random_start": True},
    "ensemble": {"method": "ensemble", "epsilon": 0.2, "others": [{"architecture": "lenet", "seed": 3, "epochs": 1}]},
    "pgd": {"method": "pgd", "epsilon": 0.2, "steps": 2, "warmup_epochs": 1},
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


@pytest.mark.addons
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_goes_on_exactly(
    method: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(method, architecture="model_c")  # it has dropout
    environment = prepare_environment(config.training)
    whole = load_or_train_target(config, dataset, environment, tmp_path / "whole")
    for stop_at in (1, 3, 4):  # within an epoch, after one, after a resume
        with monkeypatch.context() as patched:
            patched.setattr(classifier, "run_steps", stopping_after(stop_at))
            with pytest.raises(Interrupted, match=rf"stopped at step {stop_at} of the target's training"):
                load_or_train_target(config, dataset, environment, tmp_path / "parts")
    parts = load_or_train_target(config, dataset, environment, tmp_path / "parts")
    assert weights_digest(whole.model) == weights_digest(parts.model)
    assert [each.model_copy(update={"seconds": 0}) for each in whole.epochs] == [
        each.model_copy(update={"seconds": 0}) for each in parts.epochs
    ]
    assert len(parts.epochs) == 2 and sum(each.kept for each in parts.epochs) == 1
    assert not list((tmp_path / "parts").glob("*.training"))
    assert load_or_train_target(config, dataset, environment, tmp_path / "parts").epochs == parts.epochs


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
