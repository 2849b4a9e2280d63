"""A version checked again from its own files: the arithmetic of its rows and every digest.

audit(store, version) -> one Check a question, in the order in which trust is built: files, contract, rows, sums
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_contracts.registry import Version, contract_of, read_file, read_quarantine, read_split
from data_contracts.splits import SPLITS
from infra.digests import digest, digest_file
from infra.errors import SlipwayError
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

BATCH_ROWS = 65536


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    found: str
    """What was seen, one line."""


def audit(store: Store, version: Version) -> list[Check]:
    """Every check; those that need a damaged file fail with the reason."""
    checks = [_files(store, version)]
    for name, check in (
        ("contract digest", _contract),
        ("row arithmetic", _arithmetic),
        ("row ids", _row_ids),
        ("rows digest", _rows_digest),
    ):
        try:
            passed, found = check(store, version)
        except (SlipwayError, ValueError, KeyError, OSError) as error:
            passed, found = False, f"cannot be checked: {' '.join(str(error).split())[:200]}"
        checks.append(Check(name, passed, found))
    named = digest({"rows": version.rows, "contract": version.contract_digest})
    checks.append(Check("version digest", named == version.digest, f"{named[:12]} of the rows and contract digests"))
    return checks


def _files(store: Store, version: Version) -> Check:
    wrong = []
    entries = version.manifest["files"].values()
    for entry in entries:
        key = version.key(entry["name"])
        try:
            path = store.local_path(key)
        except NotFound:
            wrong.append(f"{entry['name']} is missing")
            continue
        if path.stat().st_size != entry["bytes"] or digest_file(path) != entry["sha256"]:
            wrong.append(f"{entry['name']} was altered")
    size = sum(entry["bytes"] for entry in entries)
    return Check("file hashes", not wrong, "; ".join(wrong) or f"{len(entries)} files, {size:,} bytes")


def _contract(store: Store, version: Version) -> tuple[bool, str]:
    found = contract_of(store, version)
    same = (found.digest, found.schema_digest) == (version.contract_digest, version.schema_digest)
    return same, f"{found.digest[:12]}, schema {found.schema_digest[:12]}" + ("" if same else ": not the manifest's")


def _arithmetic(store: Store, version: Version) -> tuple[bool, str]:
    """rows in = kept + quarantined + filtered, by the manifest and by the rows that are there."""
    import pyarrow.parquet as pq

    counts = version.counts
    there = {
        name: pq.read_metadata(read_file(store, version, file)).num_rows
        for name, file in {split: f"data/{split}" for split in SPLITS}.items()
        | {"quarantined": "quarantine", "filtered": "filtered"}.items()
    }
    wrong = [f"{name}: {there[name]:,} rows, the manifest says {counts[name]:,}" for name in there
             if there[name] != counts[name]]  # fmt: skip
    kept = sum(there[split] for split in SPLITS)
    total = kept + there["quarantined"] + there["filtered"]
    sentence = (
        f"{counts['rows_in']:,} in = {kept:,} kept + {there['quarantined']:,} quarantined + "
        f"{there['filtered']:,} filtered"
    )
    if total != counts["rows_in"]:
        wrong.append(f"{total:,} are accounted for of {sentence}")
    return not wrong, "; ".join(wrong) or sentence


def _row_ids(store: Store, version: Version) -> tuple[bool, str]:
    """Every stored row's id, recomputed from its values."""
    contract = contract_of(store, version)
    limit = version.counts["rows_in"]
    copies: Counter[bytes] = Counter()
    repeated: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    total = 0
    for row_id, key in _contents(store, version, contract):
        total += 1
        seen.add(row_id)
        copies[key] += 1
        if key.hex() != row_id:
            repeated.append((row_id, key))
    # Of equal rows the first has the digest itself, the others one with their number; a copy may have been left out.
    left_out = version.counts["quarantined"] + version.counts["filtered"]
    wrong = [row_id for row_id, key in repeated if not _is_copy(row_id, key, min(copies[key] + left_out, limit))]
    if wrong:
        return False, f"{len(wrong):,} of {total:,} ids are not their rows' (first: {sorted(wrong)[0][:16]})"
    if len(seen) != total:
        return False, f"{total - len(seen):,} of {total:,} rows share their id with another"
    return True, f"{total:,} recomputed from the stored rows"


def _is_copy(row_id: str, key: bytes, most: int) -> bool:
    return any(hashlib.sha256(key + b"#%d" % number).hexdigest() == row_id for number in range(1, most + 1))


def _contents(store: Store, version: Version, contract: "Contract") -> Iterator[tuple[str, bytes]]:
    """(id, SHA-256 of the content) of each kept, each filtered and each quarantined row."""
    from data_contracts.rows import encode

    names = [column.name for column in contract.columns]
    for table in _tables(store, version):
        ids, rows = table.column("row_id"), table.select(names)
        for start in range(0, table.num_rows, BATCH_ROWS):
            part = rows.slice(start, BATCH_ROWS).combine_chunks()
            encoded = [row for batch in part.to_batches() for row in encode(batch)]
            for row_id, row in zip(ids.slice(start, BATCH_ROWS).to_pylist(), encoded, strict=True):
                yield row_id, hashlib.sha256(b"row" + row).digest()
    most = version.counts["quarantined"] + version.counts["filtered"] + 1
    for entry in read_quarantine(store, version).to_pylist():
        keys = [hashlib.sha256(content).digest() for content in _quarantined(entry, contract)]
        row_id = entry["row_id"]
        yield row_id, next((key for key in keys if key.hex() == row_id or _is_copy(row_id, key, most)), keys[0])


def _tables(store: Store, version: Version) -> "Iterator[pa.Table]":
    """The rows of each split, and the filtered ones, `row_id` first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split in SPLITS:
        yield read_split(store, version, split)
    filtered = pq.read_table(read_file(store, version, "filtered"), memory_map=True)
    if "values" in filtered.column_names:  # a version from before there were filters has the ids alone
        values = pa.Table.from_struct_array(filtered.column("values"))
        yield values.add_column(0, "row_id", filtered.column("row_id"))


def _quarantined(entry: dict[str, Any], contract: "Contract") -> Iterator[bytes]:
    """What a quarantined row's id may be the hash of: its bytes, its values as read, its values after the cast."""
    from data_contracts.rows import encode, values_content

    if entry["values"] is None:
        yield b"raw" + entry["raw"]
        return
    values = json.loads(entry["values"])
    yield values_content(values)
    try:
        yield b"row" + encode(_cast_again(values, entry["raw"], contract))[0]
    except (ValueError, KeyError):
        return  # it never was cast


def _cast_again(values: dict[str, Any], pixels: bytes | None, contract: "Contract") -> "pa.RecordBatch":
    """A row that was cast once, from its JSON; an image's pixels stand beside it."""
    import pyarrow as pa

    from data_contracts.rows import arrow_type, cast

    arrays = []
    for column in contract.columns:
        value = pixels if column.type == "image" else values[column.name]
        text = value if value is None or isinstance(value, str | bytes) else str(value)
        arrays.append(pa.nulls(1, arrow_type(column.arrow)) if text is None else pa.array([text]))
    batch, faults = cast(pa.record_batch(arrays, names=[column.name for column in contract.columns]), contract)
    if faults:
        raise ValueError(f"a quarantined row does not fit the contract's types: {faults[0]}")
    return batch


def _rows_digest(store: Store, version: Version) -> tuple[bool, str]:
    """Ids and splits in source order, quarantined ids and rules, filtered ids, hashed again."""
    import pyarrow.parquet as pq

    from data_contracts.draft import rows_digest

    order = pq.read_table(read_file(store, version, "order")).column("split").to_pylist()
    ids = {split: iter(read_split(store, version, split, []).column("row_id").to_pylist()) for split in SPLITS}
    kept = ((next(ids[split], "missing"), split) for split in order)
    quarantine = read_quarantine(store, version).select(["row_id", "rules"]).to_pylist()
    file = read_file(store, version, "filtered")
    told = [name for name in ("row_id", "reason", "duplicate_of") if name in pq.read_schema(file).names]
    filtered = pq.read_table(file, columns=told).to_pylist()
    found = rows_digest(
        kept,
        ((row["row_id"], row["rules"]) for row in quarantine),
        ((row["row_id"], _reason(row)) for row in filtered),
    )
    left = sum(1 for rest in ids.values() for _ in rest)
    if left:
        return False, f"{left:,} rows stand in no place of the order"
    same = found == version.rows
    return same, f"{found[:12]} of {len(order):,} kept rows" + (
        "" if same else f": the manifest says {version.rows[:12]}"
    )


def _reason(row: dict[str, Any]) -> str:
    """Why a row was filtered, as the digest has it."""
    return f"filter {row['reason']}" if row["duplicate_of"] is None else f"duplicate {row['duplicate_of']}"
