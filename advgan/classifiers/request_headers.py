"""HTTP headers that hold secrets: filled from environment variables, and hidden in whatever a server says."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from string import Template
from urllib.parse import quote

from advgan.config.values import header_variables
from advgan.errors import ConfigurationError

_KEY = "oracle.headers"


class RequestHeaders:
    """The headers of a request to a served model.

    Args:
        texts: by name, such as ``{"Authorization": "Bearer $API_KEY"}``; see ``BlackBoxSettings.headers``.

    Raises:
        ConfigurationError: an environment variable is not set, or holds what no header can carry. What it holds is
            never shown.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        found: dict[str, str] = {}
        for name in dict.fromkeys(name for text in texts.values() for name in header_variables(text)):
            found[name] = value = os.environ.get(name, "").strip()
            if not value:
                raise ConfigurationError(
                    _KEY, dict(texts), f"the environment variable {name} is not set; export it first"
                )
            if not (value.isprintable() and _is_latin_1(value)):
                raise ConfigurationError(
                    _KEY,
                    dict(texts),
                    f"the environment variable {name} holds a line break or another character that HTTP does not "
                    "take; export it again",
                )
        self.values = {name: Template(text).substitute(found) for name, text in texts.items()}
        """What is sent, by name."""
        self.variables = ", ".join(found)
        """The names of the environment variables it came from."""
        secrets = {form for value in [*found.values(), *self.values.values()] for form in _forms(value)}
        self._secrets = sorted(secrets, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The same text with ``***`` for each value, as it is or in the spelling of Python, JSON, HTML or a URL."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _is_latin_1(text: str) -> bool:
    try:
        return bool(text.encode("latin-1"))
    except UnicodeEncodeError:
        return False


def _forms(value: str) -> Iterator[str]:
    """How a server may repeat a value: all of it, or without ``Bearer``."""
    for part in {value, value.split()[-1]}:
        yield from (part, repr(part)[1:-1], json.dumps(part)[1:-1], html.escape(part), quote(part, safe=""))
        yield part.encode("latin-1").decode(errors="replace")
