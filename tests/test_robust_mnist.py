"""The robust classifier that ships: by its name everywhere, and as robust as its card says, by Foolbox."""

from __future__ import annotations

from pathlib import Path

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from margin_pgd import MarginPGD

from advgan import describe
from advgan.attacks.foolbox_adapter import foolbox_model
from advgan.classifiers.black_box import load_black_box
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.loading import copied_as, load_classifier
from advgan.config.loading import load_config, parse_config
from advgan.data.datasets import Split, scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.evaluation.robustness import robustness
from advgan.experiments.train import train_and_evaluate
from advgan.run_folder import new_run_directory

NAME, SHAPE, EPSILON = "robust_mnist", (28, 28, 1), 0.3
DATA = {"training_images": 256, "validation_images": 64, "test_images": 300}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier(NAME, SHAPE)


@pytest.fixture(scope="module")
def test() -> Split:
    return load_dataset(parse_config({"data": DATA}).data).test


@pytest.mark.addons
def test_it_resists_as_much_by_foolbox(classifier: Classifier, test: Split) -> None:
    found = robustness(classifier, test, EPSILON)
    assert found.clean.n == len(test) and found.clean.rate > 0.96
    images, labels = tf.constant(scaled(test.images)), tf.constant(test.labels.astype(np.int64))
    tf.random.set_seed(0)
    for attack, ours in (
        (foolbox.attacks.FGSM(), found.fgsm),
        (foolbox.attacks.LinfPGD(), found.pgd_cross_entropy),
        (MarginPGD(), found.pgd_margin),
    ):
        _, made, _ = attack(foolbox_model(classifier.network), images, labels, epsilons=EPSILON)
        left = np.mean(np.asarray(classifier.network(made)).argmax(axis=1) == test.labels)
        assert abs(left - ours.rate) <= 0.015
        assert left > 0.87
    assert found.pgd.rate <= min(found.pgd_cross_entropy.rate, found.pgd_margin.rate)


def test_it_is_itself_by_its_name(classifier: Classifier, test: Split) -> None:
    assert copied_as(NAME) is None
    assert classifier.name == NAME and classifier.digest == classifier.weights
    assert not classifier.network.trainable_weights
    assert classifier.network.count_params() == 217_706
    images = scaled(test.images[:20])
    black_box = load_black_box(NAME, SHAPE, 10)
    np.testing.assert_allclose(
        black_box.logits(images), tf.nn.softmax(classifier.logits(tf.constant(images))), atol=1e-5
    )
    with pytest.raises(AdvGANError, match=r"^robust_mnist takes images of \(28, 28, 1\), these have \(32, 32, 3\)"):
        load_classifier(NAME, (32, 32, 3))


def test_a_run_attacks_it_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(
        {
            "data": DATA,
            "target": {"file": NAME},
            "generator": {"widths": [4, 8], "residual_blocks": 1},
            "training": {"epochs": 1, "batch_size": 64},
            "output": {"directory": str(tmp_path)},
        }
    )
    run = new_run_directory(config)
    monkeypatch.chdir(tmp_path)
    summary = train_and_evaluate(config, run)
    assert load_config(run / "config.yaml").target.file == NAME
    assert summary.test.clean_accuracy.rate > 0.96 and summary.test.success.rate < 0.1
    assert train_and_evaluate(load_config(run / "config.yaml"), run) == summary


def test_describe_knows_its_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(["--target", NAME]) == 0
    shown = capsys.readouterr().out
    assert "28x28x1" in shown and "217,706" in shown
