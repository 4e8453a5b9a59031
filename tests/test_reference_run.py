"""The run that ships: it is whole and small, its figures are those of its files, and ``evaluate`` falls back on it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from advgan import AdvGANAttack, evaluate, reference_run
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.run_folder import load_run_config

KERAS_3 = version("keras").startswith("3.")
RUN = reference_run()
on_keras_3 = pytest.mark.skipif(not KERAS_3, reason="the run that ships was written with Keras 3")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_it_is_whole_and_small() -> None:
    files = [path for path in RUN.rglob("*") if path.is_file()]
    for name in ("generator.keras", "discriminator.keras", "target.keras", "config.yaml", "evaluation/report.html"):
        assert RUN / name in files
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_it_names_no_folder_of_the_machine_that_made_it() -> None:
    assert load_run_config(RUN).output.directory == "checkpoints"
    texts = [path.read_text() for path in RUN.rglob("*") if path.suffix in (".yaml", ".json", ".jsonl", ".html")]
    assert len(texts) >= 7
    record = json.loads((RUN / "evaluation" / "evaluation.json").read_text())
    assert not Path(record["run"]).is_absolute() and not Path(record["target"]["name"]).is_absolute()
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/Users/") for text in texts if place in text]


def test_its_evaluation_is_of_its_networks_on_all_test_images_at_a_commit() -> None:
    record = json.loads((RUN / "evaluation" / "evaluation.json").read_text())
    assert record["generator"]["sha256"] == sha256(RUN / "generator.keras")
    assert record["target"]["sha256"] == sha256(RUN / "target.keras")
    assert record["data"]["all_test_images"] and record["data"]["images"] == 10_000
    assert record["commit"] and not record["commit"].endswith("-dirty")
    assert record["success"]["rate"] > 0.997


@on_keras_3
def test_it_attacks_as_its_evaluation_says() -> None:
    attack = AdvGANAttack.load(RUN)
    test = load_dataset(load_run_config(RUN).data).test.first(1000)
    images = scaled(test.images)
    right = attack.classify(images) == test.labels
    success = attack(images, test.labels).success
    assert success is not None
    assert success[right].mean() > 0.99


@pytest.mark.addons
@pytest.mark.skipif(KERAS_3, reason="for the stack that cannot read it")
def test_where_keras_is_older_the_message_says_how_to_train_one() -> None:
    with pytest.raises(AdvGANError, match=r"written with Keras 3\..*, here is 2\..*advgan\.train --config mnist\.yaml"):
        AdvGANAttack.load(RUN)


@on_keras_3
def test_without_a_run_of_ones_own_it_is_evaluated_and_kept_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "FEW", 20)
    assert evaluate.main(["--optimized", "2"]) == 0
    said = capsys.readouterr().out
    assert "No finished run found: the shipped one, on its first 20 test images" in said
    assert said.splitlines()[-1].startswith("Your own pictures: ")
    assert (tmp_path / "checkpoints" / "reference-evaluation-first-20" / "report.html").is_file()
    assert digests(RUN) == before


def test_another_configuration_does_not_fall_back_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--config", "mnist_targeted.yaml"], ["--set", "attack.epsilon=0.2"], ["--set", "seed=1"]):
        assert evaluate.main(arguments) == 2
        assert "there is no finished run in checkpoints" in capsys.readouterr().err
