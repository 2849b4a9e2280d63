"""A version is whole or absent, named by what it holds, and accounts for every row."""

import json
import shutil
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
from infra.errors import Refused, SlipwayError, WrongInput
from infra.store import FolderStore, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": {"logicalType": "string", "required": True}, "kind": "string"}


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


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


def test_registering_again_writes_nothing(contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path,
                                          sentences: Rows) -> None:  # fmt: skip
    path = write(tmp_path / "rows.csv", sentences)
    version, _ = register(folder, contract(COLUMNS), str(path))
    before = {key: (folder.folder / key).stat().st_mtime_ns for key in folder.list("")}
    again, created = register(folder, contract(COLUMNS), str(path))
    assert (again.digest, created) == (version.digest, False)
    assert {key: (folder.folder / key).stat().st_mtime_ns for key in folder.list("")} == before


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


# Interruption, damage ----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """What SIGKILL looks like from inside: no handler of ours may see it as an error."""


@pytest.mark.parametrize("survives", [0, 4, 13, 14])
def test_a_crash_leaves_nothing_that_counts(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch, survives: int,
) -> None:  # fmt: skip
    path = str(write(tmp_path / "rows.csv", sentences))
    left = [survives]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(folder, "upload", dying(folder.upload))
        patch.setattr(folder, "create", dying(folder.create))
        with pytest.raises(Crash):
            register(folder, contract(COLUMNS), path)
    # 13 files, then the manifest, then the ref: only with the manifest is there a version.
    whole = survives > 13
    assert len(list_versions(folder)) == whole
    version, created = register(folder, contract(COLUMNS), path)
    assert created != whole and damage(folder, version) is None
    assert resolve(folder, "made").digest == version.digest


@pytest.mark.parametrize("file", ["data/train", "quarantine", "contract"])
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_damage_is_named_and_mended_by_registering_again(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, file: str, how: str
) -> None:
    path = str(write(tmp_path / "rows.csv", sentences))
    version, _ = register(folder, contract(COLUMNS), path)
    victim = folder.folder / version.key(version.manifest["files"][file]["name"])
    if how == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    found = damage(folder, version)
    assert found is not None and victim.name in found and how in found
    again, created = register(folder, contract(COLUMNS), path)
    assert created and again.digest == version.digest and damage(folder, again) is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"format": 1}'])
def test_an_altered_manifest_is_one_line(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, content: bytes
) -> None:
    path = str(write(tmp_path / "rows.csv", sentences))
    version, _ = register(folder, contract(COLUMNS), path)
    folder.put(version.key("manifest.json"), content)
    with pytest.raises(SlipwayError, match=r"manifest.json"):
        resolve(folder, "made")
    mended, _ = register(folder, contract(COLUMNS), path)
    assert resolve(folder, "made").digest == mended.digest == version.digest


def test_a_newer_manifest_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    version, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))
    folder.put(version.key("manifest.json"), json.dumps(version.manifest | {"format": 2}).encode())
    with pytest.raises(WrongInput, match=r"format 2 is newer"):
        resolve(folder, "made")


def test_a_version_copied_under_another_digest_is_not_believed(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    version, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))
    here = folder.folder / "datasets" / "made"
    shutil.copytree(here / version.digest, here / ("0" * 64))
    with pytest.raises(SlipwayError, match="another version's"):
        resolve(folder, "made@000000")


# Refs ---------------------------------------------------------------------------------------------------------------


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


def test_a_source_that_moves_while_it_is_read_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write(tmp_path / "rows.csv", sentences)
    made = contract(COLUMNS)
    from data_contracts.sources import files

    real = files.read

    def read(*arguments: Any) -> Any:
        yield from real(*arguments)
        path.touch()

    monkeypatch.setattr(files, "read", read)
    with pytest.raises(WrongInput, match="changed while it was read"):
        register(folder, made, str(path))
    assert not list(folder.list(""))


# Refusals -----------------------------------------------------------------------------------------------------------


def refused(store: FolderStore, contract: Contract, path: Path) -> str:
    with pytest.raises(Refused) as caught:
        register(store, contract, str(path))
    assert not list(store.list("")), "a refusal leaves nothing behind"
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def test_a_set_that_violates_its_contract_in_every_row_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    path = write(tmp_path / "rows.csv", sentences)
    made = contract({"text": "string", "kind": "integer"})
    assert "every row (400) violates contract made.odcs.yaml: kind:type 400 times" in refused(folder, made, path)
    short = {"logicalType": "string", "logicalTypeOptions": {"maxLength": 3}}
    assert "text:length 400 times" in refused(folder, contract(COLUMNS | {"text": short}), path)


@pytest.mark.parametrize(("limit", "refuses"), [(0.0, True), (0.024, True), (0.025, False), (1, False)])
def test_the_limit_of_quarantine_is_kept(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, limit: float, refuses: bool
) -> None:
    rows = [row | ({"text": ""} if index % 40 == 0 else {}) for index, row in enumerate(sentences)]
    path = write(tmp_path / "rows.csv", rows)
    made = contract(COLUMNS, quarantine={"limit": limit})
    if refuses:
        assert "2.5% of 400 rows violate" in refused(folder, made, path)
    else:
        assert register(folder, made, str(path))[0].counts["quarantined"] == 10


def test_a_rule_of_the_whole_set_refuses_it(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    quality = [{"type": "library", "metric": "rowCount", "mustBeGreaterThan": 500}]
    made = contract(COLUMNS, quality=quality)
    assert "table:rowCount: 400 rows, mustBeGreaterThan 500" in refused(
        folder, made, write(tmp_path / "rows.csv", sentences)
    )


def test_an_empty_split_is_refused_with_the_way_out(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    path = write(tmp_path / "rows.csv", sentences[:3])
    made = contract(COLUMNS, split={"test": 0.001, "validation": 0})
    message = refused(folder, made, path)
    assert "split 'test' would be empty (3 rows" in message and "set slipway.split in made.odcs.yaml" in message
    version, _ = register(folder, contract(COLUMNS, split={"test": 0, "validation": 0}), str(path))
    assert version.counts["train"] == 3 and len(read_split(folder, version, "test")) == 0


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
