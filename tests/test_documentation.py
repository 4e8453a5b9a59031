"""What README and documentation say to type is read by the real parsers; links lead somewhere; the site builds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from advgan import __main__ as script
from advgan import train
from advgan.config.loading import find_config, load_config
from advgan.config.settings import Config
from advgan.config.table import find_table, load_table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "notebooks" / "README.md"]
COMMAND = re.compile(r"(?:\S*python\S* -m advgan\.|(?:\S*/)?advgan )(\w+)(.*)")
EXECUTED = {"README.md", "python.md", "export.md"}
"""Pages whose Python blocks other tests execute."""
NOT_HERE = ("my_", "path/to", "mine", "module:function", "http", "$")
"""What stands for something of the reader's."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def typed() -> Iterator[tuple[str, str, list[str]]]:
    """Each command of the pages: page, name, arguments."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            part.strip()
            for block in [*blocks(page, "bash"), *re.findall(r"(?m)^ {4}(\S.*)$", text)]
            for line in block.replace("\\\n", " ").splitlines()
            for part in line.partition("   #")[0].split(" && ")
        ]
        lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
        for line in lines:
            if (found := COMMAND.fullmatch(line)) is not None and "..." not in line and "<" not in line:
                yield page.name, found[1], shlex.split(found[2], comments=True)


COMMANDS = list({(name, *arguments): (page, name, arguments) for page, name, arguments in typed()}.values())


def settings_of(arguments: list[str]) -> tuple[str | None, list[str]]:
    """What follows ``--config`` and each ``--set``."""
    pairs = list(pairwise(arguments))
    configs = [value for option, value in pairs if option == "--config"]
    return (configs or [None])[0], [value for option, value in pairs if option == "--set"]


def test_there_is_something_to_check() -> None:
    assert {name for _, name, _ in COMMANDS} == set(script.COMMANDS)
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "name", "arguments"), COMMANDS, ids=lambda value: str(value)[:60])
def test_each_command_is_understood(
    page: str, name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"advgan.{script.COMMANDS[name][0]}")
    read: list[Any] = []
    monkeypatch.setattr(module, "run_command", lambda _, options: read.append(options) or 0)
    try:
        assert module.main(arguments) == 0 and len(read) == 1, page
    except SystemExit as ended:  # --help; or the name alone, in running text
        assert ended.code == 0 or len(arguments) <= 1, (page, capsys.readouterr().err)
        return
    config, overrides = settings_of(arguments)
    if config is not None and not config.startswith(NOT_HERE):
        load_config(find_config(config), overrides)
    if name == "reproduce" and not arguments[0].startswith(NOT_HERE):
        load_table(find_table(arguments[0]))


def fragments() -> list[tuple[str, str]]:
    """``--config ...`` in the tables of results, without the command."""
    found = {}
    for page in PAGES:
        for code in re.findall(r"(?<!`)`(--config [^`]+)`(?!`)", page.read_text(encoding="utf-8")):
            found.setdefault(" ".join(code.replace("\\|", "|").split()), page.name)
    return list(found.items())


@pytest.mark.parametrize(("code", "page"), fragments())
def test_each_configuration_of_a_table_of_results_can_be_run(code: str, page: str) -> None:
    config, overrides = settings_of(shlex.split(code))
    assert config is not None, page
    if not code.endswith("=") and "=K" not in code and "..." not in code:  # with a value of the reader's
        load_config(find_config(config), overrides)


def test_each_training_on_what_is_here_can_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    """By a dry run, which checks the settings against the data."""
    tried: list[Config] = []
    for _, name, arguments in COMMANDS:
        config, overrides = settings_of(arguments)
        if name != "train" or config is None or any(part in " ".join(arguments) for part in NOT_HERE):
            continue
        settings = load_config(find_config(config), overrides)
        here = settings.data.dataset == "mnist" and settings.training.devices == "auto"
        if here and settings not in tried:
            tried.append(settings)
            given = [word for override in overrides for word in ("--set", override)]
            assert train.main(["--config", config, *given, "--dry-run"]) == 0, capsys.readouterr().err
            assert "# generator: " in capsys.readouterr().out
    assert len(tried) > 8


def test_every_python_block_is_executed_by_a_test() -> None:
    assert {page.name for page in PAGES if blocks(page, "python")} == EXECUTED


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = [title.replace("`", "") for title in re.findall(r"(?m)^#+ (.+)$", text)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert page.parent.name != "docs" or target.is_relative_to(ROOT / "docs"), f"{link} is not in the site"
        assert not anchor or anchor in anchors(target), link


@pytest.fixture
def documentation(tmp_path: Path) -> Path:
    """A copy, to build without leaving anything in the checkout."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "advgan").symlink_to(ROOT / "advgan")
    return tmp_path


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    zensical = Path(sys.executable).with_name("zensical")
    command = [str(zensical), "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_site_builds_with_every_page_and_loads_nothing_from_elsewhere(documentation: Path) -> None:
    done = build(documentation)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "griffe" not in done.stderr, done.stderr  # of a docstring that does not fit its function
    site = documentation / "site"
    for page in (documentation / "docs").glob("*.md"):
        html = (site / f"{page.stem}.html").read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link)[^>]*?(?:src|href)=\"?([^\" >]+)", html)
        assert loaded and not [url for url in loaded if url.startswith(("http", "//"))], page.name
        navigation = (documentation / "mkdocs.yml").read_text(encoding="utf-8")
        assert f": {page.name}\n" in navigation
    reference = (site / "reference.html").read_text(encoding="utf-8")
    assert "AdvGANAttack" in reference and ":::" not in reference


def test_a_broken_link_stops_the_building_of_the_site(documentation: Path) -> None:
    with (documentation / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    done = build(documentation)
    assert done.returncode != 0 and "page does not exist" in done.stdout + done.stderr
