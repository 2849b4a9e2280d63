"""A contract is refused in one line that names the field, before a row is read."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import load_contract, parse_contract, shipped
from data_contracts.odcs import load_yaml
from infra.errors import WrongInput

COLUMNS = {"text": "string", "kind": {"logicalType": "string", "required": True}, "age": "integer"}


def change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `schema.0.name`-like path set to value, or removed where value is ...."""
    document = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    target: Any = document
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    elif isinstance(target, list) and last == len(target):
        target.append(value)
    else:
        target[last] = value
    return document


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(WrongInput) as caught:
        parse_contract(yaml.safe_dump(document), "shop.odcs.yaml")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("contract shop.odcs.yaml: ")
    return message


COLUMN = "schema/0/properties/0"
BAD = [
    # where, value, words of the message
    ("apiVersion", "v2.2.2", "apiVersion 'v2.2.2' is not ODCS v3"),
    ("kind", ..., "'kind' is missing"),
    ("id", "../../etc", "id: '../../etc' cannot name a dataset"),
    ("name", "../../etc", "name: '../../etc' cannot name a dataset"),
    ("name", "a@b", "cannot name a dataset"),
    ("owner", "me", "unknown key 'owner'"),
    ("schem", [], "unknown key 'schem'; did you mean 'schema'?"),
    (f"{COLUMN}/requierd", True, "schema.rows.properties.text: unknown key 'requierd'; did you mean 'required'?"),
    (f"{COLUMN}/required", "often", "schema.rows.properties.text.required: 'often' is not boolean"),
    (
        f"{COLUMN}/enum",
        None,
        "schema.rows.properties.text.enum: is empty and has to be array; fill it in or take the line away",
    ),
    (f"{COLUMN}/logicalType", "txt", "logicalType: 'txt' is unknown"),
    (f"{COLUMN}/logicalType", ..., "schema.rows.properties.text: logicalType is missing"),
    (f"{COLUMN}/logicalType", "object", "logicalType 'object' is not one that rows can have"),
    (f"{COLUMN}/logicalTypeOptions", {"maximum": 3}, "unknown key 'maximum'"),
    (f"{COLUMN}/logicalTypeOptions", {"format": "email"}, "text.logicalTypeOptions: 'format' is not checked"),
    (f"{COLUMN}/logicalTypeOptions", {"pattern": "(["}, "pattern: is not a regular expression"),
    (f"{COLUMN}/name", "row_id", "Slipway's own column"),
    (f"{COLUMN}/name", "kind", "stands there twice"),
    ("schema/0/properties/2/logicalTypeOptions", {"multipleOf": 2}, "'multipleOf' is not checked"),
    ("schema/1", {"name": "more", "properties": [{"name": "a", "logicalType": "string"}]}, "schema: has 2 tables"),
    ("schema/0/properties", [], "lists no column"),
    ("servers", ..., "servers: is missing"),
    ("servers/0/type", "postgres", "servers"),
    ("servers/0/format", ..., "'format' is missing"),
    ("servers/0/customProperties", [{"property": "slipway.delimeter", "value": ";"}], "did you mean 'delimiter'?"),
    ("servers/0/customProperties", [{"property": "slipway.header", "value": "no"}], "header: 'no' is not bool"),
    ("servers/0/customProperties", [{"property": "slipway.source", "value": "filez"}], "did you mean 'files'?"),
]

BAD_SETTINGS = [
    ({"lable": "kind"}, "unknown property 'slipway.lable'; did you mean 'slipway.label'?"),
    ({"label": "sort"}, "slipway.label: column 'sort' is not in the schema"),
    ({"label": 3}, "slipway.label: value 3 is not text"),
    ({"inputs": ["texts"]}, "slipway.inputs: column 'texts' is not in the schema; did you mean 'text'?"),
    ({"inputs": "text"}, "slipway.inputs: value 'text' is not a list"),
    ({"inputs": ["text", "kind"], "label": "kind"}, "slipway.inputs: holds the label 'kind'"),
    ({"split": {"tset": 0.1}}, "slipway.split: unknown key 'tset'; did you mean 'test'?"),
    ({"split": {"test": 1.5}}, "slipway.split.test: 1.5 is not a share"),
    ({"split": {"test": 0.6, "validation": 0.4}}, "leave nothing to train on"),
    ({"split": {"group": "author"}}, "slipway.split.group: column 'author' is not in the schema"),
    ({"null": [0]}, "slipway.null: value 0 is not text"),
    ({"duplicates": {"keep": "last"}}, "slipway.duplicates.keep: 'last' is unknown"),
    ({"duplicates": {"columns": ["txt"]}}, "column 'txt' is not in the schema"),
    ({"quarantine": {"limit": "much"}}, "slipway.quarantine.limit: 'much' is not a share"),
    ({"drift": {"alpha": -1}}, "slipway.drift.alpha: -1 is not a share"),
    ({"drift": {"columns": {"sort": {}}}}, "slipway.drift.columns: column 'sort' is not in the schema"),
    ({"drift": {"block": "yes please"}}, "slipway.drift.block: 'yes please' is not true or false"),
]

BAD_RULES = [
    ({"metric": "nullValue", "mustBe": 0}, "'nullValue' is unknown; did you mean 'nullValues'?"),
    ({"metric": "nullValues"}, "needs exactly one of"),
    ({"metric": "nullValues", "mustBe": "none"}, "mustBe: 'none' is not a number"),
    ({"metric": "nullValues", "mustBe": 0, "severity": "fatal"}, "severity 'fatal' is unknown"),
    ({"metric": "nullValues", "mustBe": 0, "unit": "pieces"}, "unit 'pieces' is unknown"),
    ({"metric": "invalidValues", "mustBe": 0}, "invalidValues needs arguments"),
    ({"metric": "invalidValues", "mustBe": 0, "arguments": {"validValue": [1]}}, "did you mean 'validValues'?"),
    ({"type": "sql", "query": "select 1", "mustBe": 0}, "rules in SQL are not run"),
    ({"type": "custom", "engine": "soda", "implementation": "x"}, "engine 'soda' is unknown"),
    ({"expectation": {"type": "expect_column_values_to_be_nul"}}, "did you mean 'expect_column_values_to_be_null'?"),
    ({"expectation": {"typ": "expect_column_values_to_be_null"}}, "unknown key 'typ'"),
    ({"expectation": {"type": "expect_query_results_to_match_comparison"}}, "is not Great Expectations' own"),
    (
        {"expectation": {"type": "expect_column_values_to_be_null", "kwargs": {"row_condition": "__import__('os')"}}},
        "is text that would be run as code",
    ),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD, ids=[f"{path}={value!r}"[:60] for path, value, _ in BAD])
def test_a_fault_is_one_line_naming_file_and_field(
    document: Callable[..., dict[str, Any]], path: str, value: Any, words: str
) -> None:
    assert words in refusal(change(document(COLUMNS, label="kind", inputs=["text"]), path, value))


@pytest.mark.parametrize("path", ["", "servers/0/", "schema/0/", f"{COLUMN}/"])
def test_a_key_under_which_nothing_stands_means_none(document: Callable[..., dict[str, Any]], path: str) -> None:
    made = document(COLUMNS)
    without = change(change(made, f"{path}customProperties", None), f"{path}customProperties", ...)
    empty = change(without, f"{path}customProperties", None)
    if path.startswith("schema"):
        empty = change(empty, f"{path}quality", None)
    parsed = [parse_contract(yaml.safe_dump(one), "shop.odcs.yaml") for one in (without, empty)]
    assert parsed[0].digest == parsed[1].digest


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS, ids=[str(settings) for settings, _ in BAD_SETTINGS])
def test_a_setting_that_cannot_be_meant_is_refused(
    document: Callable[..., dict[str, Any]], settings: dict[str, Any], words: str
) -> None:
    assert words in refusal(document(COLUMNS, **settings))


@pytest.mark.parametrize(("rule", "words"), BAD_RULES, ids=[str(rule)[:70] for rule, _ in BAD_RULES])
def test_a_rule_that_cannot_be_run_is_refused(
    document: Callable[..., dict[str, Any]], rule: dict[str, Any], words: str
) -> None:
    if "expectation" in rule:
        rule = {"type": "custom", "engine": "greatExpectations", "implementation": rule["expectation"]}
    assert words in refusal(change(document(COLUMNS), f"{COLUMN}/quality", [rule]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a contract but NoneType"),
        ("- a\n- b\n", "is not a contract but list"),
        ("id: [1, 2\n", "is not YAML"),
        ("id: a\nid: b\n", "line 2: key 'id' stands there twice"),
        ("id: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        ("a: &a [x,x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a]\n" for n in range(30)), "more than 20 aliases"),
        ("[" * 100_000, "more than 40 levels"),
        ("id: .nan\n", "id: nan is not a finite number"),
        ("1: a\n", "key 1 is not text"),
        ("x" * 2_000_000, "characters long"),
    ],
)
def test_text_that_is_no_document_is_refused(text: str, words: str) -> None:
    with pytest.raises(WrongInput, match="contract shop") as caught:
        parse_contract(text, "shop.odcs.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_lists_the_shipped_contracts(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match="did you mean 'library-docs'"):
        load_contract("library-doc")
    (tmp_path / "latin.odcs.yaml").write_bytes("description: caf\xe9".encode("latin-1"))
    with pytest.raises(WrongInput, match="is not UTF-8 at byte 16"):
        load_contract(str(tmp_path / "latin.odcs.yaml"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet", "texts.txt", "images"])
def test_data_given_as_a_contract_is_told_how_to_get_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"a,b\n1,2\n") if path.suffix else path.mkdir()
    with pytest.raises(WrongInput, match=f"of data; `slipway data draft {path}` writes a contract") as caught:
        load_contract(str(path))
    assert "\n" not in str(caught.value)


def test_text_that_looks_like_a_date_stays_text() -> None:
    assert load_yaml("since: 2024-01-01\n", "here") == {"since": "2024-01-01"}


def test_an_owner_does_not_touch_what_training_depends_on(document: Callable[..., dict[str, Any]]) -> None:
    before = document(COLUMNS, label="kind", inputs=["text"])
    after = {**before, "team": {"name": "somebody else"}}
    old, new = (parse_contract(yaml.safe_dump(body), "x") for body in (before, after))
    assert old.schema_digest == new.schema_digest
    assert old.digest != new.digest, "the contract's own digest must say that it changed"
    retyped = parse_contract(yaml.safe_dump(change(before, "schema/0/properties/2/logicalType", "number")), "x")
    assert retyped.schema_digest != old.schema_digest


def test_a_comment_does_not_touch_the_digest(document: Callable[..., dict[str, Any]]) -> None:
    text = yaml.safe_dump(document(COLUMNS))
    assert parse_contract("# a comment\n" + text, "x").digest == parse_contract(text, "y").digest


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_contract_is_whole(name: str) -> None:
    contract = load_contract(name)
    assert contract.name == name
    assert contract.inputs and set(contract.inputs) <= {column.name for column in contract.columns}
    assert contract.document["description"]["purpose"], "a reader wants to know what it is for"
    assert "#" in contract.text, "a shipped contract explains itself"


def test_reading_a_contract_imports_nothing_heavy() -> None:
    heavy = {"pyarrow", "pandas", "numpy", "great_expectations", "datasets", "torch", "scipy", "ray", "mlflow"}
    code = (
        "import sys; from data_contracts.contract import load_contract; import data_contracts.registry\n"
        "load_contract('library-docs'); print(','.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & {name.partition(".")[0] for name in done.stdout.strip().split(",")}
