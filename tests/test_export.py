"""``python -m advgan.export``: its files run by a program without this package, and what it refuses."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan import AdvGANAttack, export
from advgan.config.settings import AttackSettings, GeneratorSettings
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError
from advgan.experiments import export as export_experiment
from advgan.experiments.export import FORMATS, adversarial_model, compare
from advgan.networks.generator import build_generator
from advgan.networks.normalization import ADDONS
from advgan.run_folder import load_run_config

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
keras = tf.keras
EPSILON = 0.3
SIZES = (5, 1, 3)  # of batches
READER = f"""
import sys
import numpy as np
import onnxruntime
import tensorflow as tf
if {ADDONS is not None}:
    import tensorflow_addons

folder, images = sys.argv[1], np.load(sys.argv[2])
model = tf.keras.models.load_model(folder + "/attack.keras")
served = tf.saved_model.load(folder + "/attack")
session = onnxruntime.InferenceSession(folder + "/attack.onnx")
runner = tf.lite.Interpreter(folder + "/attack.tflite").get_signature_runner()
ways = {{
    "keras": lambda x: model(x).numpy(),
    "savedmodel": lambda x: served.serve(x).numpy(),
    "onnx": lambda x: session.run(["adversarial"], {{"image": x}})[0],
    "tflite": lambda x: runner(image=x)["output_0"],
}}
for name, way in ways.items():
    for size in {SIZES}:
        np.save(f"{{sys.argv[3]}}/{{name}}-{{size}}.npy", way(images[:size]))
assert not [name for name in sys.modules if name.split(".")[0] == "advgan"]
"""


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run that may be written into, with every format in its folder ``export``."""
    copy = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("exported") / "run"))
    formats = [word for name in export.NAMES for word in ("--format", name)]
    assert export.main(["--run", str(copy), *formats]) == 0
    return copy


@pytest.fixture(scope="module")
def images(small_run: Path) -> np.ndarray:
    return scaled(load_dataset(load_run_config(small_run).data).test.images[: max(SIZES)])


def test_the_example_of_the_page_runs(
    run: Path, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    [block] = [part for part in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnx" in part]
    (tmp_path / "checkpoints" / "mnist").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mnist" / "0").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": images}
    exec(block, names)  # the reader's session
    np.testing.assert_allclose(names["adversarial"], AdvGANAttack.load(run).generate(images), atol=1e-4)


def adversarial(generator: Any, x: np.ndarray, epsilon: float, output: str = "tanh") -> np.ndarray:
    """The paper's x_A in float64, from the bare generator."""
    g = np.asarray(generator(x, training=False), np.float64)
    return np.clip(x + (epsilon * g if output == "tanh" else np.clip(g, -epsilon, epsilon)), 0, 1)


@pytest.fixture(scope="module")
def read(run: Path, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a program that does not import this package makes of the files."""
    results = tmp_path_factory.mktemp("read")
    np.save(results / "x.npy", images)
    command = [sys.executable, "-c", READER, str(run / "export"), str(results / "x.npy"), str(results)]
    done = subprocess.run(command, cwd=results, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return results


@pytest.mark.addons
@pytest.mark.parametrize("name", export.NAMES)
def test_a_file_attacks_as_the_run_does_without_this_package(
    run: Path, images: np.ndarray, read: Path, name: str
) -> None:
    expected = adversarial(keras.models.load_model(run / "generator.keras", compile=False), images, EPSILON)
    assert np.abs(expected - images).max() > 0.29  # the attack does something
    for size in SIZES:
        made = np.load(read / f"{name}-{size}.npy")
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, expected[:size], rtol=0, atol=2e-5)
        assert np.abs(made.astype(np.float64) - images[:size]).max() <= EPSILON + 1e-6


def test_nothing_but_the_files_is_left(run: Path) -> None:
    assert {path.name for path in (run / "export").iterdir()} == {form.default_name for form in FORMATS.values()}


def test_the_door_knows_every_format() -> None:
    assert tuple(FORMATS) == export.NAMES


@pytest.mark.addons
@pytest.mark.parametrize("output", ["tanh", "clipped"])
@pytest.mark.parametrize("epsilon", [8 / 255, 0.3, 1.0])
def test_the_projection_is_the_papers(output: str, epsilon: float) -> None:
    image = keras.Input((8, 9, 3))
    bent = keras.Model(image, keras.layers.Activation("tanh")(keras.layers.Rescaling(4.0, offset=-2.0)(image)))
    x = np.random.default_rng(0).random((6, 8, 9, 3), np.float32)
    model = adversarial_model(bent, AttackSettings(epsilon=epsilon, output=output))
    np.testing.assert_allclose(model(x), adversarial(bent, x, epsilon, output), rtol=0, atol=3e-7)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_other_generators_are_converted_as_well(name: str, tmp_path: Path) -> None:
    settings = GeneratorSettings(widths=[4, 8], residual_blocks=1, normalization="batch", upsampling="resize")
    generator = build_generator((9, 11, 3), settings)  # padded to 10x12 and cropped again
    generator.trainable = False
    path = tmp_path / f"odd.{name}"
    model = adversarial_model(generator, AttackSettings(epsilon=0.1, output="clipped"))
    x = np.random.default_rng(0).random((5, 9, 11, 3), np.float32)
    FORMATS[name].write(model, path)
    attack = FORMATS[name].open(path)
    for size in SIZES:
        np.testing.assert_allclose(
            attack(x[:size]), adversarial(generator, x[:size], 0.1, "clipped"), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda x: x + np.float32(2e-4), r"differs from the run by 0\.0002"),
        (lambda x: np.where(x == x.max(), x - np.float32(2e-4), x), r"differs from the run by 0\.0002"),
        (lambda x: np.where(x > 0.5, np.nan, x), "no images"),
        (lambda x: x[:1], "no images"),
    ],
    ids=["differs", "differs in one pixel", "not finite", "another shape"],
)
def test_a_file_that_does_something_else_is_refused(
    images: np.ndarray, make: Callable[[np.ndarray], np.ndarray], problem: str
) -> None:
    assert compare(images, images, images, EPSILON).largest == 0
    with pytest.raises(AdvGANError, match=problem):
        compare(make(images), images, images, EPSILON)


def test_a_file_that_leaves_epsilon_or_the_pixel_box_is_refused() -> None:
    x = np.full((2, 8, 8, 1), 0.5, np.float32)
    assert compare(x + np.float32(EPSILON), x + np.float32(EPSILON), x, EPSILON).linf == pytest.approx(EPSILON)
    for change, epsilon in ((EPSILON + 5e-6, EPSILON), (0.51, 1.0), (-0.51, 1.0)):
        made = x + np.float32(change)
        with pytest.raises(AdvGANError, match=r"or leaves \[0, 1\], so it was not kept"):
            compare(made, made, x, epsilon)


def test_a_refused_file_is_not_kept_and_the_one_before_stays(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_experiment, "TOLERANCE", -1.0)  # so that any difference is too large
    path = run / "export" / "attack.keras"
    names, before = sorted(path.parent.iterdir()), path.read_bytes()
    assert export.main(["--run", str(run), "--format", "keras", "--overwrite"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {path} differs from the run by ")
    assert (sorted(path.parent.iterdir()), path.read_bytes()) == (names, before)


def test_a_file_is_replaced_only_on_demand(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "attack"
    (kept / "variables").mkdir(parents=True)
    (kept / "saved_model.pb").write_text("old")
    command = ["--run", str(run), "--format", "savedmodel", "--output", str(kept)]
    assert export.main(command) == 2
    assert "add --overwrite" in capsys.readouterr().err
    (kept / "thesis.tex").write_text("mine")
    assert export.main([*command, "--overwrite"]) == 2
    assert "exists and is not in the format savedmodel" in capsys.readouterr().err
    assert (kept / "saved_model.pb").read_text() == "old"
    (kept / "thesis.tex").unlink()
    assert export.main([*command, "--overwrite"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{kept}: on 200 test images, in batches of 1 to 256, differs from the run by ")
    assert "within epsilon 0.3 + 1e-6" in out
    assert (out.count("\n"), err) == (1, "")
    assert tf.saved_model.load(str(kept)).serve(tf.zeros([2, 28, 28, 1])).shape == (2, 28, 28, 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--run", "RUN", "--format", "keras"], "is there already; add --overwrite"),
        (["--run", "RUN", "--format", "onnx", "--output", "a.tflite"], "should end in .onnx"),
        (["--run", "RUN", "--format", "onnx", "--format", "keras", "--output", "a.onnx"], "names one file"),
        (["--run", "nowhere", "--format", "keras"], "nowhere is not a run"),
        (["--run", "RUN", "--format", "keras", "--set", "seed=1"], "a run keeps its settings"),
        (["--run", "RUN", "--format", "keras", "--output", "RUN/config.yaml/a.keras"], "is not a writable folder"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    run: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([word.replace("RUN", str(run)) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert problem in err


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "config.yaml", tmp_path)
    assert export.main(["--run", str(tmp_path), "--format", "keras"]) == 2
    assert f"{tmp_path} is not finished" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_bfloat16_is_refused_where_the_format_has_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "config.yaml").read_text()
    assert "compute_dtype: float32" in text
    (tmp_path / "config.yaml").write_text(text.replace("compute_dtype: float32", "compute_dtype: bfloat16"))
    assert export.main(["--run", str(tmp_path), "--format", "keras", "--format", "tflite"]) == 2
    assert "tflite holds float32 convolutions only; export this run as keras" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else found(name, *rest))
    path = tmp_path / "a.onnx"
    assert export.main(["--run", str(run), "--format", "onnx", "--output", str(path)]) == 2
    assert "needs tf2onnx and onnxruntime: pip install tf2onnx onnxruntime" in capsys.readouterr().err
    assert not path.exists()
