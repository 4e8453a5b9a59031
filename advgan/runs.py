"""The command ``advgan runs``: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advgan.command_line import command_parser, parse, run_command
from advgan.errors import ConfigurationError
from advgan.experiments.run_list import runs_below, verify

EXAMPLES = """examples:
  advgan runs                                  the runs below ./checkpoints
  advgan runs checkpoints/results              those below another folder
  advgan runs --verify checkpoints/mnist/0     check that the files of this run have not changed

Exit code: 0 done, 2 invalid input or a file that has changed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("runs", "List the runs below a folder, or check the files of one.", EXAMPLES)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="where the runs are (checkpoints)")
    parser.add_argument("--verify", metavar="RUN", type=Path, help="check every file of a finished run by its digest")
    options = parse(parser, arguments)
    if options.folder is not None and options.verify is not None:
        parser.error("FOLDER lists runs, --verify RUN checks one; give one of them")
    return run_command(_runs, options)


def _runs(options: argparse.Namespace) -> int:
    if options.verify is not None:
        print(f"{options.verify}: all {verify(options.verify)} files are unchanged since the run was finished.")
        return 0
    folder = options.folder or Path("checkpoints")
    if options.folder is not None and not folder.is_dir():
        raise ConfigurationError("FOLDER", str(folder), "no such folder")
    found = runs_below(folder)
    if not found:
        print(f"No run in {folder}; train one with: advgan train --config mnist.yaml")
        return 0
    lines = [("run", "configuration", "state", "success", "epsilon", "date"), *(each.cells for each in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
