"""``python -m advgan.attack``: pictures and arrays through a finished run, counted again without the package."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from advgan import attack, reference_run
from advgan.config.settings import GeneratorSettings
from advgan.data import batches
from advgan.data.image_files import ImageArray, open_images
from advgan.data.sources import MNIST_FILE
from advgan.experiments import attack as attack_experiment
from advgan.experiments.attack import AttackRequest, attack_files
from advgan.experiments.attack_folder import AttackFolder
from advgan.networks.generator import build_generator

CHECKOUT = Path(__file__).parent.parent
LEVELS = 76  # floor(255 * 0.3)
COLOUR_SHAPE, COLOUR_EPSILON = (8, 12, 3), 8 / 255

Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Test images uint8 (1100, 28, 28) and their classes."""
    with np.load(MNIST_FILE) as archive:
        return archive["x_test"][:1100], archive["y_test"][:1100]


@pytest.fixture(scope="module")
def target() -> Any:
    return tf.keras.models.load_model(reference_run() / "target.keras", compile=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


LOADED = {name: functools.cache(getattr(attack_experiment, name)) for name in ("load_network", "load_classifier")}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a call's time is to load two networks and to draw: each network is loaded once, few images are drawn."""
    monkeypatch.setattr(attack_experiment, "MOST_SHOWN", 1)
    for name, loaded in LOADED.items():
        monkeypatch.setattr(attack_experiment, name, loaded)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = attack.main([*map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def on_reference(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    return call(capsys, *arguments, "--run", reference_run(), "--output", "out")


def write_digits(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    for number, image in enumerate(images):
        place = folder if labels is None else folder / str(labels[number])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:05d}.png")
    return folder


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "attack.csv").open(encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "attack.json").read_text(encoding="utf-8"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def answers(target: Any, images: np.ndarray) -> np.ndarray:
    return np.argmax(target.predict(images[..., np.newaxis] / np.float32(255), verbose=0), axis=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered_run(folder: Path, *changes: tuple[str, str], files: tuple[str, ...] = ("generator", "target")) -> Path:
    """The reference run with another configuration."""
    folder.mkdir()
    for name in files:
        shutil.copy(reference_run() / f"{name}.keras", folder)
    text = (reference_run() / "config.yaml").read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained generator of colour images, and a classifier of three classes: which channel is the brightest."""
    change = ("epsilon: 0.3", f"epsilon: {COLOUR_EPSILON}")
    run = altered_run(tmp_path_factory.mktemp("colour") / "run", change, files=())
    tf.keras.utils.set_random_seed(5)
    build_generator(COLOUR_SHAPE, GeneratorSettings(widths=(4, 8), residual_blocks=1)).save(run / "generator.keras")
    inputs = tf.keras.Input(COLOUR_SHAPE)
    tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(inputs)).save(run / "target.keras")
    return run


# --- Pictures ----------------------------------------------------------------------------------------------------


def test_sub_folders_are_labels_and_every_figure_is_counted_again(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    target: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = digits[0][:150], digits[1][:150]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    write_digits(here / "in", images, labels)
    code, out, err = on_reference(capsys, "in")
    assert (code, err) == (0, "")
    made = np.stack([pixels(here / "out" / str(labels[n]) / f"{n:05d}.png") for n in range(150)])
    change = made.astype(int) - images
    assert made.dtype == np.uint8 and np.abs(change).max() == LEVELS
    clean, adversarial = answers(target, images), answers(target, made)
    counts = clean == labels
    reached = counts & (adversarial != labels)
    rows = table(here / "out")
    assert len(rows) == 150
    for number in range(150):
        name = f"{labels[number]}/{number:05d}.png"
        row = rows[name]
        assert (row["clean_class"], row["adversarial_class"]) == (str(clean[number]), str(adversarial[number]))
        assert row["success"] == ("" if not counts[number] else "yes" if reached[number] else "no")
        assert float(row["linf"]) == pytest.approx(np.abs(change[number]).max() / 255, abs=1e-6)
        assert float(row["l2"]) == pytest.approx(math.sqrt((change[number] ** 2).sum()) / 255, abs=1e-6)
        assert row["output"] == name
    summary = record(here / "out")
    assert summary["images"] == 150 and summary["complete"] and summary["left_out"] == []
    success = summary["success"]
    assert (success["successes"], success["n"]) == (reached.sum(), counts.sum())
    lengths = np.sqrt((change**2).reshape(150, -1).sum(axis=1)) / 255
    assert summary["mean_l2"] == pytest.approx(lengths[counts].mean())
    assert summary["checks"][0]["reason"].startswith(f"{counts.mean():.2%} [")  # of the clean images
    line = f"150 images attacked, success {success['rate']:.2%} [{success['low']:.2%}, {success['high']:.2%}] of "
    assert f"{line}{counts.sum()} (classified correctly when clean)" in out
    assert pixels(here / "out" / "attack.png").shape[2] >= 3
    assert not [path for path in (here / "out").rglob(".*") if path.name != ".lock"]


def test_without_labels_success_means_a_changed_answer(
    here: Path, digits: tuple[np.ndarray, np.ndarray], target: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    images = digits[0][:60]
    write_digits(here / "in", images)
    code, out, _ = on_reference(capsys, "in")
    made = np.stack([pixels(here / "out" / f"{n:05d}.png") for n in range(60)])
    changed = int((answers(target, images) != answers(target, made)).sum())
    success = record(here / "out")["success"]
    assert code == 0 and (success["successes"], success["n"]) == (changed, 60)
    assert "of 60 (no labels: success means that the classifier's answer changed)" in out


@pytest.mark.parametrize("labelled", [True, False])
def test_a_targeted_run(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    target: Any,
    capsys: pytest.CaptureFixture[str],
    labelled: bool,
) -> None:
    change = ("goal: untargeted, target_class: null", "goal: targeted, target_class: 8")
    run = altered_run(here / "run", change)
    images, labels = digits[0][:120], digits[1][:120]
    write_digits(here / "in", images, labels if labelled else None)
    code, out, _ = call(capsys, "in", "--run", run, "--output", "out")
    names = [f"{labels[n]}/{n:05d}.png" if labelled else f"{n:05d}.png" for n in range(120)]
    made = np.stack([pixels(here / "out" / name) for name in names])
    counts = answers(target, images) != 8
    if labelled:
        counts &= labels != 8
    reached = counts & (answers(target, made) == 8)
    success = record(here / "out")["success"]
    assert code == 0 and 0 < reached.sum() < counts.sum() < 120
    assert (success["successes"], success["n"]) == (reached.sum(), counts.sum())
    meaning = "neither of class 8 nor" if labelled else "success means that an image that was not classified as class 8"
    assert meaning in out


def test_one_picture_of_another_kind_and_size(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(digits[0][0]).resize((60, 60)).convert("RGB").save(here / "seven.jpg", quality=98)
    code, _, err = on_reference(capsys, "seven.jpg")
    assert code == 2 and not (here / "out").exists()
    assert err == "error: INPUT = 'seven.jpg': is 60x60x3, the run takes 28x28x1; add --resize to convert it\n"
    code, out, _ = on_reference(capsys, "seven.jpg", "--resize")
    assert code == 0 and "1 image attacked" in out
    with Image.open(here / "seven.jpg") as image:
        clean = np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC))[..., 0]
    made = pixels(here / "out" / "seven.png")
    assert made.shape == (28, 28) and 0 < np.abs(made.astype(int) - clean).max() <= LEVELS
    assert table(here / "out")["seven.jpg"]["clean_class"] == "7"


def test_names_that_collide_keep_their_ending(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(here / "in", digits[0][:2])
    for name in ("00000.bmp", "attack.png"):
        Image.fromarray(digits[0][3]).save(here / "in" / name)
    assert on_reference(capsys, "in")[0] == 0
    outputs = {name: row["output"] for name, row in table(here / "out").items()}
    assert outputs["00000.png"] == "00000.png" and outputs["00000.bmp"] == "00000.bmp.png"
    assert np.array_equal(pixels(here / "out" / outputs["attack.png"]), pixels(here / "out" / "00000.bmp.png"))


def test_what_cannot_be_used_is_named_and_the_others_are_attacked(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(here / "in", digits[0][:4])
    whole = (here / "in" / "00001.png").read_bytes()
    (here / "in" / "00001.png").write_bytes(whole[: len(whole) // 2])
    odd = "no\nte.png" if sys.platform == "darwin" else "no\n\udcffte.png"  # a byte that is no UTF-8
    (here / "in" / odd).write_text("hello")
    (here / "in" / "readme.txt").write_text("hello")
    for _ in range(2):  # the second time it is complete
        code, out, err = on_reference(capsys, "in")
        assert code == 1 and "2 images attacked" not in out and "3 images attacked" in out
        assert "Left out: 2 that could not be used: 00001.png, no " in out
    assert err == "" and "complete already" in out
    assert "(1 other files are left out)" in out
    assert [entry["file"] for entry in record(here / "out")["left_out"]] == ["00001.png", odd]
    assert sorted(table(here / "out")) == ["00000.png", "00002.png", "00003.png"]
    shutil.rmtree(here / "out")
    for name in ("00000.png", "00002.png", "00003.png"):
        (here / "in" / name).unlink()
    code, out, err = on_reference(capsys, "in")
    assert code == 1 and "0 images attacked" in out and table(here / "out") == {}
    assert "Warning: left out: 00001.png cannot be read" in out and err == ""


def test_quiet_leaves_results_and_warnings_verbose_adds_files_and_the_library_prints_nothing(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(here / "in", digits[0][:3])
    (here / "in" / "00001.png").write_bytes(b"no picture")
    code, out, err = on_reference(capsys, "in", "--quiet")
    assert (code, err) == (1, "")
    first, blank, second, *_ = out.splitlines()
    assert first.startswith("Warning: left out: 00001.png cannot be read") and blank == ""
    assert second.startswith("2 images attacked, success ")
    _, out, _ = on_reference(capsys, "in", "--overwrite", "--verbose")
    assert "Run            " in out and f"wrote {Path('out', 'attack.csv')}\n" in out
    request = AttackRequest(reference_run(), open_images(Path("in")), Path("other"))
    assert attack_files(request).images == 2
    assert capsys.readouterr() == ("", "")


# --- Colour, and names of classes --------------------------------------------------------------------------------


def test_colour_pictures_grey_ones_and_names_of_classes(
    here: Path, colour_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, random = ("ant", "bee", "$cow"), np.random.default_rng(0)
    for name, brightest in zip(sorted(names), range(3), strict=True):
        (here / "in" / name).mkdir(parents=True)
        picture = random.integers(0, 100, COLOUR_SHAPE, np.uint8)
        picture[..., brightest] += 100
        Image.fromarray(picture).save(here / "in" / name / "a.bmp")
    Image.fromarray(random.integers(0, 256, COLOUR_SHAPE[:2], np.uint8)).save(here / "in" / "ant" / "grey.png")
    code, out, _ = call(capsys, "in", "--run", colour_run, "--output", "out")
    assert code == 0 and "sub-folders, in alphabetical order: $cow = 0, ant = 1, bee = 2" in out
    rows = table(here / "out")
    assert {name: rows[f"{name}/a.bmp"]["clean_class"] for name in names} == {name: name for name in names}
    for name, row in rows.items():
        with Image.open(here / "in" / name) as image:
            clean = np.asarray(image.convert("RGB"))
        assert np.abs(pixels(here / "out" / row["output"]).astype(int) - clean).max() <= 8
    assert record(here / "out")["class_names"] == sorted(names)


def test_a_classifier_of_ones_own_and_a_run_without_one(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run against a served black box is not allowed to send a query."""
    change = ("black_box: null", "black_box: 'http://127.0.0.1:9/v1/models/m:predict'")
    run = altered_run(here / "run", change, files=("generator",))
    write_digits(here / "in", digits[0][:3])
    code, out, _ = call(capsys, "in", "--run", run, "--output", "out")
    assert code == 0 and "3 images attacked; the run has no classifier file" in out and "--target" in out
    rows = table(here / "out").values()
    assert {(row["clean_class"], row["adversarial_class"], row["success"]) for row in rows} == {("", "", "")}
    assert min(float(row["linf"]) for row in rows) > 0
    code, out, _ = call(capsys, "in", "--run", run, "--output", "out2", "--target", reference_run() / "target.keras")
    assert code == 0 and "of 3 (no labels" in out and "transfer" in out


# --- Arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_an_array_comes_back_as_one(
    here: Path, digits: tuple[np.ndarray, np.ndarray], target: Any, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    images = digits[0][:40] if kind == "uint8" else (digits[0][:40] / 255).astype(kind)[..., np.newaxis]
    np.save(here / "digits.npy", images)
    assert on_reference(capsys, "digits.npy")[0] == 0
    made = np.load(here / "out" / "digits.npy", allow_pickle=False)
    assert made.shape == images.shape and made.dtype == (np.uint8 if kind == "uint8" else np.float32)
    change = np.abs(made.astype(np.float64) - images.astype(np.float64))
    assert change.max() == LEVELS if kind == "uint8" else 0.29 < change.max() <= 0.3 + 1e-6
    assert made.min() >= 0 and made.max() <= (255 if kind == "uint8" else 1)
    rows = table(here / "out")
    shown = made if kind == "uint8" else made[..., 0] * 255
    assert [row["adversarial_class"] for row in rows.values()] == [str(answer) for answer in answers(target, shown)]
    assert list(rows)[:2] == ["digits.npy[0]", "digits.npy[1]"]
    assert {path.name for path in (here / "out").iterdir()} == {
        ".lock", "attack.csv", "attack.json", "attack.png", "digits.npy"
    }  # fmt: skip


@pytest.mark.parametrize("keys", [("x_test", "y_test"), ("pictures", None)])
def test_an_archive_keeps_its_keys_and_labels(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str], keys: tuple[str, str | None]
) -> None:
    arrays = {keys[0]: digits[0][:30]} | ({} if keys[1] is None else {keys[1]: digits[1][:30]})
    np.savez_compressed(here / "digits.npz", **arrays)
    code, out, _ = on_reference(capsys, "digits.npz")
    assert code == 0 and ("no labels" in out) == (keys[1] is None)
    with np.load(here / "out" / "digits.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(arrays)
        assert 0 < np.abs(archive[keys[0]].astype(int) - arrays[keys[0]]).max() <= LEVELS
        if keys[1] is not None:
            assert np.array_equal(archive[keys[1]], arrays[keys[1]])


# --- Continued, repeated, replaced -------------------------------------------------------------------------------


def test_a_killed_command_continues_and_ends_as_if_it_had_not_been(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_digits(here / "in", digits[0])
    (here / "in" / "00700.png").write_text("damaged")
    for name in ("killed", "whole"):
        (here / name).mkdir()
    arguments = [str(here / "in"), "--run", str(reference_run()), "--output", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "advgan.attack", *arguments],
        cwd=here / "killed",
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rows = here / "killed" / "out" / ".attack.partial.jsonl"
    while not (rows.is_file() and rows.stat().st_size):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (here / "killed" / "out" / "attack.csv").exists()
    with rows.open("ab") as file:
        file.write(b'[1100, [["torn')
    results = {}
    for name in ("killed", "whole"):
        monkeypatch.chdir(here / name)
        code, out, _ = call(capsys, *arguments)
        assert code == 1 and ("Continued      at image" in out) == (name == "killed")
        results[name] = contents(here / name / "out")
    assert results["killed"] == results["whole"]
    assert len(results["whole"]) == 4 + 1099


def test_an_interrupted_array_continues_and_ends_as_if_it_had_not_been(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, calls = ImageArray.write, []

    def interrupted(*arguments: Any) -> np.ndarray:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    np.save(here / "in.npy", digits[0])
    arguments = [str(here / "in.npy"), "--run", str(reference_run()), "--output", "out"]
    for name in ("stopped", "whole"):
        (here / name).mkdir()
    monkeypatch.chdir(here / "stopped")
    with monkeypatch.context() as patched:
        patched.setattr(ImageArray, "write", interrupted)
        code, _, err = call(capsys, *arguments)
    assert (code, err) == (130, "stopped; run the same command again to continue\n")
    assert record(Path("out"))["complete"] is False and not Path("out", "in.npy").exists()
    code, out, _ = call(capsys, *arguments)
    assert code == 0 and "Continued      at image 500 of 1,100" in out
    monkeypatch.chdir(here / "whole")
    assert call(capsys, *arguments)[0] == 0
    assert contents(here / "stopped" / "out") == contents(here / "whole" / "out")


def test_the_same_again_does_nothing_and_another_needs_overwrite(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(here / "in", digits[0][:3])
    _, first, _ = on_reference(capsys, "in")
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*.*") if path.name != ".lock"}
    code, again, _ = on_reference(capsys, "in")
    assert code == 0 and "complete already" in again and again.splitlines()[-5:] == first.splitlines()[-5:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for change in (["--resize"], []):
        if not change:
            (here / "in" / "00001.png").rename(here / "in" / "other.png")
        code, _, err = on_reference(capsys, "in", *change)
        assert code == 2 and err.count("\n") == 1 and err.startswith("error: --output = 'out': holds the attack of")
        assert "--overwrite" in err
    (here / "out" / "mine.txt").write_text("keep")
    assert on_reference(capsys, "in", "--overwrite")[0] == 0
    left = {path.name for path in (here / "out").iterdir()}
    assert left == {
        ".lock", "00000.png", "00002.png", "other.png", "mine.txt", "attack.csv", "attack.json", "attack.png"
    }  # fmt: skip


def killed_in(here: Path, source: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack, and stop in the middle of a batch, after its files were written."""
    append, calls = AttackFolder.append, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == batch:
            raise KeyboardInterrupt
        append(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(AttackFolder, "append", interrupted)
        assert attack.main([str(here / source), "--run", str(reference_run()), "--output", "out"]) == 130


def test_an_unfinished_array_of_another_attack_leaves_nothing(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.save(here / "long.npy", digits[0][:1100])
    for count in (40, 1100):
        np.save(here / "other.npy", digits[0][::-1][:count])
        killed_in(here, "long.npy", 2, monkeypatch)
        assert on_reference(capsys, "other.npy", "--overwrite")[0] == 0
        shutil.move("out", f"after-{count}")
        assert on_reference(capsys, "other.npy")[0] == 0
        np.testing.assert_array_equal(np.load(f"after-{count}/other.npy"), np.load("out/other.npy"))
        shutil.rmtree("out")


def test_pictures_of_a_batch_that_was_killed_are_removed_by_another_attack(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_digits(here / "many", digits[0][:30])
    write_digits(here / "few", digits[0][100:103])
    killed_in(here, "many", 1, monkeypatch)
    assert len(list((here / "out").glob("*.png"))) == 30
    assert on_reference(capsys, "few", "--overwrite")[0] == 0
    assert {path.name for path in (here / "out").glob("0*.png")} == {"00000.png", "00001.png", "00002.png"}


def test_a_batch_size_that_was_halved_changes_nothing(
    here: Path,
    digits: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.save(here / "in.npy", digits[0])
    with monkeypatch.context() as patched:
        patched.setattr(batches, "_halved_by", 2)
        killed_in(here, "in.npy", 2, monkeypatch)
    code, out, _ = on_reference(capsys, "in.npy")
    assert code == 0 and "Continued      at image 125 of 1,100" in out
    assert record(here / "out")["images"] == len(table(here / "out")) == 1100


def test_a_classifier_at_chance_is_named(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """Pixels of 0 and 1 in place of 0 and 255: success would be counted on a few lucky images."""
    np.savez(here / "dark.npz", x=digits[0][:200] // 255, y=digits[1][:200])
    code, out, _ = on_reference(capsys, "dark.npz")
    assert code == 0 and "Warning: clean accuracy of " in out
    assert "success would mean nothing; the pixels are 0 to 1 of 255" in out
    [found] = record(here / "out")["checks"]
    assert found["status"] == "warn"


# --- What is not accepted ----------------------------------------------------------------------------------------


def bad_inputs(folder: Path, image: np.ndarray) -> dict[str, tuple[list[str], str]]:
    """For each case the arguments before ``--output out``, and a part of the message."""
    write_digits(folder / "in", image[np.newaxis])
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("hello")
    write_digits(folder / "large", np.zeros((1, 30, 40), np.uint8))
    write_digits(folder / "pets", image[np.newaxis], np.array(["cat"]))
    write_digits(folder / "eleven", image[np.newaxis], np.array(["11"]))
    write_digits(folder / "mixed", image[np.newaxis], np.array(["3"]))
    shutil.copy(folder / "in" / "00000.png", folder / "mixed" / "z.png")
    (folder / "colour").mkdir()
    Image.new("RGB", (28, 28), "red").save(folder / "colour" / "a.png")
    arrays = {
        "single": image,
        "wide": np.zeros((2, 32, 32, 3), np.uint8),
        "integers": image[np.newaxis].astype(np.int64),
        "nan": np.full((1, 28, 28), np.nan, np.float32),
        "large_values": image[np.newaxis].astype(np.float32),
        "objects": np.array([None]),
        "none": np.zeros((0, 28, 28), np.uint8),
        "centred": image[np.newaxis] / 127.5 - 1,
        "first": image[np.newaxis, np.newaxis],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "torn.npy").write_bytes((folder / "single.npy").read_bytes()[:300])
    (folder / "text.npz").write_text("hello")
    np.savez(folder / "two.npz", a=image, b=image)
    (folder / "bad.py").write_text(
        "def nan(images):\n    return images[:, :10, 0, 0] / 0 * 0\ndef one(images):\n    return images[:, 0]\n"
    )
    np.savez(folder / "labels.npz", x=image[np.newaxis], y=np.array([10]))
    run = ["--run", str(reference_run())]
    return {
        "missing": (["nowhere", *run], "INPUT = 'nowhere': does not exist"),
        "empty folder": (["empty", *run], "INPUT = 'empty': holds no picture"),
        "another kind": (["notes.txt", *run], "INPUT = 'notes.txt': is not a picture"),
        "size": (["large", *run], "'large/00000.png': is 30x40x1, the run takes 28x28x1; add --resize"),
        "channels": (["colour", *run], "'colour/a.png': is 28x28x3, the run takes 28x28x1; add --resize"),
        "sub-folders": (["pets", *run], "has pictures in 1 sub-folders, the classifier has 10 classes"),
        "class index": (["eleven", *run], "sub-folder 11 is no class index (the classifier has classes 0 to 9)"),
        "mixed": (["mixed", *run], "has sub-folders, which name classes, and also z.png"),
        "single image": (["single.npy", *run], "has shape (28, 28), the run takes (n, 28, 28, 1); for a single"),
        "array shape": (["wide.npy", *run], "has shape (2, 32, 32, 3), the run takes (n, 28, 28, 1)"),
        "array resized": (["wide.npy", *run, "--resize"], "has shape (2, 32, 32, 3)"),
        "integers": (["integers.npy", *run], "is int64; it should be uint8 in 0..255 or floats in [0, 1]"),
        "nan": (["nan.npy", *run], "holds NaN or infinity"),
        "range": (["large_values.npy", *run], "to 255; divide by 255, or store uint8"),
        "centred": (["centred.npy", *run], "from -1 to 1; store (images + 1) / 2"),
        "channels first": (["first.npy", *run], "channels come first: store numpy.moveaxis(x, 1, -1)"),
        "no numbers": (["in", *run, "--target", "bad:nan"], "bad:nan answers with NaN or infinity"),
        "a map": (
            ["in", *run, "--target", "bad:one"],
            "(8 images are answered with shape (8, 28, 1), it should be (8, classes))",
        ),
        "objects": (["objects.npy", *run], "cannot be read (it holds objects, not numbers)"),
        "no images": (["none.npy", *run], "INPUT = 'none.npy': "),
        "torn": (["torn.npy", *run], "INPUT = 'torn.npy': cannot be read"),
        "no archive": (["text.npz", *run], "cannot be read (it is not an .npz file)"),
        "no key": (["two.npz", *run], "it holds a, b, and no array x or x_test"),
        "labels": (["labels.npz", *run], "array y has class 10 at index 0, the classifier has classes 0 to 9"),
        "no run": (["in", "--run", "empty"], "empty is not a run"),
        "set": (["in", *run, "--set", "seed=1"], "--set = 'seed=1': a run keeps its settings"),
        "target": (["in", *run, "--target", "nowhere.keras"], "nowhere.keras: no such file or folder; give a .keras"),
        "inside": (["in", *run, "--output", "in/out"], "--output = 'in/out': must not contain in or be inside it"),
        "around": (["in", *run, "--output", "."], "--output = '.': must not contain in or be inside it"),
        "file": (["in", *run, "--output", "notes.txt"], "--output = 'notes.txt': cannot be written"),
        "not ours": (["in", *run, "--output", "full"], "--output = 'full': is not empty and holds no attack.json"),
    }


def test_what_is_not_accepted_is_one_line_and_writes_nothing(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = bad_inputs(here, digits[0][0])
    before = contents(here)
    for name, (arguments, expected) in cases.items():
        code, out, err = call(capsys, *arguments, *([] if "--output" in arguments else ["--output", "out"]))
        assert (code, out) == (2, ""), name
        assert err.startswith("error: ") and err.count("\n") == 1 and expected in err, f"{name}: {err}"
        assert "advgan" not in err or "-m advgan" in err, err
    assert contents(here) == before and not (here / "out").exists()


def test_the_output_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        attack.main(["in"])
    assert stopped.value.code == 2 and "--output" in capsys.readouterr().err


def test_without_a_run_the_one_that_ships_is_taken(
    here: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(here / "in", digits[0][:2])
    code, out, _ = call(capsys, "in", "--output", "out")
    assert code == 0 and f"Run            {reference_run()}\n" in out
