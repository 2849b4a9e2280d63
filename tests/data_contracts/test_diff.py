"""What two versions differ in is told row by row: by key where there is one, else by row id."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.diff import diff
from data_contracts.registry import register
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
KEY = {"logicalType": "integer", "unique": True}
COLUMNS: dict[str, Any] = {"id": KEY, "text": "string", "kind": "string"}


@pytest.fixture
def compared(write: Writer, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """compared(contract, rows, other rows[, other contract]) -> their diff, as JSON gives it back."""

    def compare(made: Contract, before: Rows, after: Rows, other: Contract | None = None) -> dict[str, Any]:
        store = FolderStore(tmp_path / "store")
        old, _ = register(store, made, str(write(tmp_path / "before.parquet", before)))
        new, _ = register(store, other or made, str(write(tmp_path / "after.parquet", after)))
        return json.loads(json.dumps(diff(store, old, new)))

    return compare


@pytest.fixture
def rows(sentences: Rows) -> Rows:
    return [{"id": index, **row} for index, row in enumerate(sentences)]


def changed(rows: Rows) -> Rows:
    """Two rows gone, five new, and three of another label or text."""
    after = [dict(row) for row in rows[2:]]
    after[0]["kind"] = "stone"
    after[1]["kind"] = "stone"
    after[2] |= {"kind": "stone", "text": "quite another sentence"}
    return after + [{"id": 1000 + number, "text": f"a new one, {number}", "kind": "river"} for number in range(5)]


def counts(found: dict[str, Any]) -> tuple[int, ...]:
    return tuple(found["rows"][name] for name in ("same", "added", "removed", "changed", "moved"))


def test_the_same_version_differs_in_nothing(
    contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows
) -> None:
    found = compared(contract(COLUMNS, label="kind", inputs=["text"]), rows, rows)
    assert found["same_rows"] and counts(found) == (400, 0, 0, 0, 0)
    assert found["distribution"] == [] and not found["schema"]["contract_changed"]


def test_rows_are_matched_by_a_unique_column(
    contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows
) -> None:
    found = compared(contract(COLUMNS, label="kind", inputs=["text"]), rows, changed(rows))
    assert found["rows"]["matched_by"] == "id" and counts(found) == (395, 5, 2, 3, 0)
    assert found["rows"]["columns"] == {"kind": 3, "text": 1}
    assert {"kind": ["river", "stone"]} in [one["columns"] for one in found["rows"]["examples"]]
    assert found["labels"]["stone"] == [0, 3]
    assert {one["column"] for one in found["distribution"]} >= {"kind"}


def test_without_a_key_rows_come_and_go_by_id(
    contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows
) -> None:
    found = compared(contract(COLUMNS | {"id": "integer"}, label="kind", inputs=["text"]), rows, changed(rows))
    assert found["rows"]["matched_by"] == "row id" and counts(found) == (395, 8, 5, 0, 0)


def test_rows_are_matched_by_their_group(contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows) -> None:
    grouped = [row | {"author": f"author {row['id'] % 60}"} for row in rows]
    after = [dict(row) for row in grouped[1:]]
    after[4]["kind"] = "stone"
    after.append({"id": 2000, "text": "by a new author", "kind": "metal", "author": "author 60"})
    after.append({"id": 2001, "text": "one more of a group that changed", "kind": "metal", "author": "author 5"})
    made = contract({"id": "integer", "text": "string", "kind": "string", "author": "string"}, label="kind",
                    inputs=["text"], split={"group": "author"})  # fmt: skip
    found = compared(made, grouped, after)
    assert found["rows"]["matched_by"] == "author" and counts(found) == (398, 2, 1, 1, 0)
    assert found["rows"]["groups"] == {"changed": 1, "shown": ["author 5"]}


def test_another_schema_is_told(contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows) -> None:
    before = contract(COLUMNS, inputs=["text"])
    columns = {"id": {"logicalType": "string", "unique": True}, "text": "string", "age": "integer"}
    after = contract(columns, label="text", inputs=["age"])
    aged = [{"id": str(row["id"]), "text": row["text"], "age": row["id"]} for row in rows]
    found = compared(before, rows, aged, after)
    schema = found["schema"]
    assert (schema["added"], schema["removed"]) == (["age"], ["kind"])
    assert {"column": "id", "field": "type", "before": "integer", "after": "string"} in schema["changed"]
    assert schema["inputs"] == [["text"], ["age"]] and schema["label"] == [None, "text"]
    assert schema["contract_changed"]


def test_personal_values_are_shown_as_hashes(
    contract: Maker, compared: Callable[..., dict[str, Any]], rows: Rows
) -> None:
    made = contract({"id": KEY, "text": "string", "kind": {"logicalType": "string", "classification": "PII"}},
                    label="kind", inputs=["text"])  # fmt: skip
    text = json.dumps(compared(made, rows, changed(rows)))
    assert "stone" not in text and '"river"' not in text and "quite another sentence" in text
