"""Commands in processes of their own, to be stopped and killed, and commands that end with one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Begin ``python -m advgan.train`` in a folder, with some environment variables."""
    command = [sys.executable, "-m", "advgan.train", *arguments]
    own = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # of this process
    environment = {**own, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1", **variables}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait until it is done; return what it printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def stop_when(process: subprocess.Popen[str], condition: Callable[[], bool], number: int) -> str:
    """Send it a signal as soon as something is so; return what it printed."""
    while not condition():
        assert process.poll() is None, f"ended before it could be stopped: {process.stdout and process.stdout.read()}"
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return output


def one_line_error(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command ends with on invalid input: exit code 2, one line, nothing on stdout."""
    try:
        code: object = main(list(arguments))
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
