"""Conservation: among many good rows, rows of more than 20 kinds of fault; each found by its own rule, and no other."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.audit import audit
from data_contracts.contract import Contract
from data_contracts.registry import Version, read_quarantine, register
from data_contracts.splits import SPLITS
from infra.store import FolderStore

Maker = Callable[..., Contract]
EMAIL = r"^[a-z0-9.]+@[a-z]+\.[a-z]{2,}$"


def string(**rules: Any) -> dict[str, Any]:
    options = {key: rules.pop(key) for key in ("minLength", "maxLength", "pattern") if key in rules}
    return {"logicalType": "string", "logicalTypeOptions": options, **rules}


def bounded(kind: str, **options: Any) -> dict[str, Any]:
    return {"logicalType": kind, "logicalTypeOptions": options}


def metric(name: str, **rest: Any) -> dict[str, Any]:
    return {"type": "library", "metric": name, **rest}


def expectation(kind: str, severity: str = "error", **kwargs: Any) -> dict[str, Any]:
    implementation = {"type": kind, "kwargs": kwargs}
    return {"type": "custom", "engine": "greatExpectations", "severity": severity, "implementation": implementation}


GOLD = {
    "type": "and",
    "conditions": [
        {"type": "comparison", "column": {"name": "kind"}, "operator": "==", "parameter": "gold"},
        {"type": "nullity", "column": {"name": "amount"}, "is_null": False},
    ],
}
COLUMNS: dict[str, Any] = {
    "id": {"logicalType": "integer", "required": True, "unique": True},
    "amount": bounded("number", minimum=0, maximum=1000)
    | {"quality": [{**expectation("expect_column_values_to_be_between", min_value=100, row_condition=GOLD),
                    "name": "gold is dear"}]},
    "kind": string(enum=[{"value": one} for one in ("gold", "iron", "wood")]),
    "email": string(pattern=EMAIL),
    "name": string(required=True, minLength=3, maxLength=30),
    "born": bounded("date", minimum="1900-01-01"),
    "active": {"logicalType": "boolean", "required": True},
    "note": string(pattern=r"\S"),
    "level": bounded("integer", format="i8"),
    "first": "integer",
    "last": "integer",
    "shop": "string",
    "receipt": "integer",
    "currency": string(quality=[metric("invalidValues", mustBe=0, arguments={"validValues": ["EUR", "USD"]})]),
    "remark": string(quality=[metric("missingValues", mustBe=0, arguments={"missingValues": ["N/A", "?"]})]),
    # Warnings: their rows stay.
    "rebate": bounded("integer", maximum=50)
    | {"customProperties": [{"property": "slipway.severity", "value": "warning"}]},
    "extra": string(quality=[metric("nullValues", mustBeLessThan=0.01, unit="percent", severity="warning")]),
}  # fmt: skip
NAMES = list(COLUMNS)
PAIR, COMPOUND = "expect_column_pair_values_a_to_be_greater_than_b", "expect_compound_columns_to_be_unique"
QUALITY = [
    expectation(PAIR, column_A="last", column_B="first", or_equal=True),
    expectation(COMPOUND, column_list=["shop", "receipt"]),
]

CELLS: dict[str, tuple[dict[str, str], list[str]]] = {
    "a number that is none": ({"amount": "12,5"}, ["amount:type"]),
    "too low": ({"amount": "-0.01", "kind": "iron"}, ["amount:range"]),
    "too high": ({"amount": "1000.01"}, ["amount:range"]),
    "not in the enum": ({"kind": "tin"}, ["kind:enum"]),
    "against the pattern": ({"email": "nobody@nowhere"}, ["email:pattern"]),
    "missing": ({"name": ""}, ["name:required"]),
    "too long": ({"name": "n" * 31}, ["name:length"]),
    "too short": ({"name": "né"}, ["name:length"]),
    "no such day": ({"born": "2023-02-29"}, ["born:type"]),
    "too early a day": ({"born": "1899-12-31"}, ["born:range"]),
    "no truth value": ({"active": "maybe"}, ["active:type"]),
    "blanks alone": ({"note": " \u3000 "}, ["note:pattern"]),
    "not whole": ({"level": "3.5"}, ["level:type"]),
    "too wide": ({"level": "128"}, ["level:type"]),
    "last before first": ({"first": "9", "last": "8"}, [f"table:{PAIR}"]),
    "gold that is cheap": ({"kind": "gold", "amount": "99.5"}, ["amount:gold is dear"]),
    "not a valid value": ({"currency": "XXX"}, ["currency:invalidValues"]),
    "stands for nothing": ({"remark": "N/A"}, ["remark:missingValues"]),
    "two faults": ({"kind": "tin", "email": "@"}, ["email:pattern", "kind:enum"]),
    "a warning": ({"rebate": "51"}, []),
    "another warning": ({"extra": ""}, []),
}
"""Kind -> cells of the row, the rules that it breaks."""
TWINS = {"the same key": (["id"], ["id:unique"]), "the same pair": (["shop", "receipt"], [f"table:{COMPOUND}"])}
"""Kind -> cells that two planted rows share."""
LINES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "undecodable": (lambda line: line.replace(b"note", b"n\xf6te"), "row is not utf-8 (byte 0xf6)"),
    "cut short": (lambda line: line.rpartition(b",")[0], "row has 16 fields, not 17"),
    "too many fields": (lambda line: line + b",more", "row has 18 fields, not 17"),
    "NUL": (lambda line: line.replace(b"note", b"no\0e"), "row holds a NUL character"),
    "loose quote": (lambda line: line.replace(b"note", b'"no"te'), "row is not CSV"),
}
"""Kind -> what is done to a good line, how the reason begins. All are `row:parse`."""


def good(number: int) -> dict[str, str]:
    kind = ("gold", "iron", "wood")[number % 3]
    return {
        "id": str(number),
        "amount": str(100 + number % 900),
        "kind": kind if number % 50 else "",  # nulls break no rule of the values
        "email": f"user{number}@example.org",
        "name": f"näme {number}",
        "born": f"19{number % 90 + 10}-01-31",
        "active": ("true", "false", "1", "0")[number % 4],
        "note": f"note {number}",
        "level": str(number % 256 - 128),
        "first": str(number % 7),
        "last": str(number % 7 + number % 2),
        "shop": f"shop {number % 10}",
        "receipt": str(number // 10),
        "currency": ("EUR", "USD", "")[number % 3],
        "remark": ("", "n.a.", "fine")[number % 3],
        "rebate": str(number % 51),
        "extra": "x",
    }


def plant(path: Path, rows: int, each: int) -> dict[int, tuple[str, list[str], str]]:
    """Write `rows` rows, `each` of them of every kind of fault. Row number -> kind, rules, how its reason begins."""
    planted: dict[int, tuple[str, list[str], str]] = {}
    places = iter(random.Random(0).sample(range(1, rows + 1), each * (len(CELLS) + len(TWINS) + len(LINES))))
    cells: dict[int, dict[str, str]] = {}
    edits: dict[int, Callable[[bytes], bytes]] = {}
    for kind, (values, rules) in CELLS.items():
        for _ in range(each):
            place = next(places)
            cells[place], planted[place] = values, (kind, rules, "")
    for kind, (names, rules) in TWINS.items():
        for _ in range(each // 2):
            one, other = next(places), next(places)
            cells[other] = {name: good(one)[name] for name in names}
            planted[one] = planted[other] = (kind, rules, "")
    for kind, (edit, reason) in LINES.items():
        for _ in range(each):
            place = next(places)
            edits[place], planted[place] = edit, (kind, ["row:parse"], reason)
    with open(path, "wb") as file:
        file.write((",".join(NAMES) + "\n").encode())
        for number in range(1, rows + 1):
            values = good(number) | cells.get(number, {})
            line = ",".join(f'"{value}"' if "," in value else value for value in values.values()).encode()
            file.write(edits.get(number, bytes)(line) + b"\n")
    return planted


@pytest.mark.parametrize(
    ("rows", "each"), [(3000, 2), pytest.param(200_000, 20, marks=pytest.mark.slow)], ids=["3,000", "200,000"]
)
def test_each_planted_row_is_found_by_its_rule_and_no_other(
    contract: Maker, tmp_path: Path, rows: int, each: int
) -> None:
    planted = plant(tmp_path / "rows.csv", rows, each)
    made = contract(COLUMNS, quality=QUALITY, inputs=["note"], label="kind")
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, made, str(tmp_path / "rows.csv"), cache=tmp_path / "cache")

    quarantine = read_quarantine(store, version).to_pylist()
    bad = {row: (kind, rules, reason) for row, (kind, rules, reason) in planted.items() if rules}
    assert len({kind for kind, _, _ in bad.values()}) >= 20
    found = {row["row"]: row for row in quarantine}
    assert len(quarantine) == len(found), "each row once"
    assert {row: one["rules"] for row, one in found.items()} == {row: rules for row, (_, rules, _) in bad.items()}
    for row, (kind, _, reason) in bad.items():
        assert found[row]["reason"].startswith(reason), kind
    _adds_up(version, rows, len(bad))
    assert {one["rule"]: one["rows"] for one in version.manifest["warnings"]} == {
        "rebate:range": each,
        "extra:nullValues": each,
    }
    checks = audit(store, version)
    assert all(check.passed for check in checks), [check.found for check in checks if not check.passed]


def _adds_up(version: Version, rows: int, bad: int) -> None:
    counts = version.counts
    kept = sum(counts[split] for split in SPLITS)
    assert (counts["rows_in"], counts["quarantined"], counts["filtered"]) == (rows, bad, 0)
    assert rows == kept + counts["quarantined"] + counts["filtered"]
