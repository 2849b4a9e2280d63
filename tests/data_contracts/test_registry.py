"""A version is whole or absent, named by what it holds, and accounts for every row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from data_contracts import registry
from data_contracts.contract import Contract, load_contract
from data_contracts.registry import (
    contract_of,
    damage,
    list_versions,
    moved,
    read_quarantine,
    read_split,
    register,
    registered_from,
    resolve,
    validate_source,
)
from infra.errors import WrongInput
from infra.store import FolderStore, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": {"logicalType": "string", "required": True}, "kind": "string"}


def all_rows(store: Store, version: registry.Version) -> Rows:
    return [row for split in ("train", "validation", "test") for row in read_split(store, version, split).to_pylist()]


def test_what_went_in_comes_out(contract: Maker, write: Writer, store: Store, tmp_path: Path, sentences: Rows) -> None:
    path = write(tmp_path / "rows.csv", sentences)
    version, created = register(store, contract(COLUMNS, label="kind"), str(path))
    assert created
    assert version.counts["rows_in"] == 400 == sum(version.counts[split] for split in ("train", "validation", "test"))
    rows = all_rows(store, version)
    assert len({row.pop("row_id") for row in rows}) == 400
    assert sorted(rows, key=str) == sorted(sentences, key=str)
    assert read_split(store, version, "test", ["kind"]).column_names == ["row_id", "kind"]
    assert contract_of(store, version).digest == version.contract_digest
    assert damage(store, version) is None
    assert [found.ref for found in list_versions(store)] == [version.ref]
    for ref in ("made", "made@latest", version.ref, f"made@{version.digest}"):
        assert resolve(store, ref).digest == version.digest


README = """
apiVersion: v3.1.0
kind: DataContract
id: reviews
version: 1.0.0
servers: [{server: here, type: local, path: reviews.csv, format: csv}]
schema:
  - name: reviews
    properties:
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.label, value: label}
"""


def test_a_dozen_lines_are_a_contract(folder: FolderStore, tmp_path: Path, write: Writer, sentences: Rows) -> None:
    write(tmp_path / "reviews.csv", [{"text": row["text"], "label": row["kind"]} for row in sentences])
    (tmp_path / "reviews.odcs.yaml").write_text(README, encoding="utf-8")
    made = load_contract(str(tmp_path / "reviews.odcs.yaml"))
    assert (made.inputs, made.label) == (("text",), "label")
    version, _ = register(folder, made)
    assert version.counts["train"] > version.counts["test"] > 0


def test_registering_again_writes_nothing_but_the_age(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    """The manifest is written as it was: what is used again is young again, and is not cleared away."""
    path = write(tmp_path / "rows.csv", sentences)
    version, _ = register(folder, contract(COLUMNS), str(path))
    before = {key: ((folder.folder / key).stat().st_mtime_ns, folder.get(key)) for key in folder.list("")}
    again, created = register(folder, contract(COLUMNS), str(path))
    assert (again.digest, created) == (version.digest, False)
    after = {key: ((folder.folder / key).stat().st_mtime_ns, folder.get(key)) for key in folder.list("")}
    assert {key for key in before | after if before.get(key) != after.get(key)} == {version.key("manifest.json")}
    assert after[version.key("manifest.json")][1] == before[version.key("manifest.json")][1]


@pytest.mark.parametrize("batch_rows", [7, 8192])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_same_rows_have_the_same_digest(
    contract: Maker, write: Writer, store: Store, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch, ending: str, batch_rows: int,
) -> None:  # fmt: skip
    rows = [row | {"length": len(row["text"]) / 4, "text": f"{row['text']} é"} for row in sentences]
    rows[5] |= {"text": "", "length": None}
    made = contract(COLUMNS | {"length": "number"}, label="kind")
    monkeypatch.setattr("data_contracts.sources.files.BATCH_ROWS", batch_rows)
    version, _ = register(store, made, str(write(tmp_path / f"rows.{ending}", rows)))
    assert version.counts["quarantined"] == 1
    # Golden: one digest for all stores, formats and batch sizes, and one that no later release may change.
    golden = "cf50583fcf16ef718572060867c944da99b7cab39c88beb004ee97055bbd246e"
    assert version.rows == golden
    for start in range(0, 400, 150):
        write(tmp_path / f"part-{start:03d}.{ending}", rows[start : start + 150])
    parts, created = register(store, made, str(tmp_path / f"part-*.{ending}"))
    assert (parts.rows, created) == (golden, False), "in several files"


def test_one_changed_cell_is_another_version(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    old, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "a.csv", sentences)))
    changed = [*sentences[:-1], sentences[-1] | {"kind": "fruits"}]
    new, created = register(folder, contract(COLUMNS), str(write(tmp_path / "b.csv", changed)))
    assert created and new.rows != old.rows and new.schema_digest == old.schema_digest
    assert resolve(folder, "made").digest == new.digest, "latest follows"
    assert resolve(folder, old.ref).digest == old.digest, "and the old one stays"
    assert {row["row_id"] for row in all_rows(folder, old)} - {row["row_id"] for row in all_rows(folder, new)}


def test_another_row_in_quarantine_is_another_version(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    made = contract(COLUMNS | {"age": "integer"})
    rows = [row | {"age": 1} for row in sentences]
    digests = set()
    for bad in ("x", "y"):
        path = write(tmp_path / f"{bad}.csv", [*rows, sentences[0] | {"age": bad}])
        digests.add(register(folder, made, str(path))[0].rows)
    assert len(digests) == 2


def test_a_new_owner_retrains_nothing(
    document: Callable[..., dict[str, Any]], write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    from yaml import safe_dump

    write(tmp_path / "rows.csv", sentences)
    versions = []
    for owner in ("one", "two"):
        path = tmp_path / "made.odcs.yaml"
        path.write_text(safe_dump(document(COLUMNS) | {"team": {"name": owner}}), encoding="utf-8")
        versions.append(register(folder, load_contract(str(path)))[0])
    assert versions[0].digest != versions[1].digest
    assert (versions[0].rows, versions[0].schema_digest) == (versions[1].rows, versions[1].schema_digest)


def test_no_row_vanishes(contract: Maker, folder: FolderStore, tmp_path: Path, sentences: Rows) -> None:
    lines = [f"{row['text']},{row['kind']},{index}" for index, row in enumerate(sentences)]
    lines[3] = "ragged"
    lines[50] = ",metal,50"
    lines[70] = "a text,metal,seventy"
    lines[90] = lines[89]
    lines[120] = "far too young,river,-3"
    path = tmp_path / "rows.csv"
    path.write_text("text,kind,age\n" + "\n".join(lines) + "\n", encoding="utf-8")
    age = {"logicalType": "integer", "logicalTypeOptions": {"minimum": 0}}
    made = contract(COLUMNS | {"age": age}, duplicates={"columns": ["text"]})
    version, _ = register(folder, made, str(path))
    assert version.counts["quarantined"] == 4 and version.counts["filtered"] == 1
    assert sum(count for name, count in version.counts.items() if name != "rows_in") == 400
    found = {(row["row"], tuple(row["rules"]), row["line"]) for row in read_quarantine(folder, version).to_pylist()}
    assert found == {
        (4, ("row:parse",), 5),
        (51, ("text:required",), None),
        (71, ("age:type",), None),
        (121, ("age:range",), None),
    }
    by_row = {row["row"]: row for row in read_quarantine(folder, version).to_pylist()}
    assert by_row[4]["raw"] == b"ragged" and by_row[71]["reason"] == "age: 'seventy' is not an integer"
    assert json.loads(by_row[121]["values"]) == {"text": "far too young", "kind": "river", "age": -3}
    assert len({row["row_id"] for row in all_rows(folder, version)} | {row["row_id"] for row in by_row.values()}) == 399


@given(
    kept=st.lists(st.tuples(st.sampled_from(["a b", "A  B", "c", "d", "e"]), st.sampled_from("xy")), max_size=12),
    bad=st.lists(st.sampled_from(["", "one,two,three", "f,,"]), max_size=3),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_add_up_and_twins_stay_together(
    contract: Maker, sentences: Rows, tmp_path: Path, kept: list[tuple[str, str]], bad: list[str]
) -> None:
    base = [f"{row['text']},{row['kind']}" for row in sentences]
    path = tmp_path / "rows.csv"
    path.write_text("text,kind\n" + "\n".join(base + [f"{a},{b}" for a, b in kept] + bad) + "\n", encoding="utf-8")
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, contract(COLUMNS, label="kind", inputs=["text"]), str(path))
    ragged = sum(bool(line) for line in bad)  # an empty line is no row
    assert version.counts["rows_in"] == 400 + len(kept) + ragged
    assert version.counts["quarantined"] == ragged
    place: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        for row in read_split(store, version, split).to_pylist():
            key = " ".join(row["text"].lower().split())
            assert place.setdefault(key, split) == split, "twins, contradictory or not, must be in one split"


def test_more_rows_move_no_old_one(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    made = contract(COLUMNS, label="kind", inputs=["text"])
    places = []
    for count in (300, 400):
        version, _ = register(folder, made, str(write(tmp_path / f"{count}.csv", sentences[:count])))
        places.append({row["row_id"]: split for split in ("train", "validation", "test")
                       for row in read_split(folder, version, split).to_pylist()})  # fmt: skip
    assert places[0].items() <= places[1].items()


def test_groups_stay_together(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    rows = [row | {"author": f"author {index % 60}"} for index, row in enumerate(sentences)]
    made = contract(COLUMNS | {"author": "string"}, inputs=["text"], split={"group": "author"})
    version, _ = register(folder, made, str(write(tmp_path / "rows.csv", rows)))
    authors = [set(read_split(folder, version, split).column("author").to_pylist())
               for split in ("train", "validation", "test")]  # fmt: skip
    assert sum(map(len, authors)) == 60 == len(set.union(*authors))


def test_sets_that_share_texts_share_their_splits(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    labelled = contract(COLUMNS, label="kind", inputs=["text"], id="labelled")
    other = contract({"body": "string", "n": "integer"}, inputs=["body"], id="unlabelled")
    first, _ = register(folder, labelled, str(write(tmp_path / "a.csv", sentences)))
    rows = [{"n": index, "body": row["text"].upper()} for index, row in enumerate(reversed(sentences))]
    second, _ = register(folder, other, str(write(tmp_path / "b.jsonl", rows)))
    for split in ("train", "validation", "test"):
        texts = {text.upper() for text in read_split(folder, first, split).column("text").to_pylist()}
        assert texts == set(read_split(folder, second, split).column("body").to_pylist())


def test_the_shipped_text_sets_have_the_same_shares() -> None:
    labelled, text = load_contract("library-docs"), load_contract("library-docs-text")
    assert labelled.split == text.split and labelled.inputs == text.inputs == ("text",)
    assert labelled.nulls == text.nulls, "the null rule decides what a text is"


def test_an_unknown_ref_lists_what_there_is(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    with pytest.raises(WrongInput, match="dataset 'made': is not registered; there is: none yet"):
        resolve(folder, "made")
    version, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)), tag="stable")
    assert resolve(folder, "made@stable").digest == version.digest
    for ref, words in {
        "mad": "did you mean 'made'?",
        "made@stabel": "did you mean 'stable'?",
        "made@latest": "no such version or tag",
        "made@ffff": version.digest[:12],
        "../made": "is not registered",
        "made@../../x": "no such version or tag",
        "": "is not registered",
    }.items():
        with pytest.raises(WrongInput) as caught:
            resolve(folder, ref)
        assert words in str(caught.value)


def test_a_source_says_cheaply_whether_it_moved(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write(tmp_path / "rows.csv", sentences)
    made = contract(COLUMNS)
    assert moved(folder, made, str(path)) == "not registered yet"
    register(folder, made, str(path))
    entry = registered_from(folder, "made")
    assert entry is not None and entry["source"] == str(path)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert moved(folder, made, "rows.csv") is None, "the same file by another path"
    assert "contract" in (moved(folder, contract(COLUMNS, label="kind"), str(path)) or "")
    assert "source is" in (moved(folder, made, str(write(tmp_path / "other.csv", sentences))) or "")
    path.touch()
    assert "rows.csv is not what it was" in (moved(folder, made, str(path)) or "")
    _, created = register(folder, made, str(path))
    assert not created and moved(folder, made, str(path)) is None, "touched, read again, found the same"


def test_validating_writes_nothing_and_finds_the_same(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    path = write(tmp_path / "rows.csv", [*sentences, {"text": "", "kind": "x"}])
    outcome = validate_source(contract(COLUMNS), str(path))
    assert not list(folder.list(""))
    version, _ = register(folder, contract(COLUMNS), str(path))
    assert outcome["digest"] == version.digest and outcome["counts"] == version.counts
    assert (
        outcome["quarantined"][0]["reason"] == "text: is null but required" and outcome["quarantined"][0]["row"] == 401
    )


def test_asking_the_registry_imports_nothing_heavy(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    import subprocess
    import sys

    path = write(tmp_path / "rows.csv", sentences)
    register(folder, contract(COLUMNS), str(path))
    code = (
        "import sys; from pathlib import Path; from infra.store import FolderStore\n"
        "from data_contracts.registry import *\n"
        f"store = FolderStore(Path({str(folder.folder)!r}))\n"
        "version = resolve(store, 'made'); damage(store, version); list_versions(store)\n"
        f"print(moved(store, contract_of(store, version), {str(path)!r})); print(','.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, modules = done.stdout.strip().splitlines()
    assert answer == "None"
    heavy = {"pyarrow", "pandas", "numpy", "great_expectations", "datasets", "torch", "scipy", "ray", "mlflow"}
    assert not heavy & {name.partition(".")[0] for name in modules.split(",")}
