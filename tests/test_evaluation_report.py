"""The report card and the page: that they say what the record says, stand alone, and mark what is wrong."""

from __future__ import annotations

import base64
import copy
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from advgan.evaluation.subject import EvaluationRequest
from advgan.experiments.evaluate import evaluate_run
from advgan.records.evaluation import Evaluation
from advgan.reports.checklist import report_card
from advgan.reports.evaluation_page import in_words, page

STATUSES = {"pass", "warn", "not checked"}


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "run"
    return Path(shutil.copytree(small_run, folder, ignore=shutil.ignore_patterns("state", "evaluation")))


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, Any]:
    request = EvaluationRequest(run, images=60, optimized_images=2)
    return evaluate_run(request, command="python -m <it> & more").as_json()


@pytest.fixture(scope="module")
def html(run: Path, record: dict[str, Any]) -> str:
    assert record
    return (run / "evaluation-first-60" / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Checks that tags open and close in order; keeps addresses and text."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def test_the_page_is_whole_and_needs_nothing_else(html: str) -> None:
    tags = read(html)
    assert len(tags.addresses) == 4  # images, success against epsilon, answers, training
    for address in tags.addresses:
        kind, content = address.split(",", 1)
        assert kind == "data:image/png;base64"
        assert min(tf.io.decode_png(base64.b64decode(content)).shape[:2]) > 100
    assert not re.search(r"https?://|<script|@import|url\(", html)
    assert 'name="viewport"' in html
    assert "@media print" in html
    assert "python -m <it> & more" in tags.text  # escaped in the file


def test_the_page_says_what_the_record_says(html: str, record: dict[str, Any]) -> None:
    text = read(html).text
    for name in ("success", "success_8_bit", "clean_accuracy", "accuracy_under_attack", "worst_case"):
        assert f"{record[name]['rate']:.2%}" in text
    for attack in record["attacks"]:
        assert attack["name"] in text
    for line in record["card"]:
        assert line["item"] in text
        assert line["reason"] in text
    assert record["threat_model"] in text
    assert "the first 60 of 200" in text
    assert record["data"]["sha256"] in text


def test_the_summary_in_words(record: dict[str, Any]) -> None:
    words = in_words(Evaluation.model_validate(record))
    assert f"of the {record['success']['n']} test images that are classified correctly when clean" in words
    assert "of the first 60 clean test images" in words
    targeted = {**record, "goal": "targeted", "target_class": 3}
    assert "are classified as class 3" in in_words(Evaluation.model_validate(targeted))


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {line.item: line.status for line in report_card(Evaluation.model_validate(record))}


def test_the_card_has_a_reason_for_every_line(record: dict[str, Any]) -> None:
    lines = report_card(Evaluation.model_validate(record))
    assert len(lines) > 35
    assert len({line.item for line in lines}) == len(lines)
    assert {line.status for line in lines} == STATUSES
    assert all(line.reason for line in lines)
    assert [line.section for line in lines] == sorted((x.section for x in lines), key=["Severe flaws", "Pitfalls",
        "Special cases"].index)  # fmt: skip


def test_the_card_follows_the_record(record: dict[str, Any]) -> None:
    before = statuses(record)
    assert before["All test images were used"] == "warn"
    assert before["Black-box, transfer and noise attacks were tried"] == "warn"
    assert before["Adaptive attacks: the strongest ones were used"] == "warn"

    other = copy.deepcopy(record)
    other["data"]["all_test_images"] = True
    rates = {name: record[name] for name in ("clean_accuracy", "accuracy_under_attack", "success")}
    same = {"name": "itself", "sha256": record["target"]["sha256"], **rates}
    other["transfer"] = [same]
    assert statuses(other)["Black-box, transfer and noise attacks were tried"] == "warn"  # that is no transfer
    weaker = {**record["success"], "rate": 0.01}
    other["transfer"] = [same, {**rates, "name": "another", "sha256": "0", "success": weaker}]
    next(attack for attack in other["attacks"] if attack["name"] == "pgd-40")["settings"]["restarts"] = 10
    after = statuses(other)
    for item in (
        "All test images were used",
        "Black-box, transfer and noise attacks were tried",
        "Adaptive attacks: the strongest ones were used",
        "Transfer: success on other classifiers is below that of white-box attacks",
    ):
        assert after[item] == "pass"
    for found in other["guards"]:
        found["status"] = "warn"
    marked = statuses(other)
    assert marked["Sanity: many steps do better than one"] == "warn"
    assert marked["White-box attacks do better than others"] == "warn"
    other["attacks"] = [attack for attack in other["attacks"] if attack["kind"] == "noise"]
    other["full_range"] = None
    without = statuses(other)
    assert without["Threat model: the attacker knows how the classifier works"] == "warn"
    assert without["The attacks are diverse"] == "warn"


def test_a_transfer_is_held_against_the_best_white_box_attack_and_kinds_of_attacks_are_counted(
    record: dict[str, Any],
) -> None:
    def card(rates: list[float], kinds: set[str]) -> dict[str, str]:
        other = copy.deepcopy(record)
        other["attacks"] = [attack for attack in other["attacks"] if attack["kind"] in kinds]
        for attack in other["attacks"]:
            attack["success"]["high"] = {"iterative": 0.5, "optimization": 0.7}.get(attack["kind"], 0.9)
        accuracies = {name: record[name] for name in ("clean_accuracy", "accuracy_under_attack")}
        other["transfer"] = [
            {"name": str(rate), "sha256": str(rate), **accuracies, "success": {**record["success"], "rate": rate}}
            for rate in rates
        ]
        return statuses(other)

    every = {"noise", "single step", "iterative", "optimization"}
    transfer = "Transfer: success on other classifiers is below that of white-box attacks"
    assert [card(rates, every)[transfer] for rates in ([0.6], [0.7, 0.1], [0.1, 0.71], [0.71, 0.1])] == [
        *("pass", "pass", "warn", "warn")
    ]
    assert card([0.1], {"noise", "single step"})[transfer] == "not checked"
    for kinds in ({"noise", "single step", "iterative"}, every):
        assert card([], kinds)["The attacks are diverse"] == "pass"
    for kinds in ({"noise", "single step"}, {"noise"}):  # of noise there are two
        assert card([], kinds)["The attacks are diverse"] == "warn"


def test_the_page_shows_marks(record: dict[str, Any]) -> None:
    assert "Warning:" not in page(Evaluation.model_validate({**record, "guards": []}), [])
    guard = {"guard": "iterative beats single step", "status": "warn", "reason": "FGSM <80 %>", "remedy": "Look & see."}
    text = read(page(Evaluation.model_validate({**record, "guards": [guard]}), [])).text
    assert "Warning: iterative beats single step." in text
    assert "FGSM <80 %>. Look & see." in text
