"""Handwritten digits: the 1,797 grey pictures of 8 x 8 pixels that scikit-learn brings, in words and numbers.

They are the test set of "Optical recognition of handwritten digits" (Alpaydin & Kaynak, UCI, 1998): 13 people's digits,
each pixel counting the ink in a square of 4 x 4, from 0 to 16; here that is scaled to a byte. Read without importing
scikit-learn. The address is a file like its `digits.csv.gz`: 64 counts and the digit a line.
"""

import gzip
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.captions import captions
from infra.digests import digest_file
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

SERVER: dict[str, Any] = {"caption": str}
"""caption: what is said of each picture (default: "a handwritten {label}"). Columns: image, label (0 to 9), name
("three") and caption ("a handwritten three")."""

SIDE = 8
INK = 16
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _file(uri: str | None) -> Path:
    if uri is not None:
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            raise WrongInput(f"source {uri}: no such file; leave the address out to read scikit-learn's own")
        return path
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise WrongInput("source digits: scikit-learn is not installed; pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    return {"digits": digest_file(_file(uri))}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Iterator[pa.RecordBatch]":
    import numpy as np
    import pyarrow as pa

    path = _file(uri)
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise WrongInput(f"source {path}: is no gzipped table of digits ({error}); copy it again") from None
    counts, labels = table[:, :-1], table[:, -1].astype(int)
    if counts.shape[1] != SIDE * SIDE or not len(counts) or counts.min() < 0 or counts.max() > INK:
        raise WrongInput(f"source {path}: holds no rows of {SIDE * SIDE} numbers from 0 to {INK} and a digit")
    if labels.min() < 0 or labels.max() >= len(NAMES):
        raise WrongInput(f"source {path}: names a digit {labels.max()}; there are 0 to 9")
    pixels = np.round(counts * (255 / INK)).astype(np.uint8)
    names = [NAMES[label] for label in labels]
    columns = {
        "image": pa.array([picture.tobytes() for picture in pixels], pa.large_binary()),
        "image_width": pa.array([SIDE] * len(pixels), pa.int32()),
        "image_height": pa.array([SIDE] * len(pixels), pa.int32()),
        "image_mode": pa.array(["L"] * len(pixels), pa.string()),
        "label": pa.array(labels, pa.uint8()),
        "name": pa.array(names, pa.string()),
        **captions(contract, pa.array(names), "a handwritten {label}"),
    }
    batch = _named(contract, columns)
    yield batch.replace_schema_metadata({"file": path.name, "row": "1"})
    if progress is not None:
        progress.update(len(pixels), len(pixels), "digits read")


def _named(contract: "Contract", columns: "dict[str, pa.Array]") -> "pa.RecordBatch":
    """Those that the contract names, by its names."""
    import pyarrow as pa

    found = {}
    for column in contract.columns:
        own = column.there
        for name in contract.images:  # NAME_width is what the source calls image_width
            if own == name or own.startswith(f"{name}_"):
                own = f"image{own.removeprefix(name)}"
        if own not in columns:
            raise WrongInput(
                f"contract {contract.path}: schema.properties.{column.name}: the digits have no '{own}'; "
                f"{choices(own, columns)}"
            )
        found[column.name] = columns[own]
    return pa.record_batch(list(found.values()), names=list(found))
