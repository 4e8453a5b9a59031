"""The door ``python -m advgan.reproduce``: parse, call, print."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from advgan.command_line import command_parser, run_command
from advgan.config.table import find_table, load_table
from advgan.errors import AdvGANError, Interrupted
from advgan.startup import import_tensorflow

OUTPUT = "checkpoints/results"
EXAMPLES = """examples:
  python -m advgan.reproduce results                     every run of the table results.yaml, in one go or in many
  python -m advgan.reproduce results --list              its runs, and which are done
  python -m advgan.reproduce results --dry-run           what would be run, each with its own command
  python -m advgan.reproduce results --only "model c"    only rows or sections with this text
  python -m advgan.reproduce mine.yaml --output mine/

A table is looked up as a path, then in ./configs/tables, then among those that ship with the package. It goes into
FOLDER/<table>.md, its records into FOLDER/<table>.json, both written anew after every run; the runs go into
FOLDER/runs.
A run belongs to its settings: a changed row is run anew, what is done is never done twice. What was stopped
goes on when the same command is given again. Exit code: 0 done, 2 refused or a run failed, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("reproduce", "Make a table of results: every run it needs, one after the other.", EXAMPLES)
    parser.add_argument("table", metavar="TABLE", help="the table, such as results")
    parser.add_argument("--output", metavar="FOLDER", default=OUTPUT, help=f"where everything goes ({OUTPUT})")
    parser.add_argument("--only", metavar="TEXT", help="only the rows that have this in their name or section")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="print the runs and which are done; do nothing")
    instead.add_argument("--dry-run", action="store_true", help="print what would be run, in order; do nothing")
    options = parser.parse_args(arguments)
    command = f"python -m advgan.reproduce {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return run_command(lambda: _reproduce(options, command))


def _reproduce(options: argparse.Namespace, command: str) -> int:
    path = find_table(options.table)
    table = load_table(path)
    output = Path(options.output)
    try:
        import_tensorflow()  # takes seconds, so after the table was checked
        from advgan.experiments import reproduce

        whole = f"python -m advgan.reproduce {shlex.quote(options.table)}"
        work = reproduce.Reproduction(path.stem, table, output, whole)
        if options.list or options.dry_run:
            cells = work.cells(options.only)
            lines = reproduce.listing(work, cells) if options.list else reproduce.dry_run(cells)
            print("\n".join(lines))
            return 0
        failed = reproduce.reproduce(work, options.only, command=command)
    except (KeyboardInterrupt, Interrupted):
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AdvGANError(
            f"{error.filename or output}: {error.strerror or error}; what is done is kept: mend this, then give the "
            "same command again"
        ) from None
    if failed:
        raise AdvGANError(f"{failed} {'run' if failed == 1 else 'runs'} failed; the same command tries again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
