"""Rows left out on purpose are counted and kept with their filter's name; no rule judges them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_contracts.audit import audit
from data_contracts.contract import Contract
from data_contracts.registry import Version, read_file, read_quarantine, read_split, register
from infra.errors import Refused, SlipwayError, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS: dict[str, Any] = {
    "text": {"logicalType": "string", "required": True},
    "kind": {"logicalType": "string", "enum": [{"value": kind} for kind in ("fruit", "metal")]},
    "year": "integer",
}


def where(column: str, operator: str, parameter: Any) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": parameter}


OLD = {"name": "too-old", "where": where("year", "<", 1950)}
RIVERS = {"name": "rivers", "where": where("kind", "==", "river")}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def path(tmp_path: Path, write: Writer, sentences: Rows) -> str:
    rows: Rows = [row | {"year": 1900 + index % 100} for index, row in enumerate(sentences)]
    rows[7]["year"] = "long ago"
    return str(write(tmp_path / "rows.csv", rows))


def filtered(store: FolderStore, version: Version) -> Rows:
    return pq.read_table(read_file(store, version, "filtered")).to_pylist()


def test_filtered_rows_are_kept_with_their_reason_and_judged_by_no_rule(
    contract: Maker, store: FolderStore, path: str
) -> None:
    version, _ = register(store, contract(COLUMNS, label="kind", filters=[OLD, RIVERS]), path)
    rows = filtered(store, version)
    # A river breaks the enum; the one row whose year is no number has no values that a filter could ask.
    assert {row["rules"][0] for row in read_quarantine(store, version).to_pylist()} == {"year:type"}
    by_filter = Counter(row["reason"] for row in rows)
    assert version.manifest["filtered_by"] == by_filter and by_filter["too-old"] == 199 and by_filter["rivers"] == 67
    assert version.counts["filtered"] == 266 and sum(version.counts.values()) == 2 * version.counts["rows_in"]
    for row in rows:
        values = row["values"]
        assert values["year"] < 1950 if row["reason"] == "too-old" else values["kind"] == "river"
        assert row["duplicate_of"] is None
    kept = [row for split in ("train", "validation", "test") for row in read_split(store, version, split).to_pylist()]
    assert all(row["year"] >= 1950 and row["kind"] != "river" for row in kept)
    assert {row["row_id"] for row in kept}.isdisjoint(row["row_id"] for row in rows)
    checks = {check.name: check for check in audit(store, version)}
    assert all(check.passed for check in checks.values()) and "266 filtered" in checks["row arithmetic"].found
    assert checks["row ids"].found.startswith("400 recomputed")


def test_another_filter_is_another_set_of_rows(contract: Maker, store: FolderStore, path: str) -> None:
    """The digest holds ids and reasons of what was left out; without a filter it is what it always was."""
    names = [OLD, OLD | {"name": "ancient"}]
    rows = {register(store, contract(COLUMNS, filters=[one, RIVERS]), path)[0].rows for one in names}
    assert len(rows) == 2


def test_a_changed_reason_or_value_is_found_by_audit(contract: Maker, store: FolderStore, path: str) -> None:
    version, _ = register(store, contract(COLUMNS, filters=[OLD, RIVERS]), path)
    file = read_file(store, version, "filtered")
    rows = filtered(store, version)
    schema = pq.read_schema(file)
    for field, value, failed in (("reason", "rivers", "rows digest"), ("values", rows[1]["values"], "row ids")):
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist([rows[0] | {field: value}, *rows[1:]], schema), file)
        assert {check.name for check in audit(store, version) if not check.passed} == {"file hashes", failed}


def test_a_filtered_row_is_no_first_of_its_repeats(
    contract: Maker, store: FolderStore, write: Writer, tmp_path: Path, sentences: Rows
) -> None:
    rows = [row | {"kind": "metal", "year": 2000} for row in sentences]
    rows[3] |= {"year": 1900}
    rows += [rows[3] | {"year": 2001}, rows[5] | {"year": 2002}]
    made = contract(COLUMNS, filters=[OLD], duplicates={"columns": ["text"]}, inputs=["text"])
    version, _ = register(store, made, str(write(tmp_path / "rows.csv", rows)))
    assert version.manifest["filtered_by"] == {"too-old": 1, "duplicate": 1}
    assert [(row["reason"], row["values"]["year"]) for row in filtered(store, version)] == [
        ("too-old", 1900), ("duplicate", 2002)]  # fmt: skip
    assert all(check.passed for check in audit(store, version))


def test_texts_over_their_length_may_be_filtered(contract: Maker, store: FolderStore, path: str) -> None:
    length = [{"property": "slipway.length", "value": {"maximum": 29, "over": "filter"}}]
    columns = COLUMNS | {"text": COLUMNS["text"] | {"customProperties": length}}
    version, _ = register(store, contract(columns, filters=[RIVERS]), path)
    rows = filtered(store, version)
    assert set(version.manifest["filtered_by"]) == {"rivers", "text:length"}
    assert all(len(row["values"]["text"]) > 29 or row["reason"] == "rivers" for row in rows)


@pytest.mark.parametrize(
    ("filters", "kind", "message"),
    [
        ([{"name": "all", "where": where("year", ">", 0)}], Refused, "leave out every row (all 399); mend slipway.fil"),
        ([OLD, {"name": "new", "where": where("year", ">=", 1950)}], Refused, "every row (new 200, too-old 199)"),
        (
            [{"name": "x", "where": where("yaer", ">", 0)}],
            WrongInput,
            "'yaer' is not in the schema; did you mean",
        ),
        ([{"name": "x", "where": where("year", ">", "late")}], WrongInput, "'late' is no value of column 'year'"),
        ([{"name": "x", "where": "year > 1950"}], WrongInput, "slipway.filters[0].where 'year > 1950' is text that"),
        ([OLD, OLD], WrongInput, "slipway.filters[1]: 'too-old' is named twice"),
        ([{"name": "too old", "where": OLD["where"]}], WrongInput, "'too old' names no filter; use letters"),
        ([{"name": "duplicate", "where": OLD["where"]}], WrongInput, "'duplicate' is what repeats are filtered as"),
        (["too-old"], WrongInput, "slipway.filters[0]: 'too-old' is no filter; write {name: too-old, where: {...}}"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_one_line(
    contract: Maker, store: FolderStore, path: str, filters: list[Any], kind: type[SlipwayError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        register(store, contract(COLUMNS, filters=filters), path)
    assert message in str(caught.value) and "\n" not in str(caught.value) and not list(store.list(""))
