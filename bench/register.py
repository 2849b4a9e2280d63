"""A million rows of ten columns: register, validate and audit, beside plain Great Expectations on pandas.

    python bench/register.py [ROWS]       default 1,000,000; a tenth of it is run too, for how cost grows

One row in 10,000 breaks each of the ten rules. Both sides must name exactly the planted rows. What Great Expectations
alone does not do: row ids, quarantine with reasons, splits, an immutable version, a profile.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from arms import Weighed, answer_as_arm, report, run_arms

CITIES = [f"city {number:02d}" for number in range(40)]
EVERY = 10_000
EMAIL = r"^[a-z0-9.]+@[a-z]+\.[a-z]{2,}$"
COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"logicalType": "integer", "unique": True},
    "age": {"logicalType": "integer", "logicalTypeOptions": {"minimum": 0, "maximum": 120}},
    "income": {"logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
    "score": {"logicalType": "number", "logicalTypeOptions": {"minimum": 0, "maximum": 1}},
    "city": {"logicalType": "string", "enum": [{"value": city} for city in CITIES]},
    "email": {"logicalType": "string", "logicalTypeOptions": {"pattern": EMAIL}},
    "name": {"logicalType": "string", "required": True},
    "code": {"logicalType": "string", "logicalTypeOptions": {"minLength": 8, "maxLength": 8}},
    "active": {"logicalType": "boolean", "required": True},
    "visits": {"logicalType": "integer", "required": True},
}
EXPECTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("ExpectColumnValuesToBeUnique", {}),
    "age": ("ExpectColumnValuesToBeBetween", {"min_value": 0, "max_value": 120}),
    "income": ("ExpectColumnValuesToBeBetween", {"min_value": 0}),
    "score": ("ExpectColumnValuesToBeBetween", {"min_value": 0, "max_value": 1}),
    "city": ("ExpectColumnValuesToBeInSet", {"value_set": CITIES}),
    "email": ("ExpectColumnValuesToMatchRegex", {"regex": EMAIL}),
    "name": ("ExpectColumnValuesToNotBeNull", {}),
    "code": ("ExpectColumnValueLengthsToBeBetween", {"min_value": 8, "max_value": 8}),
    "active": ("ExpectColumnValuesToNotBeNull", {}),
    "visits": ("ExpectColumnValuesToNotBeNull", {}),
}


def make(folder: Path, rows: int) -> None:
    """rows.parquet and its contract; of each 10,000 rows, row k breaks the rule of column k."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    random = np.random.default_rng(0)
    number = np.arange(rows)
    bad = {name: number % EVERY == place for place, name in enumerate(COLUMNS)}
    names = np.array([f"name {index}" for index in range(5000)])
    columns = {
        "id": pa.array(np.where(bad["id"], -1, number)),
        "age": pa.array(np.where(bad["age"], 300, random.integers(18, 90, rows))),
        "income": pa.array(np.where(bad["income"], -5.0, random.lognormal(10, 1, rows))),
        "score": pa.array(np.where(bad["score"], 1.5, random.random(rows))),
        "city": pa.array(np.where(bad["city"], "nowhere", np.array(CITIES)[random.integers(0, 40, rows)])),
        "email": pa.array(
            [f"user{index}@example.org" if not wrong else "none" for index, wrong in enumerate(bad["email"])]
        ),
        "name": pa.array(names[random.integers(0, 5000, rows)], mask=bad["name"]),
        "code": pa.array([f"{index:08x}" if not wrong else "x" for index, wrong in enumerate(bad["code"])]),
        "active": pa.array(random.random(rows) < 0.7, mask=bad["active"]),
        "visits": pa.array(random.poisson(3, rows), mask=bad["visits"]),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=100_000)
    document = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": "made", "version": "1.0.0", "status": "active",
        "servers": [{"server": "here", "type": "local", "path": "rows.parquet", "format": "parquet"}],
        "schema": [{"name": "rows", "properties": [{"name": name, **facts} for name, facts in COLUMNS.items()]}],
    }  # fmt: skip
    (folder / "made.odcs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def arm(name: str, folder: Path) -> Any:
    """The failing rows of each column, by number from 0, except of `audit`: whether all of it holds."""
    return great_expectations(folder) if name == "great_expectations" else slipway(name, folder)


def great_expectations(folder: Path) -> dict[str, list[int]]:
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    frame = pd.read_parquet(folder / "rows.parquet")
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite("rows", [getattr(gx.expectations, expectation)(column=column, **settings)
                                         for column, (expectation, settings) in EXPECTATIONS.items()])  # fmt: skip
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE"}).to_json_dict()
    return {result["expectation_config"]["kwargs"]["column"]: sorted(result["result"]["unexpected_index_list"])
            for result in outcome["results"]}  # fmt: skip


def slipway(name: str, folder: Path) -> Any:
    from data_contracts.audit import audit
    from data_contracts.contract import load_contract
    from data_contracts.registry import read_quarantine, register, resolve, validate_source
    from infra.store import FolderStore

    store, contract = FolderStore(folder / "store"), load_contract(str(folder / "made.odcs.yaml"))
    if name == "audit":
        return all(check.passed for check in audit(store, resolve(store, "made")))
    if name == "validate":
        results = validate_source(contract, str(folder / "rows.parquet"), cache=folder / "cache")["validation"][
            "results"
        ]
        return {
            result["expectation_config"]["kwargs"]["column"]: result["result"]["unexpected_count"] for result in results
        }
    import shutil

    shutil.rmtree(folder / "store", ignore_errors=True)
    version, _ = register(store, contract, str(folder / "rows.parquet"), cache=folder / "cache")
    found: dict[str, list[int]] = {}
    for entry in read_quarantine(store, version).to_pylist():
        for rule in entry["rules"]:
            found.setdefault(rule.partition(":")[0], []).append(entry["row"] - 1)
    return {column: sorted(rows) for column, rows in found.items()}


def measure(rows: int, rounds: int) -> tuple[dict[str, Weighed], bool]:
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        make(folder, rows)
        arms = run_arms(__file__, ["register", "validate", "audit", "great_expectations"], folder, rounds)
    planted = {name: list(range(place, rows, EVERY)) for place, name in enumerate(COLUMNS)}
    assert len(planted["id"]) > 1, f"one id is always unique: give at least {20 * EVERY:,} rows"
    counts = {name: len(found) for name, found in planted.items()}
    answers = {name: one.answer for name, one in arms.items()}
    equal = answers["register"] == answers["great_expectations"] == planted
    return arms, equal and answers["validate"] == counts and answers["audit"] is True


def main() -> None:
    rows = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    small, small_equal = measure(rows // 10, 1)
    arms, equal = measure(rows, 1)
    print(f"{'':20}{'CPU s':>8}{'clock s':>9}{'peak MB':>9}{'rows/CPU s':>12}{'x of GX':>9}{'growth, 10x rows':>18}")
    plain, facts = arms["great_expectations"].cpu_seconds, {}
    for name, one in arms.items():
        growth = one.cpu_seconds / small[name].cpu_seconds
        facts[name] = {"ratio_to_great_expectations": one.cpu_seconds / plain, "growth": growth,
                       "memory_growth": one.peak_bytes / small[name].peak_bytes}  # fmt: skip
        figures = f"{one.cpu_seconds:8.1f}{one.seconds:9.1f}{one.peak_bytes / 1e6:9.0f}{rows / one.cpu_seconds:12,.0f}"
        print(f"{name:20}{figures}{one.cpu_seconds / plain:9.2f}{growth:18.1f}")
    report("register", arms, equal and small_equal, rows=rows, compared=facts)


if __name__ == "__main__" and not answer_as_arm(arm):
    main()
