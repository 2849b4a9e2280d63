"""Pixel statistics: what a profile keeps of an image. 71 numbers from 0 to 255, two hexadecimal digits each.

An 8 x 8 thumbnail in grey, the mean and deviation of red, green and blue, and how sharp it is: the mean difference
between neighbours at 32 x 32. Brightness is the thumbnail's mean.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from PIL import Image

SIDE = 8
COLOURS = ("red", "green", "blue")
NAMES = (
    *(f"grey at row {row + 1}, column {column + 1} of {SIDE}" for row in range(SIDE) for column in range(SIDE)),
    *(f"mean {colour}" for colour in COLOURS),
    *(f"deviation of {colour}" for colour in COLOURS),
    "sharpness",
)


def statistics(table: "pa.Table", name: str) -> list[str | None]:
    """The statistics of each image of a column, from its pixels and the columns that tell its shape; None for null."""
    from PIL import Image

    found: list[str | None] = []
    shape = [table.column(f"{name}_{fact}").to_pylist() for fact in ("width", "height", "mode")]
    for pixels, width, height, mode in zip(table.column(name), *shape, strict=True):
        if pixels.is_valid:
            found.append(pack(Image.frombytes(mode, (width, height), pixels.as_py())))
        else:
            found.append(None)
    return found


def pack(image: "Image.Image") -> str:
    """The statistics of one image as hexadecimal text."""
    import numpy as np
    from PIL import Image

    if image.mode not in ("L", "RGB", "RGBA"):  # PIL would cut 16 bits off at 255 where we want them scaled
        deep = np.abs(np.asarray(image, dtype=np.float64))
        # The same scale for each image of each version: square root of 16 bits, v / (1 + v) of floats.
        scaled = np.sqrt(deep / 65535) if image.mode.startswith("I") else deep / (1 + deep)
        image = Image.fromarray((np.clip(scaled, 0, 1) * 255).astype(np.uint8))
    colour = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    grey = image.convert("L")
    thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    fine = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    edges = np.abs(np.diff(fine, axis=0)).mean() + np.abs(np.diff(fine, axis=1)).mean()
    parts = [thumbnail.ravel(), colour.mean(axis=(0, 1)), 2 * colour.std(axis=(0, 1)), [2 * edges]]
    return np.clip(np.concatenate(parts), 0, 255).astype(np.uint8).tobytes().hex()


def unpack(images: list[str]) -> "np.ndarray[Any, Any]":
    """[images, 71], float64, from 0 to 255."""
    import numpy as np

    return np.frombuffer(bytes.fromhex("".join(images)), np.uint8).reshape(len(images), len(NAMES)).astype(np.float64)


def brightness(images: list[str | None]) -> "np.ndarray[Any, Any]":
    """Mean grey of each image that is there, from 0 (black) to 255."""
    return unpack([image for image in images if image is not None])[:, : SIDE * SIDE].mean(axis=1)
