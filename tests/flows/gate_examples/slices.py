"""A successor that errs as often on every class, and one that is as good as the champion but on one class."""

from typing import Any

import pyarrow as pa

COMPARES = True
WRONG = [
    ({"metric": "log_loss", "floor": 0.5}, "log loss is better when lower and has no floor"),
    ({"floor": 1.2}, "slices.floor: found 1.2"),
    ({"alpha": 0.0}, "slices.alpha: found 0.0"),
    ({"minimum_rows": 2}, "slices.minimum_rows: found 2"),
]


def confused(table: pa.Table) -> pa.Table:
    """Wrong on every third cat and nowhere else: about as many right in all, one class worse."""
    changed = []
    cats = 0
    for label in table["label"].to_pylist():
        cats += label == "cat"
        changed.append("bee" if label == "cat" and cats % 3 == 0 else label)
    return table.set_column(table.column_names.index("prediction"), "prediction", pa.array(changed))


def example(world: Any, good: bool) -> Any:
    first = world.promote(world.candidate(right=0.9))
    return {}, world.candidate(right=0.89) if good else world.candidate(right=0.9, plant=confused), first
