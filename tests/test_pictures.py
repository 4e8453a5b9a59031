"""Picture files: which are found, what each kind is decoded to, how they are fitted to a run, names of the output."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from advgan.data.pictures import (
    PictureError,
    UnlikeRunError,
    find_pictures,
    output_names,
    read_fitted,
    read_picture,
    write_png,
)

HEIGHT, WIDTH = 6, 9
GREY = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
COLOUR = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
SMOOTH = np.add.outer(np.arange(16) * 6, np.arange(16) * 5).astype(np.uint8)
ALPHA = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def on_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The definition in floats."""
    return np.rint(pixels * (alpha[..., np.newaxis] / 255)).astype(np.uint8)


# --- What each kind is decoded to --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.PNG"])
def test_grey_and_colour_without_loss(tmp_path: Path, name: str) -> None:
    kind = name[2:].upper()
    assert np.array_equal(read_picture(saved(tmp_path, name, Image.fromarray(GREY), format=kind)), GREY[..., None])
    assert np.array_equal(read_picture(saved(tmp_path, name, Image.fromarray(COLOUR), format=kind)), COLOUR)


def test_webp(tmp_path: Path) -> None:
    if not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = saved(tmp_path, "a.webp", Image.fromarray(COLOUR), lossless=True)
    assert np.array_equal(read_picture(path), COLOUR)


def test_jpeg(tmp_path: Path) -> None:
    grey = read_picture(saved(tmp_path, "a.jpg", Image.fromarray(SMOOTH), quality=95))
    assert grey.shape == (16, 16, 1) and np.abs(grey[..., 0].astype(int) - SMOOTH).max() <= 3
    colour = read_picture(saved(tmp_path, "b.jpeg", Image.fromarray(np.stack([SMOOTH] * 3, axis=-1)), quality=95))
    assert colour.shape == (16, 16, 3) and np.abs(colour[..., 1].astype(int) - SMOOTH).max() <= 3
    ink = read_picture(saved(tmp_path, "c.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95))
    assert ink.shape == (16, 16, 3) and np.abs(ink.astype(int) - [255, 0, 0]).max() <= 4


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    decoded = read_picture(saved(tmp_path, "a.png", Image.fromarray(bits)))
    assert np.array_equal(decoded, np.where(bits, 255, 0)[..., None])


def test_16_bit_grey_is_scaled_to_the_nearest_of_256_levels(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = read_picture(saved(tmp_path, "a.png", Image.fromarray(values)))
    assert np.array_equal(decoded[..., 0], np.rint(values / 65535 * 255))


@pytest.mark.parametrize("pixels", [GREY[..., None], COLOUR], ids=["grey", "colour"])
def test_alpha_is_dropped_where_opaque_and_otherwise_composed_onto_black(tmp_path: Path, pixels: np.ndarray) -> None:
    for alpha in (np.full_like(ALPHA, 255), ALPHA):
        with_alpha = Image.fromarray(np.concatenate([pixels, alpha[..., None]], axis=-1))
        assert with_alpha.mode in ("LA", "RGBA")
        assert np.array_equal(read_picture(saved(tmp_path, "a.png", with_alpha)), on_black(pixels, alpha))


def palette_picture() -> tuple[Image.Image, np.ndarray]:
    colours = np.array([[255, 0, 0], [0, 200, 10], [7, 8, 9], [250, 250, 250]], np.uint8)
    indices = GREY % 4
    image = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
    image.putpalette(colours.tobytes())
    return image, colours[indices]


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_a_palette_becomes_rgb(tmp_path: Path, name: str) -> None:
    image, pixels = palette_picture()
    assert np.array_equal(read_picture(saved(tmp_path, name, image)), pixels)


def test_a_transparent_colour_of_a_palette_becomes_black(tmp_path: Path) -> None:
    image, pixels = palette_picture()
    decoded = read_picture(saved(tmp_path, "a.png", image, transparency=1))
    assert np.array_equal(decoded, np.where(GREY[..., None] % 4 == 1, 0, pixels))


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    image, pixels = palette_picture()
    path = saved(tmp_path, "a.gif", image, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), "blue")])
    with Image.open(path) as animation:
        assert animation.n_frames == 2
    assert np.array_equal(read_picture(path), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a))],
)
def test_the_rotation_that_a_camera_noted_is_applied(tmp_path: Path, name: str, orientation: int, upright) -> None:
    pixels = np.repeat(np.repeat(np.array([[0, 250], [90, 160], [40, 220]], np.uint8), 16, axis=0), 16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read_picture(saved(tmp_path, name, Image.fromarray(pixels), exif=exif, **{"quality": 100}))
    assert decoded.shape == (*upright(pixels).shape, 1)
    assert np.abs(decoded[..., 0].astype(int) - upright(pixels)).max() <= 3


def damaged() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(buffer, format="PNG")
    whole = buffer.getvalue()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = whole[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]
    return {"truncated": whole[:600], "text": b"hello", "empty": b"", "bomb": bomb, "header only": whole[:33]}


@pytest.mark.parametrize("kind", list(damaged()))
def test_a_damaged_picture_is_a_one_line_problem(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(damaged()[kind])
    with pytest.raises(PictureError, match=r"^cannot be read") as raised:
        read_picture(tmp_path / "a.png")
    assert "\n" not in str(raised.value)


def test_only_the_five_kinds_are_decoded(tmp_path: Path) -> None:
    saved(tmp_path, "a.tiff", Image.fromarray(GREY)).rename(tmp_path / "a.png")
    with pytest.raises(PictureError, match="none of PNG, JPEG, BMP, WEBP, GIF"):
        read_picture(tmp_path / "a.png")


# --- Fitted to a run ---------------------------------------------------------------------------------------------


def test_grey_becomes_rgb_by_repetition_and_equal_channels_become_grey(tmp_path: Path) -> None:
    grey = saved(tmp_path, "a.png", Image.fromarray(GREY))
    three = saved(tmp_path, "b.png", Image.fromarray(np.stack([GREY] * 3, axis=-1)))
    assert np.array_equal(read_fitted(grey, (HEIGHT, WIDTH, 3), False), np.stack([GREY] * 3, axis=-1))
    assert np.array_equal(read_fitted(three, (HEIGHT, WIDTH, 1), False), GREY[..., None])


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_picture_with_one_channel_unlike_the_others_is_coloured(tmp_path: Path, channel: int) -> None:
    almost = np.stack([GREY] * 3, axis=-1)
    almost[2, 3, channel] ^= 1
    with pytest.raises(UnlikeRunError, match="is 6x9x3, the run takes 6x9x1"):
        read_fitted(saved(tmp_path, "a.png", Image.fromarray(almost)), (HEIGHT, WIDTH, 1), False)


def test_other_shapes_are_invalid_and_the_line_has_both_and_converted_with_resize(tmp_path: Path) -> None:
    colour = saved(tmp_path, "a.png", Image.fromarray(COLOUR))
    with pytest.raises(UnlikeRunError, match="is 6x9x3, the run takes 6x9x1; add --resize"):
        read_fitted(colour, (HEIGHT, WIDTH, 1), False)
    with pytest.raises(UnlikeRunError, match="is 6x9x3, the run takes 28x28x1; add --resize"):
        read_fitted(colour, (28, 28, 1), False)
    luma = COLOUR @ [0.299, 0.587, 0.114]
    assert np.abs(read_fitted(colour, (HEIGHT, WIDTH, 1), True)[..., 0] - luma).max() <= 1
    resized = Image.fromarray(COLOUR).resize((5, 4), Image.Resampling.BICUBIC)
    assert np.array_equal(read_fitted(colour, (4, 5, 3), True), np.asarray(resized))
    assert read_fitted(colour, (28, 28, 1), True).shape == (28, 28, 1)


def test_a_rotated_picture_is_compared_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, "a.jpg", Image.fromarray(GREY), exif=exif)
    assert read_fitted(path, (WIDTH, HEIGHT, 1), False).shape == (WIDTH, HEIGHT, 1)
    with pytest.raises(UnlikeRunError, match="is 9x6x1, the run takes 6x9x1"):
        read_fitted(path, (HEIGHT, WIDTH, 1), False)


@pytest.mark.parametrize("picture", [GREY[..., None], COLOUR], ids=["grey", "colour"])
def test_a_png_loses_nothing(tmp_path: Path, picture: np.ndarray) -> None:
    write_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)
    assert np.array_equal(read_picture(tmp_path / "a.png"), picture)


# --- Found, and named --------------------------------------------------------------------------------------------


def test_pictures_are_found_in_order_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.gif", "notes.txt", ".hidden.png", ".cache/x.png", "b/c/d.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert find_pictures(tmp_path) == (["a.gif", "b/1.jpg", "b/2.PNG", "b/c/d.webp"], 1)


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["a.jpg", "b.png"], ["a.png", "b.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.bmp", "a.jpg"], ["a.bmp.png", "a.jpg.png"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png.png", "a.jpg.png", "a.png"]),
        (["A.PNG", "a.png"], ["A.png", "a.png.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"]),
        (["attack.jpg", "attack.png"], ["attack.jpg.png", "attack.png.png"]),
        (["a.b.jpg"], ["a.b.png"]),
    ],
)
def test_names_of_the_output_never_collide(names: list[str], outputs: list[str]) -> None:
    assert output_names(names, reserved=("attack.png",)) == outputs
