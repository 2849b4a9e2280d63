"""Images as pixels: a dataset's and a request's by one set of rules, memory-mapped files, augmentation.

However a picture comes, it becomes `size x size x channels` bytes so: what is transparent shows white; a palette and
CMYK become RGB, and so does grey where three channels are asked; colour becomes grey by luma (ITU-R 601-2) where one
is; 16 bits are scaled to 8; one that is not square is centred on a square of its border's colour; then it is resized
with antialiasing. Floats have no scale of their own and are refused.
"""

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_contracts.contract import image_columns
from data_contracts.native_reader import MAX_PIXELS
from infra.errors import WrongInput
from training.randomness import SampleKeys
from training.text import read_arrow, write_arrow

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""That a request may hold. PIL would start programs for some others (EPS)."""
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Modes of 16 bits; PIL opens such a PNG as one or the other."""
DTYPES = {"I;16": "<u2", "F": "<f4"}
"""Of raw pixels that are no bytes."""
WHOLE = {"L": 1, "RGB": 3}
"""Modes whose bytes are pixels as recipes read them, and their channels."""


@dataclass(frozen=True)
class ImageFile:
    """A split's pictures, opened: nothing is copied until a batch is cut out."""

    array: np.ndarray
    """(N, H, W, C) uint8, memory-mapped."""
    columns: Any
    """The pyarrow.Table it came from."""

    @classmethod
    def open(cls, path: Path) -> "ImageFile":
        table = read_arrow(path)
        shape = tuple(map(int, table.schema.metadata[b"shape"].split(b",")))
        if table.num_rows == 0:
            return cls(np.empty((0, *shape), np.uint8), table)
        return cls(table["pixels"].combine_chunks().values.to_numpy().reshape(-1, *shape), table)

    def __len__(self) -> int:
        return len(self.array)

    def pixels(self, index: np.ndarray) -> np.ndarray:
        """index: (n,). Returns (n, H, W, C) uint8, a copy."""
        return self.array[index]

    def row_ids(self, index: np.ndarray) -> list[str]:
        return self.columns["row_id"].take(index).to_pylist()


def write_images(path: Path, pixels: np.ndarray, columns: Mapping[str, Any]) -> None:
    """One uncompressed Arrow file: `pixels` beside the given columns. pixels: (N, H, W, C) uint8. Same input, same
    bytes."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(pixels).reshape(-1))
    size = int(np.prod(pixels.shape[1:]))
    shape = ",".join(map(str, pixels.shape[1:]))
    write_arrow(path, {**columns, "pixels": pa.FixedSizeListArray.from_arrays(flat, size)}, {"shape": shape})


def table_images(table: "pa.Table", column: str, size: int, channels: int) -> np.ndarray:
    """A dataset's pictures, converted by rule: (N, size, size, channels) uint8. Raises WrongInput for one that is
    missing or holds floats."""
    from PIL import Image

    pixels, *facts = (table[name] for name in image_columns(column))
    shapes = list(zip(*(fact.to_pylist() for fact in facts), strict=True))
    out = np.empty((len(shapes), size, size, channels), np.uint8)
    for row, (body, (width, height, mode)) in enumerate(zip(pixels, shapes, strict=True)):
        if not body.is_valid:
            raise WrongInput(f"column '{column}': row {row + 1} holds no picture; make the column required")
        if (width, height) == (size, size) and WHOLE.get(mode) == channels:
            out[row] = np.frombuffer(body.as_buffer(), np.uint8).reshape(size, size, channels)
        else:
            try:
                out[row] = convert(Image.frombytes(mode, (width, height), body.as_py()), size, channels)
            except WrongInput as error:
                raise WrongInput(f"column '{column}': row {row + 1}: {error}; set slipway.mode of the source") from None
    return out


def table_arrays(table: "pa.Table", column: str) -> list[np.ndarray]:
    """A dataset's pictures as they are, each as `read_image` takes it: (H, W) or (H, W, C), uint8 or uint16. Raises
    WrongInput for one that is missing."""
    rows = zip(*(table[name].to_pylist() for name in image_columns(column)), strict=True)
    found = []
    for row, (body, width, height, mode) in enumerate(rows):
        if body is None:
            raise WrongInput(f"column '{column}': row {row + 1} holds no picture; make the column required")
        flat = np.frombuffer(body, DTYPES.get(mode, "u1"))
        found.append(flat.reshape(height, width) if len(flat) == height * width else flat.reshape(height, width, -1))
    return found


def read_image(value: Any, size: int, channels: int) -> np.ndarray:
    """What a request gives, as (size, size, channels) uint8: the bytes of a file, their base64 text (a `data:` address
    too), a Path, a PIL image or an array (H, W) or (H, W, 1 | 3 | 4) of uint8 or uint16. Text is never taken for a
    path: who asks a server must not choose what it reads. Raises WrongInput that names what was found."""
    try:
        return convert(_opened(value), size, channels)
    except WrongInput as error:
        raise WrongInput(f"image: {error}; give a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from None


def _opened(value: Any) -> "Image.Image":
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray):
        return of_array(value)
    if isinstance(value, Path):
        if not value.is_file():
            raise WrongInput(f"{value} is no file")
        value = value.read_bytes()
    if isinstance(value, str):
        value = _of_text(value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise WrongInput(f"a {type(value).__name__} is no picture")
    return _decoded(bytes(value))


def _of_text(text: str) -> bytes:
    head, comma, tail = text.partition(",")
    body = tail if comma and head.startswith("data:") else text
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise WrongInput(f"'{shown}' is no base64 text of a file") from None


def _decoded(body: bytes) -> "Image.Image":
    """Raises WrongInput for what is no picture, is cut off, or has more pixels than are decoded."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise WrongInput(f"is {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded")
                image.load()
                return ImageOps.exif_transpose(image)
    except Image.DecompressionBombError:
        raise WrongInput(f"announces more than the {MAX_PIXELS:,} pixels that are decoded") from None
    except Image.UnidentifiedImageError:
        raise WrongInput(f"{len(body):,} bytes are no picture that is known, or are cut off") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:  # what PIL raises for broken files
        raise WrongInput(f"{len(body):,} bytes cannot be decoded ({error})") from None


def of_array(array: np.ndarray) -> "Image.Image":
    """array: (H, W) or (H, W, 1 | 3 | 4), uint8, or uint16 without colour. Raises WrongInput for any other."""
    from PIL import Image

    flat = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    fits = flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4) and flat.dtype == np.uint8)
    if not fits or 0 in flat.shape or flat.dtype not in (np.uint8, np.uint16):
        raise WrongInput(f"an array of {array.dtype} {array.shape} is no picture: uint8 (H, W, 1 | 3 | 4) is")
    return Image.fromarray(np.ascontiguousarray(flat))


def convert(image: "Image.Image", size: int, channels: int) -> np.ndarray:
    """By the rules at the top of this file: (size, size, channels) uint8. Raises WrongInput for a picture of floats."""
    from PIL import Image

    if image.mode == "F":
        raise WrongInput("a picture of floats has no scale")
    if image.mode in DEEP:  # PIL would cut off at 255
        deep = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.has_transparency_data or image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        image = image.convert("RGB").convert(wanted) if image.mode not in WHOLE else image.convert(wanted)
    if image.width != image.height:
        image = _squared(image)
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(image, np.uint8).reshape(size, size, channels)  # a copy: PIL's own memory is read-only


def _squared(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    pixels = np.atleast_3d(np.asarray(image))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (2 x (H + W), C)
    colour = tuple(int(value) for value in np.median(border, axis=0))
    side = max(image.size)
    square = Image.new(image.mode, (side, side), colour if len(colour) > 1 else colour[0])
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def png_text(array: np.ndarray) -> str:
    """A picture as a request writes it: base64 text of a PNG, nothing lost. array: as `table_arrays` gives it."""
    body = io.BytesIO()
    of_array(array).save(body, "PNG")
    return base64.b64encode(body.getvalue()).decode()


def to_tensor(pixels: np.ndarray) -> "torch.Tensor":
    """(n, H, W, C) uint8 -> (n, C, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")) / 127.5 - 1


def to_pixels(tensor: "torch.Tensor") -> np.ndarray:
    """(n, C, H, W) in [-1, 1], what is outside cut off -> (n, H, W, C) uint8; the inverse of `to_tensor`."""
    scaled = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(scaled.numpy().astype(np.uint8).transpose(0, 2, 3, 1))


def augment(
    pixels: np.ndarray,
    keys: SampleKeys,
    *,
    shift: float = 0.0,
    rotate: float = 0.0,
    zoom: float = 0.0,
    flip: bool = False,
) -> np.ndarray:
    """Each picture moved, turned, scaled and mirrored by chance, a function of its key alone. pixels: (n, H, W, C).

    shift: up to this share of the side, each way; without turning and scaling, by whole pixels. rotate: degrees, each
    way. zoom: side x (1 - zoom) to x (1 + zoom). flip: left and right change places half of the time. What comes in
    from outside repeats the border. Returns (n, H, W, C) uint8.
    """
    count, height, width, _ = pixels.shape
    drawn = 2 * keys.uniform("augment", np.full(count, 4)).reshape(count, 4) - 1  # (n, 4) in [-1, 1)
    mirrored = keys.uniform("flip", np.ones(count, int)) < 0.5
    if flip:
        pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    if not (shift or rotate or zoom):
        return pixels
    moved = drawn[:, :2] * shift * np.array([height, width])
    if not (rotate or zoom):
        moved = np.round(moved)
    angle, scale = np.deg2rad(drawn[:, 2] * rotate), 1 + drawn[:, 3] * zoom
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    y = np.arange(height)[None, :, None] - (height - 1) / 2 - moved[:, 0, None, None]  # (n, H, 1)
    x = np.arange(width)[None, None, :] - (width - 1) / 2 - moved[:, 1, None, None]  # (n, 1, W)
    cosine, sine = cosine[:, None, None], sine[:, None, None]
    rows = cosine * y - sine * x + (height - 1) / 2  # (n, H, W): where each pixel comes from
    columns = sine * y + cosine * x + (width - 1) / 2
    return _sampled(pixels, rows, columns)


def _sampled(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values at these places (n, H, W), those outside taken from the border. Returns (n, H, W, C) uint8."""
    count, height, width, _ = pixels.shape
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    one = np.arange(count)[:, None, None]
    upper = pixels[one, top, left] * (1 - across) + pixels[one, top, right] * across
    lower = pixels[one, below, left] * (1 - across) + pixels[one, below, right] * across
    return np.round(upper * (1 - down) + lower * down).astype(np.uint8)
