"""Images: folders named for their class, or a CSV, TSV or JSONL of files and what is said of each.

A row's image is its decoded pixels, so a picture saved twice is one picture. An image that cannot be decoded, is
truncated or has more pixels than are decoded is quarantined as the file's bytes; a name that leads out of the folder
refuses the registration. Decoding is done by a process of its own, under limits.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import DERIVED, Column
from data_contracts.embedded_images import BATCH_BYTES, MAX_RAW, image_mode
from data_contracts.native import Native
from data_contracts.native import Unreadable as NotDecoded
from data_contracts.places import Place, places, sibling
from data_contracts.source import Unreadable
from data_contracts.text_files import read_delimited, read_jsonl
from infra.digests import digest
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

    Found = Iterator[pa.RecordBatch | Unreadable]

SERVER = {
    "path": str,
    "format": str,
    "files": list,
    "mode": str,
    "encoding": str,
    "delimiter": str,
    "quoting": bool,
    "columns": list,
}
"""path: a folder; files: names or globs below it, of images (default: all) or of the lists that name them; mode: L,
RGB, RGBA, I;16 or F that every image is converted to (default: the one that keeps what its file holds; what is
transparent shows white where the mode cannot say it). Columns of class folders: image, label (the folder's name),
file. In a list, the image column's physicalName is the column that holds the file's name; encoding, delimiter, quoting
and columns say how a list of text is read, as for source files."""

ENDINGS = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
LISTS = {".csv": read_delimited, ".tsv": read_delimited, ".jsonl": read_jsonl}
BATCH_ROWS = 1024


def _places(contract: "Contract", uri: str | None, cache: Path) -> list[Place]:
    """Lists, or images. Raises WrongInput for neither, or both."""
    found = places(contract, uri, cache, default="**/*")
    lists = [place for place in found if Path(place.name).suffix.lower() in LISTS]
    images = [place for place in found if Path(place.name).suffix.lower() in ENDINGS]
    named = bool(contract.server.get("files") or contract.split.files)
    if lists and named and not images:
        return lists
    if not images:
        raise WrongInput(
            f"source {uri or contract.server.get('path')}: holds no image ({', '.join(sorted(ENDINGS))}); give a "
            "folder of class folders, or name the list of images in slipway.files"
        )
    return images


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    found = _places(contract, uri, cache)
    facts = [place.fingerprint() for place in found]
    if Path(found[0].name).suffix.lower() in LISTS and found[0].path is not None:
        for folder, names, files in os.walk(_root(found[0])):
            names.sort()
            for file in sorted(files):
                stat = os.stat(os.path.join(folder, file), follow_symlinks=False)
                facts.append([os.path.join(folder, file), stat.st_size, stat.st_mtime_ns])
    return {"files": len(facts), "sizes_and_times": digest(facts)}


def _root(place: Place) -> Path:
    assert place.path is not None
    return place.path.absolute().parents[len(Path(place.name).parts) - 1]


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Found":
    mode = image_mode(contract)
    if len(contract.images) != 1:
        raise WrongInput(
            f"contract {contract.path}: schema: has {len(contract.images)} columns with slipway.type: image, "
            "source images gives one"
        )
    found = _places(contract, uri, cache)
    done = 0
    with Native() as native:
        if Path(found[0].name).suffix.lower() in LISTS:
            stream: Found = (item for place in found for item in _listed(contract, place, native, mode))
        else:
            stream = _folders(contract, found, native, mode)
        for item in stream:
            done += 1 if isinstance(item, Unreadable) else item.num_rows
            yield item
            if progress is not None:
                progress.update(
                    done, 0 if Path(found[0].name).suffix.lower() in LISTS else len(found), "images decoded"
                )


class _Rows:
    """Decoded rows that wait to become a batch."""

    def __init__(self, contract: "Contract", mode: str | None, native: Native):
        self.contract, self.mode, self.native = contract, mode, native
        self.image = contract.images[0]
        self.rows: list[dict[str, Any]] = []
        self.bytes = 0

    def decode(self, place: Place, where: dict[str, Any]) -> dict[str, Any] | Unreadable:
        """The image's column and those it brings, or why not; `where` places the row: file, row, line."""
        try:
            path = place.local()
            if not path.is_file():
                raise FileNotFoundError
        except (OSError, KeyError):
            return Unreadable(**where, raw=place.name.encode(), reason=f"{self.image}: file {place.name} is not there")
        try:
            pixels, facts = self.native.image(path, self.mode)
        except NotDecoded as error:
            with open(path, "rb") as file:
                raw = file.read(MAX_RAW)
            return Unreadable(**where, raw=raw, reason=f"{self.image}: file {place.name} {error}")
        return {self.image: pixels} | {f"{self.image}_{suffix}": facts[suffix] for suffix in DERIVED}

    def add(self, row: dict[str, Any]) -> bool:
        """Whether a batch is full."""
        self.rows.append(row)
        self.bytes += len(row[self.image])
        return self.bytes >= BATCH_BYTES or len(self.rows) >= BATCH_ROWS

    def batch(self, metadata: dict[str, str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        if self.rows:
            columns = {}
            for column in self.contract.columns:
                values = [row[column.name] for row in self.rows]
                whole = column.name in (f"{self.image}_width", f"{self.image}_height")
                kind = pa.large_binary() if column.type == "image" else pa.int64() if whole else pa.string()
                columns[column.name] = pa.array(values, kind)
            self.rows, self.bytes = [], 0
            yield pa.record_batch(
                list(columns.values()),
                schema=pa.schema([(name, values.type) for name, values in columns.items()], metadata),
            )


def _folders(contract: "Contract", found: list[Place], native: Native, mode: str | None) -> "Found":
    rows = _Rows(contract, mode, native)
    derived = {f"{rows.image}_{suffix}" for suffix in DERIVED}
    wanted = [column for column in contract.columns if column.name != rows.image and column.name not in derived]
    for column in wanted:
        if column.there not in ("label", "file"):
            raise WrongInput(
                f"contract {contract.path}: schema.properties.{column.name}: class folders have no '{column.there}'; "
                f"{choices(column.there, ['label', 'file'])}"
            )
    files: list[str] = []
    for place in found:
        folder = Path(place.name).parent.name
        if not folder and any(column.there == "label" for column in wanted):
            raise WrongInput(f"source {place.address}: lies in no class folder; move it into one, or leave label out")
        decoded = rows.decode(place, {"file": place.name, "row": 1, "line": 1})
        if isinstance(decoded, Unreadable):
            yield from rows.batch({"files": json.dumps(files)})
            files = []
            yield decoded
            continue
        files.append(place.name)
        if rows.add(decoded | {column.name: {"label": folder, "file": place.name}[column.there] for column in wanted}):
            yield from rows.batch({"files": json.dumps(files)})
            files = []
    yield from rows.batch({"files": json.dumps(files)})


def _listed(contract: "Contract", place: Place, native: Native, mode: str | None) -> "Found":
    rows = _Rows(contract, mode, native)
    derived = {f"{rows.image}_{suffix}" for suffix in DERIVED}
    # The list as it stands: its image column holds a name, and what images bring is not there yet.
    columns = tuple(column for column in contract.columns if column.name not in derived)
    named = tuple(
        Column(name=column.name, physical=column.physical, type="string", arrow="string") for column in columns
    )
    reader = LISTS[Path(place.name).suffix.lower()]
    kind = "tsv" if place.name.lower().endswith(".tsv") else "csv"
    first = 1
    for found in reader(replace(contract, columns=named), place, kind, lambda _: None):
        if isinstance(found, Unreadable):
            yield from rows.batch({"file": place.name, "row": str(first)})
            yield found
            continue
        start = int(found.schema.metadata[b"row"])
        first = first if rows.rows else start
        for number, values in enumerate(found.to_pylist(), start=start):
            where = f"source {place.address}: row {number}: {rows.image}"
            target = sibling(place, values[rows.image] or "", where) if values[rows.image] else None
            at: dict[str, Any] = {"file": place.name, "row": number, "line": number}
            decoded = (
                rows.decode(target, at)
                if target is not None
                else Unreadable(**at, raw=json.dumps(values).encode(), reason=f"{rows.image}: names no file")
            )
            if isinstance(decoded, Unreadable) or rows.add(values | decoded):
                yield from rows.batch({"file": place.name, "row": str(first)})
                first = number + 1
            if isinstance(decoded, Unreadable):
                yield decoded
    yield from rows.batch({"file": place.name, "row": str(first)})
