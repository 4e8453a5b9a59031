"""What every door does alike: options that name a configuration, and problems told in one line."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from advgan.errors import AdvGANError

REFUSED = 2
INTERRUPTED = 130
"""Exit codes of a command that was refused, and of one that the user stopped."""


def command_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser for ``python -m advgan.<name>`` that shows examples and takes no shortened options."""
    return argparse.ArgumentParser(
        prog=f"python -m advgan.{name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def command_for(name: str, *arguments: str | Path) -> str:
    """What to type here for a door: with the Python that runs now, whether its environment is activated or not."""
    python = Path(sys.executable)
    if (found := shutil.which("python")) is not None and Path(found).absolute() == python:
        python = Path("python")
    elif python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), "-m", f"advgan.{name}", *map(str, arguments)])


def add_configuration(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add ``--config`` and ``--set``."""
    parser.add_argument("--config", metavar="FILE", required=required, help="the configuration, such as mnist.yaml")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="change a setting; repeatable"
    )


def run_command(action: Callable[[], int]) -> int:
    """Run a door's work and return its exit code; a problem the user can mend becomes one line on stderr and 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console that cannot show a letter of a path shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = action()
        sys.stdout.flush()
        return code
    except AdvGANError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)  # a key of the user's may hold a newline
        return REFUSED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return REFUSED
