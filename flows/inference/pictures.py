"""Answers as one PNG, a row of pictures an input and the input above it: what was drawn, or what a search found."""

import base64
import io
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput

if TYPE_CHECKING:
    import numpy as np

TITLE_CHARS = 200
SIDE = 96
"""Pixels that a picture is shown with at least."""


def check_place(out: Path) -> None:
    """Raises WrongInput for a path that no PNG can be written to, before anything is drawn."""
    if out.suffix.lower() != ".png":
        raise WrongInput(f"--out {out}: pictures are written as PNG; give a name that ends in .png, or --file for rows")
    if not out.parent.is_dir():
        raise WrongInput(f"--out {out}: there is no folder {out.parent}; make it or write elsewhere")


def write_grid(out: Path, inputs: Sequence[str], answers: Sequence[Mapping[str, Any]], model: str) -> None:
    """Write the pictures of each answer as a row of one PNG, whole or not at all. Raises WrongInput."""
    import numpy as np
    from PIL import Image

    if any("image" not in answer for answer in answers):
        raise WrongInput(f"--out {out}: {model} draws nothing; a file of answers is written for --file")
    rows = []
    for answer in answers:
        texts = answer.get("images") or [answer["image"]]
        rows.append([np.atleast_3d(np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))) for text in texts])
    _write(out, rows, inputs)


def write_found(
    out: Path, inputs: Sequence[str], answers: Sequence[Mapping[str, Any]], pictures: Mapping[str, "np.ndarray"]
) -> None:
    """Write what a search found as a row of one PNG each, scores and texts below. pictures: by row id. Raises
    WrongInput."""
    rows = [[pictures[one["row_id"]] for one in answer["nearest"]] for answer in answers]
    told = [[f"{one['score']:.3f} {one['text']}" for one in answer["nearest"]] for answer in answers]
    _write(out, rows, inputs, told)


def _write(
    out: Path,
    rows: Sequence[Sequence["np.ndarray"]],
    inputs: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    from training.picture_grid import png_grid

    titles = [text[:TITLE_CHARS] for text in inputs]
    aside = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        aside.write_bytes(png_grid(rows, captions, titles, SIDE))
        os.replace(aside, out)
    except OSError as error:
        raise WrongInput(f"--out {out}: cannot be written ({error.strerror or error}); write elsewhere") from error
    finally:
        aside.unlink(missing_ok=True)


def told(answer: Mapping[str, Any]) -> str:
    """A line about a drawn answer: what was drawn, and what of the input its model never saw."""
    count = len(answer.get("images") or [1])
    line = f"  {count} picture{'s' if count > 1 else ''}, the first {answer['label']}"
    if unseen := answer.get("unseen_words"):
        line += f"; never seen in training: {', '.join(unseen)}"
    return line
