"""What the configuration in a Keras file would make Keras run, found by reading it, before Keras loads anything.

Keras looks too (``safe_mode``), but not in every version and format: Keras 2, and Keras 3 before 3.11.3
(CVE-2025-9905), run the code in an HDF5 file all the same; Keras 2, and Keras 3 before 3.9 (CVE-2025-1550), may import
any module that a ``.keras`` file names.
"""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py  # type: ignore[import-untyped]
import tensorflow as tf

from advgan.errors import AdvGANError

keras = tf.keras
KERAS = importlib.metadata.version("keras")
TRUST = "or set target.trust: true where you trust the file"
LOADERS = {
    "tfsmlayer": "a SavedModel from another path",
    "torchmodulewrapper": "a pickled module of PyTorch",
    "tensorflowoplayer": "an operation of TensorFlow in binary form",
    "classmethod": "a method of TensorFlow by its name",
    "instancemethod": "a method of TensorFlow by its name",
    "instanceproperty": "a property of TensorFlow by its name",
}
"""Layers of Keras that run what is no layer, by their class in lower case."""
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
"""Classes of Keras 2 for a function of TensorFlow, by its name."""
ARITHMETIC = re.compile(
    r"((compat\.v1\.)?(math|nn|image|linalg|signal|bitwise|random|__operators__)\.|keras\.backend\.)?\w+"
)
NOT_ARITHMETIC = re.compile(r"load_.*|.*_function|print")
FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "optimizers", "regularizers")
"""The modules of Keras with functions that a configuration may name."""
NO_LAYERS = {"applications", "config", "datasets", "saving", "utils"}
"""The modules of Keras that define nothing a network consists of."""


class FileContent(NamedTuple):
    """What a file says about the network in it."""

    configuration: Any
    """As the JSON says it."""
    keras_version: str
    """Of the Keras that wrote it; empty where it does not say."""
    is_hdf5: bool


class _Part(NamedTuple):
    """An object in a configuration, and the name of the innermost layer around it, or its own."""

    content: dict[str, Any]
    layer: str


def read_configuration(path: Path) -> FileContent:
    """Read the configuration of a network from a ``.keras`` or HDF5 file; no code of the file runs.

    The format is found as Keras finds it, so that Keras loads what was read here.

    Raises:
        AdvGANError: it holds weights alone.
        ValueError: it is damaged, or no such file; says why.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        if str(path).endswith(".keras") and zipfile.is_zipfile(path):
            return _in_zip(path)
        if h5py.is_hdf5(path):
            return _in_hdf5(path)
    except AdvGANError:
        raise
    except Exception as error:  # zipfile, zlib, h5py and json raise nearly anything when a file is damaged
        problem = " ".join(str(error).split())[:160]
        raise ValueError(f"it is damaged: {problem}") from None
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    if path.suffix.lower() in (".h5", ".hdf5"):
        raise ValueError("it is no HDF5 file, or its beginning is damaged")
    raise ValueError("it is no file of Keras, or is cut short")


def _in_zip(path: Path) -> FileContent:
    with zipfile.ZipFile(path) as archive:
        configuration = json.loads(archive.read("config.json"))
        version = ""
        if "metadata.json" in archive.namelist():
            metadata = json.loads(archive.read("metadata.json"))
            version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    if isinstance(configuration, dict):
        configuration.pop("compile_config", None)  # is not used with compile=False
    return FileContent(configuration, version, False)


def _in_hdf5(path: Path) -> FileContent:
    with h5py.File(path, "r") as file:
        configuration, version = (_text(file.attrs.get(name)) for name in ("model_config", "keras_version"))
    if configuration is None:
        raise AdvGANError(
            f"{path} cannot be loaded: it has no network, perhaps weights alone; build the network, load these with "
            "load_weights, then save the whole of it: model.save('classifier.keras')"
        )
    return FileContent(json.loads(configuration), version or "", True)


def _text(attribute: Any) -> str | None:
    return attribute.decode() if isinstance(attribute, bytes) else None if attribute is None else str(attribute)


def code_in(configuration: Any) -> str:
    """The first thing in a configuration that would run code from the file, with the fix; empty where there is none."""
    for content, layer in _parts(configuration):
        named = _class_names(content)
        where = f" ({layer})" if layer else ""
        if "lambda" in named:
            return (
                f"it has a Lambda layer{where}, whose Python code would run here; use a layer of Keras instead, {TRUST}"
            )
        if _is_dumped_lambda(content):
            return _written_lambda(layer)
        if "__lambda__" in named or "lambda" in _function_types(content):
            inside = f" in layer {layer}" if layer else ""
            return (
                f"it has a Python lambda{inside}, whose code would run here; use a function of Keras instead, {TRUST}"
            )
        for loader in named & LOADERS.keys():
            kind = f"it has a layer of class {content['class_name']}{where}"
            return f"{kind}, which runs {LOADERS[loader]}; save it without, {TRUST}"
        if isinstance(vocabulary := _inner(content).get("vocabulary"), str):  # CVE-2025-12058
            return f"it reads another file, {vocabulary}{where}; save it without, {TRUST}"
        if named & {operation.lower() for operation in OPERATIONS}:
            function = _inner(content).get("function", "")
            if not ARITHMETIC.fullmatch(str(function)) or NOT_ARITHMETIC.fullmatch(str(function)):
                return f"it calls tf.{function}{where}, which may reach files; save it without, {TRUST}"
    return ""


def unknown_in(configuration: Any, own: Mapping[str, type], failed: bool = False) -> str:
    """The first class or function in a configuration that is not Keras's, with the fix; empty where there is none.

    Keras 2 would import whatever module the file names for it.

    Args:
        configuration: as in the file.
        own: classes of the user's own, which are known besides the registered ones.
        failed: whether to name what Keras does not import but cannot find either.
    """
    for content, layer in _parts(configuration):
        class_name, module = content.get("class_name"), content.get("module")
        registered = content.get("registered_name")
        if not isinstance(class_name, str) or not (module or (failed and registered)):
            continue
        if class_name == "function":
            name = str(content.get("config"))
            if not (_is_known(name, own) or _is_function_of_keras(str(module), name, registered, failed)):
                return _unknown_function(name, layer)
            continue
        if class_name == "__typespec__":
            class_name, registered = str(content.get("spec_name")), None
        if not (
            _is_known(str(registered or class_name), own) or _is_class_of_keras(str(module), class_name, registered)
        ):
            return _unknown_class(class_name)
    return ""


def _written_lambda(layer: str) -> str:
    where = f" in layer {layer}" if layer else ""
    return f"it has a Python lambda{where}, which Keras writes but cannot read; use a function of Keras instead"


def _unknown_class(name: str) -> str:
    """What is wrong with a layer of a class that Keras does not know, and the fix."""
    return (
        f"it has a layer of class {name}, which Keras does not know; name the module that defines it: "
        "target.module=my_layers (or attack it as module:function)"
    )


def _unknown_function(name: str, layer: str) -> str:
    where = f" in layer {layer}" if layer else ""
    return (
        f"it uses the function {name}{where}, which Keras does not know; use a function of Keras, or register it with "
        "keras.saving.register_keras_serializable, save the network again and name the module that defines it: "
        "target.module=my_layers"
    )


def cannot_be_loaded_here(content: FileContent, error: Exception) -> str:
    """Why Keras could not load a network, with the fix, as far as its configuration or Keras's words tell."""
    for part, layer in _parts(content.configuration):
        if _is_dumped_lambda(part):
            return _written_lambda(layer)
        if part.get("class_name") in OPERATIONS and not KERAS.startswith("2."):
            function = _inner(part).get("function", "indexing")
            return (
                f"it has an operation of Keras 2, tf.{function}, which Keras {KERAS} cannot load; use a layer such as "
                "Rescaling in its place, or TensorFlow 2.15"
            )
    message = " ".join(str(error).split())
    if unknown := re.search(r"Unknown layer: '?([\w>]+)", message):
        name = unknown[1]
        if any(part.get("class_name") == name and "trainable" not in _inner(part) for part, _ in _parts(content[0])):
            return f"it has an operation of Keras, {name}, which Keras cannot load from an HDF5 file; save it as .keras"
        return _unknown_class(name)
    if unknown := re.search(r"(?:Unknown [\w ]*function: |function identifier: )'?([\w>]+)", message):
        if unknown[1] != "function":
            return _unknown_function(unknown[1], "")
        functions = (part.get("config") for part, _ in _parts(content[0]) if part.get("class_name") == "function")
        name = next(functions, "of its own")
        return f"it uses the function {name}, which Keras 2 cannot load from an HDF5 file; save it as .keras"
    return ""


def _parts(configuration: Any) -> Iterator[_Part]:
    """Every object in a configuration, from the outside in and from the first to the last, at any depth."""
    left = [(configuration, "")]
    while left:
        content, layer = left.pop()
        if isinstance(content, dict):
            name = _inner(content).get("name")
            if "class_name" in content and isinstance(name, str):
                layer = name
            yield _Part(content, layer)
            content = list(content.values())
        if isinstance(content, list):
            left.extend((part, layer) for part in reversed(content))


def _inner(content: dict[str, Any]) -> dict[str, Any]:
    inner = content.get("config")
    return inner if isinstance(inner, dict) else {}


def _class_names(content: dict[str, Any]) -> set[str]:
    """The names by which Keras may look up an object's class, in lower case and without their package."""
    names = (content.get(key) for key in ("class_name", "registered_name"))
    return {re.split(r"[>.]", name)[-1].lower() for name in names if isinstance(name, str)}


def _function_types(content: dict[str, Any]) -> set[str]:
    """Of the functions in a layer of Keras 2, whether they are a ``function`` or a ``lambda``."""
    return {value for key, value in content.items() if key.endswith("_type") and isinstance(value, str)}


def _is_dumped_lambda(content: dict[str, Any]) -> bool:
    """Whether an object is what Keras writes for a lambda given as an activation: code, defaults and closure."""
    value = content.get("value")
    return content.keys() == {"value"} and isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _is_known(name: str, own: Mapping[str, type]) -> bool:
    return keras.utils.get_registered_object(name, custom_objects=own) is not None


def _is_function_of_keras(module: str, name: str, registered: Any, failed: bool) -> bool:
    if not name.isidentifier() or name.startswith("_") or registered not in (None, "function", name):
        return False
    if module == "builtins":  # what Keras writes for its own, and for those it does not know
        if any(hasattr(getattr(keras, part, None), name) for part in FUNCTIONS):
            return True
        return not failed and not hasattr(builtins, name)
    package, *inside = [part for part in module.split(".") if part != "src"]
    return package == "keras" and bool(inside) and inside[0] in FUNCTIONS


def _is_class_of_keras(module: str, name: str, registered: Any) -> bool:
    """Whether it is a class in a module of Keras; classes, unlike functions, begin with a capital letter there."""
    package, *inside = [part for part in module.split(".") if part != "src"]
    if package != "keras" or NO_LAYERS & set(inside[:1]) or registered not in (None, name):
        return package == "tensorflow" and name.endswith("Spec")
    return re.fullmatch(r"_?[A-Z]\w*", name) is not None
