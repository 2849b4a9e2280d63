"""A picture of how near pictures and texts lie: one cell a pair, the pairs that belong together framed."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np

CELL, GAP, WORDS = 56, 2, 132
"""Sides in pixels of a cell, between cells, and of the texts beside and above them."""
FAR, NEAR = (247, 251, 255), (8, 48, 107)
"""Colours of the least and the greatest cosine: the ends of ColorBrewer's Blues."""


def draw_matrix(pictures: Sequence[np.ndarray], texts: Sequence[str], cosines: np.ndarray) -> bytes:
    """PNG: pictures, (H, W, 3) uint8, from top to bottom, texts from left to right, cosines (pictures, texts) as shades
    and numbers."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(11), ImageFont.load_default(12)
    count, pitch = len(pictures), CELL + GAP
    out = Image.new("RGB", (WORDS + CELL + GAP + count * pitch + GAP, WORDS + count * pitch + GAP), "white")
    pen = ImageDraw.Draw(out)
    low, high = float(cosines.min()), float(cosines.max())
    for row in range(count):
        top = WORDS + row * pitch
        pen.multiline_text((GAP, top + 4), _lines(texts[row]), "black", font=font, spacing=1)
        picture = Image.fromarray(pictures[row]).resize((CELL, CELL), Image.Resampling.NEAREST)
        out.paste(picture, (WORDS, top))
        for column in range(count):
            left = WORDS + CELL + GAP + column * pitch
            share = (float(cosines[row, column]) - low) / max(high - low, 1e-9)
            shade = tuple(round(far + share * (near - far)) for far, near in zip(FAR, NEAR, strict=True))
            frame = (204, 51, 17) if row == column else shade
            pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), shade, frame, 3)
            pen.text(
                (left + CELL / 2, top + CELL / 2), f"{cosines[row, column]:.2f}", "white" if share > 0.5 else "black",
                font=small, anchor="mm",
            )  # fmt: skip
    for column in range(count):
        label = Image.new("RGB", (WORDS, CELL), "white")
        ImageDraw.Draw(label).multiline_text((2, 4), _lines(texts[column]), "black", font=font, spacing=1)
        out.paste(label.rotate(90, expand=True), (WORDS + CELL + GAP + column * pitch, 0))
    body = io.BytesIO()
    out.save(body, "PNG", optimize=True)
    return body.getvalue()


def _lines(text: str) -> str:
    """At most three lines of as many letters as fit."""
    return "\n".join(textwrap.wrap(text, 20, max_lines=3, placeholder="…"))
