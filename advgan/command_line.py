"""What every command shares: its options, its log lines, and problems on one line."""

from __future__ import annotations

import argparse
import io
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from advgan.cluster import speaker
from advgan.errors import AdvGANError, BlackBoxFailed, ConfigurationError, Interrupted, may_hold_a_secret

INVALID = 2
INTERRUPTED = 130
"""Exit codes of a command with invalid input, and of one that the user stopped."""
SCRIPT_ONLY = ("configs", "runs")
"""Commands that are written ``advgan <name>`` alone."""
SAME_COMMAND = "run the same command again to continue"


class _Parser(argparse.ArgumentParser):
    """One line for what is wrong, as for every other problem, where argparse would print all options first."""

    def error(self, message: str) -> NoReturn:
        self.exit(INVALID, f"error: {' '.join(message.splitlines())}; {self.prog} --help lists the options\n")


def _is_script() -> bool:
    """Whether the command ``advgan`` was typed, and not ``python -m advgan...``."""
    return Path(sys.argv[0]).stem == "advgan"


def command_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser for ``python -m advgan.<name>``, or ``advgan <name>``, that shows examples and takes no shortened
    options."""
    parser = _Parser(
        prog=f"advgan {name}" if _is_script() or name in SCRIPT_ONLY else f"python -m advgan.{name}",
        description=description,
        epilog=examples.replace("python -m advgan.", "advgan ") if _is_script() else examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    lines = parser.add_mutually_exclusive_group()
    lines.add_argument("--quiet", action="store_true", help="print the results, warnings and errors only")
    lines.add_argument(
        "--verbose", action="store_true", help="print more: each file that is written, the time of each stage"
    )
    return parser


def add_configuration(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add ``--config`` and ``--set``."""
    parser.add_argument("--config", metavar="FILE", required=required, help="the configuration, such as mnist.yaml")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="change a setting; repeatable"
    )


def whole_number(text: str) -> int:
    """An option's value from 1 to 999,999,999, for argparse."""
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number from 1")
    return int(text)


def settings_are_kept(options: argparse.Namespace, but: str = "") -> None:
    """Raise where ``--set`` is given for a run, whose settings are those it was trained with.

    Raises:
        ConfigurationError: it is.
    """
    if options.overrides:
        raise ConfigurationError("--set", options.overrides[0], f"a run keeps its settings{but}; leave this out")


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options, with what was typed as ``command``, for the records; by default those of this process."""
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        if any(may_hold_a_secret("--set", override) for override in vars(options).get("overrides", [])):
            parser.error(
                "the --set of a header should be in single quotes: 'oracle.headers.Authorization=Bearer $API_KEY'"
            )
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.command = f"{parser.prog} {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return options


def command_for(name: str, *arguments: str | Path) -> str:
    """What to type here for a command: with the program that runs now, whether its environment is activated or not."""
    program = Path(sys.argv[0]).absolute() if _is_script() else Path(sys.executable)
    if (found := shutil.which(program.name)) is not None and Path(found).absolute() == program:
        program = Path(program.name)
    elif program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    start = [name] if _is_script() else ["-m", f"advgan.{name}"]
    return shlex.join([str(program), *start, *map(str, arguments)])


@contextmanager
def continued_by(how: str, folder: Path) -> Iterator[None]:
    """Add to whatever stops the block how to continue; what was done until then is kept.

    Args:
        how: to continue.
        folder: where the block writes, for a full disk that has no name.

    Raises:
        Interrupted: the user stopped it, or a black box does not answer.
        AdvGANError: the disk or the code of a black box failed.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {how}") from None
    except Interrupted as stop:
        raise Interrupted(f"{stop}; {how}") from None
    except BlackBoxFailed as failure:
        raise AdvGANError(f"{failure}; what it answered before is kept; {how}") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AdvGANError(f"{error.filename or folder}: {error.strerror or error}; {how}") from None


def run_command(action: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command's work and return its exit code; a problem the user can solve becomes one line on stderr and 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console that cannot show a letter of a path shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _log_lines(options):
            code = action(options)
        sys.stdout.flush()
        return code
    except Interrupted as stop:
        print(f"{speaker()}{stop}", file=sys.stderr)
        return INTERRUPTED
    except AdvGANError as error:
        print(
            f"{speaker()}error: {' '.join(str(error).splitlines())}", file=sys.stderr
        )  # a key of the user's may hold a newline
        return INVALID
    except KeyboardInterrupt:
        print(f"{speaker()}stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        print(f"{speaker()}error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return INVALID


class _Lines(logging.Handler):
    """Writes log lines to stdout, above a progress bar that is there; a problem of stdout ends the command."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stdout is None:  # closed
            return
        prefix = "Warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(speaker() + prefix + self.format(record), file=sys.stdout)
        sys.stdout.flush()


@contextmanager
def _log_lines(options: argparse.Namespace) -> Iterator[None]:
    """Show what the package logs while a command runs."""
    logger, handler = logging.getLogger("advgan"), _Lines()
    before = logger.level, logger.propagate
    logger.propagate = False  # a library may give the root logger a handler, which would show each line again
    chosen = vars(options)  # a parser of an example's may have neither
    logger.setLevel(
        logging.WARNING if chosen.get("quiet") else logging.DEBUG if chosen.get("verbose") else logging.INFO
    )
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
