"""What `pip install .` brings, extras apart, is enough to train and evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DOORS = """
import json, sys

hidden = set(json.loads(sys.argv[1]))

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
from advgan import evaluate, train

sets = sys.argv[2:]
code = train.main(["--config", "mnist.yaml", *(word for change in sets for word in ("--set", change))])
sys.exit(code or evaluate.main(["--run", "checkpoints/mnist/0"]))
"""
SMALL = (
    "data.training_images=1000",
    "data.validation_images=100",
    "data.test_images=100",
    "target.epochs=2",
    "target.batch_size=32",
    "generator.widths=[4, 8, 16]",
    "generator.residual_blocks=1",
    "training.epochs=1",
    "training.batch_size=32",
)


def brought() -> set[str]:
    """The distributions that installing the package without an extra installs."""
    found: set[str] = set()
    open_ends: list[tuple[str, frozenset[str]]] = [("advgan", frozenset())]
    while open_ends:
        name, extras = open_ends.pop()
        for text in metadata.requires(name) or ():
            required = Requirement(text)
            wanted = required.marker is None or any(
                required.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            )
            if wanted and canonicalize_name(required.name) not in found:
                found.add(canonicalize_name(required.name))
                open_ends.append((required.name, frozenset(required.extras)))
    return found


def test_training_and_evaluating_need_nothing_but_the_dependencies(tmp_path: Path) -> None:
    there = brought() | {"advgan"}
    hidden = sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not there.intersection(map(canonicalize_name, owners))
    )
    assert "pytest" in hidden and "tensorflow" not in hidden
    command = [sys.executable, "-c", DOORS, json.dumps(hidden), *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "checkpoints" / "mnist" / "0" / "evaluation" / "report.html").is_file()
