"""Python modules of the user's own: imported by name, those of the current folder included, and the layers in them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import tensorflow as tf

from advgan.errors import AdvGANError, ConfigurationError

keras = tf.keras


def import_module(name: str, given: str | None = None) -> ModuleType:
    """Import a module by name; those of the current folder are found. It is Python code, which runs.

    Args:
        name: of the module, dotted where it is in a package.
        given: what names it, such as ``my_classifier:predict``; None for the setting ``target.module``.

    Raises:
        AdvGANError: there is no such module, or it raises.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # its file may be new
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        file = f"{name.replace('.', '/')}.py"
    problem = f"cannot be imported ({why}); run the command in the folder that holds {file}, or set PYTHONPATH"
    if given is None:
        raise ConfigurationError("target.module", name, problem)
    raise AdvGANError(f"{given}: {name} {problem}")


def own_layers(name: str) -> dict[str, type]:
    """Import a module and give the layers and models that it, or a part of it, defines, by the name of their class.

    Raises:
        AdvGANError: see ``import_module``.
    """
    module = import_module(name)
    return {
        member.__name__: member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, keras.layers.Layer)
        and f"{member.__module__}.".startswith(f"{module.__name__}.")
    }
