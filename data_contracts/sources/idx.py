"""IDX files, MNIST's format: one of images and one of labels for each part, gzipped or not.

The order is the contract's. A pair whose lengths differ, or a file that is cut, refuses the registration.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_contracts.captions import captions
from data_contracts.places import Place, places
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

SERVER = {"path": str, "format": str, "files": list, "classes": list, "caption": str}
"""path: a folder; files: images, labels, images, labels ...: each file of images is followed by that of its labels;
classes: names of the labels 0, 1, 2 ...; without them labels stay numbers; caption: "a photo of a {label}" makes a
column of such texts. Columns: image, label, caption."""

BATCH_ROWS = 4096
MAX_SIDE = 4096
UNSIGNED_BYTE = 8


def _pairs(contract: "Contract", uri: str | None, cache: Path) -> list[tuple[Place, Place]]:
    if not contract.server.get("files"):
        raise WrongInput(f"contract {contract.path}: slipway.files is missing; list images, labels, images, labels ...")
    found = places(contract, uri, cache)
    if len(found) % 2:
        raise WrongInput(
            f"contract {contract.path}: slipway.files: {len(found)} files are no pairs of images and labels"
        )
    return list(zip(found[::2], found[1::2], strict=True))


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    return {"files": [place.fingerprint() for pair in _pairs(contract, uri, cache) for place in pair]}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Iterator[pa.RecordBatch]":
    """Batches of the columns that the contract names; a row's file is that of its image."""
    done = 0
    for images, labels in _pairs(contract, uri, cache):
        for batch in _read_pair(contract, images, labels):
            done += batch.num_rows
            yield batch
            if progress is not None:
                progress.update(done, 0, f"images read of {images.name}")


class _Body:
    """A file's content from its start, unpacked where it is gzipped. Raises WrongInput when it ends early."""

    def __init__(self, place: Place):
        self.where = f"source {place.address}"
        self.raw: IO[bytes] = open(place.local(), "rb")  # noqa: SIM115 closed by `with` below
        zipped = self.raw.read(2) == b"\x1f\x8b"
        self.raw.seek(0)
        self.file: IO[bytes] = gzip.GzipFile(fileobj=self.raw) if zipped else self.raw  # type: ignore[assignment]

    def __enter__(self) -> "_Body":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.raw.close()

    def take(self, size: int) -> bytes:
        try:
            data = self.file.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WrongInput(f"{self.where}: is not whole gzip ({error}); copy it again") from None
        if len(data) != size:
            raise WrongInput(
                f"{self.where}: ends after {len(data)} of {size} bytes that its header announces; copy it again"
            )
        return data

    def sizes(self, dimensions: int) -> list[int]:
        zero, kind, count = struct.unpack(">HBB", self.take(4))
        if zero or kind != UNSIGNED_BYTE or count != dimensions:
            raise WrongInput(
                f"{self.where}: is not IDX of unsigned bytes in {dimensions} dimensions (it begins "
                f"{struct.pack('>HBB', zero, kind, count).hex()}); "
                "are images and labels in that order in slipway.files?"
            )
        return list(struct.unpack(f">{dimensions}I", self.take(4 * dimensions)))

    def end(self) -> None:
        try:
            more = self.file.read(1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WrongInput(f"{self.where}: is not whole gzip ({error}); copy it again") from None
        if more:
            raise WrongInput(f"{self.where}: goes on after the rows that its header announces; copy it again")


def _read_pair(contract: "Contract", images: Place, labels: Place) -> "Iterator[pa.RecordBatch]":
    import numpy as np
    import pyarrow as pa

    classes = contract.server.get("classes")
    with _Body(images) as pixels, _Body(labels) as classed:
        count, height, width = pixels.sizes(3)
        (named,) = classed.sizes(1)
        if named != count:
            raise WrongInput(f"{pixels.where}: has {count:,} images, {labels.name} {named:,} labels; they are no pair")
        if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE or not count:
            raise WrongInput(f"{pixels.where}: announces {count:,} images of {width} x {height} pixels; that is none")
        for start in range(0, count, BATCH_ROWS):
            rows = min(BATCH_ROWS, count - start)
            size = height * width
            data = pixels.take(rows * size)
            offsets = pa.py_buffer(np.arange(0, (rows + 1) * size, size, dtype=np.int64))
            image = pa.Array.from_buffers(pa.large_binary(), rows, [None, offsets, pa.py_buffer(data)])
            label = np.frombuffer(classed.take(rows), np.uint8)
            if classes is not None and label.max() >= len(classes):
                row = start + int(label.argmax()) + 1
                raise WrongInput(
                    f"{classed.where}: row {row}: label {label.max()} has no name; slipway.classes lists {len(classes)}"
                )
            named_labels = pa.array(label, pa.uint8()) if classes is None else pa.array(classes).take(pa.array(label))
            columns = {
                "image": image,
                "image_width": pa.array([width] * rows, pa.int32()),
                "image_height": pa.array([height] * rows, pa.int32()),
                "image_mode": pa.array(["L"] * rows, pa.string()),
                "label": named_labels,
                **captions(contract, named_labels),
            }
            yield _named(contract, columns).replace_schema_metadata({"file": images.name, "row": str(start + 1)})
        pixels.end()
        classed.end()


def _named(contract: "Contract", columns: "dict[str, pa.Array]") -> "pa.RecordBatch":
    """Those that the contract names, by its names."""
    import pyarrow as pa

    images = contract.images
    found = {}
    for column in contract.columns:
        own = column.there
        for name in images:  # NAME_width is what the source calls image_width
            if own.startswith(f"{name}_") and own.removeprefix(f"{name}_") in ("width", "height", "mode"):
                own = f"image_{own.removeprefix(f'{name}_')}"
        own = "image" if column.type == "image" else own
        if own not in columns:
            raise WrongInput(
                f"contract {contract.path}: schema.properties.{column.name}: an IDX source has no '{own}'; "
                f"{choices(own, columns)}"
            )
        found[column.name] = columns[own]
    return pa.record_batch(list(found.values()), names=list(found))
