"""A file of rows to be answered, or of labels that came later: some of a contract's columns, beside columns of its own.

It is read as the contract's own files are: CSV, TSV, JSONL, JSON, Parquet or Arrow by its ending, with the contract's
encoding, delimiter and null values where that is of files. Pictures are the bytes of a column, or, in a CSV, TSV or
JSONL, names of files beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import Column, Contract, image_columns
from infra.errors import WrongInput

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.progress import Progress

PLACES = ("path", "files")
"""What of a server section says where the contract's own data are."""


@dataclass(frozen=True)
class Asked:
    """Rows of the file one after the other, cast to the contract's types."""

    batch: "pa.RecordBatch"
    """What could not be read is null."""
    row_ids: list[str]
    faults: dict[int, str]
    """Row of the batch -> why it cannot be answered."""


def read_asked(
    contract: Contract, path: Path, columns: list[str], more: dict[str, str], progress: "Progress | None" = None
) -> Iterator[Asked]:
    """The rows of `path`, in its order.

    columns: of the contract; a picture's brings those that tell its shape. more: the file's own columns beside them ->
    type (string, timestamp). Row ids are of `columns` alone, so the same inputs have the same ids in any file. Raises
    WrongInput.
    """
    import tempfile

    import pyarrow as pa

    from data_contracts.rows import RowIds, cast, schema_of
    from data_contracts.source import Unreadable
    from data_contracts.sources import files
    from data_contracts.sources import images as image_lists

    if not path.is_file():
        raise WrongInput(f"file {path}: there is none; give a CSV, JSONL or Parquet file")
    own = contract.server if contract.source == "files" else {}
    images = [name for name in columns if contract.column(name).type == "image"]
    added = tuple(Column(name=name, type=kind, arrow=kind) for name, kind in more.items() if name not in columns)
    columns = [one for name in columns for one in (image_columns(name) if name in images else [name])]
    server = {key: value for key, value in own.items() if key not in PLACES}
    if images and "mode" in contract.server:
        server["mode"] = contract.server["mode"]
    named = bool(images) and path.suffix.lower() in image_lists.LISTS  # it says where the pictures are
    given = replace(
        contract,
        columns=(*(replace(contract.column(name), condition=None) for name in columns), *added),
        server=server | ({"source": "images", "files": [path.name]} if named else {"source": "files"}),
    )
    ids = RowIds()
    with tempfile.TemporaryDirectory(prefix="slipway-") as cache:
        reader, address = (image_lists, path.parent) if named else (files, path)
        for found in reader.read(given, str(address), Path(cache), progress):
            if isinstance(found, Unreadable):
                empty: dict[str, Any] = {field.name: pa.nulls(1, field.type) for field in schema_of(given)}
                batch = pa.record_batch(empty, schema=schema_of(given))
                yield Asked(batch, [ids.of_raw(found.raw)], {0: f"row {found.reason}"})
                continue
            batch, wrong = cast(found, given)
            faults = {row: f"{column}: {problem}" for row, (column, problem) in wrong.items()}
            yield Asked(batch, ids.of(batch.select(columns)), faults)
