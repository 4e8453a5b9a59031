"""Records as files: read back as they were written, by this release or the last, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from advgan import reference_run
from advgan.errors import AdvGANError
from advgan.files import read_json, write_json
from advgan.metrics import Rate
from advgan.records.attack import BegunAttack, FinishedAttack
from advgan.records.evaluation import Evaluation, EvaluationHead
from advgan.records.record import Record
from advgan.records.summary import Seconds, Summary, read_processes, write_processes
from advgan.reports.checklist import CHECKLIST
from advgan.reports.terminal import columns

RELEASE_0_1 = Path(__file__).parent / "release_0_1"
SUMMARY = RELEASE_0_1 / "finished" / "summary.json"
EVALUATION = reference_run() / "evaluation" / "evaluation.json"
ATTACK: dict[str, Any] = {
    "schema": 1,
    "digest": "abc",
    "complete": True,
    "run": "run",
    "input": "x.npz",
    "command": "",
    "commit": None,
    "environment": {},
    "threat_model": "untargeted",
    "goal": "untargeted",
    "target_class": None,
    "epsilon": 0.3,
    "generator_sha256": "def",
    "classifier": {"name": "target", "sha256": "ghi"},
    "options": {"resize": False},
    "labels": None,
    "class_names": ["cat", "dog"],
    "images": 2,
    "left_out": [{"file": "a.png", "problem": "is no picture"}],
    "success": {"successes": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9},
    "success_counts": "no labels",
    "largest_linf": 0.3,
    "mean_l2": 4.0,
    "files": {"table": "attack.csv", "picture": None},
}


def without_key(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(content))
    part = changed
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return changed


@pytest.mark.parametrize(
    ("kind", "path"),
    [(Summary, SUMMARY), (Summary, reference_run() / "summary.json"), (Evaluation, EVALUATION)],
)
def test_what_release_0_1_wrote_is_read_and_written_again_as_it_was(
    tmp_path: Path, kind: type[Record], path: Path
) -> None:
    record = kind.read(path)
    assert record.version == 1
    record.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == path.read_text()
    assert kind.read(tmp_path / "again.json") == record


def test_a_summary_of_release_0_1_has_its_figures_and_no_checks() -> None:
    summary = Summary.read(SUMMARY)
    assert summary.test.success == Rate.of(91, 109)
    assert (summary.checks, summary.black_box, summary.distilled_weights_sha256) == ((), None, None)
    assert summary.seconds.attack == summary.seconds.generator_training
    with_distillation = Seconds(target_training=1, generator_training=2, distillation=3, this_process=9)
    assert with_distillation.attack == 5


def test_an_attack_on_files_is_read_before_and_after_its_end(tmp_path: Path) -> None:
    write_json(tmp_path / "attack.json", ATTACK)
    finished = FinishedAttack.read(tmp_path / "attack.json")
    assert finished.as_json() == ATTACK
    assert finished.success == Rate(1, 2, 0.5, 0.1, 0.9)
    begun = {key: value for key, value in ATTACK.items() if key in BegunAttack.model_fields or key == "schema"}
    write_json(tmp_path / "attack.json", {**begun, "complete": False})
    assert BegunAttack.read(tmp_path / "attack.json").complete is False
    with pytest.raises(AdvGANError, match=r"attack\.json is damaged \(it has no 'images'\)"):
        FinishedAttack.read(tmp_path / "attack.json")


def test_keys_that_are_not_known_are_kept(tmp_path: Path) -> None:
    content = read_json(EVALUATION)
    content |= {"later": [1, 2]}
    content["data"]["licence"] = "CC BY-SA 3.0"
    write_json(tmp_path / "evaluation.json", content)
    assert Evaluation.read(tmp_path / "evaluation.json").as_json() == content


def test_processes_keep_what_others_wrote(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    assert read_processes(path) == []
    content = read_json(RELEASE_0_1 / "run" / "processes.json")
    write_json(path, [{**entry, "host": "elsewhere"} for entry in content])
    write_processes(path, [*read_processes(path), *read_processes(RELEASE_0_1 / "run" / "processes.json")])
    assert read_json(path) == [*({**entry, "host": "elsewhere"} for entry in content), *content]
    write_json(path, [{**content[0], "environment": None}])
    with pytest.raises(AdvGANError, match=r"processes\.json is damaged \(environment: "):
        read_processes(path)


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        (Summary, [], "is damaged (Input should be a valid dictionary"),
        (Summary, without_key(read_json(SUMMARY), "test"), "is damaged (it has no 'test')"),
        (Summary, without_key(read_json(SUMMARY), "test", "success", "n"), "is damaged (it has no 'test.success.n')"),
        (Summary, {**read_json(SUMMARY), "steps": "many"}, "is damaged (steps: "),
        (Summary, {**read_json(SUMMARY), "version": 2}, "has version 2, this advgan reads up to 1; install a newer"),
        (Evaluation, without_key(read_json(EVALUATION), "schema"), "is damaged (it has no 'schema')"),
        (Evaluation, {**read_json(EVALUATION), "schema": "new"}, "is damaged (schema: "),
        (Evaluation, {"schema": 9}, "has version 9, this advgan reads up to 1; install a newer advgan"),
        (FinishedAttack, {**ATTACK, "schema": 2}, "has version 2, "),
    ],
)
def test_a_file_that_cannot_be_read_says_so_in_one_line(
    tmp_path: Path, kind: type[Record], content: object, problem: str
) -> None:
    write_json(tmp_path / "record.json", content)
    with pytest.raises(AdvGANError) as caught:
        kind.read(tmp_path / "record.json")
    assert str(caught.value).startswith(f"{tmp_path / 'record.json'} {problem}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(SUMMARY.read_text()[:300])
    with pytest.raises(AdvGANError, match=r"summary\.json is damaged \("):
        Summary.read(tmp_path / "summary.json")


def test_records_are_frozen_and_typed() -> None:
    summary = Summary.read(SUMMARY)
    with pytest.raises(ValidationError, match="frozen"):
        summary.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Field required"):
        EvaluationHead(version=1)  # type: ignore[call-arg]


# --- The checklist and the layout of tables, as data ---------------------------------------------------------------


def test_the_checklist_has_each_question_once() -> None:
    assert len({question.item for question in CHECKLIST}) == len(CHECKLIST) == 42
    assert len(dict.fromkeys(question.section for question in CHECKLIST)) == 3


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    rows = [("name", "n"), ("a", "1,000"), ("longer", "2")]
    assert columns(rows) == ["name    n", "a       1,000", "longer  2"]
    assert columns(rows, left=1) == ["name        n", "a       1,000", "longer      2"]
