"""The command ``python -m advgan.reproduce``: parse, call, print."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from advgan.cluster import work_alone
from advgan.command_line import SAME_COMMAND, command_parser, continued_by, parse, run_command
from advgan.config.table import find_table, load_table
from advgan.errors import AdvGANError
from advgan.startup import import_tensorflow

OUTPUT = Path("checkpoints/results")
EXAMPLES = """examples:
  python -m advgan.reproduce results                     every run of the table results.yaml, in one go or in many
  python -m advgan.reproduce results --list              its runs, and which are done
  python -m advgan.reproduce results --dry-run           what would be run, each with its own command
  python -m advgan.reproduce results --only "model c"    only rows or sections with this text
  python -m advgan.reproduce mine.yaml --output mine/

A table is looked up as a path, then in ./configs/tables, then among those that ship with the package. It goes into
FOLDER/<table>.md, its records into FOLDER/<table>.json, both written again after every run; the runs go into
FOLDER/runs. A run is identified by its settings: a changed row is run again, a finished run is not. To
continue after a stop, run the same command again. Exit code: 0 done, 2 invalid input or a run failed,
130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("reproduce", "Make a table of results: every run it needs, one after the other.", EXAMPLES)
    parser.add_argument("table", metavar="TABLE", help="the table, such as results")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=OUTPUT, help=f"output folder ({OUTPUT})")
    parser.add_argument("--only", metavar="TEXT", help="only the rows that have this in their name or section")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="print the runs and which are done; do nothing")
    instead.add_argument("--dry-run", action="store_true", help="print what would be run, in order; do nothing")
    return run_command(_reproduce, parse(parser, arguments))


def _reproduce(options: argparse.Namespace) -> int:
    path = find_table(options.table)
    table = load_table(path)
    work_alone()
    import_tensorflow()  # takes seconds, so after the table was checked
    from advgan.experiments import reproduce

    whole = f"python -m advgan.reproduce {shlex.quote(options.table)}"
    work = reproduce.Reproduction(path.stem, table, options.output, whole)
    if options.list or options.dry_run:
        cells = work.cells(options.only)
        print("\n".join(reproduce.listing(work, cells) if options.list else reproduce.dry_run(cells)))
        return 0
    with continued_by(SAME_COMMAND, options.output):
        failed = reproduce.reproduce(work, options.only, options.command)
        print(f"Table:    {work.markdown}\nRecords:  {work.records}")
    if failed:
        raise AdvGANError(f"{failed} {'run' if failed == 1 else 'runs'} failed; the same command tries again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
