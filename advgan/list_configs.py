"""The command ``advgan configs``: parse, call, print."""

from __future__ import annotations

import argparse
import sys

from advgan.command_line import command_parser, parse, run_command
from advgan.config.shipped import shipped_configs

EXAMPLES = """examples:
  advgan configs
  advgan train --config mnist.yaml                 one of them
  advgan train --config mnist.yaml --dry-run       all its settings

A file ./configs/<name> goes before one that ships.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("configs", "List the configurations that ship.", EXAMPLES)
    return run_command(_list, parse(parser, arguments))


def _list(_: argparse.Namespace) -> int:
    for each in shipped_configs():
        print(f"{each.name}\n  {each.what}\n  expected  {each.expected}\n  time      {each.time}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
