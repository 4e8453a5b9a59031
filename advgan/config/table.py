"""A table of results as a YAML file describes it: sections of rows, each a configuration with its seeds."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from advgan.config.loading import find_config, find_shipped, load_config, parse_settings, read_yaml
from advgan.config.settings import Config, Settings
from advgan.config.values import PositiveInt, Seed
from advgan.errors import AdvGANError, ConfigurationError

TABLES = "configs/tables"
OPTION = "TABLE"


def _text_of_number(value: object) -> object:
    """Accept what YAML reads as a number where text is meant: ``paper: 93.4``."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, Field(min_length=1)]
NumberOrText = Annotated[Text, BeforeValidator(_text_of_number)]


class _Part(Settings):
    lists: ClassVar[str] = "should be a list, such as [0, 1, 2], and not an empty one"


class Row(_Part):
    """One line of a table: a configuration, run once for each seed."""

    name: NumberOrText
    config: Text
    """The configuration, as ``--config`` takes it."""
    set: tuple[Text, ...] = ()
    """Changes of it, as ``--set`` takes them."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """The first of every row is run before the second of any."""
    paper: NumberOrText | None = None
    """The paper's figure."""

    @model_validator(mode="after")
    def _runs_differ(self) -> Row:
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError("seeds", list(self.seeds), f"row {self.name!r} has a seed twice; leave one out")
        for change in self.set:
            key = change.partition("=")[0].strip()
            if key in ("seed", "output.directory"):
                raise ConfigurationError(
                    "set", change, f"row {self.name!r} cannot set this: seeds are listed as seeds, --output says where"
                )
        return self

    def configuration(self, seed: int) -> Config:
        """The settings of this row's run with a seed.

        Raises:
            ConfigurationError: the configuration cannot work.
        """
        return load_config(find_config(self.config), [*self.set, f"seed={seed}"])

    def command(self, seed: int) -> str:
        """What makes this row's run with a seed again, on its own."""
        return shlex.join(["python", "-m", "advgan.train", *self.options, "--set", f"seed={seed}"])

    @property
    def options(self) -> list[str]:
        """The configuration as options of a command line."""
        return ["--config", self.config, *(word for change in self.set for word in ("--set", change))]


class Section(_Part):
    """Rows under one heading."""

    title: Text
    text: str | None = None
    """What is said above the rows, as Markdown."""
    attack_images: PositiveInt | None = None
    """Every run is evaluated on the first so many test images, and the rows show the other attacks too."""
    pgd_steps: PositiveInt | None = None
    """Of that evaluation; as ``--pgd-steps`` says by default."""
    show: Literal["success", "accuracy"] = "success"
    """Of each attack: its success, or the accuracy that it leaves."""
    picture: Literal["queries"] | None = None
    """``queries``: success against the queries per attacked image is drawn below the rows."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Section:
        for key in ("pgd_steps", "show"):
            if self.attack_images is None and (value := getattr(self, key)) != Section.model_fields[key].default:
                raise ConfigurationError(key, value, f"section {self.title!r} needs attack_images for this")
        names = [row.name for row in self.rows]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError("name", name, f"two rows of section {self.title!r} have this name")
        return self


class Table(_Part):
    """A page of results."""

    title: Text
    text: str | None = None
    """What is said above the sections, as Markdown."""
    sections: Annotated[tuple[Section, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _titles_differ(self) -> Table:
        titles = [section.title for section in self.sections]
        for title in titles:
            if titles.count(title) > 1:
                raise ConfigurationError("title", title, "two sections have this title")
        return self


def find_table(name: str) -> Path:
    """Find a table: a path, a file in ``./configs/tables``, or one that ships with the package, in this order.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    return find_shipped(OPTION, name, TABLES)


def load_table(path: Path) -> Table:
    """Read a table and check the configuration of every run it asks for; none is started.

    Raises:
        ConfigurationError: the first problem found in the table, with its key and value.
        AdvGANError: a row's configuration cannot work; the message names the row.
    """
    content = read_yaml(OPTION, path)
    table = parse_settings(Table, content)
    for section in table.sections:
        for row in section.rows:
            try:
                row.configuration(row.seeds[0])  # the others differ in the seed alone, which is checked already
            except ConfigurationError as error:
                raise AdvGANError(f"{path}: {section.title}: {row.name}: {error}") from None
    return table
