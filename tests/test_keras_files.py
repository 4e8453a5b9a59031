"""Networks in .keras and HDF5 files: what they hold is loaded as it was, and no code of theirs runs untrusted."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf

from advgan.errors import AdvGANError
from advgan.networks.file_configuration import code_in, unknown_in
from advgan.networks.keras_file import load_network, weights_digest
from advgan.networks.own_code import import_module

keras = tf.keras
SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).random((5, *SHAPE), np.float32)
KERAS_2 = not hasattr(keras, "ops")
pytestmark = pytest.mark.filterwarnings("ignore:The object being serialized", "ignore:You are saving your model")
FORMATS = pytest.mark.parametrize("suffix", [".keras", ".h5"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in a folder of its own, whose modules are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    registered = dict(keras.utils.get_custom_objects())
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    keras.utils.get_custom_objects().clear()
    keras.utils.get_custom_objects().update(registered)


def classifier(*first: Any) -> Any:
    return keras.Sequential([keras.Input(SHAPE), *first, keras.layers.Flatten(), keras.layers.Dense(3)])


def convolutional() -> Any:
    """Functional, nested and compiled with a loss of one's own, which the file names."""
    image = keras.Input(SHAPE)
    inner = classifier(keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.BatchNormalization())
    network = keras.Model(image, keras.layers.Rescaling(2.0)(inner(keras.layers.Rescaling(1 / 3)(image))))
    network.compile("adam", loss=lambda labels, scores: tf.reduce_mean(scores) + 0.0 * tf.reduce_sum(labels))
    return network


def saved(network: Any, suffix: str, name: str = "own") -> Path:
    path = Path(name + suffix)
    network.save(path)
    Path("RAN").unlink(missing_ok=True)  # by Keras, when it built the network
    return path


def reconfigured(path: Path, change: Callable[[Any], Any], as_bytes: bool = False) -> Path:
    """The file with another configuration."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            text = json.dumps(change(json.loads(file.attrs["model_config"])))
            file.attrs["model_config"] = text.encode() if as_bytes else text
        return path
    other = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(change(json.loads(content))).encode()
            new.writestr(name, content)
    return other


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(AdvGANError) as error:
        load_network(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path} cannot be loaded")
    return message


@pytest.mark.addons
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_a_file_answers_exactly_as_the_network_it_was_saved_from(suffix: str) -> None:
    network = convolutional()
    network.fit(IMAGES, np.zeros((5, 3)), verbose=0)  # no weight is as it was initialized
    loaded = load_network(saved(network, suffix))
    np.testing.assert_array_equal(loaded(IMAGES, training=False), network(IMAGES, training=False))
    assert weights_digest(loaded) == weights_digest(network)
    assert not loaded.trainable_weights
    assert getattr(loaded, "optimizer", None) is None


def code() -> Any:
    return keras.layers.Lambda(lambda x: (__import__("pathlib").Path("RAN").touch(), 3.0 * x)[1], name="mine")


def nested(layer: Any, times: int) -> Any:
    for _ in range(times):
        layer = keras.Sequential([keras.Input(SHAPE), layer])
    return layer


@pytest.mark.addons
@FORMATS
@pytest.mark.parametrize(
    "layer",
    [
        code,
        lambda: nested(code(), 1),
        lambda: nested(code(), 3),
        lambda: keras.layers.TimeDistributed(code()),
        lambda: nested(keras.layers.TimeDistributed(nested_in_time()), 2),
    ],
    ids=["plain", "nested", "nested deeply", "in a wrapper", "in a wrapper, nested"],
)
def test_the_code_of_a_lambda_layer_runs_with_trust_alone(layer: Callable[[], Any], suffix: str) -> None:
    network = classifier(layer())
    path = saved(network, suffix)
    assert error_of(path) == (
        f"{path} cannot be loaded: it has a Lambda layer (mine), whose Python code would run here; use a layer of "
        "Keras instead, or set target.trust: true where you trust the file"
    )
    assert not Path("RAN").exists()
    loaded = load_network(path, trust=True)
    np.testing.assert_array_equal(loaded(IMAGES), network(IMAGES))
    assert Path("RAN").exists()


def nested_in_time() -> Any:
    return keras.Sequential([keras.Input(SHAPE[1:]), code()])


@pytest.mark.addons
def test_a_configuration_in_bytes_is_read_too() -> None:
    path = reconfigured(saved(classifier(code()), ".h5"), lambda configuration: configuration, as_bytes=True)
    assert "it has a Lambda layer (mine)" in error_of(path)
    assert not Path("RAN").exists()


@pytest.mark.addons
def test_an_hdf5_file_by_another_name_is_read_as_what_it_is() -> None:
    """Keras 2 loads it."""
    other = Path(shutil.copy(saved(classifier(code()), ".h5"), "other.keras"))
    assert "it has a Lambda layer (mine)" in error_of(other)
    assert not Path("RAN").exists()


def activation(function: Any) -> Callable[[Any], Any]:
    def change(configuration: Any) -> Any:
        [layer] = [layer for layer in configuration["config"]["layers"] if layer["class_name"] == "Activation"]
        layer["config"]["activation"] = function
        return configuration

    return change


@pytest.mark.addons
@FORMATS
def test_a_lambda_as_an_activation_runs_with_trust_alone(suffix: str) -> None:
    def act(x: Any) -> Any:
        return (__import__("pathlib").Path("RAN").touch(), x)[1]

    act.__name__ = "<lambda>"
    network = classifier(keras.layers.Activation(act, name="mine"))
    path = saved(network, suffix)
    written = (
        "it has a Python lambda in layer mine, which Keras writes but cannot read; use a function of Keras instead"
    )
    assert error_of(path) == error_of(path, trust=True) == f"{path} cannot be loaded: {written}"

    with_class = activation({"class_name": "__lambda__", "config": dumped(path)})
    path = reconfigured(path, with_class)
    assert "it has a Python lambda in layer mine, whose code would run here; use a function of Keras" in error_of(path)
    assert not Path("RAN").exists()
    if not KERAS_2:  # which reads none
        np.testing.assert_array_equal(load_network(path, trust=True)(IMAGES), network(IMAGES))
        assert Path("RAN").exists()


def dumped(path: Path) -> Any:
    """The lambda in the file, as Keras writes it."""
    found: list[Any] = []

    def look(configuration: Any) -> Any:
        found.extend(layer["config"].get("activation") for layer in configuration["config"]["layers"])
        return configuration

    reconfigured(path, look)
    return next(each for each in found if isinstance(each, dict) and "value" in each)


@pytest.mark.addons
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"class_name": "Mine>Lambda", "config": {"name": "a"}}, "it has a Lambda layer (a), whose Python code"),
        ({"class_name": "Other", "registered_name": "Lambda", "config": {}}, "it has a Lambda layer, whose Python"),
        ({"class_name": "ResidualWrapper", "config": {"name": "a", "residual_fn_type": "lambda"}}, "lambda in layer a"),
        ({"class_name": "TFSMLayer", "config": {"name": "a"}}, "it has a layer of class TFSMLayer (a), which runs a"),
        (
            {"class_name": "StringLookup", "config": {"name": "a", "vocabulary": "/etc/passwd"}},
            "it reads another file, /e",
        ),
        ({"class_name": "TFOpLambda", "config": {"name": "a", "function": "io.write_file"}}, "it calls tf.io.write_f"),
        ({"class_name": "TFOpLambda", "config": {"name": "a", "function": "py_function"}}, "it calls tf.py_function"),
        ({"class_name": "TFOpLambda", "config": {"name": "a", "function": "math.truediv"}}, ""),
        ({"class_name": "TFOpLambda", "config": {"name": "a", "function": "cast"}}, ""),
        ({"class_name": "SlicingOpLambda", "config": {"name": "a", "function": "__operators__.getitem"}}, ""),
        ({"class_name": "Dense", "config": {"name": "lambda", "activation": "relu"}}, ""),
    ],
)
def test_code_is_found_at_any_depth(content: Any, expected: str) -> None:
    deep = content
    for _ in range(5000):
        deep = {"config": [deep]}
    for configuration in (content, [1, {"layers": [None, content]}], deep):
        found = code_in(configuration)
        assert expected in found if expected else not found


FOREIGN = [
    ("os", "system"),
    ("builtins", "exec"),
    ("keras.utils", "get_file"),
    ("keras.models", "load_model"),
    ("keras.src.utils.generic_utils", "os.system"),
    ("keras.src.activations", "os.system"),
    ("keras_own", "relu"),
]


@pytest.mark.addons
@pytest.mark.parametrize(("module", "name"), FOREIGN)
def test_functions_and_classes_of_other_modules_are_unknown(module: str, name: str) -> None:
    function = {"class_name": "function", "module": module, "config": name, "registered_name": name}
    assert f"it uses the function {name}, which Keras does not know" in unknown_in({"a": [function]}, {})
    instance = {"class_name": name, "module": module, "config": {}, "registered_name": name}
    assert f"it has a layer of class {name}, which Keras does not know" in unknown_in({"a": [instance]}, {})


OWN = """
from pathlib import Path
import tensorflow as tf
keras = tf.keras
Path("IMPORTED").touch()
{decorator}
class Scale(keras.layers.Layer):
    def call(self, images):
        return images * 2.0
{decorator}
def doubled(images):
    return images * 2.0
"""


def own_module(name: str, decorator: str = "") -> Any:
    Path(f"{name}.py").write_text(OWN.format(decorator=decorator))
    return import_module(name)


def forget(name: str) -> None:
    del sys.modules[name]
    for key in ("mine>Scale", "mine>doubled"):
        keras.utils.get_custom_objects().pop(key, None)
    Path("IMPORTED").unlink()


@pytest.mark.addons
@FORMATS
@pytest.mark.parametrize("decorator", ["", "@keras.utils.register_keras_serializable('mine')"], ids=["", "registered"])
def test_layers_of_a_module_are_known_once_it_is_named(decorator: str, suffix: str) -> None:
    module = own_module("own_layers_of_test", decorator)
    network = classifier(nested(module.Scale(), 1))
    path = saved(network, suffix)
    forget(module.__name__)
    line = error_of(path)
    assert "it has a layer of class " in line
    assert "Scale, which Keras does not know; name the module that defines it: target.module=my_layers (or" in line
    assert not Path("IMPORTED").exists()  # the file names it, but is not trusted
    loaded = load_network(path, module=module.__name__)
    np.testing.assert_array_equal(loaded(IMAGES), network(IMAGES))


@pytest.mark.addons
@FORMATS
def test_a_function_of_ones_own_is_known_once_it_is_registered_and_its_module_named(suffix: str) -> None:
    module = own_module("own_functions_of_test")
    path = saved(classifier(keras.layers.Conv2D(1, 1, activation=module.doubled, name="mine")), suffix, "unregistered")
    line = error_of(path, module=module.__name__)
    assert "it uses the function doubled in layer mine, which Keras does not know; use a function of Keras" in line
    forget(module.__name__)
    module = own_module("more_functions_of_test", "@keras.utils.register_keras_serializable('mine')")
    network = classifier(keras.layers.Conv2D(1, 1, activation=module.doubled))
    path = saved(network, suffix)
    forget(module.__name__)
    assert "doubled" in error_of(path)
    if KERAS_2 and suffix == ".h5":
        line = error_of(path, module=module.__name__)
        assert line.endswith(
            "it uses the function mine>doubled, which Keras 2 cannot load from an HDF5 file; save it as .keras"
        )
        return
    np.testing.assert_array_equal(load_network(path, module=module.__name__)(IMAGES), network(IMAGES))


@pytest.mark.addons
def test_a_module_that_a_file_names_is_not_imported() -> None:
    """Keras 2 would."""
    own_module("named_in_a_file")
    forget("named_in_a_file")

    def change(configuration: Any) -> Any:
        return {**configuration, "class_name": "Scale", "module": "named_in_a_file", "registered_name": "Scale"}

    path = reconfigured(saved(classifier(), ".keras"), change)
    assert "it has a layer of class Scale, which Keras does not know" in error_of(path)
    assert not Path("IMPORTED").exists()
    assert "named_in_a_file" not in sys.modules


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No module named 'own_broken'"),
        ("1 / 0", "division by zero"),
        ("raise SystemExit(3)", "3"),
        ("raise ValueError", "ValueError"),
        ("def", "invalid syntax (own_broken.py, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(content: str | None, problem: str) -> None:
    if content is not None:
        Path("own_broken.py").write_text(content)
    fix = "run the command in the folder that holds own_broken.py, or set PYTHONPATH"
    with pytest.raises(AdvGANError) as error:
        load_network(Path("absent.keras"), module="own_broken")
    assert str(error.value) == f"target.module = 'own_broken': cannot be imported ({problem}); {fix}"
    with pytest.raises(AdvGANError) as error:
        import_module("own_broken", "own_broken:logits")
    assert str(error.value) == f"own_broken:logits: own_broken cannot be imported ({problem}); {fix}"


@pytest.mark.addons
def test_a_file_of_weights_alone_is_one_line() -> None:
    names = ["own.weights.h5", *(["own.h5"] if KERAS_2 else [])]
    for name in names:
        classifier().save_weights(name)
        line = error_of(Path(name))
        assert "it has no network, perhaps weights alone; build the network, load these with load_weights" in line


@pytest.mark.addons
@FORMATS
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_is_one_line(suffix: str, kept: float) -> None:
    path = saved(classifier(keras.layers.Conv2D(8, 3)), suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert error_of(path, remedy="make another").endswith("); make another")


@pytest.mark.addons
def test_files_of_another_kind_are_one_line() -> None:
    for name in ("text.h5", "text.hdf5"):
        Path(name).write_text("no network")
        assert "(it is no HDF5 file, or its beginning is damaged); give a .keras file" in error_of(Path(name))
    Path("text.keras").write_text("no network")
    assert "(it is no file of Keras, or is cut short); give a .keras file" in error_of(Path("text.keras"))
    assert "(there is no such file)" in error_of(Path("absent.h5"))
    zipped = Path(shutil.copy(saved(classifier(), ".keras"), "zipped.h5"))
    assert "(it is no HDF5 file, or its beginning is damaged)" in error_of(zipped)
    Path("folder.keras").mkdir()
    Path("folder.keras", "config.json").write_text("{}")
    assert "(there is no such file)" in error_of(Path("folder.keras"))


@pytest.mark.addons
def test_damage_inside_a_file_is_one_line() -> None:
    path = saved(classifier(), ".h5")
    with h5py.File(path, "r+") as file:
        for name in [name for name in file["model_weights"] if "dense" in name]:
            del file["model_weights"][name]
    error_of(path)
    path = reconfigured(saved(classifier(), ".h5"), lambda _: [1, 2])
    error_of(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "{"
    assert "it is damaged" in error_of(path)


@pytest.mark.addons
def test_operations_on_images_are_loaded_where_keras_can_and_else_one_line() -> None:
    image = keras.Input(SHAPE)
    network = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image[:, :2] / 2.0 - 1.0)))
    np.testing.assert_array_equal(load_network(saved(network, ".keras"))(IMAGES), network(IMAGES))
    path = saved(network, ".h5")
    if KERAS_2:
        np.testing.assert_array_equal(load_network(path)(IMAGES), network(IMAGES))
        return
    assert (
        "it has an operation of Keras, GetItem, which Keras cannot load from an HDF5 file; save it as .k"
        in error_of(path)
    )

    def of_keras_2(configuration: Any) -> Any:
        for layer in configuration["config"]["layers"]:
            if layer["class_name"] == "TrueDivide":
                layer["class_name"], layer["config"]["function"] = "TFOpLambda", "math.truediv"
        return configuration

    line = error_of(reconfigured(path, of_keras_2))
    assert "it has an operation of Keras 2, tf.math.truediv, which Keras 3." in line
    assert line.endswith("use a layer such as Rescaling in its place, or TensorFlow 2.15")


@pytest.mark.skipif(KERAS_2, reason="which is another generation to Keras 3 alone")
def test_an_hdf5_file_of_keras_2_is_named_only_where_it_cannot_be_loaded() -> None:
    network = classifier()
    path = saved(network, ".h5")
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.15.0"
    np.testing.assert_array_equal(load_network(path)(IMAGES), network(IMAGES))

    def change(configuration: Any) -> Any:
        configuration["config"]["layers"][-1]["config"]["units"] = 4
        return configuration

    assert "(it was written with Keras 2.15.0, here is 3." in error_of(reconfigured(path, change))
