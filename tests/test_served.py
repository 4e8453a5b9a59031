"""A served black box: a real server in a process of its own, and small servers that fail in every way there is."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
import tensorflow as tf

from advgan.classifiers import served
from advgan.classifiers.black_box import load_black_box
from advgan.classifiers.served import check_served, served_black_box
from advgan.classifiers.source import BlackBoxReading
from advgan.config.settings import TargetSettings
from advgan.errors import AdvGANError, BlackBoxUnavailable

keras = tf.keras
ROOT = Path(__file__).parents[1]
SERVER = ROOT / "examples" / "serve_classifier.py"
SHAPE = (6, 5, 2)
CLASSES = 4
IMAGES = np.random.default_rng(0).random((7, *SHAPE), np.float32)
PATH = "/v1/models/small:predict"
Answer = tuple[int, Any, dict[str, str]]


def network(last: str | None = None) -> Any:
    """A small classifier with random weights; its logits are far apart."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    scores = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Activation(last)(scores * 3) if last else scores * 3)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def got(url: str) -> Any:
    with build_opener(ProxyHandler({})).open(url, timeout=30) as response:
        return json.load(response)


# --- the server that ships as an example ---


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "small.keras"
    network().save(path)
    return path


@contextmanager
def serving(classifier: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, str(SERVER), str(classifier), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            assert process.stderr.read() == ""


@pytest.fixture(scope="module")
def url(classifier: Path) -> Iterator[str]:
    with serving(classifier) as url:
        yield url


def test_a_served_classifier_answers_as_it_does_here(url: str, classifier: Path) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1/models/small:predict", url)
    there, here = load_black_box(url, SHAPE, CLASSES), load_black_box(str(classifier), SHAPE, CLASSES)
    answers = there.logits(IMAGES)
    assert answers.dtype == np.float32 and answers.shape == (7, CLASSES)
    np.testing.assert_allclose(answers, here.logits(IMAGES), atol=1e-6)
    np.testing.assert_allclose(answers, softmax(network()(IMAGES).numpy()), atol=1e-6)
    assert there.name == url and there.digest == load_black_box(url, SHAPE, CLASSES).digest != here.digest


def test_the_server_counts_each_image_it_answers_once(url: str) -> None:
    before = got(urljoin(url, "/queries"))["images"]
    black_box = load_black_box(url, SHAPE, CLASSES, per_request=3)
    black_box.logits(IMAGES)
    black_box.logits(IMAGES[:0])
    check_served(url, 30)
    assert got(urljoin(url, "/queries")) == {"images": before + 7}


def test_the_server_speaks_the_protocol(url: str) -> None:
    status = got(url.removesuffix(":predict"))["model_version_status"]
    assert [version["state"] for version in status] == ["AVAILABLE"]
    right = json.dumps({"instances": IMAGES.tolist()}).encode()
    for address, body, code, words in [
        (url, b"no JSON", 400, "not JSON"),
        (url, b"[]", 400, "instances"),
        (url, b'{"instances": [[1, 2]]}', 400, r"shape \(1, 2\); they should be images \(n, 6, 5, 2\)"),
        (url, b'{"instances": ["text"]}', 400, "all numbers"),
        (url, b'{"instances": []}', 400, r"shape \(0,\)"),
        (url.replace("small", "other"), right, 404, "the model is /v1/models/small:predict"),
    ]:
        with pytest.raises(HTTPError) as refused:
            build_opener(ProxyHandler({})).open(Request(address, body), timeout=30)
        with refused.value as error:
            assert error.code == code and re.search(words, json.load(error)["error"])


def test_what_the_server_refuses_is_told_in_its_words(url: str) -> None:
    for given, shape, words in [
        (url, (6, 6, 2), r"HTTP 400 \(instances have shape \(1, 6, 6, 2\); they .*float32 images of shape \(6, 6, 2\)"),
        (url.replace("small", "other"), SHAPE, r"HTTP 404 \(/v1/models/other:predict: .*check the model's name"),
    ]:
        with pytest.raises(AdvGANError, match=words) as refused:
            load_black_box(given, shape, CLASSES).logits(np.zeros((1, *shape), np.float32))
        assert "\n" not in str(refused.value)


def test_a_server_that_tells_labels_only(tmp_path: Path) -> None:
    network("softmax").save(tmp_path / "small.keras")
    with serving(tmp_path / "small.keras", "--labels", "--name", "secret") as url:
        assert url.endswith("/secret:predict")
        answers = load_black_box(url, SHAPE, CLASSES).logits(IMAGES)
    np.testing.assert_array_equal(answers, np.eye(CLASSES)[network()(IMAGES).numpy().argmax(axis=1)])


def test_the_server_tells_what_it_cannot_serve_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for options, words in [
        (["absent.keras"], "cannot be loaded"),
        (["a.keras", "--name", "a/b"], "--name a/b: should"),
    ]:
        command = [sys.executable, str(SERVER), *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(f"error: [^\n]*{words}[^\n]*\n", done.stderr)


# --- servers that fail ---


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting, how long each wait would have been."""
    waited: list[float] = []

    class Clock:
        sleep = staticmethod(waited.append)

    monkeypatch.setattr(served, "time", Clock)
    return waited


class Scripted:
    """A server that gives these answers one after the other, and the last one for good.

    An answer is status, content (bytes, or what becomes JSON), headers; or a function that gets the handler.
    """

    def __init__(self, *answers: Answer | Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.bodies: list[bytes] = []
        served_by = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                served_by.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                answer = answers[min(len(served_by.bodies), len(answers)) - 1]
                if callable(answer):
                    answer(self)
                    return
                status, content, headers = answer
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def __enter__(self) -> Scripted:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def said(content: Any, status: int = 200, **headers: str) -> Answer:
    return status, content, {name.replace("_", "-"): value for name, value in headers.items()}


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"predictions": [[')


def another_protocol(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


PROBABILITIES = softmax(np.random.default_rng(1).normal(size=(7, CLASSES)))
RIGHT = said({"predictions": PROBABILITIES.tolist()})


@pytest.mark.parametrize("images", [IMAGES, np.float32([0, 1, 1e-9, 0.1, 1 / 3, 1e-45, 254 / 255]).reshape(7, 1, 1, 1)])
def test_every_float32_arrives_bit_for_bit(images: np.ndarray) -> None:
    with Scripted(RIGHT) as server:
        served_black_box(server.url, 30, 0)[1](images)
    (body,) = server.bodies
    arrived = np.array(json.loads(body)["instances"], np.float32)
    assert arrived.tobytes() == images.tobytes() and arrived.shape == images.shape


def test_bits_of_any_exponent_arrive_and_pixels_are_short() -> None:
    bits = np.random.default_rng(2).integers(0, 0x3F800001, 100_000).astype(np.uint32)
    for numbers in (bits.view(np.float32), np.arange(256, dtype=np.float32) / 255):
        assert (
            np.array(json.loads(json.dumps(served._short_decimals(numbers))), np.float32).tobytes() == numbers.tobytes()
        )
    assert all(len(repr(number)) <= len("0.123456789") for number in served._short_decimals(numbers))


@pytest.mark.parametrize(
    "failure",
    [said({"error": "busy"}, status) for status in (429, 500, 502, 503, 504)] + [hang_up, break_off],
    ids=["429", "500", "502", "503", "504", "hangs up", "breaks off"],
)
def test_what_may_pass_is_tried_again(failure: Any, waits: list[float]) -> None:
    with Scripted(failure, failure, RIGHT) as server:
        answers = load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    np.testing.assert_array_equal(answers, PROBABILITIES.astype(np.float32))
    assert waits == [0.5, 1.0]
    assert len(server.bodies) == 3 and len(set(server.bodies)) == 1


def test_waits_double_up_to_30_seconds(waits: list[float]) -> None:
    with Scripted(said(b"<html><h1>Bad\x1b[31m\ngateway</h1></html>", 502)) as server:
        words = re.escape(f"{server.url} does not answer (HTTP 502 (Bad [31m gateway); tried 10 times)")
        with pytest.raises(BlackBoxUnavailable, match=f"^{words}$"):
            load_black_box(server.url, SHAPE, CLASSES, BlackBoxReading(retries=9)).logits(IMAGES)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert len(server.bodies) == 10


@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("7", 7),
        ("0", 0.5),
        ("2.5", 2.5),
        ("3600", 30),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5),
        ("nan", 0.5),
        ("-3", 0.5),
    ],
)
def test_a_server_may_ask_for_a_longer_wait(header: str, waited: float, waits: list[float]) -> None:
    with Scripted(said({}, 503, Retry_After=header), RIGHT) as server:
        load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    assert waits == [waited]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_where_nothing_listens(waits: list[float]) -> None:
    url = f"http://127.0.0.1:{free_port()}{PATH}"
    with pytest.raises(BlackBoxUnavailable, match=r"predict does not answer \(Connection refused; tried 3 times\)$"):
        load_black_box(url, SHAPE, CLASSES, BlackBoxReading(retries=2)).logits(IMAGES)
    assert waits == [0.5, 1]
    with pytest.raises(AdvGANError, match=f"^no server answers at {re.escape(url)} .*start it, or give another oracle"):
        check_served(url, 5)


def test_where_nobody_answers_in_time(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}{PATH}"
        with pytest.raises(BlackBoxUnavailable, match=r"\(no answer within 0\.2 s; tried 2 times\)$"):
            load_black_box(url, SHAPE, CLASSES, BlackBoxReading(timeout=0.2, retries=1)).logits(IMAGES)
        with pytest.raises(AdvGANError, match=r"no server answers at .*\(no answer within 0\.2 s\)"):
            check_served(url, 0.2)
    assert waits == [0.5]


def test_the_check_takes_any_http_status_and_asks_nothing() -> None:
    with Scripted(RIGHT) as server:  # it answers a GET with 501
        check_served(server.url, 30)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            said({"error": "Servable not found for request: Latest(small)"}, 404),
            r"HTTP 404 \(Servable not .*ends in :predict",
        ),
        (
            said({"error": "wrong\nshape " + "x" * 999}, 400),
            r"HTTP 400 \(wrong shape x{140,155}\); the model should take",
        ),
        (said({}, 401), r"HTTP 401 \(\{\}\); where it needs a key, send that by oracle\.headers, such as \{Auth"),
        (said(b"", 405), r"HTTP 405; check that the URL ends in :predict"),
        (said(b"", 413), r"HTTP 413; lower oracle\.images_per_request"),
        (said(b"", 301, Location="http://example.com/new"), r"HTTP 301: it has moved to http://example\.com/new; give"),
        (said(b"<html>Welcome</html>"), r"answers with no JSON \(<html>Welcome</html>\); give the URL of a model"),
        (said(b""), r"answers with no JSON \(nothing\)"),
        (said(b"\xff\xfe\x00"), r"answers with no JSON"),
        (said(b"[" * 100_000), r"answers with no JSON"),
        (said({"error": "not today"}), r"answers with an error: not today$"),
        (said({"outputs": [[0.5, 0.5]]}), r"answers without a list of predictions"),
        (said([1, 2]), r"answers without a list of predictions"),
        (said({"predictions": {"a": [1]}}), r"answers without a list of predictions"),
        (said({"predictions": [[0.5, 0.5], [1]]}), r"predictions that are no table of numbers"),
        (said({"predictions": [["a", "b"]] * 7}), r"predictions that are no table of numbers"),
        (said({"predictions": [None] * 7}), r"predictions that are no table of numbers"),
        (said({"predictions": [[10**30] * 4] * 7}), r"predictions that are no table of numbers"),
        (
            said({"predictions": [{"a": 1, "b": 2}] * 7}),
            r"answers with 2 outputs \(a, b\); name the one that holds its probabilities",
        ),
        (said({"predictions": [{"a": 1}, {"b": 2}]}), r"answers with 2 outputs \(a, b\)"),
        (said({"predictions": [{"a": 1}, 2]}), r"answers with 1 outputs \(a\)"),
        (said({"predictions": PROBABILITIES[:6].tolist()}), r"returns shape \(6, 4\) for 7 images"),
        (
            said({"predictions": PROBABILITIES[:, :3].tolist()}),
            r"returns shape \(7, 3\) for 7 images; it should return probabilities \(7, 4\), or class numbers",
        ),
        (said({"predictions": []}), r"returns shape \(0,\) for 7 images"),
        (
            said({"predictions": np.log(PROBABILITIES).tolist()}),
            r"not return probabilities: .*the softmax of its logits",
        ),
        (said({"predictions": [[float("nan")] * 4] * 7}), r"not return probabilities: rows sum to nan"),
        (said({"predictions": [0, 1, 2, 3, 4, 0, 0]}), r"returns class 4 \(allowed: 0 to 3\)"),
        (said({"predictions": [0, 1, 2, 3, -1, 0, 0]}), r"returns class -1 \(allowed: 0 to 3\)"),
        (said({"predictions": [0.0] * 7}), r"returns shape \(7,\) for 7 images; .*or class numbers, integers"),
        (another_protocol, r"the answer is not HTTP; give the URL of a model"),
    ],
)
def test_an_answer_that_is_none_is_refused_in_one_line(answer: Any, words: str, waits: list[float]) -> None:
    with Scripted(answer) as server:
        with pytest.raises(AdvGANError, match=words) as refused:
            load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
        assert not isinstance(refused.value, BlackBoxUnavailable)
        assert str(refused.value).startswith(server.url) and str(refused.value).isprintable()
        assert len(str(refused.value)) < 400
    assert waits == [] and len(server.bodies) == 1


def test_class_numbers_stay_integers_and_become_one_hot_rows() -> None:
    with Scripted(said({"predictions": [3, 0, 1, 2, 3, 0, 1]})) as server:
        assert served_black_box(server.url, 30, 0)[1](IMAGES).dtype.kind == "i"
        answers = load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    np.testing.assert_array_equal(answers, np.eye(4)[[3, 0, 1, 2, 3, 0, 1]])


def test_one_of_several_outputs_is_chosen() -> None:
    rows = [{"probabilities": row, "features": [1.0, 2.0]} for row in PROBABILITIES.tolist()]
    reading = BlackBoxReading(TargetSettings(file="described.keras", output="probabilities"))
    with Scripted(said({"predictions": rows})) as server:
        answers = load_black_box(server.url, SHAPE, CLASSES, reading).logits(IMAGES)
    np.testing.assert_allclose(answers, PROBABILITIES, atol=1e-6)


def test_scores_of_any_kind_are_taken_where_labels_alone_are_used() -> None:
    with Scripted(said({"predictions": np.log(PROBABILITIES).tolist()})) as server:
        answers = load_black_box(server.url, SHAPE, CLASSES, labels_only=True).logits(IMAGES)
    np.testing.assert_array_equal(answers, np.eye(CLASSES)[PROBABILITIES.argmax(axis=1)])


def test_a_server_that_rounds_is_taken_as_probabilities() -> None:
    with Scripted(said({"predictions": np.round(PROBABILITIES, 1).tolist()})) as server:
        answers = load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(answers, PROBABILITIES, atol=0.1)


def test_an_output_with_a_name_is_taken() -> None:
    with Scripted(said({"predictions": [{"softmax": row} for row in PROBABILITIES.tolist()]})) as server:
        answers = load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    np.testing.assert_array_equal(answers, PROBABILITIES.astype(np.float32))


def test_a_server_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Scripted(RIGHT) as server:
        check_served(server.url, 30)
        assert load_black_box(server.url, SHAPE, CLASSES, BlackBoxReading(retries=0)).logits(IMAGES).shape == (
            7,
            CLASSES,
        )
    with Scripted(RIGHT) as proxy:  # another machine is asked through it
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix(PATH))
        assert load_black_box(f"http://model.example{PATH}", SHAPE, CLASSES, BlackBoxReading(retries=0)).logits(
            IMAGES
        ).shape == (
            7,
            CLASSES,
        )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://there/x:predict",
        "http://",
        "http:///x",
        "http://h:port/x",
        "http://h:70000/x",
        "http://h:0/x",
        "http://[::1/x",
        "http://h/ä",
    ],
)
def test_what_is_no_url_of_a_model_is_refused(url: str) -> None:
    for ask in (lambda: load_black_box(url, SHAPE, CLASSES), lambda: check_served(url, 5)):
        with pytest.raises(AdvGANError, match=r"is no URL of a served model: give the URL .*:predict$"):
            ask()


def test_ctrl_c_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    with Scripted(said({}, 503)) as server, pytest.raises(KeyboardInterrupt):
        load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)


# --- the attack that ships as an example ---


def test_the_attack_on_a_served_classifier_counts_as_the_server_does(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "attack_served_classifier.py"), "--output", str(tmp_path)]
    command += ["--training-images", "256", "--test-images", "100", "--rounds", "2", "--epochs", "1"]
    command += ["--query-budget", "300"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    asked = re.search(r"^Queries +(\{.*\}), (\d+) in all$", done.stdout, re.MULTILINE)
    there = re.search(r"^Server counted (\d+)$", done.stdout, re.MULTILINE)
    assert asked and there
    queries = json.loads(asked[1].replace("'", '"'))
    assert int(there[1]) == int(asked[2]) == sum(queries.values())
    assert queries["clean"] + queries["adversarial"] + queries["validation"] <= 300
    assert queries["scoring"] >= 100
    assert "Traceback" not in done.stderr
