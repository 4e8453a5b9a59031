"""The environment that a command finds: what would give other networks is one line, a plain console is no obstacle."""

from __future__ import annotations

import argparse
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from advgan.command_line import run_command
from advgan.config.settings import TrainingSettings
from advgan.environment import prepare_environment
from advgan.errors import AdvGANError
from advgan.startup import import_tensorflow

keras = tf.keras


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERAS_BACKEND", "torch"),
        ("KERAS_BACKEND", "jax"),
        ("TF_USE_LEGACY_KERAS", "1"),
        ("TF_USE_LEGACY_KERAS", "True"),
    ],
)
def test_another_keras_is_refused_by_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AdvGANError, match=rf"^{name} = '{value}': advgan needs .*; unset this variable$"):
        import_tensorflow()


@pytest.mark.parametrize(("name", "value"), [("KERAS_BACKEND", "tensorflow"), ("TF_USE_LEGACY_KERAS", "0")])
def test_the_keras_that_is_used_may_be_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    import_tensorflow()


def test_a_command_tells_it_in_one_line(tmp_path: Path) -> None:
    """In a process of its own: in TensorFlow's place is a module that cannot be imported."""
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')\n")
    found = subprocess.run(
        [sys.executable, "-m", "advgan.train", "--config", "mnist.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr == "error: KERAS_BACKEND = 'torch': advgan needs Keras on TensorFlow; unset this variable\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["tensorflow.py"]


@pytest.mark.addons
def test_a_policy_of_the_calling_process_is_refused() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with pytest.raises(AdvGANError, match=r"global Keras policy mixed_bfloat16, which would change the networks"):
            prepare_environment(TrainingSettings())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    keras.backend.set_floatx("float64")
    try:
        with pytest.raises(AdvGANError, match=r"float64"):
            prepare_environment(TrainingSettings())
    finally:
        keras.backend.set_floatx("float32")
        keras.mixed_precision.set_global_policy("float32")
    assert prepare_environment(TrainingSettings())["deterministic"]


@pytest.mark.addons
def test_a_distribution_scope_of_the_calling_process_is_refused() -> None:
    with (
        tf.distribute.OneDeviceStrategy("/cpu:0").scope(),
        pytest.raises(AdvGANError, match=r"inside the scope of a tf.distribute strategy; call it outside"),
    ):
        prepare_environment(TrainingSettings())


def test_a_command_shows_each_line_once_whatever_handlers_the_root_logger_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def log(_: argparse.Namespace) -> int:
        logging.getLogger("advgan.somewhere").info("a line")
        logging.getLogger("advgan.somewhere").warning("take care")
        return 0

    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        assert run_command(log, argparse.Namespace()) == 0
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().out == "a line\nWarning: take care\n"
    logger = logging.getLogger("advgan")
    assert (logger.level, logger.propagate, logger.handlers) == (logging.NOTSET, True, [])  # as it was


def test_a_console_that_is_not_utf_8_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))

    def show(_: argparse.Namespace) -> int:
        print("Run   résumé/0 − done")
        return 0

    assert run_command(show, argparse.Namespace()) == 0
    assert content.getvalue() == b"Run   r\\xe9sum\\xe9/0 \\u2212 done\n"
