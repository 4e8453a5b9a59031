"""Black-box runs on a slice of real MNIST: what they reach and ask, that only answers are used, exact resumes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from lenient import Lenient
from log_lines import logged
from processes import finish, start, stop_when

from advgan import train
from advgan.classifiers import query_counter
from advgan.classifiers.query_counter import QueryCounter
from advgan.config.loading import dump_config, parse_config
from advgan.config.settings import Config
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, BlackBoxUnavailable, ConfigurationError, Interrupted
from advgan.experiments.plan import check
from advgan.experiments.train import train_and_evaluate
from advgan.files import read_json
from advgan.records.summary import Summary
from advgan.reports.terminal import run_results
from advgan.run_folder import load_run_config, new_run_directory
from advgan.training.metrics_log import read_rows
from advgan.training.query_plan import query_plan
from advgan.training.state import TrainingState

keras = tf.keras
SETTINGS: dict[str, Any] = {
    "data": {"training_images": 2400, "validation_images": 200, "test_images": 200},
    "target": {"architecture": "lenet", "epochs": 3, "batch_size": 32},
    "oracle": {"black_box": "target", "images_per_request": 100},
    "distillation": {"architecture": "lenet", "rounds": 3, "first_epochs": 3, "batch_size": 32},
    "generator": {"widths": [4, 8, 16], "residual_blocks": 1},
    "training": {"epochs": 1, "batch_size": 32},
    "output": {"checkpoint_every": 10, "keep_checkpoints": 100},
}


def settings(folder: Path, **changes: dict[str, Any]) -> Config:
    content = {section: {**values, **changes.get(section, {})} for section, values in SETTINGS.items()}
    content.update({section: values for section, values in changes.items() if section not in content})
    content["output"] = {**content["output"], "directory": str(folder)}
    return parse_config(content)


def digests(run: Path) -> dict[str, str]:
    return {key: value for key, value in read_json(run / "summary.json").items() if key.endswith("_sha256")}


def rows(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(run / "metrics.jsonl")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, list[str]]:
    config = settings(tmp_path_factory.mktemp("runs"))
    run = new_run_directory(config)
    with logged() as lines:
        train_and_evaluate(config, run)
    return config, run, lines


@pytest.mark.addons
def test_a_black_box_is_fooled_by_what_its_answers_taught(finished: tuple[Config, Path, list[str]]) -> None:
    config, run, lines = finished
    summary = read_json(run / "summary.json")
    dataset = load_dataset(config.data)
    images, labels = scaled(dataset.test.images), dataset.test.labels
    target, generator = (keras.models.load_model(run / f"{name}.keras") for name in ("target", "generator"))
    clean = target.predict(images, verbose=0).argmax(1) == labels
    adversarial = np.clip(images + np.float32(0.3) * generator.predict(images, verbose=0), 0, 1)
    fooled = target.predict(adversarial, verbose=0).argmax(1) != labels
    assert summary["test"]["success"]["n"] == clean.sum()
    assert abs(summary["test"]["success"]["successes"] - (fooled & clean).sum()) <= 1
    assert summary["test"]["success"]["rate"] > 0.5
    assert summary["test"]["largest_linf"] <= 0.3 + 1e-6
    found = summary["black_box"]
    distilled = keras.models.load_model(run / "distilled.keras")
    agreed = distilled.predict(images, verbose=0).argmax(1) == target.predict(images, verbose=0).argmax(1)
    assert found["distilled"]["agreement_clean"] == pytest.approx(agreed.mean(), abs=0.006)
    assert agreed.mean() > 0.85
    text = "\n".join(lines)
    assert (
        "black-box" in text and "Data split     1,200 training images of the black box, 1,200 of the attacker" in text
    )


def test_every_query_is_counted_and_stated(finished: tuple[Config, Path, list[str]]) -> None:
    config, run, _ = finished
    summary = read_json(run / "summary.json")
    queries = summary["black_box"]["queries"]
    planned = query_plan(config, 1200, 200)
    assert (planned.clean, planned.adversarial, planned.validation) == (1200, (1200, 1200), 200)
    assert queries["clean"] == 1200
    assert queries["validation"] == 200 * (1 + 3)
    assert queries["adversarial"] == 2400
    size = 1 + 32 + 4 * 10 + 4
    assert (run / "answers.bin").stat().st_size == size * sum(queries.values())
    epochs = [row for row in rows(run) if row["kind"] == "epoch"]
    assert [row["queries"] for row in epochs] == [1200 + 400, 1200 + 400 + 1400, 1200 + 400 + 2800]
    assert {"validation_success_distilled", "agreement_clean", "agreement_adversarial"} <= epochs[0].keys()
    assert [row["round"] for row in rows(run) if row["kind"] == "distillation"] == [1, 2, 3]
    assert any(
        "queries for the attack" in line and "4,400" in line
        for line in run_results(Summary.read(run / "summary.json"), run)
    )


def test_only_answers_are_used(
    finished: tuple[Config, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black box of which there are only answers, looked up in a table, gives the same bits as a network here.

    The table is what the first run's journal holds, so there is neither a weight nor a gradient to be had.
    """
    _, run, _ = finished
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "table_of_answers.py").write_text(
        f"""
import hashlib
import numpy as np

content = open({str(run / "answers.bin")!r}, "rb").read()
size = 1 + 32 + 40 + 4
table = {{content[i + 1 : i + 33]: np.frombuffer(content[i + 33 : i + 73], np.float32)
         for i in range(0, len(content), size)}}
asked = 0

def answer(images):
    global asked
    assert type(images) is np.ndarray and images.dtype == np.float32
    asked += len(images)
    return np.stack([table[hashlib.sha256(image.tobytes()).digest()] for image in images])
"""
    )
    alone = settings(tmp_path, oracle={"black_box": "table_of_answers:answer", "training_images": 1200})
    again = new_run_directory(alone)
    summary = train_and_evaluate(alone, again).as_json()
    assert not (again / "target.keras").exists()
    assert digests(again) == digests(run)
    assert summary["black_box"]["queries"] == read_json(run / "summary.json")["black_box"]["queries"]
    import table_of_answers  # type: ignore[import-not-found]

    assert table_of_answers.asked == sum(summary["black_box"]["queries"].values())


def rewound(run: Path, number: int, folder: Path) -> Path:
    """A copy of a run as it was when its newest checkpoint was the one of ``number``, or the last before it."""
    copy = folder / "copy"
    shutil.copytree(run, copy)
    for checkpoint in (copy / "state").iterdir():
        if int(checkpoint.name) > number:
            shutil.rmtree(checkpoint)
    position = max((copy / "state").iterdir(), key=lambda path: int(path.name)) / "position.json"
    reached = read_json(position)["round"]
    for asked in (copy / "rounds").glob("*.npz"):
        if int(asked.stem) > reached:
            asked.unlink()
    (copy / "summary.json").unlink()
    return copy


@pytest.mark.parametrize("number", [20, 140, 195])
def test_a_resume_in_any_part_of_a_round_gives_the_same_bits(
    finished: tuple[Config, Path, list[str]], number: int, tmp_path: Path
) -> None:
    """In the first distillation, in a later one, and in a later epoch of G."""
    config, run, _ = finished
    again = rewound(run, number, tmp_path)
    train_and_evaluate(config, again)
    assert digests(again) == digests(run)
    # The answers of what comes later are there already in this copy, so more is counted early; nothing is asked twice.
    for row, before in zip(rows(again), rows(run), strict=True):
        assert {**row, "queries": None} == {**before, "queries": None}
    assert (again / "answers.bin").read_bytes() == (run / "answers.bin").read_bytes()


@pytest.mark.slow
@pytest.mark.addons
def test_a_run_killed_in_a_distillation_and_in_a_later_epoch_ends_with_the_same_bits(
    finished: tuple[Config, Path, list[str]], tmp_path: Path
) -> None:
    """By SIGKILL, each time resumed in a new process."""
    config, run, _ = finished
    (tmp_path / "black_box.yaml").write_text(dump_config(config))
    process = start(tmp_path, "--config", "black_box.yaml", "--set", "output.directory=runs", "--set", "name=killed")
    killed = tmp_path / "runs" / "killed" / "0"

    def changes(count: int) -> bool:
        return any(path.name.isdigit() and int(path.name) >= count for path in (killed / "state").glob("*"))

    stop_when(process, lambda: changes(20), signal.SIGKILL)
    assert not (killed / "rounds").exists()
    process = start(tmp_path, "--resume", str(killed))
    stop_when(process, lambda: (killed / "rounds" / "001.npz").exists() and changes(190), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    output = finish(start(tmp_path, "--resume", str(killed)))
    assert "Resumed        at step" in output
    assert digests(killed) == digests(run)
    assert (
        read_json(killed / "summary.json")["black_box"]["queries"]
        == read_json(run / "summary.json")["black_box"]["queries"]
    )


def test_the_comparison_notices_when_the_distilled_networks_optimizer_is_left_out(
    finished: tuple[Config, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, _ = finished
    again = rewound(run, 20, tmp_path)
    whole = TrainingState.checkpoint
    monkeypatch.setattr(TrainingState, "checkpoint", lambda state: Lenient(whole(state), "distilled_optimizer"))
    train_and_evaluate(config, again)
    assert digests(again) != digests(run)


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Makes the black box fail after so many more images; the first number of the list."""
    left: list[int] = []
    ask = QueryCounter._keep

    def keep(oracle: QueryCounter, keys: list[bytes], answers: Any, purpose: Any) -> None:
        if left:
            left[0] -= len(keys)
            if left[0] < 0:
                raise BlackBoxUnavailable("the black box does not answer")
        ask(oracle, keys, answers, purpose)

    monkeypatch.setattr(query_counter.QueryCounter, "_keep", keep)
    yield left


@pytest.mark.parametrize(
    "images", [pytest.param(900, marks=pytest.mark.slow), 1650, pytest.param(4450, marks=pytest.mark.slow)]
)
def test_a_black_box_that_dies_costs_nothing_but_the_wait(
    finished: tuple[Config, Path, list[str]], images: int, tmp_path: Path, stopping: list[int]
) -> None:
    """Among the clean images, in a validation, and in the scoring."""
    config, run, _ = finished
    again = tmp_path / "run"
    again.mkdir()
    shutil.copy(run / "config.yaml", again)
    stopping.append(images)
    with pytest.raises(BlackBoxUnavailable):
        train_and_evaluate(config, again)
    kept = (again / "answers.bin").stat().st_size
    stopping.clear()
    train_and_evaluate(config, again)
    assert kept > 0
    assert digests(again) == digests(run)
    assert (again / "answers.bin").read_bytes() == (run / "answers.bin").read_bytes()


def test_ctrl_c_between_requests_and_between_steps_loses_nothing(
    finished: tuple[Config, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, _ = finished
    again = tmp_path / "run"
    again.mkdir()
    shutil.copy(run / "config.yaml", again)
    keep, asked = QueryCounter._keep, 0

    def keep_and_interrupt(oracle: QueryCounter, keys: list[bytes], answers: Any, purpose: Any) -> None:
        nonlocal asked
        keep(oracle, keys, answers, purpose)
        asked += purpose in ("clean", "adversarial")
        if asked % 11 == 10 and purpose in ("clean", "adversarial"):
            os.kill(os.getpid(), signal.SIGINT)

    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(QueryCounter, "_keep", keep_and_interrupt)
        while not (again / "summary.json").exists():
            try:
                train_and_evaluate(config, again)
            except Interrupted:
                stops += 1
    assert stops >= 3
    assert digests(again) == digests(run)
    assert (again / "answers.bin").read_bytes() == (run / "answers.bin").read_bytes()


def test_a_budget_is_spread_kept_and_told(tmp_path: Path) -> None:
    config = settings(tmp_path, oracle={"query_budget": 700, "validation_queries": 100})
    planned = query_plan(config, 1200, 200)
    assert planned.validation == 25
    assert planned.clean + sum(planned.adversarial) == 600 and planned.clean == 200
    with logged() as lines:
        summary = train_and_evaluate(config, new_run_directory(config)).as_json()
    queries = summary["black_box"]["queries"]
    assert queries["clean"] + queries["adversarial"] + queries["validation"] == 700
    assert any(
        "of a budget of 700: 200 clean, 200 + 200 adversarial images, 100 for validation" in line for line in lines
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"distillation": {"rounds": 1}}, {"clean": 1200, "adversarial": 0, "validation": 400}),
        (
            {"distillation": {"clean_answers": "labels", "rounds": 2}, "oracle": {"query_budget": 300}},
            {"clean": 0, "adversarial": 270, "validation": 30},
        ),
        (
            {
                "distillation": {"choose": "uncertain", "rounds": 2},
                "oracle": {"query_budget": 300, "validation_queries": 0},
            },
            {"clean": 150, "adversarial": 150, "validation": 0},
        ),
        (
            {"oracle": {"answers": "labels"}, "distillation": {"rounds": 2, "replay": False}},
            {"clean": 1200, "adversarial": 1200, "validation": 600},
        ),
    ],
)
def test_each_way_to_ask_asks_what_it_says(
    tmp_path: Path, changes: dict[str, dict[str, Any]], expected: dict[str, int]
) -> None:
    config = settings(tmp_path, **changes)
    summary = train_and_evaluate(config, run := new_run_directory(config)).as_json()
    queries = summary["black_box"]["queries"]
    assert {purpose: queries[purpose] for purpose in expected} == expected
    if not expected["validation"]:  # nothing tells the generators apart, so it is the last
        assert summary["generator_weights_sha256"] == summary["generator_last_weights_sha256"]
        assert any(
            "On the test images, last generator" in line
            for line in run_results(Summary.read(run / "summary.json"), run)
        )
    assert summary["test"]["success"]["n"] > 150


@pytest.mark.parametrize("validation_queries", [400, 0], ids=["black box", "distilled network"])
def test_the_later_generator_is_kept_on_a_tie(tmp_path: Path, validation_queries: int) -> None:
    """It was trained on a network that knows the black box better."""
    config = settings(
        tmp_path,
        attack={"epsilon": 1e-6},  # nothing is left of it in 8 bits
        oracle={"query_budget": 800, "validation_queries": validation_queries},
        distillation={"rounds": 2},
    )
    run = new_run_directory(config)
    summary = train_and_evaluate(config, run)
    epochs = [row for row in rows(run) if row["kind"] == "epoch"]
    assert [row["validation_success"] for row in epochs] == [0.0, 0.0]
    assert summary.best_epoch == 2
    assert summary.generator_weights_sha256 == summary.generator_last_weights_sha256


def test_the_images_asked_about_are_within_epsilon_at_256_levels(finished: tuple[Config, Path, list[str]]) -> None:
    config, run, _ = finished
    training = load_dataset(config.data).training.images[1200:].astype(np.int16)
    for number in (1, 2):
        with np.load(run / "rounds" / f"{number:03d}.npz") as asked:
            assert asked["images"].dtype == np.uint8
            assert np.abs(asked["images"] - training).max() == 76


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("oracle", {"training_images": 2400}, r"oracle\.training_images = 2400: leaves one side without images"),
        ("oracle", {"training_images": 0}, r"oracle\.training_images = 0: leaves one side without images"),
        (
            "oracle",
            {"query_budget": 2, "validation_queries": 0},
            r"oracle\.query_budget = 2: is not enough for 3 rounds",
        ),
        ("oracle", {"validation_queries": 3}, r"validation_queries = 3: is not enough for 3 validations"),
        ("oracle", {"query_budget": 50, "validation_queries": 50}, r"leaves nothing of oracle\.query_budget = 50"),
        ("oracle", {"black_box": "absent.keras"}, r"oracle\.black_box = 'absent\.keras': no such file"),
        ("oracle", {"black_box": "no_such_module:f"}, r"oracle\.black_box = 'no_such_module:f': .*cannot be imported"),
        (
            "oracle",
            {"black_box": "ftp://there"},
            r"oracle\.black_box = 'ftp://there': should be target, a \.keras or \.h5 file",
        ),
        ("distillation", {"rounds": 1, "clean_answers": "labels"}, r"with one round no training query is made"),
        ("distillation", {"batch_size": 1201}, r"distillation\.batch_size = 1201: is larger than the training data"),
        ("target", {"file": "mine.keras", "architecture": "lenet", "epochs": 3, "batch_size": 128}, r"target\.file"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    tmp_path: Path, section: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check(settings(tmp_path, **{section: values}))
    assert list(tmp_path.iterdir()) == []


def test_black_box_settings_without_a_black_box_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"oracle\.query_budget = 100: is for black-box attacks; set oracle"):
        parse_config({"oracle": {"query_budget": 100}})
    with pytest.raises(ConfigurationError, match=r"distillation\.rounds = 2: is for black-box attacks"):
        parse_config({"distillation": {"rounds": 2}})


def test_images_that_both_sides_have_are_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    labels = np.arange(300) % 10
    images[110] = images[0]
    images[150:160] = images[1:11]
    np.savez(tmp_path / "twice.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    data = {"dataset": str(tmp_path / "twice.npz"), "training_images": 200, "validation_images": 100, "test_images": 20}
    data["validation_split"] = "last"  # so that the first 100 are the black box's
    config = settings(tmp_path, data=data, oracle={"training_images": 100})
    with pytest.raises(ConfigurationError, match=r"11 of the attacker's 100 images are the black box's too"):
        check(config)
    images[150:160] = 255 - images[150:160]
    np.savez(tmp_path / "twice.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    assert len(check(config).dataset.training) == 100  # one in a hundred is let pass, and told


def test_a_keras_file_that_returns_probabilities_and_has_no_gradient_is_a_black_box(
    finished: tuple[Config, Path, list[str]], tmp_path: Path
) -> None:
    """What a semi-white-box run refuses is no obstacle here; and the user's file is copied, not touched."""
    _, run, _ = finished
    inside = keras.models.load_model(run / "target.keras", compile=False)
    own = keras.Sequential([keras.Input((28, 28, 1)), inside, keras.layers.Softmax()])
    own.save(tmp_path / "own.keras")
    content = (tmp_path / "own.keras").read_bytes()
    config = settings(tmp_path, oracle={"black_box": str(tmp_path / "own.keras"), "training_images": 1200})
    again = new_run_directory(config)
    summary = train_and_evaluate(config, again).as_json()
    assert (again / "target.keras").read_bytes() == (tmp_path / "own.keras").read_bytes() == content
    assert summary["test"]["clean_accuracy"] == read_json(run / "summary.json")["test"]["clean_accuracy"]
    inside.save(tmp_path / "own.keras")
    (again / "summary.json").unlink()
    with pytest.raises(AdvGANError, match=r"own\.keras has changed since"):
        train_and_evaluate(load_run_config(again), again)


def test_the_dry_run_states_networks_and_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config", "mnist_blackbox.yaml", "--dry-run", "--set", f"output.directory={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "# Queries: 279,994 at most, no budget: 27,500 clean, 27,500 + 27,500 + " in printed
    assert "# model_c: 28x28x1 in" in printed and "# lenet: 28x28x1 in" in printed
    assert "# Steps: 10 epochs x 429 = 4290" in printed


NEAREST_MEAN = """
from pathlib import Path
import numpy as np
MEANS = np.load("means.npy")
asked = []
def logits(images):
    if Path("broken").exists() and len(asked) == 2:
        raise RuntimeError("out of order")
    asked.append(len(images))
    return 2 * images.reshape(len(images), -1) @ MEANS.T - np.square(MEANS).sum(axis=1)
def shifted(images):
    return np.roll(logits(images), 1, axis=1)
"""
QUICK = (
    "data.training_images=300",
    "data.validation_images=100",
    "data.test_images=100",
    "oracle.images_per_request=100",
    "oracle.validation_queries=200",
    "distillation.rounds=1",
    "distillation.first_epochs=1",
    "training.epochs=1",
    "training.batch_size=50",
    "distillation.batch_size=50",
    "generator.widths=[4, 8]",
    "generator.residual_blocks=1",
)


@pytest.fixture
def own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's own in the current folder, whose functions know MNIST a little."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    training = load_dataset(parse_config({}).data).training.first(2000)
    images = scaled(training.images).reshape(2000, -1)
    np.save("means.npy", np.stack([images[training.labels == label].mean(axis=0) for label in range(10)]))
    name = f"own_{abs(hash(tmp_path))}"
    Path(f"{name}.py").write_text(NEAREST_MEAN)
    return import_module(name)


def train_on(function: str) -> int:
    changes = [part for text in (*QUICK, f"oracle.black_box={function}") for part in ("--set", text)]
    return train.main(["--config", "mnist_blackbox_static.yaml", *changes])


def test_a_function_that_raises_keeps_what_it_answered_and_says_how_to_continue(
    own_function: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken").touch()
    assert train_on(f"{own_function.__name__}:logits") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{own_function.__name__}:logits fails on images of shape (100, 28, 28, 1)" in line
    assert "(RuntimeError: out of order); what it answered before is kept" in line
    assert line.endswith("advgan.train --resume checkpoints/mnist_blackbox_static/0")
    Path("broken").unlink()
    assert train.main(["--resume", "checkpoints/mnist_blackbox_static/0"]) == 0
    found = read_json(Path("checkpoints/mnist_blackbox_static/0/summary.json"))
    assert sum(found["black_box"]["queries"].values()) == sum(own_function.asked)  # nothing was asked for twice
    assert found["black_box"]["queries"]["clean"] == 300


def test_a_black_box_at_chance_stops_the_run_on_answers_that_were_bought_anyway(
    own_function: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_on(f"{own_function.__name__}:shifted") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {own_function.__name__}:shifted is no better than chance: ")
    assert own_function.asked == [100]  # the validation images, which the attack asks first
