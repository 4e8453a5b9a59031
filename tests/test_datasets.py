"""MNIST as it ships, archives of the user's own, each refusal in one line, and the order images are seen in."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advgan.config.settings import DataSettings
from advgan.data import sources
from advgan.data.batches import epoch_batches, epoch_order, slices, steps_per_epoch
from advgan.data.datasets import Dataset, scaled
from advgan.data.loading import load_dataset
from advgan.errors import AdvGANError, ConfigurationError

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_dataset(DataSettings())


def test_mnist_ships_whole(mnist: Dataset) -> None:
    assert mnist.training.images.shape == (55_000, 28, 28, 1)
    assert mnist.validation.images.shape == (5_000, 28, 28, 1)
    assert mnist.test.images.shape == (10_000, 28, 28, 1)
    assert mnist.image_shape == (28, 28, 1)
    assert mnist.number_of_classes == 10
    for split in (mnist.training, mnist.validation, mnist.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.labels.shape == (len(split),) == (len(split.images),)


def test_mnist_is_the_known_mnist(mnist: Dataset) -> None:
    labels = np.concatenate([mnist.training.labels, mnist.validation.labels])
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.training.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = np.concatenate([mnist.training.images, mnist.validation.images])
    assert pixels.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert (pixels.min(), pixels.max()) == (0, 255)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_byte, cut_in_half, Path.unlink], ids=["flipped", "cut", "missing"])
def test_a_damaged_mnist_is_refused_in_one_line(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mnist.npz"
    shutil.copy(sources.MNIST_FILE, copy)
    monkeypatch.setattr(sources, "MNIST_FILE", copy)
    assert load_dataset(DataSettings(training_images=1, test_images=1)).number_of_classes == 10
    damage(copy)
    with pytest.raises(AdvGANError, match=r"missing or damaged.*install the package again") as refusal:
        load_dataset(DataSettings())
    assert str(copy) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def archive(path: Path, arrays: Arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def numbered_arrays(training: int = 20, test: int = 6) -> Arrays:
    """Every image holds its own number, so that one can be told from another."""
    return {
        "x_train": np.arange(training, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 9, 1), np.uint8),
        "y_train": np.arange(training) % 4,
        "x_test": (100 + np.arange(test, dtype=np.uint8))[:, None, None, None] * np.ones((1, 8, 9, 1), np.uint8),
        "y_test": np.arange(test) % 3,
    }


@pytest.mark.parametrize("validation", [1, 5, 19])
def test_validation_images_are_the_last_of_the_training_set_and_no_others(tmp_path: Path, validation: int) -> None:
    name = archive(tmp_path / "own.npz", numbered_arrays())
    dataset = load_dataset(DataSettings(dataset=name, validation_images=validation, validation_split="last"))
    assert dataset.training.images[:, 0, 0, 0].tolist() == list(range(20 - validation))
    assert dataset.validation.images[:, 0, 0, 0].tolist() == list(range(20 - validation, 20))
    assert dataset.test.images[:, 0, 0, 0].tolist() == list(range(100, 106))
    assert dataset.training.labels.tolist() == [i % 4 for i in range(20 - validation)]
    assert dataset.validation.labels.tolist() == [i % 4 for i in range(20 - validation, 20)]


def test_limits_take_the_first_images_and_leave_the_validation_images_alone(tmp_path: Path) -> None:
    name = archive(tmp_path / "own.npz", numbered_arrays())
    dataset = load_dataset(
        DataSettings(dataset=name, validation_images=5, validation_split="last", training_images=7, test_images=2)
    )
    assert dataset.training.images[:, 0, 0, 0].tolist() == list(range(7))
    assert dataset.validation.images[:, 0, 0, 0].tolist() == list(range(15, 20))
    assert dataset.test.images[:, 0, 0, 0].tolist() == [100, 101]
    assert len(dataset.training) == len(dataset.training.labels) == 7
    assert dataset.number_of_classes == 4


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"training_images": 16}, r"data.training_images = 16: .*allowed: 1 to 15"),
        ({"test_images": 7}, r"data.test_images = 7: .*allowed: 1 to 6"),
        ({"validation_images": 20}, r"data.validation_images = 20: .*20 images"),
        ({"validation_images": 21}, r"data.validation_images = 21: .*20 images"),
    ],
)
def test_more_images_than_there_are_is_refused(tmp_path: Path, settings: dict[str, int], problem: str) -> None:
    name = archive(tmp_path / "own.npz", numbered_arrays())
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        load_dataset(DataSettings(**{"dataset": name, "validation_images": 5, **settings}))
    assert "\n" not in str(refusal.value)


def test_all_images_may_be_asked_for(tmp_path: Path) -> None:
    name = archive(tmp_path / "own.npz", numbered_arrays())
    dataset = load_dataset(DataSettings(dataset=name, validation_images=5, training_images=15, test_images=6))
    assert (len(dataset.training), len(dataset.test)) == (15, 6)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3)], ids=["no channel", "grey", "RGB"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_archives_of_the_users_own(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    levels = {part: random.integers(256, size=(count, *shape)) for part, count in (("train", 20), ("test", 6))}
    stored = {f"x_{part}": (x if dtype == np.uint8 else x / 255).astype(dtype) for part, x in levels.items()}
    arrays = {**numbered_arrays(), **stored}
    name = archive(tmp_path / "own.npz", arrays)
    dataset = load_dataset(DataSettings(dataset=name, validation_images=5, validation_split="last"))
    assert dataset.image_shape == (8, 9, shape[2] if len(shape) == 3 else 1)
    assert dataset.training.images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    everything = np.concatenate([scaled(dataset.training.images), scaled(dataset.validation.images)])
    assert everything.dtype == np.float32
    tolerance = 1e-3 if dtype == np.float16 else 1e-7
    np.testing.assert_allclose(everything.reshape(20, *shape), levels["train"] / 255, atol=tolerance)
    np.testing.assert_allclose(scaled(dataset.test.images).reshape(6, *shape), levels["test"] / 255, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_labels_of_any_integer_type_flat_or_in_a_column(tmp_path: Path, dtype: type) -> None:
    arrays = numbered_arrays()
    arrays["y_train"], arrays["y_test"] = arrays["y_train"].astype(dtype), arrays["y_test"].astype(dtype)[:, None]
    name = archive(tmp_path / "own.npz", arrays)
    dataset = load_dataset(DataSettings(dataset=name, validation_images=5, validation_split="last"))
    assert dataset.training.labels.dtype == dataset.test.labels.dtype == np.int32
    assert dataset.training.labels.tolist() == [i % 4 for i in range(15)]
    assert dataset.test.labels.tolist() == [i % 3 for i in range(6)]


def test_classes_are_counted_over_training_and_test_labels(tmp_path: Path) -> None:
    arrays = numbered_arrays()
    arrays["y_test"] = np.array([0, 1, 2, 3, 4, 6])
    name = archive(tmp_path / "own.npz", arrays)
    assert load_dataset(DataSettings(dataset=name, validation_images=5, test_images=1)).number_of_classes == 7


def test_the_digest_covers_pixels_and_labels(tmp_path: Path) -> None:
    def digest(key: str | None = None) -> str:
        arrays = numbered_arrays()
        if key:
            arrays[key][-1] = 1
        path = tmp_path / f"{key}.npz"
        return load_dataset(DataSettings(dataset=archive(path, arrays), validation_images=5)).digest

    assert len({digest(), digest("x_train"), digest("y_train"), digest("x_test"), digest("y_test")}) == 5


def without(key: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        del arrays[key]

    return change


def replacing(key: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key] = value(arrays[key])

    return change


def as_floats(arrays: Arrays, key: str, worst: float) -> None:
    for name in ("x_train", "x_test"):
        arrays[name] = arrays[name] / 255
    arrays[key][-1, 3, 3, 0] = worst


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            without("x_test"),
            r"lacks x_test \(it holds x_train, y_train, y_test\); it should hold x_train,",
        ),
        (without("y_train"), "lacks y_train"),
        (replacing("x_train", lambda x: x.astype(np.int64)), "x_train is int64"),
        (replacing("x_test", lambda x: x.astype(bool)), "x_test is bool"),
        (replacing("x_train", lambda x: x.astype(str)), "x_train is <U"),
        (replacing("x_train", lambda x: x.astype(np.complex64)), "x_train is complex64"),
        (replacing("x_train", lambda x: x.astype(np.float32)), r"values .* from 0 to 19; divide by 255"),
        (
            replacing("x_train", lambda x: x / 9.5 - 1),
            r"values .* from -1 to 1; store \(images \+ 1\) / 2",
        ),
        (
            replacing("x_train", lambda x: (x / 1 - 9) / 5),
            r"values .* from -1\.8 to 2; store the pixels as",
        ),
        (
            replacing("x_train", lambda x: np.moveaxis(x, -1, 1)),
            r"has shape \(20, 1, 8, 9\): channels come first",
        ),
        (lambda arrays: as_floats(arrays, "x_train", 1.001), r"x_train holds values outside \[0, 1\]"),
        (lambda arrays: as_floats(arrays, "x_test", -0.001), r"x_test holds values outside \[0, 1\]"),
        (lambda arrays: as_floats(arrays, "x_train", np.nan), "x_train holds NaN or infinity"),
        (lambda arrays: as_floats(arrays, "x_test", np.inf), "x_test holds NaN or infinity"),
        (replacing("x_test", lambda x: x / 255), "x_test is float32, x_train uint8"),
        (replacing("x_train", lambda x: x[:0]), "x_train is empty"),
        (replacing("x_test", lambda x: x[:0]), "x_test is empty"),
        (replacing("x_train", lambda x: x.reshape(20, -1)), r"x_train has shape \(20, 72\)"),
        (replacing("x_test", lambda x: x[..., None]), r"x_test has shape \(6, 8, 9, 1, 1\)"),
        (replacing("x_test", lambda x: x[:, :7]), r"x_test has images of \(7, 9, 1\), x_train of \(8, 9, 1\)"),
        (replacing("y_train", lambda y: y[:-1]), "y_train has 19 labels for 20 images"),
        (replacing("y_test", lambda y: np.append(y, 0)), "y_test has 7 labels for 6 images"),
        (replacing("y_test", lambda y: y[:0]), "y_test is empty"),
        (
            replacing("y_train", lambda y: y - 1),
            "y_train has class -1 at index 0; it should hold class indices",
        ),
        (replacing("y_train", lambda y: y.astype(np.float32)), r"y_train is float32; .*: store labels.astype\(int\)"),
        (
            replacing("y_train", lambda y: np.eye(4, dtype=int)[y]),
            r"one-hot rows; .* store labels.argmax\(axis=1\)",
        ),
        (
            replacing("y_train", lambda y: y.astype(str)),
            r"holds text; .* number the classes of y_train and",
        ),
        (replacing("y_train", lambda y: y.reshape(4, 5)), r"y_train has shape \(4, 5\)"),
        (replacing("y_test", lambda y: y + 2**32), "y_test has class 4294967298 at index 2; the most is 99,999"),
        (replacing("x_train", lambda x: x.astype(object)), "is not a readable .npz file"),
        (replacing("y_test", lambda y: y.astype(object)), "is not a readable .npz file"),
    ],
)
def test_an_archive_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Arrays], None], problem: str
) -> None:
    arrays = numbered_arrays()
    change(arrays)
    refused(Path(archive(tmp_path / "own.npz", arrays)), problem)


@pytest.mark.parametrize(
    ("key", "index", "label"),
    [("y_test", 3, 255), ("y_train", 17, 255), ("y_train", 0, 99_999), ("y_test", 5, 8), ("y_train", 9, 6)],
)
def test_a_stray_label_is_refused_with_its_place(tmp_path: Path, key: str, index: int, label: int) -> None:
    arrays = numbered_arrays(100, 6)  # classes 0 to 3
    arrays[key][index] = label
    refused(
        Path(archive(tmp_path / "own.npz", arrays)),
        f"{key} has class {label} at index {index}, above a gap: the others are up to 3",
    )


def test_a_few_images_of_many_classes_are_no_stray_labels(tmp_path: Path) -> None:
    for seed in range(20):
        arrays = numbered_arrays(240)
        arrays["y_train"] = np.random.default_rng(seed).integers(0, 1000, 240)
        load_dataset(DataSettings(dataset=archive(tmp_path / "own.npz", arrays), validation_images=5))


@pytest.mark.parametrize(("above", "stray"), [([50], True), ([50, 51], False), ([51, 51], False)])
def test_more_than_one_label_in_a_hundred_above_a_gap_is_no_mistake(
    tmp_path: Path, above: list[int], stray: bool
) -> None:
    arrays = numbered_arrays(94, 6)  # a hundred labels
    arrays["y_train"][: len(above)] = above
    path = Path(archive(tmp_path / "own.npz", arrays))
    if stray:
        refused(path, "y_train has class 50 at index 0, above a gap: the others are up to 3")
    else:
        assert load_dataset(DataSettings(dataset=str(path), validation_images=5)).number_of_classes == 52


def test_gaps_between_classes_are_shown_and_no_mistake(tmp_path: Path) -> None:
    arrays = numbered_arrays()
    arrays["y_train"], arrays["y_test"] = 1 + 2 * arrays["y_train"], np.full(6, 9)
    settings = DataSettings(dataset=archive(tmp_path / "own.npz", arrays), validation_images=5)
    assert load_dataset(settings).classes_in_words == (
        "10 classes; no training image of class 0, 2, 4, 6, 8 and 1 more; "
        "no test image of class 0, 1, 2, 3, 4 and 4 more"
    )
    assert load_dataset(DataSettings()).classes_in_words == "10 classes"


def test_a_rounding_error_beyond_the_pixel_range_is_none(tmp_path: Path) -> None:
    arrays = numbered_arrays()
    for key in ("x_train", "x_test"):
        arrays[key] = (arrays[key] / arrays[key].max()).astype(np.float32) * np.float32(1.0000002)
    assert arrays["x_train"].max() > 1
    name = archive(tmp_path / "own.npz", arrays)
    dataset = load_dataset(DataSettings(dataset=name, validation_images=5))
    assert dataset.training.images.max() <= 1 and dataset.test.images.max() == 1


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_validation_images_of_ones_own_data_are_drawn_by_class(tmp_path: Path, sorted_by_class: bool) -> None:
    arrays = numbered_arrays(200)
    arrays["y_train"] = np.repeat([0, 1, 2, 3], [100, 60, 30, 10])
    if not sorted_by_class:
        arrays["y_train"] = np.random.default_rng(0).permutation(arrays["y_train"])
    name = archive(tmp_path / "own.npz", arrays)

    def split(**settings: int) -> Dataset:
        return load_dataset(DataSettings(dataset=name, validation_images=40, **settings))

    first = split()
    assert np.bincount(first.validation.labels).tolist() == [20, 12, 6, 2]  # a fifth of each class
    numbers = [images[:, 0, 0, 0].tolist() for images in (first.training.images, first.validation.images)]
    assert sorted(numbers[0] + numbers[1]) == list(range(200))
    assert first.training.labels.tolist() == arrays["y_train"][numbers[0]].tolist()
    assert first.validation.labels.tolist() == arrays["y_train"][numbers[1]].tolist()
    np.testing.assert_array_equal(split().validation.images, first.validation.images)
    assert sorted(split(split_seed=1).validation.images[:, 0, 0, 0].tolist()) != sorted(numbers[1])  # others
    few = split(training_images=40).training  # the first ones of a random order, so every class is among them
    assert few.images[:, 0, 0, 0].tolist() == numbers[0][:40]
    assert set(few.labels.tolist()) >= {0, 1, 2}


def test_the_images_a_black_box_was_trained_on_stay_first_and_do_not_validate(tmp_path: Path) -> None:
    name = archive(tmp_path / "own.npz", numbered_arrays(60))
    dataset = load_dataset(DataSettings(dataset=name, validation_images=20), first_apart=30)
    assert dataset.training.images[:30, 0, 0, 0].tolist() == list(range(30))
    assert sorted(dataset.training.images[30:, 0, 0, 0].tolist() + dataset.validation.images[:, 0, 0, 0].tolist()) == (
        list(range(30, 60))
    )
    assert np.bincount(dataset.validation.labels).tolist() == [5, 5, 5, 5]


def test_a_class_of_one_image_stays_with_the_training_images(tmp_path: Path) -> None:
    arrays = numbered_arrays()
    arrays["y_train"] = np.array([0] * 10 + [1] * 9 + [2])
    dataset = load_dataset(DataSettings(dataset=archive(tmp_path / "own.npz", arrays), validation_images=4))
    assert np.bincount(dataset.training.labels).tolist() == [8, 7, 1]


def test_the_seed_of_a_split_that_is_not_drawn_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"data.split_seed = 1: is for data.validation_split: by_class"):
        DataSettings(split_seed=1)


def refused(path: Path, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        load_dataset(DataSettings(dataset=str(path), validation_images=5))
    assert refusal.value.key == "data.dataset"
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def write_text(path: Path) -> None:
    path.write_text("these are not the images you are looking for\n" * 20)


def write_one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 8, 8, 1), np.uint8))


def write_cut(path: Path) -> None:
    np.savez(path, **numbered_arrays())
    cut_in_half(path)


def write_damaged(path: Path) -> None:
    np.savez(path, **numbered_arrays())
    flip_a_byte(path)


def write_damaged_compressed(path: Path) -> None:
    """The start of the compressed x_train is overwritten; the zip's own tables are whole."""
    np.savez_compressed(path, **numbered_arrays())
    with zipfile.ZipFile(path) as content:
        information = content.getinfo("x_train.npy")
    with path.open("r+b") as file:
        file.seek(information.header_offset + 28)
        extra = int.from_bytes(file.read(2), "little")
        file.seek(information.header_offset + 30 + len("x_train.npy") + extra)
        file.write(b"\xff" * 16)


def write_zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as content:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            content.writestr(f"{key}.npy", "not an array")


@pytest.mark.parametrize(
    "write",
    [write_text, Path.touch, write_one_array, write_cut, write_damaged, write_damaged_compressed, write_zip_of_text],
    ids=["text", "empty", "one array", "cut", "damaged", "damaged, compressed", "zip of text"],
)
def test_a_file_that_is_no_archive_of_arrays_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "own.npz"
    write(path)
    refused(path, "data.dataset")


def test_a_pickle_in_an_archive_is_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (witness,)

    arrays = {**numbered_arrays(), "y_train": np.array([Trap()] * 20, object)}
    refused(Path(archive(tmp_path / "own.npz", arrays)), "it holds objects, not numbers")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["nothing.npz", "."])
def test_a_file_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "is not there; it should be mnist, fashion_mnist|holds no picture")


def test_scaled_maps_bytes_onto_the_unit_interval() -> None:
    levels = np.arange(256, dtype=np.uint8)
    result = scaled(levels)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, (np.arange(256) / 255).astype(np.float32))
    np.testing.assert_array_equal(scaled(result), result)
    assert levels.dtype == np.uint8 and levels[-1] == 255


@pytest.mark.parametrize("count", [1, 2, 1000, 55_000])
def test_an_epochs_order_is_a_permutation(count: int) -> None:
    order = epoch_order(count, seed=3, epoch=2)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    pairs = [(seed, epoch) for seed in (0, 1, 2, 2**40) for epoch in (0, 1, 2)]
    orders = {pair: epoch_order(1000, *pair).tobytes() for pair in pairs}
    np.random.default_rng().random()  # numbers drawn elsewhere change nothing
    np.random.seed(1)
    assert all(epoch_order(1000, *pair).tobytes() == order for pair, order in orders.items())
    assert len(set(orders.values())) == len(pairs)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (9, 3), (1, 500), (500, 500), (501, 500), (7, 1)])
def test_slices_cover_everything_once_and_in_order(count: int, batch_size: int) -> None:
    parts = [np.arange(count)[part] for part in slices(count, batch_size)]
    assert np.concatenate(parts).tolist() == list(range(count))
    assert all(len(part) == batch_size for part in parts[:-1])
    assert 1 <= len(parts[-1]) <= batch_size
    assert list(slices(0, batch_size)) == []


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(55_000, 128, 429), (128, 128, 1), (127, 128, 0)])
def test_an_epoch_has_full_batches_only(count: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(count, batch_size) == steps
    batches = epoch_batches(count, batch_size, seed=3, epoch=2)
    assert batches.shape == (steps, batch_size)
    np.testing.assert_array_equal(batches.ravel(), epoch_order(count, seed=3, epoch=2)[: steps * batch_size])
