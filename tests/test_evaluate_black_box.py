"""The evaluation of a black-box run: its figures, what it asks and counts, that it goes on, and what it refuses.

The black box is a NumPy function, so there is neither a weight nor a gradient to be had, and it counts what it sees.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from art.attacks.evasion import SquareAttack
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from log_lines import logged

from advgan import evaluate
from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.attacks.baselines import noise_baselines
from advgan.attacks.square import run_square
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.query_counter import queries_in
from advgan.config.loading import dump_config, load_config, parse_config
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation import black_box_subject, checks
from advgan.evaluation.subject import EvaluationRequest, survival
from advgan.experiments.evaluate import evaluate_run, last_record
from advgan.experiments.export import export_run
from advgan.experiments.train import train_and_evaluate
from advgan.files import file_digest
from advgan.goals import Goal, Targeted, Untargeted
from advgan.metrics import Rate
from advgan.records.evaluation import Evaluation
from advgan.records.finding import PASS, WARN
from advgan.reports.comparison import differences
from advgan.reports.evaluation_page import in_words
from advgan.reports.terminal import evaluation_results
from advgan.run_folder import new_run_directory

COUNT, OPTIMIZED, QUERIES = 60, 12, 40  # test images; those Square attacks, and with how many queries each
EPSILON = 0.3
BOX = """
import numpy as np
from advgan.errors import BlackBoxUnavailable

with np.load({archive!r}) as content:
    means = content["means"]
asked, seen, left, noise = 0, set(), None, False

def scores(images):
    flat = images.reshape(-1, 784)
    return 2 * flat @ means.T - np.square(means).sum(axis=1)

def answer(images):
    global asked
    assert type(images) is np.ndarray and images.dtype == np.float32
    if left is not None and asked + len(images) > left:
        raise BlackBoxUnavailable("the black box does not answer")
    asked += len(images)
    seen.update(image.tobytes() for image in images)
    return scores(images) + (np.random.default_rng(asked).random((len(images), 10)) if noise else 0)
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module whose function ``answer`` gives the logits of the nearest mean of a class."""
    folder = tmp_path_factory.mktemp("box")
    dataset = load_data()
    images = dataset.training.images.reshape(-1, 784) / np.float32(255)
    means = np.stack([images[dataset.training.labels == k].mean(axis=0) for k in range(10)]).astype(np.float32)
    np.savez(folder / "means.npz", means=means)
    (folder / "box_of_means.py").write_text(BOX.format(archive=str(folder / "means.npz")))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("box_of_means")
    sys.path.remove(str(folder))
    del sys.modules["box_of_means"]


def load_data() -> Any:
    from advgan.config.settings import DataSettings
    from advgan.data.loading import load_dataset

    return load_dataset(DataSettings(training_images=1000, validation_images=100, test_images=COUNT))


@pytest.fixture(scope="module")
def run(box: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run against it."""
    assert box
    config = parse_config(
        {
            "data": {"training_images": 1000, "validation_images": 100, "test_images": COUNT},
            "oracle": {"black_box": "box_of_means:answer", "training_images": 0, "query_budget": 1900},
            "distillation": {"architecture": "lenet", "rounds": 2, "first_epochs": 3, "batch_size": 32},
            "generator": {"widths": [4, 8, 16], "residual_blocks": 1},
            "training": {"epochs": 1, "batch_size": 32},
            "output": {"directory": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    run = new_run_directory(config)
    train_and_evaluate(config, run)
    return run


def request_of(run: Path, **changes: Any) -> EvaluationRequest:
    return EvaluationRequest(run, optimized_images=OPTIMIZED, square_queries=QUERIES, **changes)


@pytest.fixture(scope="module")
def evaluated(run: Path, box: ModuleType) -> tuple[dict[str, Any], int, list[str]]:
    """The record, what the black box saw meanwhile, and what was logged."""
    box.seen.clear()  # type: ignore[attr-defined]
    before, journal = box.asked, (run / "answers.bin").read_bytes()  # type: ignore[attr-defined]
    with logged() as lines:
        record = evaluate_run(request_of(run), command="a test").as_json()
    assert (run / "answers.bin").read_bytes() == journal
    return record, box.asked - before, lines  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def record(evaluated: tuple[dict[str, Any], int, list[str]]) -> dict[str, Any]:
    return evaluated[0]


def test_the_black_box_is_scored_as_counted_again_in_numpy(record: dict[str, Any], run: Path, box: Any) -> None:
    assert not (run / "target.keras").exists()
    with np.load(run / "evaluation" / "adversarial.npz") as arrays:
        images, adversarial, labels = arrays["x"], arrays["x_adv"], arrays["y"]
        clean, answers = box.scores(images).argmax(axis=1), box.scores(adversarial).argmax(axis=1)
        np.testing.assert_array_equal(arrays["clean_predictions"], clean)
        np.testing.assert_array_equal(arrays["predictions"], answers)
    right = clean == labels
    assert record["success"]["n"] == right.sum()
    assert record["success"]["successes"] == (right & (answers != labels)).sum() > 0
    distilled = tf.keras.models.load_model(run / "distilled.keras")
    learnt, fooled = (distilled.predict(x, verbose=0).argmax(axis=1) for x in (images, adversarial))
    gap = record["distilled"]
    assert gap["success"]["successes"] == (right & (fooled != labels)).sum()
    assert gap["agreement_clean"]["successes"] == (learnt == clean).sum()
    assert gap["agreement_adversarial"]["successes"] == (fooled == answers).sum()
    assert gap["architecture"] == "lenet" and gap["sha256"] == file_digest(run / "distilled.keras")
    assert record["target"] == {
        "name": "box_of_means:answer",
        "sha256": file_digest(Path(box.__file__)),
        "weights_sha256": None,
    }


def test_every_query_is_counted_and_that_of_the_attack_apart(
    evaluated: tuple[dict[str, Any], int, list[str]], run: Path, box: Any
) -> None:
    record, asked, lines = evaluated
    queries = record["queries"]
    stated = json.loads((run / "summary.json").read_text())["black_box"]["queries"]
    assert queries["evaluation"] == asked
    assert len(box.seen) == asked - COUNT - 5  # a guard asks about 60 images and 5 again
    assert queries["attack"] == {purpose: stated[purpose] for purpose in ("clean", "adversarial", "validation")}
    assert queries["attack_total"] == sum(queries["attack"].values()) == 1900 == queries["budget"]
    assert queries["per_image"] == 1900 / COUNT
    assert queries["scoring_in_training"] == stated["scoring"]
    assert sum(queries_in(run / "answers.bin", 10).values()) == 1900 + stated["scoring"]
    text = "\n".join([*lines, *evaluation_results(Evaluation.model_validate(record), run)])
    assert "queries for the attack" in text and "1,900" in text and f"{asked:,}" in text
    assert "success on the distilled network" in text


def test_the_attacks_are_those_that_a_black_box_allows(record: dict[str, Any]) -> None:
    kinds = {attack["name"]: attack["kind"] for attack in record["attacks"]}
    assert kinds == {
        "uniform-noise": "noise",
        "sign-noise": "noise",
        "fgsm on the distilled network": "transfer",
        "pgd-40 on the distilled network": "transfer",
        "square": "queries",
    }
    assert all(attack["largest_linf"] <= EPSILON + 1e-6 for attack in record["attacks"])
    by_name = {attack["name"]: attack for attack in record["attacks"]}
    assert by_name["pgd-40 on the distilled network"]["success"]["rate"] > 0.3  # learnt from answers alone
    square = by_name["square"]
    assert square["images"] == OPTIMIZED
    assert square["queries"] <= QUERIES * OPTIMIZED
    points = record["queries_curve"]["points"]
    assert record["queries_curve"]["name"] == "Square"
    assert points[0] == {"queries_per_image": 1, "success": 0.0}
    assert points[-1]["success"] == square["success"]["rate"] > 0
    assert points[-1]["queries_per_image"] <= QUERIES
    rates = [point["success"] for point in points]
    assert rates == sorted(rates)
    assert record["full_range"] is None and record["attacks_left_out"] == []
    assert record["worst_case"]["successes"] >= max(
        attack["success"]["successes"] for attack in record["attacks"] if attack["images"] == COUNT
    )


def test_square_is_counted_again_from_what_its_stage_left(
    record: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(run / "evaluation" / "adversarial.npz") as arrays:
        labels, counted, answers = arrays["y"], arrays["counted"], arrays["predictions"]
    (stage,) = (run / "evaluation" / "stages").glob("square-*.npz")
    with np.load(stage) as kept:
        by_square, asked, reached = kept["predictions"] != labels[:OPTIMIZED], kept["asked"], kept["reached"]
    square = record["attacks"][-1]
    assert square["success"]["successes"] == (by_square & counted[:OPTIMIZED]).sum()
    assert square["queries"] == asked.sum()
    assert square["median_queries"] == np.median(asked[reached]) < np.median(asked[counted[:OPTIMIZED]])

    again = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("state")))
    monkeypatch.setattr(black_box_subject, "black_box_baselines", lambda _goal, epsilon, *_: noise_baselines(epsilon))
    few = evaluate_run(request_of(again), command="a test").as_json()
    assert few["attacks"][-1] == square
    fooled = answers != labels
    for name in ("uniform-noise", "sign-noise"):
        (stage,) = (run / "evaluation" / "stages").glob(f"{name}-*.npz")
        with np.load(stage) as kept:
            fooled |= kept["predictions"] != labels
    without = (fooled & counted).sum()
    fooled[:OPTIMIZED] |= by_square
    assert few["worst_case"]["successes"] == (fooled & counted).sum() > without


def test_guards_and_card_do_not_look_for_a_gradient(record: dict[str, Any]) -> None:
    found = {guard["guard"]: guard for guard in record["guards"]}
    for guard in (
        "gradients",
        "iterative beats single step",
        "white-box beats black-box",
        "full range reaches chance",
    ):
        assert found[guard]["status"] == "not checked" and "black box" in found[guard]["reason"]
    assert found["logits"]["status"] == "not checked"
    for guard in ("repeats", "inference mode", "the black box is the run's own", "bounds of square"):
        assert found[guard]["status"] == PASS
    budget = found["the attack stayed within its query budget"]
    assert budget["status"] == PASS and "1,900 queries" in budget["reason"] and "budget is 1,900" in budget["reason"]
    card = {line["item"]: line for line in record["card"]}
    assert card["Black-box, transfer and noise attacks were tried"]["status"] == PASS
    assert "Square" in card["Black-box, transfer and noise attacks were tried"]["reason"]
    hard = card["A gradient-free and a hard-label attack"]
    assert hard["status"] == WARN and "probabilities" in hard["reason"]


def test_the_report_says_and_draws_what_success_cost(record: dict[str, Any], run: Path) -> None:
    folder = run / "evaluation"
    assert record["files"]["queries"] == "queries.png"
    assert (folder / "queries.png").read_bytes()[:4] == b"\x89PNG"
    html = (folder / "report.html").read_text()
    assert "Queries to the black box" in html and "1,900" in html
    assert 'alt="Success against queries"' in html
    assert "success on the distilled network" in html
    words = in_words(Evaluation.model_validate(record))
    assert "1,900 queries to the black box" in words and f"at most {QUERIES} queries an image" in words


def test_a_second_call_asks_nothing_and_so_does_one_that_lost_its_stages(
    record: dict[str, Any], run: Path, box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {**record, "environment": None}
    monkeypatch.setattr(box, "left", box.asked)
    again = evaluate_run(request_of(run), command="a test").as_json()
    assert {**again, "environment": None} == before
    found, current = last_record(request_of(run))
    assert current and found is not None and found.as_json() == again
    for stage in (run / "evaluation" / "stages").glob("*.npz"):
        stage.unlink()
    lost = evaluate_run(request_of(run), command="a test").as_json()
    for key in ("success", "queries", "queries_curve", "curve", "distilled", "worst_case"):
        assert lost[key] == record[key]


def test_without_art_square_is_not_measured_and_all_else_is(
    record: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run / "evaluation", tmp_path / "copy")
    monkeypatch.setitem(sys.modules, "art.attacks.evasion.square_attack", None)
    found = evaluate_run(request_of(run, output=tmp_path / "copy")).as_json()
    assert found["success"] == record["success"] and found["queries_curve"] is None
    [missing] = found["attacks_left_out"]
    assert missing == {"name": "square", "reason": "not measured: pip install adversarial-robustness-toolbox"}
    lines = evaluation_results(Evaluation.model_validate(found), tmp_path)
    assert any("square" in line and "not measured: pip install" in line for line in lines)
    assert "not measured: pip install" in (tmp_path / "copy" / "report.html").read_text()
    card = {line["item"]: line for line in found["card"]}
    assert card["A gradient-free and a hard-label attack"]["status"] == WARN
    assert card["Black-box, transfer and noise attacks were tried"]["status"] == WARN


def test_a_black_box_that_dies_stops_the_evaluation_and_the_same_command_goes_on(
    run: Path, box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--run", str(run), "--images", "20", "--optimized", "3", "--square-queries", "10"]
    command += ["--output", str(tmp_path / "here")]
    before = box.asked
    for more in (10, 100, 300):
        monkeypatch.setattr(box, "left", before + more)
        assert evaluate.main(command) == 130
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error == "the black box does not answer; run the same command again to continue"
        assert not (tmp_path / "here" / "evaluation.json").exists()
    monkeypatch.setattr(box, "left", None)
    assert evaluate.main(command) == 0
    found = json.loads((tmp_path / "here" / "evaluation.json").read_text())
    assert found["queries"]["evaluation"] == box.asked - before
    assert found["data"]["images"] == 20 and found["queries"]["per_image"] == 1900 / 20


def test_a_random_black_box_is_refused_although_answers_are_kept(
    run: Path, box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "noise", True)
    with pytest.raises(AdvGANError, match="box_of_means:answer is random: its answers on the same images differ"):
        evaluate_run(request_of(run, output=tmp_path / "random"))
    assert not (tmp_path / "random" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"retrain": (0.1, 0.2)},
            r"--retrain = '0\.1 0\.2': each epsilon would cost queries again; train runs with",
        ),
        ({"square_queries": 2}, r"--square-queries = 2: is too few for Square Attack \(allowed: 3 or more\)"),
    ],
)
def test_what_a_black_box_run_does_not_take_is_refused_in_one_line(
    run: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        evaluate_run(EvaluationRequest(run, **changes))
    assert "\n" not in str(refused.value)


def test_another_target_is_attacked_with_its_gradient(run: Path, box: Any, tmp_path: Path) -> None:
    """The distilled network itself, say: no answer of the black box is in it."""
    before = box.asked
    target = str(run / "distilled.keras")
    found = evaluate_run(
        EvaluationRequest(run, tmp_path / "white", images=20, optimized_images=1, target=target)
    ).as_json()
    assert box.asked == before
    assert "queries" not in found and "square_queries" not in found["options"]
    assert {"fgsm", "pgd-40", "fmn"} <= {attack["name"] for attack in found["attacks"]}
    assert "transfer" in found["threat_model"]


def test_a_black_box_that_is_a_file_is_scored_by_its_answers_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation", "state"))
    shutil.copy(run / "distilled.keras", copy / "target.keras")
    config = load_config(run / "config.yaml")
    oracle = config.oracle.model_copy(update={"black_box": "target", "answers": "labels", "training_images": 100})
    (copy / "config.yaml").write_text(dump_config(config.model_copy(update={"oracle": oracle})))
    summary = json.loads((copy / "summary.json").read_text())
    summary["black_box"] |= {"digest": file_digest(copy / "target.keras"), "answers": "labels"}
    (copy / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(classifier_checks, "check_gradients", None)  # nobody may call it
    found = evaluate_run(EvaluationRequest(copy, images=20, optimized_images=3, square_queries=10)).as_json()
    assert found["distilled"]["agreement_adversarial"]["rate"] == 1
    assert found["target"]["sha256"] == file_digest(copy / "target.keras")
    assert found["target"]["weights_sha256"] is not None
    card = {line["item"]: line for line in found["card"]}
    assert card["A gradient-free and a hard-label attack"]["status"] == PASS
    (copy / "target.keras").unlink()
    with pytest.raises(AdvGANError, match=r"is not finished: it has no target\.keras"):
        evaluate_run(EvaluationRequest(copy))


def test_runs_are_compared_and_other_knowledge_is_named(
    record: dict[str, Any], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("state"))
    assert evaluate.main(["--compare", str(run), str(other)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Found already") == 2 and "Not a fair comparison" not in printed
    assert json.loads((run / "comparison" / "comparison.json").read_text())["runs"][1]["fair"]
    black = Evaluation.model_validate(record)
    white = black.model_copy(update={"queries": None})
    assert differences(white, black) == ["other knowledge of the target (its gradients, not only its answers)"]


def test_the_attack_loads_without_a_target_and_is_exported(run: Path, tmp_path: Path) -> None:
    attack = AdvGANAttack.load(run)
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    attacked = attack(images)
    assert attacked.success is None and np.abs(attacked.projected - images).max() <= EPSILON + 1e-6
    [(path, found)] = export_run(run, ("keras",), tmp_path / "attack.keras").items()
    assert path.exists() and found.images == COUNT


# --- Square alone ------------------------------------------------------------------------------------------------


def probabilities(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def searched(
    box: Any, goal: Goal, answers: Any, queries: int = 80
) -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """What ``run_square`` finds on a few images, every image it asked about, and images, labels, clean answers."""
    dataset = load_data()
    images = dataset.test.images[:20] / np.float32(255)
    labels = dataset.test.labels[:20]
    shown: list[np.ndarray] = []

    def scores(batch: Any) -> np.ndarray:
        batch = np.asarray(batch)
        shown.extend(batch)
        return np.asarray(answers(batch), np.float32)

    clean = box.scores(images).argmax(axis=1)
    random = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    work = run_square(
        Classifier("box", "0", (28, 28, 1), scores), goal, images, labels, clean, EPSILON, queries, seed=0
    )
    advanced: list[int] = []
    found = work(advanced.append)
    np.testing.assert_array_equal(np.random.get_state()[1], random)  # type: ignore[index]
    assert sum(advanced) == len(images)
    return found, shown, images, labels, clean


def queries_until(goal: Goal, shown: list[np.ndarray], box: Any, image: np.ndarray, label: int) -> tuple[int, bool]:
    """An independent count: different images near this one until one reaches the goal, and whether one did."""
    asked: set[bytes] = set()
    for other in shown:
        if np.abs(other - image).max() <= EPSILON + 1e-6:  # no two of the clean images are that near
            asked.add(other.tobytes())
            if goal.reached(np.array(label), box.scores(other[None]).argmax()):
                return len(asked), True
    return len(asked), False


@pytest.mark.parametrize("goal", [Untargeted(), Targeted(3)])
def test_squares_queries_are_those_counted_one_by_one(box: Any, goal: Goal) -> None:
    found, shown, images, labels, clean = searched(box, goal, lambda batch: probabilities(box.scores(batch)))
    counted = goal.eligible(labels, clean)
    for place in range(len(images)):
        expected = queries_until(goal, shown, box, images[place], labels[place]) if counted[place] else (0, False)
        assert (found["asked"][place], found["reached"][place]) == expected
    assert found["asked"].max() <= 80 and found["reached"].sum() > 3
    reached = goal.reached(labels, found["predictions"])
    np.testing.assert_array_equal(found["reached"], counted & reached)
    assert found["linf"].max() <= EPSILON + 1e-6
    points = survival(goal, labels, clean, found["asked"], found["reached"])
    for point in points:
        within = counted & found["reached"] & (found["asked"] <= point.queries_per_image)
        assert point.success == within.sum() / counted.sum()


def test_square_is_arts_own_search(box: Any) -> None:
    """From logarithms of probabilities, ART's own classifier, criterion and loss come to the same images."""
    goal = Untargeted()
    found, _, images, labels, clean = searched(box, goal, lambda batch: probabilities(box.scores(batch)))
    here = goal.eligible(labels, clean)

    def logarithms(batch: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(probabilities(box.scores(batch)).astype(np.float32), 1e-30))

    estimator = BlackBoxClassifierNeuralNetwork(
        logarithms, (28, 28, 1), 10, channels_first=False, clip_values=(0.0, 1.0)
    )
    attack = SquareAttack(estimator, max_iter=78, eps=EPSILON, p_init=0.8, verbose=False)
    np.random.seed(0)
    made = attack.generate(images[here], labels[here])
    answers = box.scores(made).argmax(axis=1)
    np.testing.assert_array_equal(answers, found["predictions"][here])
    np.testing.assert_allclose(np.abs(made - images[here]).max(axis=(1, 2, 3)), found["linf"][here], atol=1e-6)


def test_square_told_the_class_alone_searches_on(box: Any) -> None:
    goal = Untargeted()
    found, shown, images, labels, clean = searched(
        box, goal, lambda batch: np.eye(10)[box.scores(batch).argmax(axis=1)]
    )
    assert found["reached"].sum() > 0
    for place in np.flatnonzero(goal.eligible(labels, clean)):
        assert queries_until(goal, shown, box, images[place], labels[place])[1] == found["reached"][place]


@pytest.mark.parametrize("queries", [3, 4, 6])
def test_square_uses_up_its_queries_where_nothing_succeeds_and_no_more(queries: int) -> None:
    images = np.random.default_rng(0).uniform(0.3, 0.7, (8, 12, 12, 3)).astype(np.float32)
    pattern = np.random.default_rng(1).normal(0, 0.02, 12 * 12 * 3)
    shown = 0

    def scores(batch: Any) -> np.ndarray:
        nonlocal shown
        shown += len(batch)
        first = 0.8 + 0.1 * np.tanh(np.asarray(batch, np.float64).reshape(-1, 12 * 12 * 3) @ pattern)
        return np.stack([first, 1 - first], axis=1).astype(np.float32)  # always class 0

    labels = np.zeros(8, np.int32)
    work = run_square(
        Classifier("box", "0", (12, 12, 3), scores), Untargeted(), images, labels, labels, 0.1, queries, seed=0
    )
    found = work(lambda _: None)
    assert not found["reached"].any() and not found["predictions"].any()
    assert found["asked"].max() == queries  # a square that leaves an image as it is costs none
    assert found["asked"].sum() == shown - 8  # the answers in the end are for the record


# --- Guards ------------------------------------------------------------------------------------------------------


def test_a_budget_that_was_overspent_or_a_journal_that_tells_otherwise_is_marked() -> None:
    stated = {"clean": 5, "adversarial": 3, "validation": 2, "scoring": 7}
    assert checks.check_budget(10, 10, stated, stated).status == PASS  # type: ignore[arg-type]
    assert checks.check_budget(10, None, None, stated).status == PASS
    assert checks.check_budget(10, 9, None, stated).status == WARN
    assert checks.check_budget(10, 10, {**stated, "clean": 6}, stated).status == WARN  # type: ignore[dict-item]


def test_a_distilled_network_that_answers_otherwise_and_another_black_box_are_marked() -> None:
    assert checks.check_agreement(Rate.of(90, 100)).status == PASS
    assert checks.check_agreement(Rate.of(89, 100)).status == WARN
    assert checks.check_same_black_box("a" * 64, "a" * 64).status == PASS
    assert checks.check_same_black_box("a" * 64, "b" * 64).status == WARN
