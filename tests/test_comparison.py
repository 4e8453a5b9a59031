"""Runs side by side, and a run trained anew at other epsilons: counted again, resumed, refused."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from log_lines import logged
from processes import one_line_error

import advgan
from advgan import environment, evaluate
from advgan.config.loading import dump_config
from advgan.errors import AdvGANError, Interrupted
from advgan.evaluation.subject import EvaluationRequest
from advgan.experiments import evaluate as evaluate_experiment
from advgan.experiments.compare import Comparison, compare
from advgan.experiments.evaluate import evaluate_run, last_record
from advgan.experiments.retrain import plan_retraining, retrain
from advgan.metrics import Rate
from advgan.records.comparison import ComparisonFiles, ComparisonRecord
from advgan.records.evaluation import Evaluation
from advgan.records.finding import NOT_CHECKED, PASS, WARN, Finding
from advgan.reports.comparison import compared, comparison_page, differences
from advgan.run_folder import load_run_config

keras = tf.keras
COUNT, EPSILON = 40, 0.1


@pytest.fixture(scope="module")
def runs(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and the same as if it had been trained at epsilon 0.2."""
    folder = tmp_path_factory.mktemp("compared")
    first, second = (
        Path(shutil.copytree(small_run, folder / name, ignore=shutil.ignore_patterns("evaluation*", "state")))
        for name in ("first", "second")
    )
    config = load_run_config(second)
    attack = config.attack.model_copy(update={"epsilon": 0.2})
    (second / "config.yaml").write_text(dump_config(config.model_copy(update={"attack": attack})))
    return first, second


@pytest.fixture(scope="module")
def record(runs: tuple[Path, Path]) -> dict[str, Any]:
    """The first run's evaluation, with points trained anew."""
    request = EvaluationRequest(runs[0], images=COUNT, optimized_images=1, retrain=(0.3, EPSILON, 0.0, EPSILON))
    return evaluate_run(request, command="a test").as_json()


@pytest.fixture(scope="module")
def content(runs: tuple[Path, Path], record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The comparison; the first run's evaluation is there, the second's is not."""
    assert record
    written = (runs[0] / f"evaluation-first-{COUNT}" / "evaluation.json").stat().st_mtime_ns
    yield compare(Comparison(runs, images=COUNT, optimized_images=1), command="a <test>").as_json()
    assert (runs[0] / f"evaluation-first-{COUNT}" / "evaluation.json").stat().st_mtime_ns == written


# --- Trained anew ------------------------------------------------------------------------------------------------


def test_a_retrained_point_is_counted_again(runs: tuple[Path, Path], record: dict[str, Any]) -> None:
    zero, smaller, own = record["retrained"]
    assert [point["epsilon"] for point in record["retrained"]] == [0, EPSILON, 0.3]
    assert (zero["success"]["successes"], zero["success"]["n"], zero["run"]) == (0, record["success"]["n"], None)
    assert own["success"] == record["success"]
    assert own["run"] == str(runs[0])

    folder = Path(smaller["run"])
    assert folder == runs[0] / "retrained" / f"epsilon-{EPSILON}"
    with np.load(runs[0] / f"evaluation-first-{COUNT}" / "adversarial.npz") as archive:
        images, labels, counted = archive["x"], archive["y"], archive["counted"]
    output = keras.models.load_model(folder / "generator.keras").predict(images, verbose=0)
    target = keras.models.load_model(runs[0] / "target.keras")
    answers = target.predict(np.clip(images + np.float32(EPSILON) * output, 0, 1), verbose=0).argmax(axis=1)
    assert smaller["success"]["successes"] == int((counted & (answers != labels)).sum())
    assert smaller["success"]["n"] == int(counted.sum())

    trained, before = (json.loads((path / "summary.json").read_text()) for path in (folder, runs[0]))
    assert trained["target_weights_sha256"] == before["target_weights_sha256"]
    assert trained["generator_weights_sha256"] != before["generator_weights_sha256"]
    assert smaller["validation_success"] == trained["validation_success"]
    ours, theirs = load_run_config(folder), load_run_config(runs[0])
    assert ours.attack.epsilon == EPSILON
    assert (ours.loss, ours.seed, ours.training) == (theirs.loss, theirs.seed, theirs.training)


def test_the_report_shows_retrained_points(runs: tuple[Path, Path], record: dict[str, Any]) -> None:
    html = (runs[0] / f"evaluation-first-{COUNT}" / "report.html").read_text(encoding="utf-8")
    assert "Retrained at other epsilons" in html
    assert f"{record['retrained'][1]['success']['rate']:.2%}" in html


def test_a_retraining_that_was_stopped_goes_on_and_a_finished_one_is_found(
    runs: tuple[Path, Path], record: dict[str, Any]
) -> None:
    assert record
    (planned,) = plan_retraining(runs[0], load_run_config(runs[0]), (EPSILON,))
    folder = planned.folder
    assert folder is not None
    generator = folder / "generator.keras"
    before, written = json.loads((folder / "summary.json").read_text()), generator.stat().st_mtime_ns
    retrain(planned, runs[0], "")
    assert generator.stat().st_mtime_ns == written

    (folder / "summary.json").unlink()  # as it was after the first epoch
    steps = sorted((folder / "state").iterdir())
    shutil.rmtree(steps[-1])
    assert len(steps) > 1
    with logged() as lines:
        retrain(planned, runs[0], "")
    assert any(line.startswith("Resumed        at step") for line in lines)
    after = json.loads((folder / "summary.json").read_text())
    assert after["generator_weights_sha256"] == before["generator_weights_sha256"]


def test_a_folder_that_holds_another_training_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run", ignore=shutil.ignore_patterns("evaluation*")))
    config = load_run_config(run)
    folder = run / "retrained" / f"epsilon-{EPSILON}"
    folder.mkdir(parents=True)
    shutil.copy(runs[0] / "generator.keras", folder / "target.keras")
    with pytest.raises(AdvGANError, match=r"another target than .*; delete it to train it again"):
        plan_retraining(run, config, (EPSILON,))
    (folder / "config.yaml").write_text(dump_config(config))
    with pytest.raises(AdvGANError, match=r"other settings than .*; delete it to train it again"):
        plan_retraining(run, config, (EPSILON,))


# --- Side by side ------------------------------------------------------------------------------------------------


def test_the_table_says_what_the_evaluations_say(
    runs: tuple[Path, Path], record: dict[str, Any], content: dict[str, Any]
) -> None:
    folder = runs[0] / f"comparison-first-{COUNT}"
    assert json.loads((folder / "comparison.json").read_text()) == content
    assert content["schema"] == ComparisonRecord.newest
    second = json.loads((runs[1] / f"evaluation-first-{COUNT}" / "evaluation.json").read_text())
    for row, evaluation in zip(content["runs"], (record, second), strict=True):
        for key in ("success", "success_8_bit", "clean_accuracy", "epsilon", "seconds_per_1000_images"):
            assert row[key] == evaluation[key]
        assert row["mean_l2"] == evaluation["distortion"]["mean_l2"]
        rates = {attack["name"]: attack["success"]["rate"] for attack in evaluation["attacks"]}
        del rates["fmn"]  # it saw one image
        assert row["strongest_other"]["success"]["rate"] == max(rates.values())
        assert rates[row["strongest_other"]["name"]] == max(rates.values())
    assert tf.io.decode_png((folder / "comparison.png").read_bytes()).shape[0] > 100


def test_what_differs_is_said_in_words(content: dict[str, Any], runs: tuple[Path, Path]) -> None:
    first, second = content["runs"]
    assert (first["fair"], first["differences"]) == (True, [])
    assert (second["fair"], second["differences"]) == (False, ["another epsilon (0.2, not 0.3)"])
    html = (runs[0] / f"comparison-first-{COUNT}" / "comparison.html").read_text(encoding="utf-8")
    assert f"Not a fair comparison: {runs[1]}</b> has another epsilon (0.2, not 0.3)" in html
    assert "1 of 2 cannot be compared" in html
    assert not re.search(r"https?://|<script|@import|url\(", html)
    assert html.count("data:image/png;base64,") == 1
    assert "a &lt;test&gt;" in html


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": {"sha256": "x"}}, "other data (mnist, not mnist)"),
        ({"data": {"images_sha256": "x"}}, "other images"),
        ({"data": {"images": 7, "images_sha256": "x"}}, "another number of images (7, not 40)"),
        ({"target": {"weights_sha256": "0123456789"}}, "another target (01234567, not "),
        ({"target_class": 3}, "another goal (class 3, not untargeted)"),
        ({"options": {"restarts": 10}}, "other settings of the other attacks"),
        ({"target": {"sha256": "another file of the same network"}}, None),
        ({"run": "elsewhere"}, None),
    ],
)
def test_each_difference_is_named(record: dict[str, Any], changed: dict[str, Any], words: str | None) -> None:
    other = {**record}
    for key, value in changed.items():
        other[key] = {**record[key], **value} if isinstance(value, dict) else value
    found = differences(Evaluation.model_validate(other), Evaluation.model_validate(record))
    assert len(found) == (words is not None)
    assert words is None or found[0].startswith(words)


def test_the_best_of_those_that_compare_fairly_is_named(record: dict[str, Any]) -> None:
    def of(run: str, successes: int, **changes: Any) -> Evaluation:
        changes = {"run": run, "success": Rate.of(successes, 50), **changes}
        return Evaluation.model_validate(record).model_copy(update=changes)

    runs = [of("first", 20), of("better", 30), of("other", 40, epsilon=0.2), of("worse", 10)]
    rows = compared(runs)
    assert [row.fair for row in rows] == [True, True, False, True]
    files = ComparisonFiles(page="", picture="")
    html = comparison_page(ComparisonRecord(version=1, command="", commit=None, runs=rows, files=files), b"")
    assert "1 of 4 cannot be compared with it fairly" in html
    assert "Of those that can, better succeeds most often: 60.00%." in html
    marked = tuple(Finding(status, status, "") for status in (PASS, WARN, NOT_CHECKED))
    assert compared([of("marked", 20, guards=marked)])[0].marked == (WARN,)


def test_an_evaluation_is_out_of_date_when_what_it_was_made_of_changes(
    runs: tuple[Path, Path], record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("retrained", "stages")))
    request = EvaluationRequest(run, images=COUNT)
    found = Evaluation.model_validate(record)
    assert last_record(request) == (found, True)
    assert last_record(EvaluationRequest(run)) == (None, False)  # all images: that is another folder
    with monkeypatch.context() as changed:  # the same commit, with a change that is not committed
        changed.setattr(evaluate_experiment, "code_digest", lambda: "of other files")
        assert last_record(request) == (found, False)
    with (run / "generator.keras").open("ab") as file:
        file.write(b"\0")
    assert last_record(request) == (found, False)


def test_code_that_is_not_committed_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advgan, "__file__", str(tmp_path / "__init__.py"))
    digests = []
    for name, text in (("__init__.py", "one"), ("room.py", "one"), ("room.py", "two"), ("notes.md", "three")):
        (tmp_path / name).write_text(text)
        digests.append(environment.code_digest())
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]  # a page is no code


# --- Refusals ----------------------------------------------------------------------------------------------------


refusal = functools.partial(one_line_error, evaluate.main)
"""What the command ends with on invalid input."""


@pytest.mark.parametrize("epsilon", ["1.01", "-0.1", "nan", "some", "1/0"])
def test_an_epsilon_that_cannot_be_is_refused(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], epsilon: str
) -> None:
    before = sorted(runs[1].rglob("*"))
    assert refusal(capsys, "--run", str(runs[1]), "--retrain", "0.1", epsilon).startswith(
        ("--retrain = ", f"argument --retrain: {epsilon!r}: ")
    )
    assert sorted(runs[1].rglob("*")) == before


def test_a_comparison_that_cannot_be_is_refused_before_any_work(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = map(str, runs)
    before = sorted(runs[1].rglob("*"))
    assert "two runs or more" in refusal(capsys, "--compare", first)
    assert "is there twice" in refusal(capsys, "--compare", first, f"{first}{os.sep}")
    assert "is not a run" in refusal(capsys, "--compare", second, str(tmp_path))
    assert refusal(capsys, "--compare", first, second, "--images", "201").startswith("--images = 201: ")
    assert refusal(capsys, "--compare", first, second, "--retrain", "0.1").startswith("--retrain = ")
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(capsys, "--compare", second, first, "--output", str(tmp_path / "file"))
    assert sorted(runs[1].rglob("*")) == before


def test_a_retraining_that_is_stopped_says_how_it_goes_on(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped at step 5")

    monkeypatch.setattr(evaluate_experiment, "evaluate_run", stopped)
    assert evaluate.main(["--run", str(runs[0]), "--retrain", "0.1"]) == 130
    assert capsys.readouterr().err == "stopped at step 5; run the same command again to continue\n"
