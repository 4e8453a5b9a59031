"""The notebooks as a reader finds them: with their pictures, and without code that belongs into the package."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LARGEST = 1_500_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request: pytest.FixtureRequest) -> Path:
    return request.param


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_there_are_five_and_the_table_names_each() -> None:
    table = (NOTEBOOKS[0].parent / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        assert f"[{path.name}]({path.name})" in table


def test_it_defines_nothing(notebook: Path) -> None:
    for cell in code_cells(notebook):
        lines = [line for line in cell["source"] if not line.startswith("%")]
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node for node in ast.walk(ast.parse("".join(lines))) if isinstance(node, definitions)]


def test_it_can_be_read_without_being_run(notebook: Path) -> None:
    """Executed from start to end, with pictures, small, and without an error or a folder of who executed it."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output["output_type"] == "error"]
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/Users/") if place in printed]
    assert notebook.stat().st_size < LARGEST
