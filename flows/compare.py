"""What differs between two runs: configuration, data, code, libraries and where their metrics ended."""

from typing import Any

from flows.steps import explain
from infra.errors import WrongInput, choices
from infra.store import Store
from training.run_log import RunLog, RunState, read_state, run_names

CONFIGURATION = ("recipe", "settings", "training", "from")


def compare(store: Store, first: str, second: str) -> dict[str, Any]:
    """Sections `configuration`, `scaling`, `data`, `code`, `libraries` as sentences "field: from A to B", and `metrics`
    as rows of name, last value of each and the step it is of. Raises WrongInput for a run there is none of."""
    before, after = _state(store, first), _state(store, second)
    one, two = before.first["experiment"], after.first["experiment"]
    old, new = before.first.get("ingredients") or {}, after.first.get("ingredients") or {}
    return {
        "runs": [first, second],
        "configuration": explain(_part(one, CONFIGURATION), _part(two, CONFIGURATION)),
        "scaling": explain(_part(one, ("scaling",)), _part(two, ("scaling",))),
        "data": explain(_data(before), _data(after)),
        "code": explain(old.get("code", {}), new.get("code", {}), "code"),
        "libraries": explain(old.get("libraries", {}), new.get("libraries", {})),
        "metrics": _metrics(before, after),
    }


def _state(store: Store, run: str) -> RunState:
    known = run_names(store)
    if run not in known:
        raise WrongInput(f"run '{run}': is unknown; {choices(run, known)}")
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
    """The last value of every curve and the figures of the ending, those of both runs first."""
    ends = []
    for state in (before, after):
        curves = {name: (values[-1][1], values[-1][0]) for name, values in state.curves().items()}
        ending = {f"test_{name}": (value, state.step) for name, value in (state.ending.get("test") or {}).items()}
        ends.append(curves | ending)
    names = sorted({*ends[0], *ends[1]}, key=lambda name: (name not in ends[0], name not in ends[1], name))
    rows = []
    for name in names:
        (a, at), (b, bt) = (end.get(name, (None, None)) for end in ends)
        rows.append({"metric": name, "first": a, "first_step": at, "second": b, "second_step": bt})
    return rows
