"""A list column: the same rows from every format, judged by its items, told in profile, drift and metadata."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_contracts.audit import audit
from data_contracts.contract import Contract, load_contract, parse_contract
from data_contracts.drafting import draft
from data_contracts.drift import compare
from data_contracts.profile import profile, read_profile
from data_contracts.registry import read_file, read_quarantine, read_split, register
from data_contracts.release import release
from data_contracts.rows import arrow_type, encode
from infra.errors import Refused, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Rows = list[dict[str, Any]]


def listed(kind: str, width: str = "", **more: Any) -> dict[str, Any]:
    items = {"logicalType": kind, **({"logicalTypeOptions": {"format": width}} if width else {})}
    return {"logicalType": "array", "items": items, **more}


COLUMNS = {"text": "string", "tags": listed("string"), "vector": listed("number", "f32"), "counts": listed("integer")}


def rows(number: int = 200) -> Rows:
    tags = ["a", "é", "", "a,b", '"'] + [f"t{index}" for index in range(20)]
    return [
        {
            "text": f"row {index}",
            "tags": None if index % 40 == 7 else tags[index % 3 : index % 7],
            "vector": [index / 7, -0.0, None],
            "counts": [index, 2**62 + index] if index % 2 else [],
        }
        for index in range(number)
    ]


def write(folder: Path, made: Rows) -> list[Path]:
    """The rows as JSONL, JSON, Parquet (also with other types of list), Arrow and CSV of JSON."""
    types = {"text": pa.string(), "tags": pa.list_(pa.string()), "vector": pa.list_(pa.float64()),
             "counts": pa.list_(pa.int64())}  # fmt: skip
    wide = types | {"tags": pa.large_list(pa.large_string()), "vector": pa.list_(pa.float64(), 3)}
    paths = [folder / name for name in ("a.jsonl", "a.json", "a.parquet", "wide.parquet", "a.arrow", "a.csv")]
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    paths[1].write_text(json.dumps(made), encoding="utf-8")
    table = pa.Table.from_pylist(made, pa.schema(types))
    pq.write_table(table, paths[2], row_group_size=33)
    pq.write_table(pa.Table.from_pylist(made, pa.schema(wide)), paths[3])
    with pa.OSFile(str(paths[4]), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    cells = [["" if value is None else value if name == "text" else json.dumps(value) for name, value in row.items()]
             for row in made]  # fmt: skip
    lines = [",".join('"{}"'.format(cell.replace('"', '""')) for cell in row) for row in [list(made[0]), *cells]]
    paths[5].write_text("\n".join(lines), encoding="utf-8")
    return paths


def test_lists_have_one_digest_in_every_format(contract: Maker, tmp_path: Path) -> None:
    store, made = FolderStore(tmp_path / "store"), contract(COLUMNS, inputs=["text"])
    versions = {path.name: register(store, made, str(path))[0] for path in write(tmp_path, rows())}
    assert len({version.digest for version in versions.values()}) == 1, {n: v.rows for n, v in versions.items()}
    version = versions["a.jsonl"]
    kept = read_split(store, version, "train")
    assert kept.schema.field("vector").type == pa.list_(pa.float32()) and version.counts["quarantined"] == 0
    assert all(check.passed for check in audit(store, version))
    changed = rows()
    changed[9]["tags"] = ["a", "b"]
    (tmp_path / "b").mkdir()
    assert register(store, made, str(write(tmp_path / "b", changed)[0]))[0].rows != version.rows


def test_lists_that_differ_have_other_ids() -> None:
    values = [None, [], [None], [""], ["", ""], ["-"], ["1:a"], ["a"], ["a", "1:a"], ["a,1:a"], ["a,", "a"]]
    for part in (pa.array(values, arrow_type("list<string>")), pa.array([["x"], *values], pa.list_(pa.string()))[1:]):
        found = encode(pa.record_batch([part], names=["tags"]))
        assert len(set(found)) == len(values), found


def test_an_item_that_does_not_fit_is_named(contract: Maker, tmp_path: Path) -> None:
    bad: list[Any] = [[1, "x"], "none", {"a": 1}, [[1]], [1.5]]
    made = contract({"text": "string", "counts": listed("integer", "i8")}, quarantine={"limit": 0.5})
    good = [{"text": f"row {index}", "counts": [index % 100]} for index in range(100)]
    path = tmp_path / "a.jsonl"
    lines = [*good, *({"text": "bad", "counts": value} for value in bad)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, made, str(path))
    reasons = "\n".join(read_quarantine(store, version).column("reason").to_pylist())
    assert version.counts["quarantined"] == 5
    for words in ("'x' is not an integer (int8) (item 2 of its list)", "'none' is not a list of values",
                  "'counts' holds an object", "'counts' holds lists or objects", "'1.5' is not"):  # fmt: skip
        assert words in reasons, reasons


RULES = {
    "tags": listed("string", required=True, logicalTypeOptions={"minItems": 1, "maxItems": 3, "uniqueItems": True})
}
BROKEN = {"required": None, "items": [], "unique-items": ["a", "b", "a"]}


def test_rules_of_lists_quarantine_and_are_mended(contract: Maker, tmp_path: Path) -> None:
    made = contract({"text": "string"} | RULES, inputs=["text"])
    good = [{"text": f"row {index}", "tags": ["a", "b", "c"][: 1 + index % 3]} for index in range(100)]
    lines = [*good, *({"text": f"bad {rule}", "tags": value} for rule, value in BROKEN.items())]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    (tmp_path / "made.odcs.yaml").write_text(made.text, encoding="utf-8")
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, load_contract(str(tmp_path / "made.odcs.yaml")), str(path))
    kept_out = read_quarantine(store, version).to_pylist()
    assert sorted(row["rules"] for row in kept_out) == sorted([f"tags:{rule}"] for rule in BROKEN)
    assert "tags: '[]' has not 1 to 3 items" in {row["reason"] for row in kept_out}
    assert all(check.passed for check in audit(store, version))
    fixed = tmp_path / "fixed.jsonl"
    fixed.write_text("".join(json.dumps({"row_id": row["row_id"], "tags": ["z", "y"]}) + "\n" for row in kept_out))
    done = release(store, "made", fixed, "a person")
    assert done.version.counts["quarantined"] == 0 and len(done.corrected) == 3


def test_rules_of_lists_may_only_warn(contract: Maker, tmp_path: Path) -> None:
    warned = {**RULES["tags"], "customProperties": [{"property": "slipway.severity", "value": "warning"}]}
    made = contract({"text": "string", "tags": warned}, inputs=["text"])
    path = tmp_path / "a.jsonl"
    lines = [{"text": f"row {index}", "tags": ["a"] * (1 + index % 2)} for index in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    version, _ = register(FolderStore(tmp_path / "store"), made, str(path))
    said = {entry["rule"]: entry["rows"] for entry in version.manifest["warnings"]}
    assert said == {"tags:unique-items": 50} and version.counts["quarantined"] == 0


def test_lists_of_few_labels_contradict_and_repeat(contract: Maker, tmp_path: Path) -> None:
    made = contract({"text": "string", "tags": listed("string")}, label="tags", duplicates={"columns": ["text"]})
    lines = [{"text": f"row {index // 2}", "tags": ["a", "b"][: 1 + (index == 5)]} for index in range(400)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    version, _ = register(FolderStore(tmp_path / "store"), made, str(path))
    assert version.counts["filtered"] == 200
    assert "1 of 200 filtered repeats have another tags" in str(version.manifest["warnings"])


def test_profile_and_drift_tell_of_lengths_and_items(contract: Maker, tmp_path: Path) -> None:
    made = contract({"tags": listed("string")}, inputs=["tags"])

    def seen(tags: list[list[str]]) -> dict[str, Any]:
        ids = [f"{index:064x}" for index in range(len(tags))]
        return profile(pa.table({"row_id": ids, "tags": pa.array(tags, pa.list_(pa.string()))}), made)

    usual = seen([["a", "b"][: 1 + index % 2] for index in range(400)])
    column = usual["columns"]["tags"]
    assert column["items"]["quantiles"]["0.5"] == 1.5 and column["item"]["categories"] == {"a": 400, "b": 200}
    longer = {one.kind: one.drifted for one in compare(usual, seen([["a", "a", "b"]] * 400), made)}
    others = {
        one.kind: one.drifted for one in compare(usual, seen([["c", "d"][: 1 + n % 2] for n in range(400)]), made)
    }
    assert longer == {"list length": True, "items": False} and others == {"list length": False, "items": True}


def test_metadata_of_lists_are_what_other_tools_read(contract: Maker, tmp_path: Path) -> None:
    import mlcroissant
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    store = FolderStore(tmp_path / "store")
    version, _ = register(store, contract(COLUMNS, inputs=["text"]), str(write(tmp_path, rows())[2]))
    dataset = mlcroissant.Dataset(jsonld=read_file(store, version, "croissant"))
    assert not dataset.metadata.ctx.issues.errors
    record = next(iter(dataset.records("test")))
    assert len(record["test/vector"]) == 3
    features = DatasetCard.load(read_file(store, version, "README")).data.to_dict()["dataset_info"]["features"]
    assert {"name": "tags", "list": "string"} in features
    loaded = load_dataset("parquet", data_files=str(read_file(store, version, "data/test")), cache_dir=str(tmp_path))
    assert read_profile(store, version)["columns"]["tags"]["nulls"] == 5
    assert loaded["train"].features["counts"].feature.dtype == "int64"


@pytest.mark.parametrize("name", ["a.jsonl", "wide.parquet"])
def test_a_draft_of_lists_registers(tmp_path: Path, name: str) -> None:
    write(tmp_path, rows())
    text = draft(str(tmp_path / name))
    facts = {entry["name"]: entry for entry in yaml.safe_load(text)["schema"][0]["properties"]}
    assert facts["tags"]["items"]["logicalType"] == "string" and facts["vector"]["items"]["logicalType"] == "number"
    assert facts["vector"]["logicalTypeOptions"] == {"minItems": 3, "maxItems": 3}
    version, _ = register(FolderStore(tmp_path / "store"), parse_contract(text, "drafted"))
    assert version.counts["rows_in"] == 200 and version.counts["quarantined"] == 0


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"logicalType": "array"}, "tags.items: is missing"),
        ({"logicalType": "array", "items": listed("string")}, "tags.items: array is not one that a list can have"),
        (listed("string", unique=True), "tags.unique: is of a list"),
        (listed("string", logicalTypeOptions={"maxLength": 3}), "maxLength"),
        (listed("integer", "i7"), "items.logicalTypeOptions.format: 'i7'"),
    ],
)
def test_what_is_not_checked_of_lists_is_refused(
    document: Callable[..., dict[str, Any]], column: dict[str, Any], words: str
) -> None:
    with pytest.raises((WrongInput, Refused), match=words):
        parse_contract(yaml.safe_dump(document({"text": "string", "tags": column})), "made.odcs.yaml")


@pytest.mark.parametrize("setting", ["group", "column"])
def test_lists_part_no_rows(document: Callable[..., dict[str, Any]], setting: str) -> None:
    made = document({"text": "string", "tags": listed("string")}, split={setting: "tags"})
    with pytest.raises(WrongInput, match=f"slipway.split.{setting}: column 'tags' holds lists"):
        parse_contract(yaml.safe_dump(made), "made.odcs.yaml")
