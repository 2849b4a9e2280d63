"""A row that a person corrected leaves quarantine, by raw row id, in this version and every later one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.audit import audit
from data_contracts.contract import Contract
from data_contracts.corrections import in_force, withdraw
from data_contracts.registry import (
    Version,
    list_versions,
    moved,
    read_file,
    read_quarantine,
    read_split,
    register,
    resolve,
    validate_source,
)
from data_contracts.release import by_whole_id, release
from infra.errors import Refused, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {
    "text": {"logicalType": "string", "required": True},
    "kind": {"logicalType": "string", "enum": [{"value": kind} for kind in ("fruit", "metal", "river")]},
    "age": "integer",
}


@pytest.fixture
def made(document: Callable[..., dict[str, Any]], tmp_path: Path) -> Contract:
    import yaml

    from data_contracts.contract import load_contract

    path = tmp_path / "made.odcs.yaml"
    path.write_text(yaml.safe_dump(document(COLUMNS, label="kind", inputs=["text"])), encoding="utf-8")
    return load_contract(str(path))


@pytest.fixture
def bad(made: Contract, tmp_path: Path, sentences: Rows) -> tuple[FolderStore, Version]:
    """A set with a ragged row, one that cannot be cast and one that breaks a rule."""
    write_rows(tmp_path / "rows.csv", sentences)
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, made)
    assert version.counts["quarantined"] == 3
    return store, version


def write_rows(path: Path, sentences: Rows, extra: int = 0) -> None:
    lines = [f"{row['text']},{row['kind']},{index}" for index, row in enumerate(sentences)]
    lines[10], lines[20], lines[30] = "ragged", "cast me,metal,seventy", "label me,stone,30"
    lines += [f"an added sentence of number {number},river,{number}" for number in range(extra)]
    path.write_text("text,kind,age\n" + "\n".join(lines) + "\n", encoding="utf-8")


def ids(store: FolderStore, version: Version) -> dict[str, str]:
    """Rule -> raw row id."""
    return {row["rules"][0]: row["row_id"] for row in read_quarantine(store, version).to_pylist()}


def kept(store: FolderStore, version: Version) -> dict[str, tuple[str, int | None, str]]:
    return {row["text"]: (row["kind"], row["age"], split) for split in ("train", "validation", "test")
            for row in read_split(store, version, split).to_pylist()}  # fmt: skip


def fixed(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def all_three(store: FolderStore, version: Version, path: Path) -> Path:
    raw = ids(store, version)
    return fixed(path, [
        {"row_id": raw["row:parse"], "text": "no longer ragged", "kind": "river", "age": 10},
        {"row_id": raw["age:type"], "age": 70},
        {"row_id": raw["kind:enum"], "kind": "metal"},
    ])  # fmt: skip


def test_corrected_rows_are_in_the_new_version_and_recorded(bad: tuple[FolderStore, Version], tmp_path: Path) -> None:
    store, old = bad
    done = release(store, "made", all_three(store, old, tmp_path / "fixed.jsonl"), "ann")
    new = done.version
    assert len(done.corrected) == 3 and (done.added, done.removed, done.contract_changed) == (0, 0, False)
    assert new.digest != old.digest and new.counts["quarantined"] == 0 and new.counts["rows_in"] == 400
    rows = kept(store, new)
    assert rows["no longer ragged"][:2] == ("river", 10)
    assert rows["cast me"][:2] == ("metal", 70) and rows["label me"][:2] == ("metal", 30)
    before = kept(store, old)
    assert all(rows[text] == value for text, value in before.items()), "no other row changed or moved"
    body = json.loads(read_file(store, new, "corrections").read_text(encoding="utf-8"))
    by_id = {one["row_id"]: one for one in body["corrected"]}
    label = by_id[ids(store, old)["kind:enum"]]
    assert label["who"] == "ann" and label["time"].startswith("20")
    assert label["before"] == {"text": "label me", "kind": "stone", "age": 30} and label["after"] == {"kind": "metal"}
    assert by_id[ids(store, old)["row:parse"]]["before"] == "ragged"
    assert resolve(store, "made").digest == new.digest
    assert all(check.passed for check in audit(store, new))


def test_validating_judges_as_registering_would(
    bad: tuple[FolderStore, Version], made: Contract, tmp_path: Path
) -> None:
    store, old = bad
    assert validate_source(made)["digest"] == old.digest
    new = release(store, "made", all_three(store, old, tmp_path / "fixed.jsonl"), "ann").version
    found = validate_source(made, corrections=in_force(store, "made"))
    assert (found["digest"], found["counts"], found["corrected"]) == (new.digest, new.counts, 3)
    assert validate_source(made)["counts"]["quarantined"] == 3, "none are given"
    with pytest.raises(WrongInput, match="the limit is"):
        validate_source(made, memory_limit=1)


def test_every_later_register_applies_them_until_withdrawn(
    bad: tuple[FolderStore, Version], made: Contract, tmp_path: Path, sentences: Rows
) -> None:
    store, old = bad
    new = release(store, "made", all_three(store, old, tmp_path / "fixed.jsonl"), "ann").version
    assert moved(store, made, None) is None, "the release was the registration"
    again, created = register(store, made)
    assert not created and again.digest == new.digest
    write_rows(tmp_path / "rows.csv", sentences, extra=50)
    later, _ = register(store, made)
    assert later.counts["quarantined"] == 0 and kept(store, later)["cast me"][1] == 70
    taken = withdraw(store, "made", ids(store, old)["kind:enum"][:16], "bob", "the label was wrong too")
    assert taken.after == {"kind": "metal"}
    assert "correction" in (moved(store, made, None) or "")
    last, _ = register(store, made)
    assert ids(store, last) == {"kind:enum": ids(store, old)["kind:enum"]}
    assert len(in_force(store, "made").by_row) == 2
    with pytest.raises(WrongInput, match="has no correction in force"):
        withdraw(store, "made", ids(store, old)["kind:enum"], "bob", "again")


@pytest.mark.parametrize("batch_rows", [1, 7, 8192])
def test_a_correction_gives_the_digest_that_good_data_would(
    bad: tuple[FolderStore, Version], made: Contract, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch, batch_rows: int,
) -> None:  # fmt: skip
    store, old = bad
    monkeypatch.setattr("data_contracts.sources.files.BATCH_ROWS", batch_rows)
    new = release(store, "made", all_three(store, old, tmp_path / "fixed.jsonl"), "ann").version
    lines = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    lines[11], lines[21], lines[31] = "no longer ragged,river,10", "cast me,metal,70", "label me,metal,30"
    (tmp_path / "good.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    good, _ = register(FolderStore(tmp_path / "other"), made, str(tmp_path / "good.csv"))
    assert good.rows == new.rows


def refused(bad: tuple[FolderStore, Version], kind: type[Exception], path: Path) -> str:
    store, _ = bad
    before = sorted(store.list(""))
    with pytest.raises(kind) as caught:
        release(store, "made", path, "ann")
    assert sorted(store.list("")) == before, "nothing is recorded"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_source_that_is_gone_is_named_with_the_way_out(bad: tuple[FolderStore, Version], tmp_path: Path) -> None:
    store, old = bad
    path = all_three(store, old, tmp_path / "fixed.jsonl")
    (tmp_path / "rows.csv").rename(tmp_path / "moved.csv")
    said = refused(bad, WrongInput, path)
    assert str(tmp_path / "rows.csv") in said and "say where it is now with --source" in said
    done = release(store, "made", path, "ann", source=str(tmp_path / "moved.csv"))
    assert done.version.counts["quarantined"] == 0 and (done.added, done.removed) == (0, 0)


def test_what_else_changed_in_the_source_is_counted(
    bad: tuple[FolderStore, Version], made: Contract, tmp_path: Path, sentences: Rows
) -> None:
    store, old = bad
    path = fixed(tmp_path / "fixed.jsonl", [{"row_id": ids(store, old)["age:type"], "age": 70}])
    write_rows(tmp_path / "rows.csv", sentences[:390], extra=7)
    done = release(store, "made", path, "ann")
    assert (done.added, done.removed, done.contract_changed) == (7, 10, False)
    assert done.version.counts["quarantined"] == 2 and done.version.counts["rows_in"] == 397
    Path(made.path).write_text(made.text.replace("version: 1.0.0", "version: 1.1.0"), encoding="utf-8")
    path = fixed(tmp_path / "fixed.jsonl", [{"row_id": ids(store, old)["kind:enum"], "kind": "metal"}])
    done = release(store, "made", path, "ann")
    assert (done.added, done.removed, done.contract_changed) == (0, 0, True)


def test_a_correction_that_still_violates_the_contract_is_refused(
    bad: tuple[FolderStore, Version], tmp_path: Path
) -> None:
    raw = ids(*bad)
    path = fixed(tmp_path / "fixed.jsonl", [{"row_id": raw["kind:enum"], "kind": "wood"}])
    assert "still violates" in refused(bad, Refused, path) and "'wood' is none of" in refused(bad, Refused, path)
    path = fixed(tmp_path / "fixed.jsonl", [{"row_id": raw["age:type"], "age": "eighty"}])
    assert "'eighty' is not an integer" in refused(bad, Refused, path)
    path = fixed(tmp_path / "fixed.jsonl", [{"row_id": raw["row:parse"], "kind": "river"}])
    assert "text: is null but required" in refused(bad, Refused, path)


def test_a_file_that_corrects_nothing_is_told_why(bad: tuple[FolderStore, Version], tmp_path: Path) -> None:
    store, version = bad
    good = read_split(store, version, "train").column("row_id")[0].as_py()
    raw = ids(*bad)["kind:enum"]
    for rows, words in (
        ([{"row_id": good, "kind": "metal"}], f"row_id {good[:16]} is not in the quarantine of {version.ref}"),
        ([{"kind": "metal"}], "row 1: has no row_id"),
        ([{"row_id": raw, "knid": "metal"}], "column 'knid' is unknown; did you mean 'kind'?"),
        ([{"row_id": raw}], "corrects nothing"),
        ([{"row_id": raw, "kind": "metal"}] * 2, "stands there twice"),
        ([{"row_id": raw, "kind": "metal"}, {"row_id": raw[:20], "kind": "metal"}], "stands there twice"),
        ([{"row_id": raw, "kind": ["metal"]}], "kind is no plain value"),
        ([], "has no rows"),
    ):
        assert words in refused(bad, WrongInput, fixed(tmp_path / "fixed.jsonl", rows))
    (tmp_path / "fixed.csv").write_text(f"row_id,kind\n{raw},metal,more\n", encoding="utf-8")
    assert "line 2: has not as many cells" in refused(bad, WrongInput, tmp_path / "fixed.csv")
    (tmp_path / "fixed.jsonl").write_text("{", encoding="utf-8")
    assert "line 1: is not JSON" in refused(bad, WrongInput, tmp_path / "fixed.jsonl")
    (tmp_path / "fixed.parquet").write_bytes(b"PAR1 not")
    assert "is not Parquet" in refused(bad, WrongInput, tmp_path / "fixed.parquet")
    assert "cannot be read" in refused(bad, WrongInput, tmp_path / "absent.csv")
    assert "'.xlsx' is not read" in refused(bad, WrongInput, tmp_path / "fixed.xlsx")


def test_a_row_id_may_be_its_beginning_where_that_is_one_row() -> None:
    after = {"kind": "metal"}
    assert by_whole_id({"ab": after}, ["abc", "acd"], "file f", "the quarantine") == {"abc": after}
    with pytest.raises(WrongInput, match="row_id a begins 2 rows of the quarantine; there is: abc, acd"):
        by_whole_id({"a": after}, ["abc", "acd", "b"], "file f", "the quarantine")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_exported_quarantine_may_be_edited_and_given_back(
    bad: tuple[FolderStore, Version], tmp_path: Path, write: Writer, ending: str
) -> None:
    store, version = bad
    row = next(one for one in read_quarantine(store, version).to_pylist() if one["rules"] == ["kind:enum"])
    edited = {"row_id": row["row_id"], "reason": row["reason"], **json.loads(row["values"]), "kind": "metal"}
    new = release(store, "made", write(tmp_path / f"fixed.{ending}", [edited]), "ann").version
    assert new.counts["quarantined"] == 2 and kept(store, new)["label me"][:2] == ("metal", 30)
    assert len(list_versions(store)) == 2
