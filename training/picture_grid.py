"""Pictures side by side with words below and above them, as one PNG: what scorecards, MLflow and `predict` show.

Apart from training.images, and no code that a result depends on (flows.code_key): to draw otherwise trains nothing
anew.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.images import of_array

if TYPE_CHECKING:
    from PIL import Image


def png_grid(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    side: int = 64,
) -> bytes:
    """A PNG of rows of pictures, each (H, W) or (H, W, 1 | 3 | 4) uint8; captions: one below each; titles: one above
    each row.

    side: pixels that a picture is drawn with at least; small ones are enlarged by a whole factor, unsmoothed. A caption
    has three lines, a title two; what is longer ends in dots.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, line, gap = ImageFont.load_default(11), 15, 6
    pictures = [[_enlarged(picture, side) for picture in row] for row in rows]
    wide = max((picture.width for row in pictures for picture in row), default=side)
    high = max((picture.height for row in pictures for picture in row), default=side)
    width = max((len(row) for row in rows), default=1) * (wide + gap) + gap
    below = [[_lines(text, wide, 3, font.getlength) for text in row] for row in captions or []]
    above = [_lines(text, width - 2 * gap, 2, font.getlength) for text in titles or []]
    head = line * max(map(len, above), default=0)
    pitch = head + high + line * max((len(lines) for row in below for lines in row), default=0) + gap
    out = Image.new("RGB", (width, max(len(rows), 1) * pitch + gap), "white")
    draw = ImageDraw.Draw(out)

    def write(lines: Sequence[str], x: int, y: int) -> None:
        for place, text in enumerate(lines):
            draw.text((x, y + place * line), text, "black", font=font)

    for place, row in enumerate(pictures):
        top = gap + place * pitch
        write(above[place] if place < len(above) else (), gap, top)
        for column, picture in enumerate(row):
            left = gap + column * (wide + gap)
            out.paste(picture, (left, top + head))
            if place < len(below) and column < len(below[place]):
                write(below[place][column], left, top + head + high)
    body = io.BytesIO()
    out.save(body, "PNG", optimize=True)
    return body.getvalue()


def _enlarged(picture: np.ndarray, side: int) -> "Image.Image":
    from PIL import Image

    image = of_array(picture)
    if image.mode == "RGBA":  # what is transparent shows white, as it does to models
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    factor = max(1, -(-side // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _lines(text: str, room: int, most: int, length: Callable[[str], float]) -> list[str]:
    """By words, as Pillow's ImageText.wrap, which raises where a word is longer than a line."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(joined) > room and len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = joined
    return [_fitting(line, room, length) for line in lines]


def _fitting(text: str, room: int, length: Callable[[str], float]) -> str:
    if length(text) <= room:
        return text
    while text and length(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."
