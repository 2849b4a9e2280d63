"""A regular expression that backtracks without end is told in one line, and ends nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts import patterns, validation
from data_contracts.contract import Contract
from data_contracts.patterns import TooSlow, check_time
from data_contracts.registry import list_versions, register, validate_source
from data_contracts.rows import schema_of
from infra.errors import WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
ENDLESS = r"^(a+)+$"
TRAP = "a" * 60 + "b"


def gx(kind: str, **kwargs: Any) -> dict[str, Any]:
    implementation = {"type": f"expect_column_values_to_{kind}", "kwargs": kwargs}
    return {"quality": [{"type": "custom", "engine": "greatExpectations", "implementation": implementation}]}


RULES: dict[str, dict[str, Any]] = {
    "pattern": {"logicalTypeOptions": {"pattern": ENDLESS}},
    "match": gx("match_regex", regex=ENDLESS),
    "not match": gx("not_match_regex", regex=ENDLESS),
    "list": gx("match_regex_list", regex_list=["b$", ENDLESS]),
    "not list": gx("not_match_regex_list", regex_list=[ENDLESS]),
    "metric": {"quality": [{"metric": "invalidValues", "mustBe": 0, "arguments": {"pattern": ENDLESS}}]},
}


@pytest.mark.parametrize("kind", ["pattern", "not list"])
def test_an_endless_pattern_is_one_line_and_no_version(contract: Maker, tmp_path: Path, kind: str) -> None:
    made = contract({"text": {"logicalType": "string"}, "code": {"logicalType": "string", **RULES[kind]}})
    path = tmp_path / "rows.csv"
    path.write_text("text,code\n" + "".join(f"row {number},aaa\n" for number in range(200)) + f"last,{TRAP}\n")
    store = FolderStore(tmp_path / "store")
    with pytest.raises(WrongInput, match=r"made\.odcs\.yaml: code:.*\^\(a\+\)\+\$.* takes too long") as caught:
        register(store, made, str(path), cache=tmp_path / "cache")
    assert "'aaaaaa" in str(caught.value) and "\n" not in str(caught.value)
    assert list_versions(store) == []


def test_a_personal_value_is_told_as_its_hash(contract: Maker, tmp_path: Path) -> None:
    column = {"logicalType": "string", "classification": "personal", **RULES["pattern"]}
    (tmp_path / "rows.csv").write_text(f"code\n{TRAP}\n")
    with pytest.raises(WrongInput, match="takes too long") as caught:
        validate_source(contract({"code": column}), str(tmp_path / "rows.csv"))
    assert "aaaa" not in str(caught.value)


def test_every_rule_with_a_regular_expression_is_timed(contract: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.expectations import core

    taking = {
        name for name, kind in vars(core).items() if {"regex", "regex_list"} & set(getattr(kind, "__fields__", ()))
    }
    assert len(taking) == 4, "a new one takes its pattern under a name of its own?"
    made = contract({kind.replace(" ", "_"): {"logicalType": "string", **rule} for kind, rule in RULES.items()})
    timed: list[str] = []
    monkeypatch.setattr(validation, "check_time", lambda searches: timed.extend(pattern for pattern, _ in searches))
    rows = [dict.fromkeys((column.name for column in made.columns), "b")]
    validation.validate(pa.Table.from_pylist(rows, schema=schema_of(made)), made)
    assert sorted(timed) == sorted([ENDLESS] * len(RULES) + ["b$"])


def test_each_pattern_is_told_by_its_place() -> None:
    words = pa.chunked_array([["a1", None, "b2"] * 9000, [TRAP]])
    check_time([("[a-z]+[0-9]+", words), (r"^\w+$", words)])
    check_time([])
    with pytest.raises(TooSlow) as caught:
        check_time([("[a-z]+[0-9]+", words), (ENDLESS, words)], seconds=0.5)
    assert (caught.value.place, caught.value.value) == (1, TRAP)


def test_many_values_that_are_slow_together_are_too_slow() -> None:
    # Each takes some hundredths of a second, and none of them the limit.
    with pytest.raises(TooSlow):
        check_time([(ENDLESS, pa.chunked_array([["a" * 18 + "b"] * 5000]))], seconds=0.5)


def test_numbers_and_times_are_searched_as_text() -> None:
    import datetime as dt

    check_time([("1", pa.chunked_array([[1, 2, None]])), ("1", pa.chunked_array([[dt.datetime(2020, 1, 1)]]))])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (gx("match_regex", regex="("), "kwargs.regex is not a regular expression"),
        (gx("match_regex_list", regex_list=["a", "["]), "kwargs.regex_list is not a regular expression"),
        (gx("match_json_schema", json_schema={"properties": {"a": {"pattern": "a"}}}), "without a time limit"),
    ],
)
def test_a_pattern_that_is_none_or_cannot_be_timed_is_refused(
    contract: Maker, rule: dict[str, Any], words: str
) -> None:
    with pytest.raises(WrongInput, match=words):
        contract({"code": {"logicalType": "string", **rule}})


def test_the_process_imports_nothing_of_slipway() -> None:
    lines = Path(patterns.__file__).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("from data_contracts", "from infra", "import pyarrow"))]
