"""scikit-learn's handwritten digits composed: two side by side, or one in a colour; captions say both things.

What is composed of what is drawn by a hash, so the same options give the same rows. With a split by the group `label`
some combinations are never seen in training, though each of their words is: whether a model composes is asked there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

SERVER = {"composition": str, "rows": int}
"""composition: pairs (16 x 16 grey: `a three left of a seven`) or colours (8 x 8 RGB on black: `a red three`); rows:
how many (default 8000). Columns: image, caption, label (both things, `three seven`), first, second."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (255, 0, 0),
    "orange": (255, 128, 0),
    "yellow": (255, 255, 0),
    "green": (0, 200, 0),
    "cyan": (0, 255, 255),
    "blue": (64, 64, 255),
    "pink": (255, 0, 255),
    "white": (255, 255, 255),
}
COMPOSITIONS = {"pairs": (16, "L"), "colours": (8, "RGB")}
"""Side in pixels, and mode."""
ROWS = 8000
MOST_ROWS = 1_000_000
BATCH_ROWS = 4096
SIDE, WHITE = 8, 16
"""Of scikit-learn's digits."""


def _options(contract: "Contract", uri: str | None) -> tuple[str, int]:
    server = contract.server
    kind, rows = server.get("composition", "pairs"), server.get("rows", ROWS)
    if uri is not None:
        raise WrongInput(f"source {uri}: digit_compositions reads no address; leave it out")
    if kind not in COMPOSITIONS:
        raise WrongInput(
            f"contract {contract.path}: slipway.composition '{kind}' is unknown; {choices(kind, COMPOSITIONS)}"
        )
    if not 1 <= rows <= MOST_ROWS:
        raise WrongInput(f"contract {contract.path}: slipway.rows: {rows}; give 1 to {MOST_ROWS:,}")
    return kind, rows


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    from importlib.metadata import version

    kind, rows = _options(contract, uri)
    return {"composition": kind, "rows": rows, "scikit-learn": version("scikit-learn")}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Iterator[pa.RecordBatch]":
    import numpy as np
    import pyarrow as pa
    from sklearn.datasets import load_digits

    kind, rows = _options(contract, uri)
    digits, classes = load_digits(return_X_y=True)
    pictures = (digits.reshape(-1, SIDE, SIDE) * (255 / WHITE)).round().astype(np.uint8)
    side, mode = COMPOSITIONS[kind]
    for begin in range(0, rows, BATCH_ROWS):
        number = np.arange(begin, min(begin + BATCH_ROWS, rows), dtype=np.uint64)
        one, other = (_drawn(number, part) for part in range(2))
        first = one % len(pictures)
        if kind == "pairs":
            second = other % len(pictures)
            made = np.zeros((len(number), side, side), np.uint8)
            made[:, 4:12, :8], made[:, 4:12, 8:] = pictures[first], pictures[second]
            words = [[DIGITS[row] for row in classes[part]] for part in (first, second)]
            captions = [
                f"{article(left)} {left} left of {article(right)} {right}" for left, right in zip(*words, strict=True)
            ]
        else:
            names = list(COLOURS)
            colour = other % len(names)
            paint = np.array([COLOURS[name] for name in names], float)[colour]  # (n, 3)
            made = (pictures[first][..., None] / 255 * paint[:, None, None]).round().astype(np.uint8)
            words = [[names[row] for row in colour], [DIGITS[row] for row in classes[first]]]
            captions = [f"{article(hue)} {hue} {digit}" for hue, digit in zip(*words, strict=True)]
        columns = {
            "image": pa.array([picture.tobytes() for picture in made], pa.large_binary()),
            "image_width": pa.array([side] * len(made), pa.int32()),
            "image_height": pa.array([side] * len(made), pa.int32()),
            "image_mode": pa.array([mode] * len(made), pa.string()),
            "caption": pa.array(captions),
            "label": pa.array([" ".join(pair) for pair in zip(*words, strict=True)]),
            "first": pa.array(words[0]),
            "second": pa.array(words[1]),
        }
        for column in contract.columns:
            if column.there not in columns:
                raise WrongInput(
                    f"contract {contract.path}: schema.properties.{column.name}: composed digits have no "
                    f"'{column.there}'; {choices(column.there, columns)}"
                )
        named = {column.name: columns[column.there] for column in contract.columns}
        batch = pa.record_batch(list(named.values()), names=list(named))
        yield batch.replace_schema_metadata({"file": kind, "row": str(begin + 1)})
        if progress is not None:
            progress.update(begin + len(made), rows, "digits composed")


def article(word: str) -> str:
    return "an" if word in ("eight", "orange") else "a"


def _drawn(number: "np.ndarray", part: int) -> "np.ndarray":
    """A random whole number for each row's part: SplitMix64's finaliser of its coordinates."""
    import numpy as np

    with np.errstate(over="ignore"):
        value = (2 * number + np.uint64(part) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (value ^ (value >> np.uint64(31))) >> np.uint64(1)
