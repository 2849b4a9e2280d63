"""Data whose newest row is three days old, and data of three months ago, under a contract that promises a month."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.flows.conftest import CONTRACT

WRONG = [({"maximum_age_days": 0.0}, "freshness.maximum_age_days: found 0.0")]
DATED = CONTRACT.replace("      - {name: label,", "      - {name: seen, logicalType: date}\n      - {name: label,") + (
    "slaProperties:\n  - {property: latency, value: 30, unit: d, element: rows.seen}\n"
)


def example(world: Any, good: bool) -> Any:
    newest = datetime.now(UTC).date() - timedelta(days=3 if good else 90)
    rows = [f"{label} {n} is here,{newest - timedelta(days=n)},{label}" for n in range(200) for label in ("ant", "bee")]
    world.add_dataset("dated", "text,seen,label\n" + "\n".join(rows) + "\n", DATED)
    return {}, world.candidate(dataset="dated"), None


def proof(world: Any, subject: Any) -> list[str]:
    version = world.dataset_of(subject)
    return [version.key(version.manifest["files"]["profile"]["name"])]
