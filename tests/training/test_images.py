"""Pictures as pixels: one set of rules for a dataset's and a request's, and what is drawn of chance."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from infra.errors import WrongInput
from training.examples import images
from training.images import (
    ImageFile,
    augment,
    read_image,
    table_arrays,
    table_images,
    to_pixels,
    to_tensor,
    write_images,
)
from training.picture_grid import png_grid
from training.randomness import SampleKeys


def keys(count: int, epoch: int = 0) -> SampleKeys:
    return SampleKeys.of(3, np.full(count, epoch), np.arange(count))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    body = io.BytesIO()
    image.save(body, kind)
    return body.getvalue()


def column(*pictures: Image.Image) -> pa.Table:
    """As a dataset version holds them."""
    return pa.table(
        {
            "image": pa.array([picture.tobytes() for picture in pictures], pa.large_binary()),
            "image_width": [picture.width for picture in pictures],
            "image_height": [picture.height for picture in pictures],
            "image_mode": [picture.mode for picture in pictures],
        }
    )


def test_what_is_written_is_read_back_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    for name in ("one", "two"):
        write_images(tmp_path / name, pixels, {"row_id": list("abcde")})
    file = ImageFile.open(tmp_path / "one")
    assert len(file) == 5 and (file.array == pixels).all()
    assert (file.pixels(np.array([4, 0])) == pixels[[4, 0]]).all() and file.row_ids(np.array([4, 0])) == ["e", "a"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    write_images(tmp_path / "none", pixels[:0], {"row_id": pa.array([], pa.string())})
    assert ImageFile.open(tmp_path / "none").array.shape == (0, 4, 4, 3)


def test_pixels_survive_the_way_to_a_tensor_and_back() -> None:
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint16).astype(np.uint8).reshape(2, 8, 8, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 8, 8) and tensor.min() >= -1 and tensor.max() <= 1
    assert (to_pixels(tensor) == pixels).all()
    assert (to_pixels(torch.tensor([[[[-3.0, 3.0]]]])) == [[[[0], [255]]]]).all()


CLEAR = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
DEEP = Image.fromarray(np.full((8, 8), 0x8080, np.uint16))
PALETTE = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
TALL = Image.new("RGB", (4, 8), (10, 200, 30))


@pytest.mark.parametrize(
    ("picture", "channels", "expected"),
    [
        (CLEAR, 3, (255, 255, 255)),  # white shows
        (CLEAR, 1, (255,)),
        (DEEP, 1, (0x80,)),  # scaled, not cut off at 255
        (PALETTE, 3, (10, 200, 30)),
        (TALL, 3, (10, 200, 30)),
        (Image.new("L", (8, 8), 77), 3, (77, 77, 77)),
        (Image.new("RGB", (8, 8), (255, 0, 0)), 1, (76,)),  # luma
        (Image.new("1", (8, 8), 1), 1, (255,)),
        (Image.new("LA", (8, 8), (3, 255)), 1, (3,)),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 255)), 3, (0, 0, 0)),
    ],
)  # fmt: skip
def test_each_mode_is_converted_by_rule(picture: Image.Image, channels: int, expected: tuple[int, ...]) -> None:
    found = read_image(picture, 6, channels)
    assert found.shape == (6, 6, channels) and found.dtype == np.uint8
    assert (found == np.array(expected, np.uint8)).all()


def test_a_request_and_a_dataset_read_the_same_picture_alike() -> None:
    rng = np.random.default_rng(1)
    shaped: list[Any] = [
        Image.fromarray(rng.integers(0, 256, (12, 9, 4), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 65536, (7, 11), dtype=np.uint16)),
    ]
    for picture in shaped:
        table = column(picture)
        (kept,) = table_images(table, "image", 8, 1)
        body = encoded(picture)
        for value in (picture, body, base64.b64encode(body).decode(), *table_arrays(table, "image")):
            assert (read_image(value, 8, 1) == kept).all()


def test_every_way_to_give_a_picture(tmp_path: Path) -> None:
    body = encoded(Image.new("L", (8, 8), 9))
    (tmp_path / "a.png").write_bytes(body)
    text = base64.b64encode(body).decode()
    array = np.full((8, 8, 1), 9, np.uint8)
    for value in (body, bytearray(body), text, f"data:image/png;base64,{text}", tmp_path / "a.png", array):
        assert (read_image(value, 8, 1) == 9).all()


def _bomb() -> bytes:
    """A PNG that announces 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"not a picture", "13 bytes are no picture that is known"),
        (encoded(Image.effect_noise((64, 64), 50))[:900], "cannot be decoded"),
        (_bomb(), "more than the 67,108,864"),
        (encoded(Image.new("L", (9000, 9000))), "9000 x 9000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no picture that is known"),
        ("/etc/passwd", "'/etc/passwd' is no base64 text"),
        (Path("/none/such.png"), "is no file"),
        (17, "a int is no picture"),
        (None, "a NoneType is no picture"),
        (Image.new("F", (8, 8)), "floats has no scale"),
        (np.zeros((8, 8), np.float32), "float32 (8, 8)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "uint8 (2, 8, 8, 3)"),
        (np.zeros((0, 8), np.uint8), "uint8 (0, 8)"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_in_one_line(value: Any, said: str) -> None:
    with pytest.raises(WrongInput) as error:
        read_image(value, 8, 3)
    assert said in str(error.value) and "give a PNG" in str(error.value)


def test_a_datasets_row_without_a_picture_is_named() -> None:
    table = column(Image.new("L", (8, 8)), Image.new("L", (8, 8)))
    table = table.set_column(0, "image", pa.array([bytes(64), None], pa.large_binary()))
    for read in (lambda: table_images(table, "image", 8, 1), lambda: table_arrays(table, "image")):
        with pytest.raises(WrongInput, match="row 2 holds no picture"):
            read()
    with pytest.raises(WrongInput, match=r"row 1: a picture of floats.*slipway\.mode"):
        table_images(column(Image.new("F", (8, 8))), "image", 8, 1)


def test_augmentation_is_a_function_of_each_samples_key() -> None:
    pixels = table_images(images(40, 1), "image", 8, 1)
    kinds: list[dict[str, Any]] = [{"shift": 0.2}, {"rotate": 15, "zoom": 0.1, "shift": 0.1}, {"flip": True}]
    for kind in kinds:
        whole = augment(pixels, keys(40), **kind)
        assert (whole == augment(pixels, keys(40), **kind)).all()
        assert not (whole == augment(pixels, keys(40, epoch=1), **kind)).all(), "each epoch its own"
        some = np.array([30, 2])
        assert (augment(pixels[some], SampleKeys(keys(40).keys[some]), **kind) == whole[some]).all()
    assert (augment(pixels, keys(40)) == pixels).all()


def test_augmentation_moves_by_whole_pixels_and_mirrors_half() -> None:
    pixels = np.zeros((200, 9, 9, 1), np.uint8)
    pixels[:, 4, 4] = 200
    moved = augment(pixels, keys(200), shift=0.25)  # up to 2.25 pixels: 2
    assert set(np.unique(moved)) == {0, 200} and (moved.sum((1, 2, 3)) == 200).all()
    places = np.argwhere(moved[..., 0])[:, 1:]
    assert places.min() == 2 and places.max() == 6 and len(np.unique(places, axis=0)) == 25
    pixels = np.zeros((200, 8, 8, 1), np.uint8)
    pixels[:, :, :4] = 255
    mirrored = (augment(pixels, keys(200), flip=True)[:, 0, 0, 0] == 0).mean()
    assert 0.4 < mirrored < 0.6


def test_a_grid_shows_every_picture_with_its_caption() -> None:
    rows: list[list[np.ndarray]] = [
        [np.full((8, 8, 1), 40, np.uint8), np.full((8, 8, 3), 90, np.uint8)],
        [np.zeros((8, 8), np.uint8)],
    ]
    captions = [["one", "a caption that is much too long to fit below a picture"], ["three"]]
    plain = np.asarray(Image.open(io.BytesIO(png_grid(rows))))
    assert {40, 90, 0} <= set(np.unique(plain)) and plain.shape[1] == 2 * 64 + 3 * 6
    told = np.asarray(Image.open(io.BytesIO(png_grid(rows, captions, ["first", "second"]))))
    assert told.shape[0] == plain.shape[0] + 2 * (15 + 3 * 15), "a line for a title, three for the longest caption"
    assert png_grid(rows, captions) == png_grid(rows, captions)
    assert png_grid(rows, captions) != png_grid(rows, [["", ""], [""]]) != png_grid(rows, titles=["", ""])
    Image.open(io.BytesIO(png_grid([])))
    clear = np.asarray(Image.open(io.BytesIO(png_grid([[np.zeros((8, 8, 4), np.uint8)]]))))
    assert (clear == 255).all()
