"""A run's attack as one file that needs no part of this package: written, run again, compared, and only then kept."""

from __future__ import annotations

import importlib
import importlib.util
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from advgan.attacks.advgan_attack import AdvGANAttack, condition_size, image_shape_of
from advgan.config.settings import AttackSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, ConfigurationError
from advgan.files import check_writable, whole_directory, write_whole
from advgan.networks.keras_file import load_network
from advgan.perturbation import FLOAT_TOLERANCE, measure
from advgan.run_folder import RUN_OF_THIS_KERAS, RunFolder, load_run_config
from advgan.startup import without_chatter

keras = tf.keras
Attack = Callable[..., np.ndarray]
"""From float32 images in [0, 1], shape (n, height, width, channels), and perhaps the class that is wanted of each,
int32 of shape (n,), to adversarial images of the same shape."""
TOLERANCE = 1e-4
"""How far a pixel of an exported file may be from the run's own, in [0, 1] units."""
CHECKED_IMAGES = 1000
INPUTS = ("image", "wanted")
BATCH_SIZES = (1, 2, 7, 64, 256)
"""The files are run on batches of these sizes, in turn."""
SAVED_MODEL_PARTS = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets"}


@dataclass(frozen=True)
class Difference:
    """How an exported file compares with the run it was made from, over ``images`` test images."""

    images: int
    largest: float
    """The largest difference of a pixel, in [0, 1] units."""
    linf: float
    """The largest change of a pixel, |x_A - x|, measured in float64."""
    epsilon: float
    """What ``linf`` may be, plus 1e-6."""

    def __str__(self) -> str:
        return (
            f"on {self.images:,} test images, in batches of 1 to {max(BATCH_SIZES)}, differs from the run by "
            f"{self.largest:.2g} at most; largest change of a pixel {self.linf:.9g}, within epsilon {self.epsilon:g} + "
            "1e-6"
        )


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is written from a Keras model, and how it is run."""

    default_name: str
    write: Callable[[Any, Path], None]
    open: Callable[[Path], Attack]
    packages: tuple[str, ...] = ()
    """What must be importable besides TensorFlow, by the names that pip knows too."""
    float32_only: bool = False
    """Whether bfloat16 convolutions cannot be written, or not be run on a CPU."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return not self.ending

    @property
    def ending(self) -> str:
        """How the file's name must end."""
        return Path(self.default_name).suffix


def adversarial_model(generator: Any, settings: AttackSettings) -> Any:
    """Put the projection behind a generator, in Keras's own layers only.

    Args:
        generator: a Keras model from images in [0, 1] to tanh outputs in [-1, 1].
        settings: epsilon and the form of the output.

    Returns:
        A Keras model from images x, float32 in [0, 1], shape (n, height, width, channels), n being any, to x_A, as
        ``advgan.perturbation.perturb`` makes it. Where the generator is conditioned on the wanted class, from a second
        input too: its index, int32 of shape (n,).
    """
    epsilon, condition = settings.epsilon, condition_size(generator)
    image = given = keras.Input(image_shape_of(generator), name="image")
    inputs = image
    if condition is not None:
        wanted = keras.Input((), dtype="int32", name="wanted")
        one_hot = keras.layers.Embedding(
            condition, condition, embeddings_initializer="identity", trainable=False, name="one_hot"
        )
        given, inputs = [image, one_hot(wanted)], [image, wanted]
    p = generator(given, training=False)
    if settings.output == "tanh":
        p = keras.layers.Rescaling(epsilon, dtype="float32", name="perturbation")(p)
    else:  # clip(p, -epsilon, epsilon): a ReLU with a ceiling clips to [0, 2 epsilon]
        p = keras.layers.Rescaling(1.0, offset=epsilon, dtype="float32", name="raised")(p)
        p = keras.layers.ReLU(max_value=2 * epsilon, dtype="float32", name="clipped")(p)
        p = keras.layers.Rescaling(1.0, offset=-epsilon, dtype="float32", name="perturbation")(p)
    raw = keras.layers.Add(dtype="float32", name="raw")([image, p])
    return keras.Model(
        inputs, keras.layers.ReLU(max_value=1.0, dtype="float32", name="adversarial")(raw), name="advgan"
    )


def export_run(
    run: Path, formats: tuple[str, ...], output: Path | None = None, overwrite: bool = False
) -> dict[Path, Difference]:
    """Write a run's generator with its projection; each file is kept if, when run, it does what the run's attack does.

    Args:
        run: the folder of a finished run.
        formats: names in ``FORMATS``.
        output: the file or, for a SavedModel, the folder; for one format only. By default in ``<run>/export``.
        overwrite: whether what is there already may be replaced.

    Returns:
        For each file, how far it is from ``AdvGANAttack.generate`` on the run's test images (at most 1,000).

    Raises:
        AdvGANError: the run cannot be used, a package is missing, or a file's name does not fit or is taken: before any
            work; or a file differs by more than ``TOLERANCE`` or leaves epsilon: it is then not kept.
    """
    config = load_run_config(run)
    outputs = _outputs(run, formats, output, overwrite)
    narrow = [name for name in outputs if FORMATS[name].float32_only]
    if narrow and config.training.compute_dtype != "float32":
        raise ConfigurationError(
            "training.compute_dtype",
            config.training.compute_dtype,
            f"{narrow[0]} holds float32 convolutions only; export this run as keras or savedmodel",
        )
    attack = AdvGANAttack.load(run)
    images = scaled(load_dataset(config.data).test.images[:CHECKED_IMAGES])
    given, expected = [images], attack.generate(images)
    if (classes := config.attack.wanted_classes) is not None:
        wanted = np.resize(np.array(classes, np.int32), len(images))
        given = [images, wanted]
        for each in classes:
            expected[wanted == each] = attack.towards(each).generate(images[wanted == each])
    generator = load_network(RunFolder(run).generator, RUN_OF_THIS_KERAS)
    model = adversarial_model(generator, config.attack)
    found = {}
    for name, path in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        found[path] = _export(model, name, path, given, expected, config.attack.epsilon)
    return found


def _outputs(run: Path, formats: tuple[str, ...], output: Path | None, overwrite: bool) -> dict[str, Path]:
    """Where each format goes, checked."""
    if output is not None and len(set(formats)) > 1:
        raise ConfigurationError("--output", str(output), f"names one file; leave it out to find all in {run}/export")
    outputs = {name: output or run / "export" / FORMATS[name].default_name for name in formats}
    for name, path in outputs.items():
        form = FORMATS[name]
        missing = [package for package in form.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise ConfigurationError(
                "--format", name, f"needs {' and '.join(missing)}: pip install {' '.join(form.packages)}"
            )
        if not form.is_folder and path.suffix != form.ending:
            raise ConfigurationError("--output", str(path), f"should end in {form.ending} for the format {name}")
        if path.exists() and not overwrite:
            raise ConfigurationError("--output", str(path), "is there already; add --overwrite, or choose another")
        if path.exists() and not _replaceable(path, form):
            raise ConfigurationError("--output", str(path), f"exists and is not in the format {name}; choose another")
        check_writable("--output", path.absolute().parent, given=path)
    return outputs


def _replaceable(path: Path, form: Format) -> bool:
    if not form.is_folder:
        return path.is_file()
    return path.is_dir() and {part.name for part in path.iterdir()} <= SAVED_MODEL_PARTS


def _export(
    model: Any, name: str, path: Path, given: list[np.ndarray], expected: np.ndarray, epsilon: float
) -> Difference:
    form = FORMATS[name]
    found: list[Difference] = []

    def write(temporary: Path) -> None:
        with _plainly(f"{path} cannot be written as {name}"):
            form.write(model, temporary)
        with _plainly(f"{path} was written as {name}, but does not run, so it was not kept"):
            made = _in_batches(form.open(temporary), given)
        found.append(compare(made, expected, given[0], epsilon, str(path)))

    if form.is_folder:
        with whole_directory(path, replace=True) as temporary:
            write(temporary)
    else:
        write_whole(path, write)
    return found[0]


def compare(
    made: np.ndarray, expected: np.ndarray, images: np.ndarray, epsilon: float, name: str = "the file"
) -> Difference:
    """Compare what an exported file makes of images with what the run's attack makes of them.

    Raises:
        AdvGANError: the shape is another, or a value is not finite, or they differ by more than ``TOLERANCE``, or x_A
            is further than epsilon from x or outside [0, 1].
    """
    if made.shape != images.shape or not np.isfinite(made).all():
        raise AdvGANError(f"{name} makes no images of shape {images.shape}, so it was not kept; export another format")
    largest = float(np.abs(made.astype(np.float64) - expected).max())
    linf = float(measure(images, made).linf.max())
    if largest > TOLERANCE:
        raise AdvGANError(
            f"{name} differs from the run by {largest:.2g} (allowed: {TOLERANCE:g}), so it was not kept; "
            "export another format"
        )
    if linf > epsilon + FLOAT_TOLERANCE or made.min() < 0 or made.max() > 1:
        raise AdvGANError(
            f"{name} changes a pixel by {linf:.9g} (epsilon is {epsilon:g}) or leaves [0, 1], so it was not kept; "
            "export another format"
        )
    return Difference(len(images), largest, linf, epsilon)


def _in_batches(attack: Attack, given: list[np.ndarray]) -> np.ndarray:
    made: list[np.ndarray] = []
    start = 0
    for size in cycle(BATCH_SIZES):
        if start >= len(given[0]):
            return np.concatenate(made)
        made.append(attack(*(values[start : start + size] for values in given)))
        start += size
    raise AssertionError("a cycle has no end")


@contextmanager
def _plainly(problem: str) -> Iterator[None]:
    """Tell what converters and interpreters raise, which is nearly anything, in one line, without their chatter."""
    with without_chatter():
        try:
            with redirect_stdout(io.StringIO()):
                yield
        except (OSError, AdvGANError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise AdvGANError(f"{problem} ({reason}); export another format") from None


def _write_keras(model: Any, path: Path) -> None:
    model.save(path)


def _open_keras(path: Path) -> Attack:
    model = keras.models.load_model(path, compile=False)
    return lambda *given: np.asarray(model(given[0] if len(given) == 1 else list(given), training=False))


def _write_saved_model(model: Any, path: Path) -> None:
    model.export(str(path))


def _open_saved_model(path: Path) -> Attack:
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    names = _names({name: spec.dtype.is_floating for name, spec in served.structured_input_signature[1].items()})
    return lambda *given: _only(served(**dict(zip(names, map(tf.constant, given), strict=True)))).numpy()


def _write_tflite(model: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the converter's way for Keras models knows Keras 2 alone
        _write_saved_model(model, Path(folder))
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def _open_tflite(path: Path) -> Attack:
    runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    details = runner.get_input_details()
    names = _names({name: np.issubdtype(each["dtype"], np.floating) for name, each in details.items()})
    return lambda *given: _only(runner(**dict(zip(names, given, strict=True))))


def _write_onnx(model: Any, path: Path) -> None:
    convert = importlib.import_module("tf2onnx.convert")
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(INPUTS, model.inputs, strict=False)
    ]

    def adversarial(*given: Any) -> dict[str, Any]:
        return {"adversarial": model(given[0] if len(given) == 1 else list(given), training=False)}

    convert.from_function(tf.function(adversarial), signature, output_path=str(path))


def _open_onnx(path: Path) -> Attack:
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda *given: session.run(None, dict(zip(INPUTS, given, strict=False)))[0]


def _names(floating: dict[str, bool]) -> list[str]:
    """The names of a file's inputs, that of the image first, by which of them take floats."""
    return sorted(floating, key=floating.__getitem__, reverse=True)


def _only(outputs: dict[str, Any]) -> Any:
    [output] = outputs.values()
    return output


FORMATS = {
    "keras": Format("attack.keras", _write_keras, _open_keras),
    "savedmodel": Format("attack", _write_saved_model, _open_saved_model),
    "onnx": Format("attack.onnx", _write_onnx, _open_onnx, ("tf2onnx", "onnxruntime"), float32_only=True),
    "tflite": Format("attack.tflite", _write_tflite, _open_tflite, float32_only=True),
}
