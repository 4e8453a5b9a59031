"""A served model that needs a key: it comes from an environment variable, is sent, and is shown and written nowhere."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from log_lines import logged
from processes import one_line_error

from advgan import evaluate, train
from advgan.classifiers.black_box import load_black_box
from advgan.classifiers.request_headers import RequestHeaders
from advgan.classifiers.served import check_served, served_black_box
from advgan.classifiers.source import BlackBoxReading
from advgan.config.loading import dump_config, parse_config
from advgan.config.settings import DataSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, BlackBoxUnavailable, ConfigurationError
from advgan.files import read_json

SECRET = "sk-Q7 <x>&\"1'/%ü9z"  # spelled otherwise in JSON, HTML, a URL and UTF-8
SHAPE, CLASSES = (28, 28, 1), 10
IMAGES = np.random.default_rng(0).random((3, *SHAPE), np.float32)
HEADERS = {"Authorization": "Bearer $API_KEY", "X-Cost": "$$5 ${TEAM}"}
WITH_KEY = BlackBoxReading(headers=HEADERS)
Answer = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]


class Keyed:
    """A server that answers as ``answer`` says, and keeps the headers of each request; by default it wants the key."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.answer: Answer = self.predictions
        data = load_dataset(DataSettings(training_images=500)).training
        images = scaled(data.images).reshape(len(data), -1)
        self._means = np.stack([images[data.labels == label].mean(axis=0) for label in range(CLASSES)])
        served_by = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                served_by.headers.append((self.command, dict(self.headers)))
                status, content = served_by.answer(self)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 302:
                    self.send_header("Location", f"/elsewhere?key={quote(SECRET, safe='')}")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/models/keyed:predict"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def predictions(self, handler: Any) -> tuple[int, bytes]:
        """The class whose mean image is the nearest, for who has the key."""
        if handler.headers.get("Authorization") != f"Bearer {SECRET}":
            return 401, b'{"error": "who are you?"}'
        if handler.command == "GET":
            return 200, b"{}"
        images = np.array(json.loads(handler.body)["instances"]).reshape(-1, 28 * 28)
        distances = ((images[:, None] - self._means) ** 2).sum(axis=2)
        scores = np.exp(distances.min(axis=1, keepdims=True) - distances)
        return 200, json.dumps({"predictions": (scores / scores.sum(axis=1, keepdims=True)).tolist()}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyed]:
    monkeypatch.setenv("API_KEY", SECRET)
    monkeypatch.setenv("TEAM", "vision")
    keyed = Keyed()
    yield keyed
    keyed.close()


# --- what is sent ---


def test_headers_are_filled_and_sent_with_every_request(server: Keyed) -> None:
    check_served(server.url, 30, HEADERS)
    answers = load_black_box(server.url, SHAPE, CLASSES, WITH_KEY, per_request=2).logits(IMAGES)
    assert answers.shape == (3, CLASSES)
    assert [command for command, _ in server.headers] == ["GET", "POST", "POST"]
    for _, headers in server.headers:
        assert headers["Authorization"] == f"Bearer {SECRET}" and headers["X-Cost"] == "$5 vision"
    assert server.headers[-1][1]["Content-Type"] == "application/json"
    digests = [served_black_box(server.url, 30, 0, headers)[0] for headers in ({}, HEADERS)]
    assert digests[0] == digests[1]  # a key may be replaced in the course of a run


def test_without_the_right_key_the_remedy_is_named(server: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        AdvGANError, match=r"HTTP 401 \(who are you\?\); where it needs a key, send that by oracle\.headers"
    ):
        load_black_box(server.url, SHAPE, CLASSES).logits(IMAGES)
    monkeypatch.setenv("API_KEY", "another")
    with pytest.raises(AdvGANError, match=r"; check oracle\.headers, and the key in .* API_KEY, TEAM$") as caught:
        load_black_box(server.url, SHAPE, CLASSES, WITH_KEY).logits(IMAGES)
    assert "another" not in str(caught.value)
    server.answer = lambda _: (403, b"")
    with pytest.raises(AdvGANError, match=r"HTTP 403; check oracle\.headers"):
        load_black_box(server.url, SHAPE, CLASSES, WITH_KEY).logits(IMAGES)


@pytest.mark.parametrize(
    "answer",
    [
        lambda key: (400, json.dumps({"error": f"{'no ' * 48}Bearer {key}"}).encode()),
        lambda key: (400, json.dumps({"error": {"Authorization": key}}, ensure_ascii=False).encode()),
        lambda key: (403, f"<p>Bearer {key}</p>".encode()),
        lambda key: (403, f"<p>{html.escape(key)}</p>".encode()),
        lambda key: (403, key.encode("latin-1")),
        lambda key: (503, json.dumps({"message": key}).encode()),
        lambda _: (302, b""),
        lambda key: (200, f"Hello, {' ' * 990}{key}".encode()),
        lambda key: (200, json.dumps({"error": key}).encode()),
        lambda key: (200, json.dumps({"predictions": [{key: 1, "b": 2}]}).encode()),
    ],
)
def test_a_server_that_repeats_the_key_is_shown_without_it(
    server: Keyed, answer: Callable[[str], tuple[int, bytes]]
) -> None:
    server.answer = lambda _: answer(SECRET)
    black_box = load_black_box(server.url, SHAPE, CLASSES, WITH_KEY._replace(retries=0))
    with pytest.raises(AdvGANError, match=r"\*\*\*") as caught:
        black_box.logits(IMAGES)
    assert isinstance(caught.value, BlackBoxUnavailable) == ("HTTP 503" in str(caught.value))
    assert not any(piece in str(caught.value) for piece in ("Q7", "9z", "sk-"))
    assert len(server.headers) == 1  # a redirect is not followed


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("API_KEY", value)
    with pytest.raises(ConfigurationError) as caught:
        served_black_box("http://127.0.0.1:1/m:predict", 1, 0, {"Authorization": "Bearer $API_KEY"})
    assert str(caught.value) == "oracle.headers: the environment variable API_KEY is not set; export it first"


@pytest.mark.parametrize("value", ["sk-1\nX-Evil: 1", "sk-1\r", "sk-1\x7f2", "sk-1€"])
def test_what_no_header_can_carry_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", value + "9")
    with pytest.raises(ConfigurationError, match=r"^oracle\.headers: the environment variable API_KEY holds") as caught:
        check_served("http://127.0.0.1:1/m:predict", 1, {"Authorization": "Bearer $API_KEY"})
    assert "sk-1" not in str(caught.value) and caught.value.value is None


def test_a_line_break_at_the_end_of_a_key_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "sk-1\n")
    assert RequestHeaders({"Authorization": "Bearer $API_KEY"}).values == {"Authorization": "Bearer sk-1"}


def test_a_warning_where_headers_cross_a_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    headers = {"Authorization": "Bearer $API_KEY"}
    with logged() as lines:
        for _ in range(2):
            served_black_box("http://model.example/m:predict", 1, 0, headers)
        served_black_box("https://model.example/m:predict", 1, 0, headers)
        served_black_box("http://model.example/without:predict", 1, 0, {})
        for here in ("127.0.0.1", "localhost", "[::1]"):
            served_black_box(f"http://{here}/m:predict", 1, 0, headers)
    [line] = lines
    assert line.startswith("oracle.headers are sent to http://model.example/m:predict without encryption")


# --- the setting ---


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Authorization": "Bearer sk-1"}, "oracle.headers: Authorization should name an environment variable"),
        ({"Authorization": "Bearer $$API_KEY sk-1"}, "oracle.headers: Authorization should name an environment"),
        ({"Authorization": "$API_KEY sk-1 $"}, "oracle.headers: Authorization has a $ that no name of an"),
        ({"Authorization": "$API_KEY\nsk-1"}, "oracle.headers: Authorization should name"),
        ({"Authorization": 1234567}, "oracle.headers: Authorization should name"),
        ({"Authorization": {"Bearer": "sk-1"}}, "oracle.headers: Authorization should name"),
        ({"Two words": "sk-1"}, "oracle.headers: the name of a header should be letters, digits and '-'"),
        ({"": "$API_KEY"}, "oracle.headers: the name of a header should be"),
        ({"content-length": "$API_KEY"}, "oracle.headers: content-length follows from the request; leave it out"),
        ({"X-Key": "$A", "x-key": "$B"}, "oracle.headers: X-Key is there twice"),
        ("Bearer sk-1", "oracle.headers: should be a section"),
        (["Authorization: Bearer sk-1"], "oracle.headers: should be a section"),
    ],
)
def test_wrong_headers_are_one_line_without_their_text(headers: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config({"oracle": {"black_box": "http://h/m:predict", "headers": headers}})
    assert str(caught.value).startswith(words)
    assert not any(secret in f"{caught.value!r} {caught.value.value}" for secret in ("sk-1", "1234567"))


def test_headers_are_for_a_served_model() -> None:
    for section in ({}, {"black_box": "target"}, {"black_box": "module:function"}):
        with pytest.raises(ConfigurationError, match=r"^oracle\.headers: is for a served model"):
            parse_config({"oracle": {**section, "headers": {"Authorization": "Bearer $API_KEY"}}})
    assert parse_config({"oracle": {"headers": None}}).oracle.headers == {}


def test_what_is_kept_is_the_name_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    config = parse_config({"oracle": {"black_box": "http://h/m:predict", "headers": HEADERS}})
    assert "Authorization: Bearer $API_KEY" in dump_config(config)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["oracle.headers.Authorization=Bearer sk-1"], "in single quotes"),
        (
            ["oracle.headers.Authorization=Bearer", "sk-1"],
            "in single quotes: 'oracle.headers.Authorization=Bearer $API",
        ),
        (["oracle.headers.X-Api-Key="], "X-Api-Key should name an environment variable"),
        (["oracle.headers=Bearer sk-1"], "oracle.headers: should be a section"),
        (["oracle.headers.Authorization=key: a: sk-1"], "--set: the value is not YAML"),
        (["oracle.headers.Authorization Bearer sk-1"], "--set: should be section.key=value"),
        (["oracle.header.Authorization=Bearer sk-1"], "oracle.header: unknown key; did you mean oracle.headers?"),
        (["oracle.heders={X-Key: sk-1}"], "oracle.heders: unknown key; did you mean oracle.headers?"),
        (["oracel.headers.X=sk-1"], "oracel: unknown key; did you mean oracle?"),
        (["headers.X=sk-1"], "headers: unknown key; did you mean oracle.headers?"),
        (["oracle.Authorization=Bearer sk-1"], "oracle.Authorization: unknown key"),
        (["oracle.x=Bearer sk-1"], "oracle.x: unknown key"),
        (["attack.epsilon.x=1", "--set", "seed.headers=Bearer sk-1"], "--set: seed is a setting, not a section"),
    ],
)
def test_no_error_of_the_command_line_shows_a_key(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "seed" in words:
        typed = ["seed=1", *typed[1:]]
    url = "oracle.black_box=http://127.0.0.1:1/m:predict"
    line = one_line_error(train.main, capsys, "--config", "mnist_blackbox.yaml", "--set", url, "--set", *typed)
    assert words in line and "sk-1" not in line
    assert list(tmp_path.iterdir()) == []


# --- a whole run ---


def files_with(secret: str, folder: Path) -> list[Path]:
    spellings = [secret.encode(), secret.encode("latin-1"), json.dumps(secret)[1:-1].encode(), b"sk-Q7"]
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(spelling in path.read_bytes() for spelling in spellings)
    ]


def test_a_run_with_a_key_writes_it_nowhere(
    server: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [
        f"oracle.black_box={server.url}",
        "oracle.headers.Authorization=Bearer $API_KEY",
        "data.training_images=128",
        "data.validation_images=40",
        "data.test_images=40",
        "oracle.validation_queries=0",
        "distillation.architecture=lenet",
        "distillation.rounds=1",
        "distillation.first_epochs=1",
        "distillation.batch_size=32",
        "generator.widths=[4, 8]",
        "generator.residual_blocks=0",
        "training.batch_size=64",
    ]
    typed = ["--config", "mnist_blackbox.yaml", *(part for setting in settings for part in ("--set", setting))]

    monkeypatch.delenv("API_KEY")
    for arguments in (typed, [*typed, "--dry-run"]):
        line = one_line_error(train.main, capsys, *arguments)
        assert line == "oracle.headers: the environment variable API_KEY is not set; export it first"
    assert not any(path.name.isdigit() for path in tmp_path.rglob("*")) and server.headers == []

    monkeypatch.setenv("API_KEY", SECRET)
    shown = []
    assert train.main([*typed, "--dry-run"]) == 0
    shown.append(capsys.readouterr())
    assert "Authorization: Bearer $API_KEY" in shown[0].out
    assert train.main([*typed, "--verbose"]) == 0
    shown.append(capsys.readouterr())
    run = tmp_path / "checkpoints" / "mnist_blackbox" / "0"
    digest = read_json(run / "summary.json")["generator_weights_sha256"]
    assert "$API_KEY" in (run / "config.yaml").read_text() and "$API_KEY" in (run / "processes.json").read_text()

    (run / "summary.json").unlink()  # as if it had been stopped before its end
    monkeypatch.delenv("API_KEY")
    for command in ([train.main, "--resume"], [evaluate.main, "--run"]):
        main, option = command
        words = "is not finished" if option == "--run" else "the environment variable API_KEY is not set"
        assert words in one_line_error(main, capsys, option, str(run))
    monkeypatch.setenv("API_KEY", SECRET)
    assert train.main(["--resume", str(run)]) == 0
    assert read_json(run / "summary.json")["generator_weights_sha256"] == digest
    shown.append(capsys.readouterr())

    typed = ["--run", str(run), "--images", "10", "--optimized", "1", "--square-queries", "3"]
    monkeypatch.delenv("API_KEY")
    assert "API_KEY is not set" in one_line_error(evaluate.main, capsys, *typed)
    monkeypatch.setenv("API_KEY", SECRET)
    assert evaluate.main([*typed, "--verbose"]) == 0
    shown.append(capsys.readouterr())

    assert not any("Q7" in text for printed in shown for text in printed)
    assert len(list(run.rglob("*"))) > 20 and files_with(SECRET, tmp_path) == []
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, headers in server.headers)
    error = one_line_error(train.main, capsys, "--resume", str(run), "--set", "oracle.headers.Authorization=sk-1")
    assert error == "--set: a resumed run keeps its settings; start a new run"
    error = one_line_error(evaluate.main, capsys, "--run", str(run), "--set", "oracle.headers.Authorization=sk-1")
    assert error.startswith("--set: a run keeps its settings") and "sk-1" not in error
