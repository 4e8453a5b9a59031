"""Configuration files: YAML and ``section.key=value`` overrides into typed settings."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from advgan.config.messages import explain, is_section
from advgan.config.settings import Config, Settings, TargetSettings
from advgan.errors import ConfigurationError

logger = logging.getLogger(__name__)
RENAMED = {("distillation", "clean_answers"): {"asked": "black_box"}}
"""Of a setting, by section and key: the values that have a new name since the last release."""


def find_config(name: str) -> Path:
    """Find a configuration: a path, a file in ``./configs``, or one that ships with the package, in this order.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    return find_shipped("--config", name, "configs")


def find_shipped(key: str, name: str, folder: str) -> Path:
    """Find a YAML file: a path, a file in this folder here, or one that ships with the package, in this order.

    Args:
        key: the option that names it.
        name: with or without its ending.
        folder: such as ``configs``.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    shipped = shipped_folders(folder)
    for place in (Path(), Path(folder), *shipped):
        for candidate in (place / name, place / f"{name}.yaml"):
            if candidate.exists() and not candidate.is_dir():
                return candidate
    known = sorted(path.name for place in shipped for path in place.glob("*.yaml"))
    near = difflib.get_close_matches(name, [*known, *(Path(file).stem for file in known)], n=1)
    nearest = f"; did you mean {near[0]}?" if near else ""
    raise ConfigurationError(
        key, name, f"no such file, here, in ./{folder} or in the package, which has {', '.join(known)}{nearest}"
    )


def shipped_folders(folder: str) -> list[Path]:
    """Where what ships can be: in a wheel; in a checkout."""
    package = Path(__file__).parent.parent
    return [package / folder, package.parent / folder]


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML configuration and apply ``section.key=value`` overrides.

    Raises:
        ConfigurationError: the first problem found, with its key, value and allowed range.
    """
    content = read_yaml("--config", path)
    content.setdefault("name", _name_from(path))
    return override_config(content, overrides)


def override_config(content: dict[str, Any], overrides: Iterable[str]) -> Config:
    """Apply ``section.key=value`` overrides to a nested mapping of settings, and check it.

    Raises:
        ConfigurationError: the first problem found, with its key, value and allowed range.
    """
    for override in overrides:
        _override(content, override)
    for key, old, new in renamed(content):
        logger.warning("%s: %s is now %s; from advgan 0.3 on the old name is an error", key, old, new)
        _override(content, f"{key}={new}")
    return parse_config(content)


def renamed(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The settings that have a value's old name: key, old name, new name."""
    found = []
    for (section, key), names in RENAMED.items():
        settings = content.get(section)
        value = settings.get(key) if isinstance(settings, dict) else None
        if isinstance(value, str) and value in names:
            found.append((f"{section}.{key}", value, names[value]))
    return found


def described_classifier(named: str | None, overrides: Iterable[str]) -> tuple[TargetSettings, list[str]]:
    """How a classifier is to be read that an option names, and the overrides that are left.

    Args:
        named: the classifier; where there is none, all overrides are left.
        overrides: as ``--set`` takes them; those of ``target.bounds`` and its like describe the classifier.

    Raises:
        ConfigurationError: one of these has no such value.
    """
    describing = [f"target.{key}" for key in TargetSettings.describes]
    mine: list[str] = []
    left: list[str] = []
    for override in overrides:
        describes = named is not None and override.partition("=")[0].strip() in describing
        (mine if describes else left).append(override)
    return override_config({"target": {"file": "described.keras"}}, mine).target, left


def read_yaml(key: str, path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, none where it is empty; ``key`` is the option that names it.

    Raises:
        ConfigurationError: it cannot be read or is no YAML, or a key is there twice.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, _UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(key, str(path), f"cannot be read: {error}") from None
    except _YAML_ERRORS as error:
        raise ConfigurationError(key, str(path), f"is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigurationError(key, str(path), "should hold keys and values, such as seed: 0")
    return content


def parse_config(content: Mapping[str, Any]) -> Config:
    """Check a nested mapping of settings.

    Raises:
        ConfigurationError: the first problem found, with its key, value and allowed range.
    """
    # A section whose keys are all commented out is read as None.
    sections = {name for name, field in Config.model_fields.items() if is_section(field.annotation)}
    filled = {key: {} if value is None and key in sections else value for key, value in content.items()}
    return parse_settings(Config, filled)


def parse_settings(model: type[AnySettings], content: Mapping[str, Any]) -> AnySettings:
    """Check a nested mapping against its types.

    Raises:
        ConfigurationError: the first problem found, with its key, value and allowed range.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise explain(error, model) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML; ``load_config`` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses what PyYAML lets pass: a key that is there twice, a key that is no word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *anchor; what is merged gives way to what is written
                continue
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            place = f"{mark.name}, line {mark.line + 1}"
            if not isinstance(key, str):
                raise ConfigurationError(str(key_node.value), place, "is not a key")
            if key in seen:
                raise ConfigurationError(key, place, "the key is there twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_YAML_ERRORS = (yaml.YAMLError, ValueError, AttributeError, RecursionError)
"""What PyYAML raises; the last three through bad dates, bad tags and deep nesting."""


def _name_from(path: Path) -> str:
    """A run's name from its configuration's file name, where the file gives none."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    return name if name not in ("", "targets") else f"run{name}"


def _override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigurationError("--set", override, "should be section.key=value, such as attack.epsilon=0.2")
    *sections, last = key.strip().split(".")
    for section in sections:
        below = content.setdefault(section, {})
        if below is None:
            below = content[section] = {}
        if not isinstance(below, dict):
            raise ConfigurationError("--set", override, f"{section} is a setting, not a section")
        content = below
    try:
        content[last] = yaml.safe_load(text)
    except _YAML_ERRORS:
        raise ConfigurationError("--set", override, "the value is not YAML") from None


AnySettings = TypeVar("AnySettings", bound=Settings)
