"""An audit believes nothing but the rows: whatever is altered, some check says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_contracts.audit import audit
from data_contracts.contract import Contract
from data_contracts.registry import Version, read_file, register, resolve
from infra.digests import digest_file
from infra.store import FolderStore, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {
    "text": {"logicalType": "string", "required": True},
    "kind": "string",
    "age": {"logicalType": "integer", "logicalTypeOptions": {"minimum": 0}},
    "share": {"logicalType": "number", "logicalTypeOptions": {"format": "f32", "maximum": 1}},
    "born": "date",
    "seen": "timestamp",
    "good": "boolean",
}


def lines(sentences: Rows) -> list[str]:
    rows = [
        f"{row['text']} é,{row['kind']},{index},{index / 1000},2020-01-{index % 28 + 1:02d},2020-01-02T03:04:05.5Z,true"
        for index, row in enumerate(sentences)
    ]
    rows[3] = "ragged"
    rows[4] = rows[5] = "an ill row,metal,seventy,0.5,,,"  # twice: the second id carries its number
    rows[7] = rows[8] = "too young,river,-3,0.25,2020-01-01,2020-01-02 03:04:05+02:00,false"
    rows[9] = " spaced ,fruit,1,7.1,,,yes"
    rows[20] = rows[21]
    rows[30] = "too much,metal,1,1e39,,,"
    return ["text,kind,age,share,born,seen,good", *rows]


@pytest.fixture
def registered(contract: Maker, tmp_path: Path, sentences: Rows) -> tuple[FolderStore, Version]:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines(sentences)) + "\n", encoding="utf-8")
    store = FolderStore(tmp_path / "store")
    made = contract(COLUMNS, label="kind", inputs=["text"], duplicates={"columns": ["text", "age"]})
    return store, register(store, made, str(path))[0]


def failing(store: Store, version: Version) -> set[str]:
    return {check.name for check in audit(store, version) if not check.passed}


def test_a_whole_version_passes_every_check(registered: tuple[FolderStore, Version]) -> None:
    store, version = registered
    checks = audit(store, version)
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 6
    found = {check.name: check.found for check in checks}
    assert version.counts["quarantined"] == 6 and version.counts["filtered"] == 2
    assert found["row arithmetic"] == "400 in = 392 kept + 6 quarantined + 2 filtered"
    assert found["row ids"] == "400 recomputed from the stored rows"


def alter(store: FolderStore, version: Version, file: str, change: Callable[[pa.Table], pa.Table]) -> Version:
    """Alter a file and its hash in the manifest, as somebody with access to the store could."""
    path = read_file(store, version, file)
    table = change(pq.read_table(path))
    pq.write_table(table, path)
    body = json.loads(store.get(version.key("manifest.json")))
    body["files"][file] |= {"sha256": digest_file(path), "bytes": path.stat().st_size}
    store.put(version.key("manifest.json"), json.dumps(body).encode())
    return resolve(store, version.ref)


def replace(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("data/train", lambda table: replace(table, "text", 5, "another text"), {"row ids"}),
        ("data/test", lambda table: replace(table, "share", 0, 0.123), {"row ids"}),
        ("data/train", lambda table: replace(table, "row_id", 5, "0" * 64), {"row ids", "rows digest"}),
        ("data/train", lambda table: table.slice(1), {"row arithmetic", "rows digest"}),
        ("data/train", lambda table: pa.concat_tables([table, table.slice(0, 1)]),
         {"row arithmetic", "row ids", "rows digest"}),
        ("data/train", lambda table: table.take(pc.sort_indices(table, [("row_id", "ascending")])), {"rows digest"}),
        ("order", lambda table: table.slice(1), {"rows digest"}),
        ("quarantine", lambda table: table.slice(1), {"row arithmetic", "rows digest"}),
        ("quarantine", lambda table: replace(table, "rules", 0, ["other:rule"]), {"rows digest"}),
        ("quarantine", lambda table: replace(table, "raw", 0, b"other"), {"row ids"}),
        ("quarantine", lambda table: replace(table, "values", 1, '{"text": "other"}'), {"row ids"}),
        ("filtered", lambda table: replace(table, "duplicate_of", 0, "0" * 64), {"rows digest"}),
    ],
)  # fmt: skip
def test_whatever_is_altered_is_said(
    registered: tuple[FolderStore, Version], file: str, change: Callable[[pa.Table], pa.Table], says: set[str]
) -> None:
    store, version = registered
    assert failing(store, alter(store, version, file, change)) == says


def test_a_missing_file_is_said_and_the_other_checks_go_on(registered: tuple[FolderStore, Version]) -> None:
    store, version = registered
    read_file(store, version, "order").unlink()
    assert failing(store, version) == {"file hashes", "rows digest"}


def test_another_contract_or_another_count_is_said(registered: tuple[FolderStore, Version]) -> None:
    store, version = registered
    path = read_file(store, version, "contract")
    path.write_text(path.read_text(encoding="utf-8").replace("version: 1.0.0", "version: 1.0.1"), encoding="utf-8")
    assert failing(store, version) == {"file hashes", "contract digest"}
    body = json.loads(store.get(version.key("manifest.json")))
    body["counts"]["rows_in"] += 1
    store.put(version.key("manifest.json"), json.dumps(body).encode())
    assert "row arithmetic" in failing(store, resolve(store, version.ref))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_values_that_are_no_text_are_audited_too(
    contract: Maker, write: Writer, tmp_path: Path, sentences: Rows, ending: str
) -> None:
    rows = [row | {"age": index, "share": index / 1000} for index, row in enumerate(sentences)]
    rows[3]["age"] = -1
    rows[4]["share"] = 3.5
    columns = {name: COLUMNS[name] for name in ("text", "kind", "age", "share")}
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, contract(columns, label="kind"), str(write(tmp_path / f"rows.{ending}", rows)))
    assert version.counts["quarantined"] == 2
    assert failing(store, version) == set()
