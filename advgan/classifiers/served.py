"""A classifier served by TensorFlow Serving's REST protocol: images go out, probabilities or class numbers come in."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

import numpy as np

from advgan.classifiers.request_headers import RequestHeaders
from advgan.errors import AdvGANError, BlackBoxUnavailable

logger = logging.getLogger(__name__)
PREDICT = ":predict"
EXAMPLE = f"http://127.0.0.1:8501/v1/models/my_classifier{PREDICT}"
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a request is sent again; the wait doubles each time."""
BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses after which the same request may succeed later."""
_FIXES = {
    404: f"check the model's name, and that the URL ends in {PREDICT}",
    405: f"check that the URL ends in {PREDICT}",
    413: "lower oracle.images_per_request",
}
_KIND = f"give the URL of a model in TensorFlow Serving's REST protocol, such as {EXAMPLE}"


class _NotNow(Exception):  # noqa: N818 (never leaves this module)
    """A request failed that may succeed later.

    Args:
        problem: what happened.
        wait: seconds the server asks for.
    """

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        self.wait = wait
        super().__init__(problem)


def served_black_box(
    url: str, timeout: float, retries: int, headers: Mapping[str, str] = {}, output: str | None = None
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The digest of a served classifier's URL, and the function that queries it.

    The function takes float32 images in [0, 1], shape (n, height, width, channels), and returns what the server says of
    them: floats (n, classes), or integers (n,), not checked further. Each image arrives bit for bit.

    Args:
        url: where images are sent, ``http://host:port/v1/models/name:predict``.
        timeout: seconds of silence after which a request counts as failed.
        retries: how often a request is sent again.
        headers: texts by name, in which ``$NAME`` is an environment variable; what it holds now is sent with every
            request, and shown in no message.
        output: which output is meant, where there are several.

    Raises:
        AdvGANError: the URL can be none of a served model, or an environment variable is not set. The function raises
            it where an answer is no answer to the images, and ``BlackBoxUnavailable`` where the server could not
            answer in all these tries.
    """
    server = _Server(url, timeout, headers, output)

    def ask(images: np.ndarray) -> np.ndarray:
        body = json.dumps({"instances": _short_decimals(images)}, separators=(",", ":")).encode()
        for tries in itertools.count(1):
            try:
                return server.predictions(server.exchange(body, images.shape[1:]))
            except _NotNow as problem:
                if tries > retries:
                    times = "once" if tries == 1 else f"{tries} times"
                    raise BlackBoxUnavailable(f"{url} does not answer ({problem}; tried {times})") from None
                time.sleep(min(LONGEST_WAIT, max(FIRST_WAIT * 2 ** (tries - 1), problem.wait)))
        raise AssertionError("unreachable")

    return hashlib.sha256(url.encode()).hexdigest(), ask


def check_served(url: str, timeout: float, headers: Mapping[str, str] = {}) -> None:
    """Make sure that something answers HTTP where a model should be served; it costs no query.

    Args:
        url: as ``served_black_box`` takes it; the URL without ``:predict``, a model's status page, is looked at.
        timeout: seconds.
        headers: as ``served_black_box`` takes them.

    Raises:
        AdvGANError: nothing answers, the URL can be none of a served model, or an environment variable is not set.
    """
    _Server(url, timeout, headers).look()


class _Server:
    """A served model, and the one place that knows the secrets that are sent to it.

    Args:
        url, timeout, headers, output: as ``served_black_box`` takes them.
    """

    def __init__(self, url: str, timeout: float, headers: Mapping[str, str], output: str | None = None) -> None:
        self.url, self.timeout, self._output = url, timeout, output
        self._opener = _opener(url)
        self._headers = RequestHeaders(headers)
        parts = urlsplit(url)
        if headers and parts.scheme == "http" and not _is_here(parts.hostname or ""):
            _warn_of_plain_http(url)

    def look(self) -> None:
        """See that something answers."""
        request = Request(self.url.removesuffix(PREDICT), headers=self._headers.values)
        try:
            self._opener.open(request, timeout=self.timeout).close()
        except HTTPError as error:  # any status will do: other servers than TensorFlow Serving may have no such page
            error.close()
        except (OSError, HTTPException) as error:
            problem = self._problem(error)
            raise AdvGANError(
                f"no server answers at {self.url} ({problem}); start it, or give another oracle.black_box"
            ) from None

    def exchange(self, body: bytes, shape: tuple[int, ...]) -> bytes:
        """Send one request and return the body of its answer.

        Raises:
            _NotNow: it failed in a way that may pass.
            AdvGANError: it is not allowed.
        """
        request = Request(self.url, body, {**self._headers.values, "Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return bytes(response.read())
        except HTTPError as error:
            status = f"HTTP {error.code}{self._said(error)}"
            if error.code in BUSY:
                raise _NotNow(status, _seconds(error.headers.get("Retry-After"))) from None
            if moved := error.headers.get("Location"):
                raise AdvGANError(
                    f"{self.url} answers {status}: it has moved to {self._shown(moved)}; give that URL"
                ) from None
            raise AdvGANError(f"{self.url} answers {status}; {self._fix(error.code, shape)}") from None
        except (OSError, IncompleteRead) as error:
            raise _NotNow(self._problem(error)) from None
        except HTTPException as error:
            raise AdvGANError(f"{self.url}: {self._problem(error)}; {_KIND}") from None

    def predictions(self, content: bytes) -> np.ndarray:
        """The numbers in a server's answer: floats or integers of any shape.

        Raises:
            AdvGANError: there are none.
        """
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            said = self._shown(content.decode(errors="replace"))
            raise AdvGANError(f"{self.url} answers with no JSON ({said or 'nothing'}); {_KIND}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise AdvGANError(f"{self.url} answers with an error: {self._shown(str(answer['error']))}")
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(predictions, list):
            raise AdvGANError(f"{self.url} answers without a list of predictions; {_KIND}")
        if any(isinstance(row, dict) for row in predictions):
            predictions = self._only_output(predictions)
        try:
            numbers = np.array(predictions)
        except ValueError:  # rows of different lengths
            numbers = np.array(None)
        if numbers.dtype.kind not in "iuf":
            raise AdvGANError(
                f"{self.url} answers with predictions that are no table of numbers; "
                "it should be a row of probabilities for each image, or a class number"
            )
        return numbers

    def _only_output(self, predictions: list[object]) -> list[object]:
        """The output that is meant, of a model whose outputs have names."""
        names = sorted({str(name) for row in predictions if isinstance(row, dict) for name in row})
        wanted = self._output or (names[0] if len(names) == 1 else None)
        found = [row[wanted] for row in predictions if isinstance(row, dict) and wanted in row]
        if len(found) != len(predictions):
            raise AdvGANError(
                f"{self.url} answers with {len(names)} outputs ({self._shown(', '.join(names))}); name the one that "
                "holds its probabilities, target.output, or serve a model that has no other"
            )
        return found

    def _fix(self, status: int, shape: tuple[int, ...]) -> str:
        """What to do after a status that stays."""
        if status in (401, 403):
            if variables := self._headers.variables:
                return f"check oracle.headers, and the key in the environment variable {variables}"
            return "where it needs a key, send that by oracle.headers, such as {Authorization: 'Bearer $API_KEY'}"
        return _FIXES.get(status, f"the model should take float32 images of shape {shape}")

    def _problem(self, error: OSError | HTTPException) -> str:
        """What went wrong with a connection, in a few words."""
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return f"no answer within {self.timeout:g} s"
        if isinstance(reason, IncompleteRead):
            return "the connection broke off"
        if isinstance(reason, HTTPException) and not isinstance(reason, OSError):
            return "the answer is not HTTP"
        return self._shown((isinstance(reason, OSError) and reason.strerror) or str(reason) or type(reason).__name__)

    def _said(self, error: HTTPError) -> str:
        """The server's own message after a status, shortened, in brackets; empty where there is none."""
        try:
            with error:
                content = error.read().decode(errors="replace")
        except (OSError, HTTPException):
            return ""
        try:
            content = str(json.loads(content)["error"])
        except (ValueError, LookupError, TypeError, RecursionError):  # a proxy's page
            content = re.sub(r"<[^>]*>", " ", self._headers.hide(content))
        return f" ({short})" if (short := self._shown(content)) else ""

    def _shown(self, text: str) -> str:
        """A server's text for the user's terminal: without the secrets, in short."""
        return _in_short(self._headers.hide(text))


@functools.cache
def _warn_of_plain_http(url: str) -> None:
    """Once in a process for each URL."""
    logger.warning("oracle.headers are sent to %s without encryption: anyone on the way can read them; use https", url)


class _NoRedirects(HTTPRedirectHandler):
    """A redirected POST would be sent again as a GET, without its images."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(url: str) -> OpenerDirector:
    """What opens this URL: with the environment's proxies, except for a server on this machine."""
    try:
        parts = urlsplit(url)
        host, fits = parts.hostname or "", parts.scheme in ("http", "https") and parts.port != 0 and url.isascii()
    except ValueError:  # the port is no number, or a bracket is open
        host, fits = "", False
    if not (host and fits):
        raise AdvGANError(f"{url} is no URL of a served model: {_KIND}")
    return build_opener(_NoRedirects, *([ProxyHandler({})] if _is_here(host) else []))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _short_decimals(images: np.ndarray) -> list[object]:
    """Float32 images as nested lists of numbers that become the same float32 again, most of 9 decimals at most.

    Half the bytes of the 17 digits that Python would write of each.
    """
    exact = images.astype(np.float64)
    rounded = np.round(exact, 9)
    return list(np.where(rounded.astype(np.float32) == images, rounded, exact).tolist())


def _seconds(retry_after: str | None) -> float:
    """The wait a server asks for; 0 where it gives none, or a date."""
    number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", retry_after or "")
    return float(number.group()) if number else 0.0


def _in_short(text: str) -> str:
    """On one line, without control characters: it is a server's text on the user's terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:160]
