"""The command ``advgan``, also ``python -m advgan``: one name for every ``python -m advgan.<name>``."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

from advgan import __version__
from advgan.command_line import INVALID

COMMANDS = {
    "train": ("train", "train a generator against a classifier"),
    "evaluate": ("evaluate", "score a run and other attacks on the test images; write a report"),
    "attack": ("attack", "make your own pictures adversarial"),
    "describe": ("describe", "show every layer of the networks, or what your classifier takes and returns"),
    "export": ("export", "write the attack as ONNX, TFLite or SavedModel"),
    "reproduce": ("reproduce", "make a whole table of results"),
    "configs": ("list_configs", "list the shipped configurations, each with its expected result and time"),
    "runs": ("runs", "list the runs here, or check the files of one"),
}
"""The module of each command, and what it does."""
HELP = "\n".join(
    [
        f"usage: advgan COMMAND ...     advgan {__version__}",
        "",
        "AdvGAN: adversarial images in one forward pass, trained, measured and reproducible.",
        "",
        *(f"  {name:<10} {does}" for name, (_, does) in COMMANDS.items()),
        "",
        "examples:",
        "  advgan train --config mnist.yaml",
        "  advgan evaluate                      the latest run, or the one that ships",
        "  advgan COMMAND --help                its options, with examples",
    ]
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP)
        return 0
    if name == "--version":
        print(f"advgan {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"error: {name}: no such command; {hint}", file=sys.stderr)
        return INVALID
    code: int = import_module(f"advgan.{COMMANDS[name][0]}").main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
