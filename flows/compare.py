"""What differs between two runs: configuration, data, code, libraries and where their metrics ended."""

from typing import Any

from flows import models, references
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
    as rows of name, last value of each and the step it is of. Raises WrongInput for a run there is none of.
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


def _rank(name: str) -> int:
    found = (place for place, begins in enumerate(LOOKED_FOR) if name.startswith(begins))
    return next(found, len(LOOKED_FOR))
