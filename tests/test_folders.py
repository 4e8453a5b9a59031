"""Folders of pictures as data sets: what is found, each refusal in one line with its file, streams that repeat."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgan.config.loading import parse_config
from advgan.config.settings import Config, DataSettings
from advgan.data import folders
from advgan.data.datasets import Dataset, StreamedSplit
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, ConfigurationError
from advgan.experiments.plan import check
from advgan.experiments.train import train
from advgan.records.summary import Summary
from advgan.run_folder import RunFolder

pytestmark = pytest.mark.addons
CLASSES = ("bird", "cat", "dog")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(number: int, height: int = 12, width: int = 14, channels: int = 3) -> np.ndarray:
    """Unlike every other; each class has a colour of its own."""
    values = np.random.default_rng(number).integers(0, 100, (height, width, channels), np.uint8)
    values[..., 0] += 70 * (number % 3)
    return values


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(path)


def fill(folder: Path, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        write(folder / CLASSES[number % 3] / f"{number:04d}.png", picture(number))


def load(folder: Path, **settings: object) -> Dataset:
    return load_dataset(DataSettings.model_validate({"dataset": str(folder), **settings}))


def refused(folder: Path, problem: str, **settings: object) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        load(folder, **settings)
    assert "\n" not in str(refusal.value)


def numbers(images: np.ndarray) -> list[int]:
    """Which of the first 400 pictures these are."""
    known = {picture(number).tobytes(): number for number in range(400)}
    return [known[image.tobytes()] for image in images]


def test_each_sub_folder_is_a_class_and_test_and_validation_images_are_drawn_from_each(tmp_path: Path) -> None:
    fill(tmp_path / "data", 300)
    data = load(tmp_path / "data")
    assert isinstance(data.training, StreamedSplit)
    assert data.class_names == CLASSES
    assert (len(data.test), len(data.validation), len(data.training)) == (30, 27, 243)
    found = [numbers(split.loaded().images) for split in (data.training, data.validation, data.test)]
    assert sorted(chain(*found)) == list(range(300))
    for split, images in zip((data.training, data.validation, data.test), found, strict=True):
        assert [number % 3 for number in images] == split.labels.tolist()
        assert np.ptp(np.bincount(split.labels)) == 0
    again = load(tmp_path / "data")
    assert numbers(again.training.loaded().images) == found[0] != sorted(found[0])
    assert numbers(load(tmp_path / "data", split_seed=1).test.images) != found[2]
    assert data.card.split.startswith("30 test images drawn by class from all; 27 validation images, drawn by class")


def test_parts_that_the_folder_has_are_kept(tmp_path: Path) -> None:
    fill(tmp_path / "data" / "train", 30)
    fill(tmp_path / "data" / "val", 6, 100)
    fill(tmp_path / "data" / "test", 9, 200)
    data = load(tmp_path / "data")
    assert sorted(numbers(data.training.loaded().images)) == list(range(30))
    assert sorted(numbers(data.validation.images)) == list(range(100, 106))
    assert sorted(numbers(data.test.images)) == list(range(200, 209))
    assert data.card.split == "its own validation images; its own test images, in a random order; seed 0"
    assert len(load(tmp_path / "data", validation_images=3).validation) == 3
    assert len(np.unique(load(tmp_path / "data", test_images=3).test.labels)) > 1
    assert data.validation.labels.tolist() != sorted(data.validation.labels)
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "Train")
    assert load(tmp_path / "data").digest != data.digest
    assert sorted(numbers(load(tmp_path / "data").training.loaded().images)) == list(range(30))
    shutil.rmtree(tmp_path / "data" / "val")
    assert (len(load(tmp_path / "data").validation), len(load(tmp_path / "data").training)) == (3, 27)


def test_the_last_images_validate_where_test_images_are_drawn_too(tmp_path: Path) -> None:
    fill(tmp_path / "data", 90)
    data = load(tmp_path / "data", validation_split="last")
    found = [numbers(split.loaded().images) for split in (data.training, data.validation, data.test)]
    assert sorted(chain(*found)) == list(range(90))
    assert data.card.split.endswith("the last of the training images; seed 0")


def test_other_files_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "data", 6)
    (tmp_path / "data" / "cat" / "scan.tif").touch()
    data = load(tmp_path / "data")
    assert data.card.kind == "a folder of 6 pictures (1 other files are left out)"
    assert (len(data.training), len(data.validation), len(data.test)) == (4, 1, 1)


def test_folders_that_are_numbers_are_class_indices(tmp_path: Path) -> None:
    for number in range(24):
        write(tmp_path / "data" / str(number % 12) / f"{number}.png", picture(number))
    data = load(tmp_path / "data", test_images=6, validation_images=6)
    assert data.class_names == tuple(map(str, range(12)))
    assert [number % 12 for number in numbers(data.test.images)] == data.test.labels.tolist()


def test_grey_pictures_join_coloured_ones(tmp_path: Path) -> None:
    fill(tmp_path / "data", 60)
    write(tmp_path / "data" / "cat" / "grey.png", picture(999, channels=1))
    data = load(tmp_path / "data")
    everything = np.concatenate([split.loaded().images for split in (data.training, data.validation, data.test)])
    assert everything.shape == (61, 12, 14, 3)
    assert (everything == np.repeat(picture(999, channels=1), 3, axis=2)).all((1, 2, 3)).sum() == 1


def test_pictures_are_resized_as_pillow_does(tmp_path: Path) -> None:
    fill(tmp_path / "data", 60)
    write(tmp_path / "data" / "cat" / "large.png", picture(60, 40, 30))
    refused(tmp_path / "data", r"cat/large.png is 40x30, bird/0000.png 12x14; set data.image_size, such as \[12, 14\]")
    data = load(tmp_path / "data", image_size=[10, 16])
    assert data.card.image_shape == (10, 16, 3)
    everything = np.concatenate([split.loaded().images for split in (data.training, data.validation, data.test)])
    wanted = np.asarray(Image.fromarray(picture(60, 40, 30)).resize((16, 10), Image.Resampling.BICUBIC))
    assert (everything == wanted).all((1, 2, 3)).sum() == 1


def no_picture(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def corrupt(folder: Path) -> None:
    content = (folder / "dog" / "0002.png").read_bytes()
    (folder / "dog" / "0002.png").write_bytes(content[:60])


def beside_the_classes(folder: Path) -> None:
    write(folder / "lost.png", picture(0))


def one_class(folder: Path) -> None:
    shutil.rmtree(folder / "cat")
    shutil.rmtree(folder / "dog")


def test_only_class(folder: Path) -> None:
    shutil.move(folder / "cat", folder / "train" / "cat")
    shutil.move(folder / "dog", folder / "train" / "dog")
    shutil.move(folder / "bird", folder / "test" / "bird")


test_only_class.__test__ = False  # type: ignore[attr-defined]


def two_validations(folder: Path) -> None:
    fill(folder / "train", 9)
    fill(folder / "val", 9)
    fill(folder / "valid", 9)


def a_class_beside_the_parts(folder: Path) -> None:
    fill(folder / "train", 9)


def no_training_part(folder: Path) -> None:
    for name in CLASSES:
        shutil.rmtree(folder / name)
    fill(folder / "test", 9)
    fill(folder / "val", 9)


def an_empty_part(folder: Path) -> None:
    for name in CLASSES:
        shutil.move(folder / name, folder / "train" / name)
    (folder / "val").mkdir()


def a_name_that_is_no_text(folder: Path) -> None:
    (folder / "cat" / "0001.png").rename(folder / "cat" / os.fsdecode(b"caf\xe9.png"))


def a_name_of_two_lines(folder: Path) -> None:
    (folder / "cat").rename(folder / "cat\nlion")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (no_picture, "holds no picture"),
        (corrupt, r"dog/0002\.png cannot be read"),
        (lambda folder: (folder / "empty").mkdir(), "class empty has no picture"),
        (beside_the_classes, r"lost\.png is in no class's sub-folder"),
        (one_class, "one class only"),
        (test_only_class, "class bird is in test/ and not in train/"),
        (two_validations, "has val and valid, which are both for validation images"),
        (a_class_beside_the_parts, "has train/ and also bird/"),
        (no_training_part, "has test and val, but no train"),
        (an_empty_part, "has no picture in val/"),
        (a_name_that_is_no_text, r"a name with a line break or letters that are not UTF-8"),
        (a_name_of_two_lines, r"a name with a line break or letters that are not UTF-8"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path: Path, damage: Callable[[Path], None], problem: str) -> None:
    fill(tmp_path / "data", 30)
    (tmp_path / "data" / "train").mkdir() if damage is test_only_class else None
    (tmp_path / "data" / "test").mkdir() if damage is test_only_class else None
    damage(tmp_path / "data")
    refused(tmp_path / "data", problem)


def test_a_second_look_reads_no_picture_but_those_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "data", 60)
    first = load(tmp_path / "data")
    read: list[str] = []
    decode = folders._decoded
    monkeypatch.setattr(folders, "_decoded", lambda content, name: (read.append(name), decode(content, name))[1])
    monkeypatch.setattr(folders.PictureReader, "read", lambda self, places: np.zeros((len(places), *self.shape)))
    assert load(tmp_path / "data").digest == first.digest
    assert not read
    write(tmp_path / "data" / "cat" / "0001.png", picture(399))
    assert load(tmp_path / "data").digest != first.digest
    assert read == ["cat/0001.png"]
    before = (tmp_path / "data" / "cat" / "0001.png").stat()
    other = (tmp_path / "data" / "cat" / "0001.png").read_bytes()[::-1]
    (tmp_path / "data" / "cat" / "0001.png").write_bytes(other)  # of its size, with its date
    os.utime(tmp_path / "data" / "cat" / "0001.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    refused(tmp_path / "data", r"cat/0001.png cannot be read")
    write(tmp_path / "data" / "cat" / "0001.png", picture(399))
    read.clear()
    [cache] = (tmp_path / "cache" / "advgan").iterdir()
    cache.write_text("damaged\n")
    load(tmp_path / "data")
    assert len(read) == 60


def test_a_picture_that_changes_under_a_run_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "data", 60)
    data = load(tmp_path / "data")
    everything = data.training
    place = numbers(everything.loaded().images)[0]
    changed = tmp_path / "data" / CLASSES[place % 3] / f"{place:04d}.png"
    write(changed, picture(399))
    with pytest.raises(AdvGANError, match=f"{changed.name} has changed since the run began"):
        everything.loaded()
    changed.unlink()
    with pytest.raises(AdvGANError, match=f"{changed.name} cannot be read any more"):
        everything.loaded()


def small_config(dataset: Path, output: Path, **training: object) -> Config:
    return parse_config(
        {
            "data": {"dataset": str(dataset), "validation_images": 12, "test_images": 12, "image_size": [12, 12]},
            "target": {"architecture": "lenet", "epochs": 2, "batch_size": 16, "check_accuracy": False},
            "generator": {"widths": [4, 8], "residual_blocks": 1},
            "training": {"epochs": 2, "batch_size": 16, **training},
            "output": {"directory": str(output), "checkpoint_every": 3},
        }
    )


def test_a_run_on_a_folder_comes_to_the_bits_of_one_on_the_same_images_in_memory(tmp_path: Path) -> None:
    """And its record says what it was trained on, in a form that sha256sum reads."""
    fill(tmp_path / "data", 120)
    streamed = check(small_config(tmp_path / "data", tmp_path / "runs"))
    training = streamed.dataset.training.loaded()
    np.savez(
        tmp_path / "images.npz",
        x_train=training.images,
        y_train=training.labels,
        x_val=streamed.dataset.validation.images,
        y_val=streamed.dataset.validation.labels,
        x_test=streamed.dataset.test.images,
        y_test=streamed.dataset.test.labels,
    )
    first = train(streamed, tmp_path / "runs" / "a")
    config = small_config(tmp_path / "images.npz", tmp_path / "runs")
    last = config.data.model_copy(update={"validation_split": "last"})  # which leaves the order as it is
    held = check(config.model_copy(update={"data": last}))
    second = train(held, tmp_path / "runs" / "b")
    assert first.generator_weights_sha256 == second.generator_weights_sha256
    assert first.target_weights_sha256 == second.target_weights_sha256
    assert first.test.success == second.test.success
    record = Summary.read(RunFolder(tmp_path / "runs" / "a").summary).data
    assert record is not None
    assert record.streamed
    assert record.class_names == CLASSES
    listing = RunFolder(tmp_path / "runs" / "a").pictures
    subprocess.run(["sha256sum", "--check", "--status", listing], cwd=tmp_path / "data", check=True)
    assert record.sha256 == hashlib.sha256(listing.read_bytes()).hexdigest()


def test_a_run_on_another_folder_than_it_was_started_with_is_refused_with_the_picture(tmp_path: Path) -> None:
    fill(tmp_path / "data", 60)
    config = small_config(tmp_path / "data", tmp_path / "runs")
    run = RunFolder(tmp_path / "runs" / "a")
    train(check(config), run.path)
    run.summary.unlink()
    for change, what in (
        (lambda: write(tmp_path / "data" / "cat" / "0001.png", picture(399)), "cat/0001.png is another"),
        (lambda: write(tmp_path / "data" / "bird" / "0000.jpg", picture(398)), "bird/0000.jpg is new"),
        (lambda: (tmp_path / "data" / "bird" / "0000.png").unlink(), "bird/0000.jpg is new"),
    ):
        change()
        with pytest.raises(AdvGANError, match=f"has changed since .* was started: {what}; start a new run"):
            train(check(config), run.path)
