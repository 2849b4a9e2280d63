"""What differs between two runs: configuration, data, code, libraries, where their metrics ended, what was judged."""

import json
from typing import Any

from flows import models, references
from flows.evaluate import newest_evaluation
from flows.explanation import explain
from infra.errors import WrongInput, choices
from infra.store import Store
from training.run_log import RunLog, RunState, read_state, run_names

CONFIGURATION = ("recipe", "settings", "training", "from")
LOOKED_FOR = ("validation_", "loss", "test_")
"""How the metrics begin that come first, in this order."""


def compare(store: Store, first: str, second: str) -> dict[str, Any]:
    """What two runs, each given by its id or by a reference to the model it became, differ in.

    Sections `configuration`, `scaling`, `data`, `code`, `libraries` as sentences "field: from A to B", and `metrics`
    as rows of name, last value of each and the step it is of; `judged` as rows of name, how much better the second is
    on the rows that both were judged on, row by row, and a 95 % interval. Raises WrongInput for a run there is none of.
    """
    before, after = _state(store, run_of(store, first)), _state(store, run_of(store, second))
    one, two = before.first["experiment"], after.first["experiment"]
    old, new = before.first.get("ingredients") or {}, after.first.get("ingredients") or {}
    return {
        "runs": [before.run, after.run],
        "configuration": explain(_part(one, CONFIGURATION), _part(two, CONFIGURATION)),
        "scaling": explain(_part(one, ("scaling",)), _part(two, ("scaling",))),
        "data": explain(_data(before), _data(after)),
        "code": explain(old.get("code", {}), new.get("code", {}), "code"),
        "libraries": explain(old.get("libraries", {}), new.get("libraries", {})),
        "metrics": _metrics(before, after),
        "judged": _judged(store, before, after),
    }


def run_of(store: Store, asked: str) -> str:
    """The id of a run that is given by it, or by the model it became. Raises WrongInput with choices."""
    known, named = run_names(store), models.names(store)
    if asked in known:
        return asked
    if asked.partition("@")[0].partition("/")[0] in named:
        return references.resolve(store, asked).run
    raise WrongInput(f"run '{asked}': is unknown; {choices(asked, [*known, *named])}")


def _state(store: Store, run: str) -> RunState:
    state = read_state(RunLog(store, run))
    if not state.first:
        raise WrongInput(f"run '{run}': its log has no first entry; it never began")
    return state


def _part(experiment: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: experiment.get(name) for name in names}


def _data(state: RunState) -> dict[str, Any]:
    dataset = state.first.get("dataset") or {}
    sources = (state.first.get("ingredients") or {}).get("from", {})
    return {"dataset": dataset, "prepared": state.first.get("prepared"), "built_on": sources}


def _metrics(before: RunState, after: RunState) -> list[dict[str, Any]]:
    """The last values of curves and the figures of the ending: what people look for first, then what both runs have."""
    ends = []
    for state in (before, after):
        curves = {name: (values[-1][1], values[-1][0]) for name, values in state.curves().items()}
        ending = {f"test_{name}": (value, state.step) for name, value in (state.ending.get("test") or {}).items()}
        figures = {name: (value, state.step) for name, value in (state.ending.get("figures") or {}).items()}
        ends.append(curves | ending | figures)
    names = sorted({*ends[0], *ends[1]}, key=lambda name: (_rank(name), name not in ends[0], name not in ends[1], name))
    rows = []
    for name in names:
        (a, at), (b, bt) = (end.get(name, (None, None)) for end in ends)
        rows.append({"metric": name, "first": a, "first_step": at, "second": b, "second_step": bt})
    return rows


def _judged(store: Store, before: RunState, after: RunState) -> list[dict[str, Any]]:
    """Of the newest evaluation of each; nothing where one has none, or they are of other kinds or other rows."""
    folders = [
        newest_evaluation(store, state.first["experiment"].get("name", ""), state.ending.get("model", ""))
        for state in (before, after)
    ]
    if None in folders:
        return []
    import numpy as np
    from pyarrow import parquet

    from training.evaluation import load_kind
    from training.intervals import compare as paired

    kinds = [json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["task"] for folder in folders if folder]
    tables = [parquet.read_table(folder / "predictions.parquet") for folder in folders if folder]
    ids = [np.array(table["row_id"].to_pylist()) for table in tables]
    common, *places = np.intersect1d(ids[0], ids[1], return_indices=True)
    if kinds[0] != kinds[1] or not len(common):
        return []
    rows = []
    for name, metric in load_kind(kinds[0]).metrics.items():
        if all(column in table.column_names for table in tables for column in metric.columns):
            old, new = (table.select(metric.columns).take(place).to_pydict()
                        for table, place in zip(tables, places, strict=True))  # fmt: skip
            found = paired(name, new, old)
            better = {"better": found.value, "low": found.low, "high": found.high}
            rows.append({"metric": name, "rows": len(common), **better})
    return rows


def _rank(name: str) -> int:
    found = (place for place, begins in enumerate(LOOKED_FOR) if name.startswith(begins))
    return next(found, len(LOOKED_FOR))
