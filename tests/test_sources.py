"""Data sets by name: Keras's, from a file or the network; TensorFlow Datasets; archives larger than memory may be."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import ValidationError

from advgan.config.settings import Config, DataSettings
from advgan.data import keras_datasets
from advgan.data.datasets import Split, StreamedSplit
from advgan.data.loading import load_dataset
from advgan.data.streams import FromDisk, FromMemory, batches_of
from advgan.errors import AdvGANError, ConfigurationError
from advgan.reports.image_grid import class_name
from advgan.run_folder import located

pytestmark = pytest.mark.addons
Arrays = dict[str, np.ndarray]


def arrays(count: int = 200, kind: type = np.uint8) -> Arrays:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count + 40, 10, 9, 3), np.uint8)
    images = images if kind is np.uint8 else (images / 255).astype(kind)
    labels = np.arange(count + 40) % 4
    return {"x_train": images[:count], "y_train": labels[:count], "x_test": images[count:], "y_test": labels[count:]}


def settings(dataset: object, **others: object) -> DataSettings:
    return DataSettings.model_validate({"dataset": str(dataset), **others})


# --- Keras's -----------------------------------------------------------------------------------------------------


def test_a_file_in_the_folder_of_kerass_data_sets_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    held = arrays()
    held["y_train"] = held["y_train"][:, np.newaxis]  # as Keras gives CIFAR's
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "cifar100.npz", **held)
    data = load_dataset(settings("cifar100"))
    assert (len(data.training), len(data.validation), len(data.test)) == (180, 20, 40)
    assert data.class_names is not None
    assert (len(data.class_names), data.number_of_classes) == (100, 100)
    assert (data.class_names[0], data.class_names[-1]) == ("apple", "worm")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "tfds:cmaterdb"])
def test_a_run_keeps_a_name_that_is_no_path(name: str) -> None:
    assert located(Config(data=settings(name))).data.dataset == name
    assert Path(located(Config(data=settings("pictures"))).data.dataset).is_absolute()


def test_other_arrays_than_those_of_the_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    file = tmp_path / "datasets" / "cifar10.npz"
    np.savez(file, **arrays())
    with pytest.raises(AdvGANError, match=r"these are not the arrays of cifar10 \(their SHA-256 differs\)"):
        load_dataset(settings("cifar10"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(AdvGANError, match=r"is not an \.npz file with x_train") as refusal:
        load_dataset(settings("cifar10"))
    assert "\n" not in str(refusal.value)


def test_without_a_network_the_file_is_named_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def fail() -> None:
        raise OSError("URL fetch failure on https://...:\nName or service not known")

    monkeypatch.setattr(keras_datasets.keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(ConfigurationError, match=r"cannot be downloaded .*; put its arrays as ") as refusal:
        load_dataset(settings("fashion_mnist"))
    assert str(tmp_path / "datasets" / "fashion_mnist.npz") in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- Archives ----------------------------------------------------------------------------------------------------


def test_the_keys_of_medmnist_are_taken_with_its_validation_images(tmp_path: Path) -> None:
    held = arrays()
    named = {
        "train_images": held["x_train"][:180],
        "train_labels": held["y_train"][:180, np.newaxis],
        "val_images": held["x_train"][180:],
        "val_labels": held["y_train"][180:, np.newaxis],
        "test_images": held["x_test"],
        "test_labels": held["y_test"][:, np.newaxis],
    }
    np.savez(tmp_path / "bloodmnist.npz", **named)
    data = load_dataset(settings(tmp_path / "bloodmnist.npz"))
    assert (len(data.training), len(data.validation), len(data.test)) == (180, 20, 40)
    assert (data.validation.images == held["x_train"][180:]).all()
    assert data.card.split == "its own validation images; its own test images; seed 0"


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_that_are_text_name_the_classes(tmp_path: Path, kind: str) -> None:
    held = arrays()
    names = np.array(["owl", "cat", "dog", "ant"], dtype=kind)
    np.savez(tmp_path / "a.npz", **{**held, "y_train": names[held["y_train"]], "y_test": names[held["y_test"]]})
    data = load_dataset(settings(tmp_path / "a.npz"))
    assert data.class_names == ("ant", "cat", "dog", "owl")
    assert data.test.labels.tolist() == np.array([3, 1, 2, 0])[held["y_test"]].tolist()


def test_names_that_are_given_stand_for_those_of_the_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    data = load_dataset(settings(tmp_path / "a.npz", class_names=["a", "b", "c", "d", "e"]))
    assert (data.class_names, data.number_of_classes) == (("a", "b", "c", "d", "e"), 5)
    assert data.classes_in_words == "5 classes; no training image of class 4; no test image of class 4"
    with pytest.raises(ConfigurationError, match="are 3 names, the data have labels 0 to 3"):
        load_dataset(settings(tmp_path / "a.npz", class_names=["a", "b", "c"]))


def test_names_that_pictures_could_not_show_are_shown(tmp_path: Path) -> None:
    figure = Figure()
    figure.suptitle(class_name(1, ["$5_$ off", "$x^$"]))
    FigureCanvasAgg(figure).draw()
    for names in (["no", ""], [False, True]):
        with pytest.raises(ValidationError, match="should be a list of different names"):
            settings(tmp_path, class_names=names)


def without_ending(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name.replace("x_train.npy", "x_train"), content)


def damaged_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'fortran_order'", b"'fortran_o(der'"))


def labels_of_bytes(path: Path) -> None:
    held = arrays()
    np.savez(path, **{**held, "y_train": np.full(200, b"\xff"), "y_test": np.full(40, b"a")})


@pytest.mark.parametrize("damage", [without_ending, damaged_header, labels_of_bytes])
def test_a_damaged_archive_is_named_in_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    damage(tmp_path / "a.npz")
    with pytest.raises(ConfigurationError, match=r"a\.npz") as refusal:
        load_dataset(settings(tmp_path / "a.npz"))
    assert "\n" not in str(refusal.value)


def test_a_tenth_validates_where_there_are_few_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(50))
    assert len(load_dataset(settings(tmp_path / "a.npz")).validation) == 5


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_an_archive_that_is_larger_than_memory_may_be_is_read_in_parts(tmp_path: Path, kind: type) -> None:
    held = arrays(kind=kind)
    np.savez(tmp_path / "a.npz", **held)
    small = 1.1 * held["x_test"].nbytes / 2**30
    streamed = load_dataset(settings(tmp_path / "a.npz", memory=small))
    whole = load_dataset(settings(tmp_path / "a.npz"))
    assert isinstance(streamed.training, StreamedSplit)
    assert streamed.card.streamed
    assert (streamed.training.loaded().images == whole.training.loaded().images).all()
    assert (streamed.test.images == whole.test.images).all()
    assert streamed.digest == whole.digest
    assert list(streamed.training.digests()) == list(whole.training.digests())
    np.savez(tmp_path / "a.npz", **{**held, "x_train": held["x_train"][::-1]})
    with pytest.raises(AdvGANError, match=r"a.npz has changed since the run began"):
        streamed.training.loaded()
    np.savez_compressed(tmp_path / "b.npz", **held)
    with pytest.raises(ConfigurationError, match=r"and is compressed: store it by numpy.savez") as refusal:
        load_dataset(settings(tmp_path / "b.npz", memory=small))
    assert "\n" not in str(refusal.value)


def test_images_that_become_larger_than_memory_may_be_are_resized_batch_by_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    size = {"image_size": [30, 30]}
    streamed = load_dataset(settings(tmp_path / "a.npz", memory=41 * 2700 / 2**30, **size))
    whole = load_dataset(settings(tmp_path / "a.npz", **size))
    assert (type(streamed.training), type(whole.training)) == (StreamedSplit, Split)
    assert (streamed.training.loaded().images == whole.training.loaded().images).all()


def test_images_that_are_scored_must_fit_into_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    with pytest.raises(ConfigurationError, match=r"data.validation_images = 20: these images take .* GiB"):
        load_dataset(settings(tmp_path / "a.npz", memory=1e-6))


def test_images_of_any_channels_are_resized(tmp_path: Path) -> None:
    """In each, a ramp stays the ramp."""
    ramp = np.linspace(0.2, 0.8, 16, dtype=np.float32)
    for channels, kind in ((1, np.uint8), (3, np.uint8), (4, np.uint8), (2, np.float32)):
        image = np.tile(ramp[:, np.newaxis, np.newaxis], (1, 12, channels))
        image = np.rint(image * 255).astype(np.uint8) if kind is np.uint8 else image
        held = arrays(20)
        held |= {"x_train": np.stack([image] * 20), "x_test": np.stack([image] * 40)}
        np.savez(tmp_path / "a.npz", **held)
        data = load_dataset(settings(tmp_path / "a.npz", image_size=[8, 10], validation_images=4))
        assert data.card.image_shape == (8, 10, channels)
        assert data.card.resized == f"from 16x12x{channels} by bicubic interpolation"
        made = data.test.images[0].astype(np.float64) / (255 if kind is np.uint8 else 1)
        expected = np.interp(np.arange(8) * 2 + 0.5, np.arange(16), ramp)
        np.testing.assert_allclose(made[1:-1], np.tile(expected[1:-1, None, None], (1, 10, channels)), atol=0.004)


# --- Batches -----------------------------------------------------------------------------------------------------


def test_batches_from_the_disk_are_those_from_memory_in_their_order(tmp_path: Path) -> None:
    held = arrays()
    np.savez(tmp_path / "a.npz", **held)
    streamed = load_dataset(settings(tmp_path / "a.npz", memory=1.1 * held["x_test"].nbytes / 2**30)).training
    disk, memory = batches_of(streamed), batches_of(streamed.loaded())
    assert isinstance(disk, FromDisk)
    assert isinstance(memory, FromMemory)
    order = np.random.default_rng(1).permutation(180).astype(np.int32).reshape(18, 10)
    disk.start(order)
    for first, count in ((0, 1), (1, 10), (11, 7)):
        some = order[first : first + count]
        images, labels = disk.take(some)
        for place in range(count):
            batch = disk.batch((tf.constant(images[place]), tf.constant(labels[place])))
            for here, there in zip(batch, memory.batch(tf.constant(some[place])), strict=True):
                np.testing.assert_array_equal(here, there)
    disk.start(order[5:])  # as a resumed epoch does
    np.testing.assert_array_equal(disk.take(order[5:6])[1], streamed.labels[order[5:6]])


def test_what_cannot_be_read_ends_a_training_with_its_own_message() -> None:
    class Broken:
        shape, dtype = (4, 4, 1), np.dtype(np.uint8)

        def read(self, places: np.ndarray) -> np.ndarray:
            if 7 in places:
                raise AdvGANError("cat/7.png has changed since the run began")
            return np.zeros((len(places), 4, 4, 1), np.uint8)

    broken = StreamedSplit(Broken(), np.arange(10), np.zeros(10, np.int32))  # type: ignore[arg-type]
    batches = batches_of(broken)
    order = np.arange(10, dtype=np.int32).reshape(5, 2)
    batches.start(order)
    batches.take(order[:3])
    with pytest.raises(AdvGANError, match=r"^cat/7.png has changed since the run began$"):
        batches.take(order[3:])


# --- TensorFlow Datasets -----------------------------------------------------------------------------------------


def test_a_data_set_of_tensorflow_datasets_is_taken_whole_or_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # which is read when it is imported
    tfds = pytest.importorskip("tensorflow_datasets")
    held, names = arrays(), ["ant", "cat", "dog", "owl"]
    tfds.dataset_builders.store_as_tfds_dataset(
        "animals",
        "1.0.0",
        data_dir=str(tmp_path),
        disable_shuffling=True,
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(10, 9, 3)), "label": tfds.features.ClassLabel(names=names)}
        ),
        split_datasets={
            part: tf.data.Dataset.from_tensor_slices({"image": held[f"x_{part}"], "label": held[f"y_{part}"]})
            for part in ("train", "test")
        },
    )
    whole = load_dataset(settings("tfds:animals"))
    assert whole.class_names == tuple(names)
    assert (whole.test.images == held["x_test"]).all()
    assert (whole.test.labels == held["y_test"]).all()
    streamed = load_dataset(settings("tfds:animals", memory=1.1 * held["x_test"].nbytes / 2**30))
    assert isinstance(streamed.training, StreamedSplit)
    assert (streamed.training.loaded().images == whole.training.loaded().images).all()
    assert streamed.digest == whole.digest
    with pytest.raises(ConfigurationError, match="cannot be loaded") as refusal:
        load_dataset(settings("tfds:no_such_set"))
    assert "\n" not in str(refusal.value)
