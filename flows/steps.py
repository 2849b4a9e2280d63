"""Steps that run again only when what they depend on changed, and can say what changed.

A step's ingredients are a tree of JSON values: input digests, its section of the experiment, library versions, code.
Their digest is its key; `steps/<kind>/<subject>/<key>.json` records the output that key gave. The outputs are named by
content digest and a later step depends on that digest: a step that ran again with the same output reruns nothing.
"""

import getpass
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flows.explanation import explain
from infra import artifacts, interrupt
from infra.artifacts import check_format
from infra.digests import digest
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import NotFound, Store

FORMAT = 1
Outputs = Mapping[str, dict[str, Any]]
"""Step name -> its output: digests and references, JSON values."""


@dataclass(frozen=True, kw_only=True)
class Step:
    kind: str
    """register | prepare | train | evaluate | gate | promote"""
    subject: str
    """The dataset's, experiment's or model's name."""
    needs: tuple[str, ...] = ()
    """Names of the steps whose outputs it reads."""
    ingredients: Callable[[Outputs], dict[str, Any]]
    run: Callable[[Outputs, Progress, str], dict[str, Any]]
    """(outputs, progress, key) -> output."""
    damage: Callable[[dict[str, Any]], str | None]
    """What is missing or altered of an output, as one phrase; None when it is whole."""
    check_inputs: Callable[[Outputs], None] = lambda _: None
    """Raises Refused where its inputs may not be used, also for a result that is there already."""
    gpus: float = 0
    """GPUs it takes while it runs."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a step runs, and why."""

    step: str
    status: str
    """cached | stale | open: known when the steps before it have run, and cached if they give what they gave"""
    reasons: list[str]
    output: dict[str, Any] | None = None
    key: str = ""
    accepted: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cached(self) -> bool:
        return self.status == "cached"


def libraries(*names: str) -> dict[str, str]:
    """Installed versions, read without importing."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def decide(store: Store, step: Step, outputs: Outputs, forced: str = "") -> Decision:
    """Cached, or stale and why; open while steps it needs have no output: what they will give is not known.

    Raises Refused where its inputs may not be used.
    """
    unknown = [name for name in step.needs if name not in outputs]
    if unknown:
        return Decision(step=step.name, status="open", reasons=[f"follows {name}" for name in unknown])
    step.check_inputs(outputs)
    ingredients = step.ingredients(outputs)
    key = digest(ingredients)
    record = _read(store, _place(step, key))
    if forced and record:
        return Decision(step=step.name, status="stale", reasons=[forced], key=key)
    if record:
        problem = step.damage(record["output"])
        if problem is None:
            return Decision(
                step=step.name,
                status="cached",
                reasons=["nothing it depends on has changed"],
                output=record["output"],
                key=key,
                accepted=record["accepted"],
            )
        return Decision(step=step.name, status="stale", reasons=[f"its output is not whole: {problem}"], key=key)
    before = newest_record(store, step)
    reasons = explain(before["ingredients"], ingredients) if before else ["never ran here"]
    return Decision(step=step.name, status="stale", reasons=reasons, key=key)


def execute(store: Store, step: Step, outputs: Outputs, progress: Progress) -> dict[str, Any]:
    """Run a step and record what its key gave."""
    step.check_inputs(outputs)
    ingredients = step.ingredients(outputs)
    key = digest(ingredients)
    started = time.time()
    output = step.run(outputs, progress, key)
    interrupt.check()
    record(store, step, ingredients, output, started, [])
    return output


def accept(store: Store, step: Step, outputs: Outputs, reason: str) -> bool:
    """Keep the newest result through a refactoring: record it under today's key when nothing but code changed.

    Returns whether there was such a result. Who accepted what and why stays in the record.
    """
    before = newest_record(store, step)
    ingredients = step.ingredients(outputs)
    if before is None or step.damage(before["output"]):
        return False
    same = {name: value for name, value in ingredients.items() if name != "code"}
    if same != {name: value for name, value in before["ingredients"].items() if name != "code"}:
        return False
    note = {
        "who": getpass.getuser(),
        "why": reason,
        "when": time.time(),
        "what": explain(before["ingredients"], ingredients),
    }
    record(store, step, ingredients, before["output"], before["started"], [*before["accepted"], note])
    return True


def record(
    store: Store,
    step: Step,
    ingredients: dict[str, Any],
    output: dict[str, Any],
    started: float,
    accepted: list[dict[str, Any]],
) -> None:
    body = {
        "format": FORMAT,
        "step": step.name,
        "ingredients": ingredients,
        "output": output,
        "started": started,
        "ended": time.time(),
        "accepted": accepted,
    }
    store.put(_place(step, digest(ingredients)), json.dumps(body, indent=1, sort_keys=True).encode())


def refresh(store: Store, step: Step, key: str) -> None:
    """Note in the record that it is in use now: `slipway gc` leaves alone what a record names that was used lately."""
    body = _read(store, _place(step, key))
    if body:
        store.put(_place(step, key), json.dumps({**body, "used": time.time()}, indent=1, sort_keys=True).encode())


def newest_record(store: Store, step: Step) -> dict[str, Any] | None:
    """The record written last for this step, whatever its key."""
    found = [_read(store, key) for key in store.list(f"steps/{step.kind}/{step.subject}/")]
    return max((one for one in found if one), key=lambda one: one["ended"], default=None)


def artifact_damage(settings: Settings, kind: str, digest: str) -> str | None:
    """What is missing or altered of an artifact, a lost manifest included."""
    try:
        return artifacts.damage(settings.object_store, artifacts.load(settings.object_store, kind, digest))
    except NotFound:
        return f"{kind}/{digest} is missing"
    except (ValueError, KeyError, WrongInput) as error:
        return f"{kind}/{digest}/manifest.json is unreadable ({error})"


def _place(step: Step, key: str) -> str:
    return f"steps/{step.kind}/{step.subject}/{key}.json"


def _read(store: Store, key: str) -> dict[str, Any] | None:
    try:
        body = json.loads(store.get(key))
    except NotFound:
        return None
    except ValueError:
        return None  # a torn or altered record is no record: the step runs again
    check_format(body, FORMAT, key)
    return body
