"""Images that stand in a table as bytes: a binary column, or the hub's struct of `bytes` and `path`.

They become rows like those of an image folder: decoded pixels, and the columns that an image brings. A row whose image
cannot be decoded is kept apart as that image's bytes. A path without bytes is never opened: it is another machine's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_contracts.contract import DERIVED
from data_contracts.native import Native
from data_contracts.native import Unreadable as NotDecoded
from data_contracts.source import Unreadable
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

MODES = ("L", "RGB", "RGBA", "I;16", "F")
TABLE_ROWS = 32
"""Rows of a table that are held with their images still encoded."""
BATCH_BYTES = 1 << 25
MAX_RAW = 1 << 24
"""Bytes of an image that could not be decoded which quarantine keeps."""


def image_mode(contract: "Contract") -> str | None:
    """The mode that every image is converted to, or none. Raises WrongInput."""
    mode = contract.server.get("mode")
    if mode is not None and mode not in MODES:
        raise WrongInput(f"contract {contract.path}: slipway.mode '{mode}' is unknown; {choices(mode, MODES)}")
    return mode


def derived_names(contract: "Contract") -> set[str]:
    """Columns that images bring, which no table holds."""
    return {f"{image}_{suffix}" for image in contract.images for suffix in DERIVED}


def decode_images(
    batch: "pa.RecordBatch", contract: "Contract", native: Native, file: str, first: int
) -> "Iterator[pa.RecordBatch | Unreadable]":
    """The rows of a batch that has the contract's columns but the derived ones. Raises WrongInput for other types."""
    import pyarrow as pa

    mode = image_mode(contract)
    encoded = {name: _bytes_of(batch.column(name), f"source {file}: column '{name}'") for name in contract.images}
    rest = [column.name for column in contract.columns if column.name in batch.schema.names and column.type != "image"]
    found: dict[str, list[Any]] = {name: [] for name in (*contract.images, *derived_names(contract))}
    start = held = 0

    def done(end: int) -> "Iterator[pa.RecordBatch]":
        if end > start:
            parts = {name: batch.column(name).slice(start, end - start) for name in rest}
            for name, values in found.items():
                pixels = name in contract.images
                kind = pa.large_binary() if pixels else pa.string() if name.endswith("_mode") else pa.int64()
                parts[name] = pa.array(values, kind)
            arrays = [parts[column.name] for column in contract.columns]
            names = [column.name for column in contract.columns]
            made = pa.record_batch(arrays, names=names)
            yield made.replace_schema_metadata({"file": file, "row": str(first + start)})
        for values in found.values():
            values.clear()

    for row in range(batch.num_rows):
        decoded: dict[str, Any] | Unreadable = {}
        for name, values in encoded.items():
            assert isinstance(decoded, dict)
            one = _decode(values[row].as_py(), name, native, mode, (file, first + row))
            if isinstance(one, Unreadable):
                decoded = one
                break
            decoded |= one
        if isinstance(decoded, Unreadable):
            yield from done(row)
            start, held = row + 1, 0
            yield decoded
            continue
        for name, value in decoded.items():
            found[name].append(value)
        held += sum(len(decoded[name] or b"") for name in contract.images)
        if held >= BATCH_BYTES:
            yield from done(row + 1)
            start, held = row + 1, 0
    yield from done(batch.num_rows)


def _bytes_of(values: "pa.Array", where: str) -> "pa.Array":
    """The binary column, or that of the struct; {"bytes": null, "path": ...} is told apart from a missing image."""
    import pyarrow as pa

    kind = values.type
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    fields = [kind.field(index).name for index in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    if binary or "bytes" in fields:
        return values
    raise WrongInput(f"{where}: is {kind}, and no image; it must hold images' bytes, or the hub's bytes and path")


def _decode(
    value: Any, name: str, native: Native, mode: str | None, place: tuple[str, int]
) -> dict[str, Any] | Unreadable:
    if isinstance(value, dict):
        path = value.get("path")
        if value["bytes"] is None and path:
            reason = f"{name}: only its path is there ('{str(path)[:80]}'), not its bytes"
            return Unreadable(place[0], place[1], place[1], str(path).encode(), reason)
        value = value["bytes"]
    if value is None:
        return {name: None} | {f"{name}_{suffix}": None for suffix in DERIVED}
    try:
        pixels, facts = native.image(value, mode)
    except NotDecoded as error:
        return Unreadable(place[0], place[1], place[1], value[:MAX_RAW], f"{name}: {error}")
    return {name: pixels} | {f"{name}_{suffix}": facts[suffix] for suffix in DERIVED}
