"""Black boxes that are local, and the counter: what is asked, what it costs, and what outlives a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers.answers import AnswerReader, kind_of
from advgan.classifiers.black_box import load_black_box
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.query_counter import PURPOSES, QueryCounter
from advgan.classifiers.run_target import kept_target
from advgan.classifiers.source import BlackBoxReading
from advgan.config.loading import parse_config
from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError, BlackBoxUnavailable, Interrupted
from advgan.run_folder import RunFolder

keras = tf.keras
SHAPE = (4, 3, 1)
CLASSES = 5
IMAGES = np.random.default_rng(0).random((40, *SHAPE), np.float32)
MODULE = """
import numpy as np
from advgan.errors import BlackBoxUnavailable
weights = np.random.default_rng(3).normal(size=(12, 5))
def logits(images):
    assert type(images) is np.ndarray and images.dtype == np.float32
    return images.reshape(len(images), -1) @ weights * 3
def probabilities(images):
    exponentials = np.exp(logits(images))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
def in_per_cent(images):
    return 100 * probabilities(images)
def labels(images):
    return logits(images).argmax(axis=1)
def seven(images):
    return np.pad(probabilities(images), [(0, 0), (0, 2)])
def four(images):
    return logits(images)[:, :4]
def broken(images):
    raise RuntimeError("out of\\norder")
def nothing(images):
    return None
def one_number(images):
    return images.sum()
def away(images):
    raise BlackBoxUnavailable("back at noon")
"""


def read(answers: np.ndarray, classes: int) -> tuple[np.ndarray, str]:
    """Answers of a served model as probabilities, and what was done to them."""
    reader = AnswerReader("box", classes, logits=False)
    return reader.read(answers, len(answers)), " and ".join(reader.remarks)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


class Asked:
    """A black box that remembers what it was asked, and fails when it is told to."""

    def __init__(self, classes: int = CLASSES) -> None:
        self.requests: list[int] = []
        self.fails_at: int | None = None
        self.weights = np.random.default_rng(1).normal(size=(12, classes))
        self.black_box = Classifier("asked", "0" * 64, SHAPE, self.ask, is_black_box=True)

    def ask(self, images: np.ndarray) -> np.ndarray:
        if self.fails_at == len(self.requests):
            raise BlackBoxUnavailable("asked does not answer")
        self.requests.append(len(images))
        return self.right(images)

    def right(self, images: np.ndarray) -> np.ndarray:
        return softmax(images.reshape(len(images), -1) @ self.weights).astype(np.float32)


# --- local black boxes ---


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's own, in the current folder."""
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    return name


def logits_of_the_module() -> np.ndarray:
    return IMAGES.reshape(len(IMAGES), -1) @ np.random.default_rng(3).normal(size=(12, 5)) * 3


@pytest.mark.parametrize("last", [None, "softmax"])
def test_a_keras_file_answers_with_the_softmax_of_its_logits(last: str | None, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    dense = keras.layers.Dense(CLASSES, activation=last)
    network = keras.Model(image, dense(keras.layers.Flatten()(image)))
    network.save(tmp_path / "own.keras")
    black_box = load_black_box(str(tmp_path / "own.keras"), SHAPE, CLASSES, per_request=17)
    kernel, bias = (weights.astype(np.float64) for weights in dense.get_weights())
    expected = softmax(IMAGES.reshape(len(IMAGES), -1) @ kernel + bias)
    answers = black_box.logits(IMAGES)
    assert type(answers) is np.ndarray and answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    assert black_box.logits(IMAGES[:0]).shape == (0, CLASSES)


def test_a_function_in_numpy_is_asked_with_arrays(module: str) -> None:
    expected = softmax(logits_of_the_module())
    for function in ("logits", "probabilities"):
        answers = load_black_box(f"{module}:{function}", SHAPE, CLASSES).logits(IMAGES)
        np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_a_function_may_tell_labels_only(module: str) -> None:
    answers = load_black_box(f"{module}:labels", SHAPE, CLASSES, per_request=7).logits(IMAGES)
    assert answers.dtype == np.float32
    np.testing.assert_array_equal(answers, np.eye(CLASSES)[logits_of_the_module().argmax(axis=1)])


def test_a_function_is_not_asked_before_the_attack_asks(module: str) -> None:
    """Eight images of noise would be eight queries that nobody counts."""
    load_black_box(f"{module}:broken", SHAPE, CLASSES)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "four",
            r"returns shape \(40, 4\) for 40 images; it should return probabilities \(40, 5\), or class numbers",
        ),
        ("seven", r"seven returns shape \(40, 7\) for 40 images"),
        ("broken", r"broken fails on images of shape \(40, 4, 3, 1\) \(RuntimeError: out of order\)$"),
        ("nothing", r"nothing returns shape \(\) for 40 images"),
        ("one_number", r"returns shape \(\) for 40 images"),
        ("absent", "has no function absent"),
    ],
)
def test_a_function_that_is_no_black_box_is_refused_in_one_line(module: str, function: str, words: str) -> None:
    with pytest.raises(AdvGANError, match=words) as refused:
        load_black_box(f"{module}:{function}", SHAPE, CLASSES).logits(IMAGES)
    assert "\n" not in str(refused.value) and not isinstance(refused.value, Interrupted)


def test_a_function_may_say_that_it_is_not_available(module: str) -> None:
    with pytest.raises(BlackBoxUnavailable, match=r"^back at noon$"):
        load_black_box(f"{module}:away", SHAPE, CLASSES).logits(IMAGES)


def test_what_a_run_keeps_a_copy_of(tmp_path: Path) -> None:
    def kept(given: str) -> str | None:
        found = kept_target(parse_config({"oracle": {"black_box": given}}), RunFolder(tmp_path))
        return None if found is None else found.name

    assert kept("target") == kept("own.keras") == kept("/there/own.keras") == "target.keras"
    assert kept("own.h5") == "target.h5" and kept("own_folder") == "target"
    assert kept("module:function") is None and kept("http://host/v1/models/own.keras") is None


def test_what_counts_as_probabilities() -> None:
    answers = np.array([[0.25, 0.75], [1.0, 0.0]])
    found, remark = read(answers, 2)
    np.testing.assert_array_equal(found, answers)
    assert remark == ""
    rounded = np.array([[0.3333, 0.6662], [-1e-7, 1.0]])  # as JSON may have it
    np.testing.assert_array_equal(read(rounded, 2)[0], rounded.astype(np.float32))
    half = softmax(np.random.default_rng(0).normal(size=(4, 1000))).astype(np.float16)
    assert read(half, 1000)[0].dtype == np.float32
    for wrong in (
        [[50.0, 80.0], [1.0, 0.0]],
        [[1.5, -0.5], [1.0, 0.0]],
        [[np.nan, 1.0], [1.0, 0.0]],
        [[np.inf, 0], [1, 0]],
    ):
        with pytest.raises(AdvGANError, match="box does not return probabilities"):
            read(np.array(wrong), 2)


@pytest.mark.parametrize("kind", ["own.keras", "own.h5", "own_folder"])
def test_files_of_every_kind_are_black_boxes_of_pixels_of_their_own(kind: str, tmp_path: Path) -> None:
    """Their answers are left as they are: a softmax stays part of them."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(CLASSES, "softmax")]
    own = keras.Sequential([keras.Input(SHAPE), *layers])
    path = str(tmp_path / kind)
    if kind == "own_folder":
        tf.saved_model.save(own, path)
    else:
        own.save(path)
    reading = BlackBoxReading(TargetSettings(file=path, bounds=(0, 255)))
    black_box = load_black_box(path, SHAPE, CLASSES, reading)
    np.testing.assert_allclose(black_box.logits(IMAGES), own(255 * IMAGES), atol=1e-6)
    assert black_box.remarks == [] and black_box.is_black_box


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
def test_one_unit_answers_for_two_classes(shape: tuple[int, ...]) -> None:
    logits = 3 * np.random.default_rng(1).normal(size=200)
    expected = softmax(np.stack([np.zeros(200), logits], axis=1))
    found, _ = read(expected[:, 1].reshape(shape), 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    reader = AnswerReader("box", 2, logits=True)
    np.testing.assert_allclose(reader.read(logits.reshape(shape).astype(np.float32), 200), expected, atol=1e-6)
    few = np.array([0.2, 0.7])  # probabilities, were it not for what it answered before
    np.testing.assert_allclose(reader.read(few, 2)[:, 1], 1 / (1 + np.exp(-few)), atol=1e-6)


SCORES = np.random.default_rng(5).normal(size=(200, 10)) * 3
EXACT = softmax(SCORES)
LARGEST_THREE = np.argsort(np.argsort(EXACT)) >= 7


def in_bfloat16(values: np.ndarray) -> np.ndarray:
    return np.asarray(tf.cast(values, tf.bfloat16))


@pytest.mark.parametrize(
    ("answers", "remark", "error"),
    [
        (np.round(EXACT, 2), "rounded or cut off", 0.011),
        (np.where(LARGEST_THREE, EXACT, 0), "rounded or cut off", 0.15),
        (100 * EXACT, "in per cent", 1e-6),
        (np.round(100 * EXACT), "in per cent: divided by 100 and do not sum to 1", 0.03),
        (np.where(LARGEST_THREE, 100 * EXACT, 0), "in per cent", 0.15),
        (in_bfloat16(EXACT), "rounded or cut off", 0.01),
    ],
    ids=["two decimals", "largest three", "per cent", "whole per cent", "largest three in per cent", "bfloat16"],
)
def test_probabilities_in_disguise_are_taken_as_such(answers: np.ndarray, remark: str, error: float) -> None:
    assert kind_of(answers) != "logits"
    found, said = read(answers, 10)
    assert remark in said
    assert found.dtype == np.float32 and found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=2e-3)
    np.testing.assert_array_equal(found.argmax(axis=1), np.asarray(answers, np.float64).argmax(axis=1))
    assert np.abs(found - EXACT).max() < error


@pytest.mark.parametrize("in_per_cent", [False, True])
@pytest.mark.parametrize("decimals", [1, 2])
def test_the_class_of_an_answer_never_changes(in_per_cent: bool, decimals: int) -> None:
    """Also of rows that sum to little: sigmoids, or a single one that was left."""
    random = np.random.default_rng(7)
    rows = np.round(random.random((500, 10)) ** 8, decimals)
    rows[:10] = np.eye(10) * 0.05
    rows = rows[rows.max(axis=1) > 0]
    answers = np.concatenate([EXACT, rows])
    if in_per_cent:
        answers = 100 * answers / np.maximum(1, answers.sum(axis=1, keepdims=True))
    found, _ = read(answers, 10)
    np.testing.assert_array_equal(found[len(EXACT) :].argmax(axis=1), rows.argmax(axis=1))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=2e-3)


def test_the_first_answers_decide_for_good_and_in_every_process(tmp_path: Path) -> None:
    """A row of per cent that was cut to its largest looks like nothing by itself."""
    answers = np.where(np.argsort(np.argsort(EXACT)) == 9, 100 * EXACT, 0)
    cut = answers[answers.sum(axis=1) < 60][:1]
    reader = AnswerReader("box", 10, logits=True, file=tmp_path / "answers.json")
    together = reader.read(np.concatenate([100 * EXACT, cut]), 201)[-1:]
    np.testing.assert_array_equal(reader.read(cut, 1), together)
    later = AnswerReader("box", 10, logits=True, file=tmp_path / "answers.json", writes=False)
    np.testing.assert_array_equal(later.read(cut, 1), together)
    assert later.remarks == reader.remarks != []
    one_by_one = AnswerReader("box", 10, logits=False)
    for row in 100 * EXACT[:120]:
        np.testing.assert_allclose(one_by_one.read(row[np.newaxis], 1), row[np.newaxis] / 100, atol=1e-6)
    np.testing.assert_array_equal(one_by_one.read(cut, 1), together)


def test_a_hundred_answers_decide_and_no_fewer() -> None:
    logits = np.array([[5.0, *[0.0] * 9]])
    undecided, decided = (AnswerReader("box", 10, logits=True) for _ in range(2))
    undecided.read(EXACT[:99], 99)
    np.testing.assert_allclose(undecided.read(logits, 1), softmax(logits), atol=1e-6)
    decided.read(EXACT[:100], 100)
    with pytest.raises(AdvGANError, match="box does not return probabilities"):
        decided.read(logits, 1)


def test_labels_in_a_column_are_labels() -> None:
    np.testing.assert_array_equal(read(np.array([[1], [0]]), 2)[0], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "scores", [SCORES, np.log(EXACT), 9 * np.abs(SCORES), SCORES.astype(np.float16), 1e-9 * SCORES]
)
def test_logits_are_not_mistaken_for_probabilities(scores: np.ndarray) -> None:
    assert kind_of(scores) == "logits"


def test_what_is_done_to_answers_is_said_once(module: str, caplog: pytest.LogCaptureFixture) -> None:
    black_box = load_black_box(f"{module}:in_per_cent", SHAPE, CLASSES, per_request=10)
    answers = black_box.logits(IMAGES)
    np.testing.assert_allclose(answers, softmax(logits_of_the_module()), atol=1e-6)
    assert black_box.remarks == ["are in per cent: divided by 100"]
    [said] = [record.getMessage() for record in caplog.records]
    assert said == f"The answers of {module}:in_per_cent are in per cent: divided by 100"


# --- the counter ---


def test_repeated_images_cost_nothing() -> None:
    asked = Asked()
    counter = QueryCounter(asked.black_box, CLASSES, per_request=16)
    advanced: list[int] = []
    shown = np.concatenate([IMAGES, IMAGES[:10], IMAGES[5:6]])
    answers = counter.query(shown, "clean", advanced.append)
    np.testing.assert_array_equal(answers, asked.right(shown))
    assert asked.requests == [16, 16, 8] and counter.spent == 40
    assert advanced == [11, 16, 16, 8]
    assert counter.queries == {"clean": 40, "adversarial": 0, "validation": 0, "scoring": 0}
    more = np.concatenate([IMAGES[::-1], 1 - IMAGES[:3]])
    np.testing.assert_array_equal(counter.query(more, "adversarial"), asked.right(more))
    assert asked.requests == [16, 16, 8, 3] and counter.queries["adversarial"] == 3 and counter.spent == 43
    assert counter.query(IMAGES[:0], "clean").shape == (0, CLASSES) and counter.spent == 43


def test_answers_go_to_the_images_they_belong_to_whatever_was_known_before() -> None:
    asked = Asked()
    counter = QueryCounter(asked.black_box, CLASSES, per_request=3)
    counter.query(IMAGES[[30, 2, 17]], "validation")
    order = np.random.default_rng(4).integers(0, 40, 200)
    np.testing.assert_array_equal(counter.query(IMAGES[order], "clean"), asked.right(IMAGES[order]))
    assert counter.spent == len({*order.tolist(), 30, 2, 17})


def test_a_budget_is_a_budget_and_scoring_is_not_limited() -> None:
    asked = Asked()
    counter = QueryCounter(asked.black_box, CLASSES, budget=25)
    counter.query(IMAGES[:10], "clean")
    counter.query(IMAGES[10:20], "validation")
    with pytest.raises(AdvGANError, match=r"oracle\.query_budget = 25: 6 more queries after 20 exceed it; raise it"):
        counter.query(IMAGES[:26], "adversarial")
    assert asked.requests == [10, 10] and counter.spent == 20
    counter.query(IMAGES[:25], "adversarial")  # twenty are known
    counter.query(IMAGES, "scoring")
    assert counter.spent == 25
    assert counter.queries == {"clean": 10, "adversarial": 5, "validation": 10, "scoring": 15}
    with pytest.raises(AdvGANError, match="exceed it"):
        counter.query(1 - IMAGES[:1], "validation")


def test_labels_only_leaves_one_hot_rows() -> None:
    asked = Asked()
    answers = QueryCounter(asked.black_box, CLASSES, labels_only=True).query(IMAGES, "clean")
    np.testing.assert_array_equal(answers, np.eye(CLASSES)[asked.right(IMAGES).argmax(axis=1)])
    assert answers.dtype == np.float32


def test_a_journal_outlives_its_process(tmp_path: Path) -> None:
    asked, journal = Asked(), tmp_path / "answers.bin"
    before = QueryCounter(asked.black_box, CLASSES, journal=journal)
    for number, purpose in enumerate(PURPOSES):
        before.query(IMAGES[10 * number : 10 * number + 5 + number], purpose)
    asked.requests.clear()
    after = QueryCounter(asked.black_box, CLASSES, journal=journal)
    assert after.queries == before.queries == {"clean": 5, "adversarial": 6, "validation": 7, "scoring": 8}
    shown = np.concatenate([IMAGES[10 * number : 10 * number + 5 + number] for number in range(4)])
    np.testing.assert_array_equal(after.query(shown, "clean"), asked.right(shown))
    assert asked.requests == [] and after.queries == before.queries
    after.query(IMAGES, "clean")
    again = QueryCounter(asked.black_box, CLASSES, journal=journal, budget=32)
    assert again.queries == after.queries and again.spent == 32
    with pytest.raises(AdvGANError, match="1 more queries after 32"):
        again.query(1 - IMAGES[:1], "clean")


def test_a_record_that_was_cut_short_is_cut_off(tmp_path: Path) -> None:
    asked, journal = Asked(), tmp_path / "answers.bin"
    QueryCounter(asked.black_box, CLASSES, journal=journal).query(IMAGES[:8], "clean")
    content = journal.read_bytes()
    size = len(content) // 8
    for left in (0, 1, size - 1, size, 7 * size + 1, 8 * size - 1):
        journal.write_bytes(content[:left])
        counter = QueryCounter(asked.black_box, CLASSES, journal=journal)
        assert counter.spent == left // size and journal.stat().st_size == size * (left // size)
        np.testing.assert_array_equal(counter.query(IMAGES[:8], "clean"), asked.right(IMAGES[:8]))
        assert journal.read_bytes() == content


@pytest.mark.parametrize("place", [0, 5, 40, -1])
@pytest.mark.parametrize("record", [0, 3, 7])
def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path, record: int, place: int) -> None:
    asked, journal = Asked(), tmp_path / "answers.bin"
    QueryCounter(asked.black_box, CLASSES, journal=journal).query(IMAGES[:8], "clean")
    content = bytearray(journal.read_bytes())
    size = len(content) // 8
    content[record * size + place % size] ^= 1
    journal.write_bytes(content)
    with pytest.raises(AdvGANError, match="is damaged, or belongs to another black box; delete it to query again"):
        QueryCounter(asked.black_box, CLASSES, journal=journal)
    assert journal.read_bytes() == content


def test_a_journal_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "answers.bin"
    QueryCounter(Asked().black_box, CLASSES, journal=journal).query(IMAGES[:8], "clean")
    with pytest.raises(AdvGANError, match="belongs to another black box"):
        QueryCounter(Asked(7).black_box, 7, journal=journal)


def interrupting_after(calls: int) -> Callable[[int], None]:
    left = calls

    def advance(_: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted("stopped")

    return advance


@pytest.mark.parametrize("requests", [0, 1, 3])
@pytest.mark.parametrize("stopped_by", ["black box", "advance"])
def test_a_stop_in_the_middle_loses_no_answer(tmp_path: Path, requests: int, stopped_by: str) -> None:
    asked, journal = Asked(), tmp_path / "answers.bin"
    counter = QueryCounter(asked.black_box, CLASSES, budget=40, per_request=10, journal=journal)
    advance: Any = interrupting_after(requests)
    if stopped_by == "black box":
        asked.fails_at, advance = requests, lambda _: None
    with pytest.raises(Interrupted):
        counter.query(IMAGES, "clean", advance)
    asked.fails_at = None
    assert asked.requests == [10] * requests and counter.spent == 10 * requests
    again = QueryCounter(asked.black_box, CLASSES, budget=40, per_request=10, journal=journal)
    for each in (counter, again):
        assert each.queries["clean"] == 10 * requests
    np.testing.assert_array_equal(again.query(IMAGES, "clean"), asked.right(IMAGES))
    assert asked.requests == [10] * 4 and again.spent == 40


def test_an_answer_of_another_type_is_kept_as_float32(tmp_path: Path) -> None:
    asked, journal = Asked(), tmp_path / "answers.bin"
    double = Classifier("double", "0" * 64, SHAPE, lambda images: asked.right(images).astype(np.float64))
    QueryCounter(double, CLASSES, journal=journal).query(IMAGES, "clean")
    assert QueryCounter(double, CLASSES, journal=journal).spent == 40


def test_a_counted_black_box_is_a_classifier_without_a_gradient() -> None:
    asked = Asked()
    counter = QueryCounter(asked.black_box, CLASSES)
    classifier = counter.classifier
    assert not classifier.has_gradient and asked.requests == []  # a trial would be a query
    np.testing.assert_array_equal(classifier.predict(IMAGES), asked.right(IMAGES).argmax(axis=1))
    assert counter.queries == {"clean": 0, "adversarial": 0, "validation": 0, "scoring": 40}
    classifier.predict(IMAGES)
    assert asked.requests == [40]
    assert (classifier.name, classifier.digest) == (asked.black_box.name, asked.black_box.digest)


def test_a_name_of_no_kind_is_no_black_box(tmp_path: Path) -> None:
    for given, words in (
        (str(tmp_path), "is not a loadable SavedModel"),
        ("absent.keras", r"^absent\.keras: no such file or folder; give a \.keras or \.h5 file, the folder"),
        ("own.onnx", r"^own\.onnx is an ONNX file, .*oracle\.black_box=module:function"),
    ):
        with pytest.raises(AdvGANError, match=words):
            load_black_box(given, SHAPE, CLASSES)
