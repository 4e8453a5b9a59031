"""Serve a Keras classifier over HTTP by TensorFlow Serving's REST protocol, so that an attack sees nothing but answers.

    python examples/serve_classifier.py my_classifier.keras --port 8501

A stand-in for TensorFlow Serving where that is not installed, with the standard library's server. It answers

    POST /v1/models/NAME:predict    {"instances": [images]} with {"predictions": [probabilities]}
    GET  /v1/models/NAME            the model's status
    GET  /queries                   {"images": how many it answered so far}
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from advgan.command_line import run_command
from advgan.errors import AdvGANError
from advgan.startup import import_tensorflow

EXAMPLES = """examples:
  python examples/serve_classifier.py my_classifier.keras
  python examples/serve_classifier.py my_classifier.keras --port 0             on any free port
  python examples/serve_classifier.py my_classifier.keras --labels             class numbers instead of probabilities

Prints the URL to give when it is ready, then serves until Ctrl-C:
  python -m advgan.train --config mnist_blackbox.yaml --set oracle.black_box=URL
"""
BATCH_SIZE = 500
MOST_BYTES = 2**30
"""The longest request that is read."""


class Refused(Exception):  # noqa: N818 (it is an answer)
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        problem: what is wrong with it.
    """

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


class ServedClassifier:
    """A classifier of which only the answers are visible; it counts the images it classifies.

    Args:
        path: its ``.keras`` file; it may return logits or probabilities.
        labels: whether it answers with class numbers only.

    Raises:
        AdvGANError: it cannot be loaded.
    """

    def __init__(self, path: Path, labels: bool) -> None:
        import_tensorflow()  # takes seconds, so after the options were checked
        import tensorflow as tf

        from advgan.networks.keras_file import load_network

        network = load_network(path)
        self.shape: tuple[int | None, ...] = tuple(network.input_shape[1:])
        self.labels, self.images = labels, 0
        self._counting = threading.Lock()
        signature = [tf.TensorSpec([None, *self.shape], tf.float32)]
        self._network = tf.function(lambda images: network(images, training=False), input_signature=signature)
        noise = np.random.default_rng(0).random((8, *(size or 32 for size in self.shape)), np.float32)
        scores = self._network(noise).numpy()
        self._softmax = not (bool((scores >= 0).all()) and np.allclose(scores.sum(axis=1), 1, atol=1e-3))

    def predict(self, instances: object) -> list[Any]:
        """The answers on images: a row of probabilities for each, or a class number.

        Raises:
            Refused: these are no images of the classifier's shape.
        """
        wanted = ", ".join("any" if size is None else str(size) for size in self.shape)
        try:
            images = np.array(instances, np.float32)
        except (ValueError, TypeError):
            raise Refused(400, f"instances should be images of shape ({wanted}), all numbers") from None
        fits = images.ndim == 1 + len(self.shape) and len(images) > 0
        if not (fits and all(size in (None, here) for size, here in zip(self.shape, images.shape[1:], strict=True))):
            raise Refused(400, f"instances have shape {images.shape}; they should be images (n, {wanted})")
        starts = range(0, len(images), BATCH_SIZE)
        scores = np.concatenate([self._network(images[start : start + BATCH_SIZE]).numpy() for start in starts])
        with self._counting:
            self.images += len(images)
        if self.labels:
            return list(scores.argmax(axis=1).tolist())
        if self._softmax:
            exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
            scores = exponentials / exponentials.sum(axis=1, keepdims=True)
        return list(scores.astype(np.float32).tolist())


class Handler(BaseHTTPRequestHandler):
    """The protocol; ``classifier`` and ``name`` are set where the server starts."""

    classifier: ServedClassifier
    name: str

    def do_GET(self) -> None:
        """A model's status, or the number of images so far."""
        if self.path == "/queries":
            self._answer(200, {"images": self.classifier.images})
        elif self.path == f"/v1/models/{self.name}":
            state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            self._answer(200, {"model_version_status": [state]})
        else:
            self._answer(404, {"error": f"{self.path}: not found; the model is /v1/models/{self.name}"})

    def do_POST(self) -> None:
        """Predictions."""
        try:
            self._answer(200, {"predictions": self.classifier.predict(self._instances())})
        except Refused as refused:
            self._answer(refused.status, {"error": str(refused)})

    def _instances(self) -> object:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refused(411, "the request should state its Content-Length")
        if int(length) > MOST_BYTES:
            raise Refused(413, f"the request is longer than {MOST_BYTES:,} bytes")
        body = self.rfile.read(int(length))
        if self.path != f"/v1/models/{self.name}:predict":
            raise Refused(404, f"{self.path}: not found; the model is /v1/models/{self.name}:predict")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(content, dict) or "instances" not in content:
            raise Refused(400, 'the request should be {"instances": [images]}')
        return content["instances"]

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""


class Server(ThreadingHTTPServer):
    """One thread for each request."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Serve a Keras classifier over HTTP by TensorFlow Serving's REST protocol.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("classifier", type=Path, metavar="FILE", help="a .keras file, from images to logits or softmax")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8501, help="0 for any free one (default: 8501)")
    parser.add_argument("--name", help="the model's name in the URL (default: the file's name)")
    parser.add_argument("--labels", action="store_true", help="answer with class numbers, without probabilities")
    options = parser.parse_args(arguments)
    return run_command(_serve, options)


def _serve(options: argparse.Namespace) -> int:
    name = options.name or re.sub(r"[^A-Za-z0-9._-]+", "-", options.classifier.stem)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise AdvGANError(f"--name {name}: should be letters, digits, '.', '_' and '-'")
    classifier = ServedClassifier(options.classifier, options.labels)
    handler = type("NamedHandler", (Handler,), {"classifier": classifier, "name": name})
    try:
        server = Server((options.host, options.port), handler)
    except (OSError, OverflowError) as error:  # taken; no port, no address
        problem = getattr(error, "strerror", None) or error
        raise AdvGANError(f"{options.host}:{options.port}: {problem}; give another --port, or 0") from None
    with server:
        print(f"http://{options.host}:{server.server_port}/v1/models/{name}:predict", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
