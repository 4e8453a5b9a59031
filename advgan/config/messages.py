"""What is wrong with a configuration, in one line: key, value, allowed range, the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, cast

from pydantic import ValidationError

from advgan.config.settings import Settings
from advgan.errors import ConfigurationError


def is_section(annotation: Any) -> bool:
    """Whether a field holds settings of its own."""
    return isinstance(annotation, type) and issubclass(annotation, Settings)


_MESSAGES = {
    "bool_type": "should be on or off",
    "bool_parsing": "should be on or off",
    "int_type": "should be an integer, written as digits",
    "int_parsing": "should be an integer, written as digits",
    "missing": "is needed",
    "model_type": "should be a section: keys and values below it",
    "string_type": "should be text; put it in quotes",
    "string_pattern_mismatch": "should be letters, digits, '.', '_' and '-', the first a letter or digit",
}
"""Plainer words than pydantic's, by the type of its error."""


_DEFENCE = ("defense", "defence", "defended", "robust")
"""What adversarial training is called elsewhere."""
_LISTS = ("tuple_type", "too_short", "too_long")


def _known_keys(model: type[Settings], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if (below := _below(field.annotation)) is not None:
            keys += _known_keys(below, f"{prefix}{name}.")
    return keys


def _below(annotation: Any) -> type[Settings] | None:
    """The settings of a section, or of each entry in a list of sections."""
    if is_section(annotation):
        return cast(type[Settings], annotation)
    return next(filter(None, map(_below, getattr(annotation, "__args__", ()))), None)


def _without_places(parts: Iterable[str]) -> str:
    """A dotted key without the numbers that tell an entry's place in its list."""
    return ".".join(part for part in parts if not part.isdigit())


def _nearest(word: str, known: list[str]) -> str:
    """``; did you mean X?``: a key of that name in another section, else the nearest spelling."""
    if any(part in _DEFENCE for part in word.split(".")):
        return "; did you mean target.adversarial_training.method?"
    shallow_first = sorted(known, key=lambda key: key.count("."))
    last_parts = {key.rsplit(".", 1)[-1]: key for key in reversed(shallow_first)}
    last = word.rsplit(".", 1)[-1]
    if last in last_parts:
        matches = [last_parts[last]]
    else:
        matches = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
        matches = matches or [last_parts[near] for near in difflib.get_close_matches(last, last_parts, n=1)]
    return f"; did you mean {matches[0]}?" if matches else ""


def explain(error: ValidationError, model: type[Settings]) -> ConfigurationError:
    """The first problem in one line. Unknown keys come first: they are often the cause of the rest."""
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    known = _known_keys(model)
    parts: list[str] = []
    for part in map(str, first["loc"]):
        if _without_places([*parts, part]) in known or part.isdigit() or first["type"] == "extra_forbidden":
            parts.append(part)
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        section = _without_places(parts[:-1])
        siblings = [name for name in known if name.rpartition(".")[0] == section]
        settings = [name for name in known if "." in name or not section]
        nearest = _nearest(_without_places(parts), settings) or f"; known here: {', '.join(siblings)}"
        return ConfigurationError(key, first["input"], f"unknown key{nearest}")
    message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, ").removeprefix("Input "))
    if first["type"] in _LISTS:
        message = _section_of(key, model).lists
    if key in ("training.deterministic", "training.xla"):
        message = "should be auto, on or off"
    value = None if first["type"] == "missing" else first["input"]
    if key.endswith("epsilon") and first["type"] == "less_than_equal" and first["input"] in range(2, 256):
        message += f", a share of the pixel range: for {first['input']:g} of 255 levels write {first['input']:g}/255"
    return ConfigurationError(key, value, _allowed(key, message, model))


def _section_of(key: str, settings: type[Settings]) -> type[Settings]:
    """The settings that a dotted key's last part belongs to."""
    for section in [part for part in key.split(".") if not part.isdigit()][:-1]:
        settings = _below(settings.model_fields[section].annotation) or settings
    return settings


def _allowed(key: str, message: str, settings: type[Settings]) -> str:
    """Add the allowed range where the message names only one side of it."""
    last = [part for part in key.split(".") if not part.isdigit()][-1:] or [""]
    field = _section_of(key, settings).model_fields.get(last[0])
    bounds = []
    for rule in _rules(field.annotation, field.metadata) if field else []:
        for symbol, name in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le")):
            if (bound := getattr(rule, name, None)) is not None:
                bounds.append(f"{symbol} {bound}")
    return f"{message} (allowed: {', '.join(bounds)})" if bounds else message


def _rules(annotation: Any, metadata: Iterable[Any]) -> Iterable[Any]:
    """The range rules of a field, found under unions and Annotated too."""
    for rule in metadata:
        yield from getattr(rule, "metadata", [rule])
    for argument in getattr(annotation, "__args__", ()):
        yield from _rules(argument, getattr(argument, "__metadata__", ()))
