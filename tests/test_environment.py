"""The record of what decides a run's bits: complete, true to the stack in use, and compared key by key."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
import tensorflow as tf

from advgan.config.settings import TrainingSettings
from advgan.environment import changes_between, prepare_environment
from advgan.networks.normalization import normalization

pytestmark = pytest.mark.addons


def test_the_versions_are_those_of_the_stack_in_use() -> None:
    environment = prepare_environment(TrainingSettings())
    found = {name: environment[name] for name in ("tensorflow", "keras", "numpy")}
    assert found == {"tensorflow": tf.__version__, "keras": version("keras"), "numpy": np.__version__}
    if "tensorflow_addons" in type(normalization("instance", 4, "norm")).__module__:
        assert environment["tensorflow_addons"] == version("tensorflow-addons")
    else:
        assert "tensorflow_addons" not in environment


def test_a_difference_is_told_whichever_environment_has_the_key() -> None:
    plain, addons = {"cores": 2, "numpy": "1"}, {"cores": 2, "numpy": "1", "tensorflow_addons": "0.23.0"}
    assert changes_between(plain, plain) == []
    assert changes_between(plain, {**plain, "cores": 4}) == ["cores 2 -> 4"]
    assert changes_between(plain, addons) == ["tensorflow_addons None -> 0.23.0"]
    assert changes_between(addons, plain) == ["tensorflow_addons 0.23.0 -> None"]
