"""Going on with a given run: only with what it was begun with, or with changed code that a person answers for."""

import getpass
from dataclasses import dataclass
from typing import Any

from flows.explanation import explain
from infra.errors import Refused, WrongInput, choices
from infra.store import Store
from training.run_log import RunLog, read_tail, run_names


@dataclass(frozen=True, kw_only=True)
class Going:
    """How a training run is to be begun or gone on with."""

    fresh: bool = False
    """Begin a new run although there is a finished one."""
    run: str = ""
    """The run to go on with; empty: the one that the key finds."""
    accepted: str = ""
    """Why changed code is no reason to begin anew; empty: it is one."""
    take_over: bool = False
    """Even from an attempt that was heard a moment ago."""


def check_resume(store: Store, going: Going, experiment: str, key: str, ingredients: dict[str, Any]) -> None:
    """Raises WrongInput or Refused, naming what differs, unless the given run may go on with these ingredients.

    Accepted code is recorded in the run's log, with who and why.
    """
    known = run_names(store)
    if going.run not in known:
        raise WrongInput(f"--resume {going.run}: there is no such run; {choices(going.run, known)}")
    log = RunLog(store, going.run)
    state = read_tail(log)
    begun_by = state.first.get("experiment", {}).get("name")
    if begun_by != experiment:
        raise WrongInput(f"--resume {going.run}: is a run of experiment '{begun_by}', not of '{experiment}'")
    if state.status == "finished":
        raise WrongInput(f"--resume {going.run}: is finished; --fresh begins the next run")
    begun_with = (state.accepted or [state.first])[-1]
    if begun_with["key"] == key:
        return
    if not begun_with.get("ingredients"):
        raise Refused(f"--resume {going.run}: was begun by an older Slipway, which did not say with what; leave it out")
    before = begun_with["ingredients"]
    settings = explain(_without_code(before), _without_code(ingredients))
    code = explain({"code": before.get("code")}, {"code": ingredients.get("code")})
    if settings:
        raise WrongInput(
            f"--resume {going.run}: its checkpoints are of other ingredients ({'; '.join(settings)}); set them back "
            "(--set KEY=VALUE), or leave --resume out to begin a new run"
        )
    if not going.accepted:
        raise Refused(
            f"--resume {going.run}: its checkpoints are of other code ({'; '.join(code)}); --accept code --reason TEXT "
            "goes on where the change is safe; without --resume a new run begins"
        )
    log.append("accepted", who=getpass.getuser(), why=going.accepted, what=code, key=key, ingredients=ingredients)


def _without_code(ingredients: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ingredients.items() if name != "code"}
