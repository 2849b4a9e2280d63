"""What changed since the champion: its gates, its data, its experiment, its code. What a reviewer asks first."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from infra import artifacts
from infra.store import NotFound, Store

if TYPE_CHECKING:
    from data_contracts.registry import Version

LOOSER_WHEN_HIGHER = ("maximum", "margin", "tolerance", "alpha", "p50_ms", "p95_ms", "similarity")
LOOSER_WHEN_LOWER = ("minimum", "floor")
LOOSER_VALUES: dict[str, Any] = {"severity": "warn", "decide_by": "value", "find": False}
BOTH_WAYS = ("minimum_rows", "slices.alpha")
"""More rows asked of a comparison is stricter, of a slice it is fewer slices; alpha of the slices is the share of good
models refused, elsewhere of bad ones let pass. That they changed is said, and the reader judges."""
SHOWN = 40
"""Lines of one list."""


def gate_changes(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """{"gate", "what": removed | added | loosened | tightened | changed, "sentence"} of each difference between the
    gates' settings (gate -> field -> value) that the champion was judged by and today's; what loosens comes first."""
    found = []
    for gate in [*before, *(name for name in now if name not in before)]:
        if gate not in now:
            found.append({"gate": gate, "what": "removed", "sentence": f"Gate {gate} was removed."})
        elif gate not in before:
            found.append({"gate": gate, "what": "added", "sentence": f"Gate {gate} is new."})
        else:
            for field in sorted({*before[gate], *now[gate]}):
                old, new = before[gate].get(field), now[gate].get(field)
                if old != new:
                    what = _direction(gate, field, old, new)
                    sentence = f"Gate {gate} was {what}: {field} from {_shown(old)} to {_shown(new)}."
                    found.append({"gate": gate, "what": what, "sentence": sentence})
    order = ["removed", "loosened", "changed", "added", "tightened"]
    return sorted(found, key=lambda one: order.index(one["what"]))


def looser(found: Iterable[Mapping[str, str]]) -> list[str]:
    """The sentences of those changes by which gates may ask less than before."""
    return [one["sentence"] for one in found if one["what"] in ("removed", "loosened", "changed")]


def _direction(gate: str, field: str, old: Any, new: Any) -> str:
    if field in LOOSER_VALUES and LOOSER_VALUES[field] in (old, new):
        return "loosened" if new == LOOSER_VALUES[field] else "tightened"
    if field in BOTH_WAYS or f"{gate}.{field}" in BOTH_WAYS:
        return "changed"
    higher, lower = field.startswith(LOOSER_WHEN_HIGHER), field.startswith(LOOSER_WHEN_LOWER)
    if not (higher or lower):
        return "changed"
    if old is None or new is None:  # a bound that is not set binds nothing
        return "loosened" if new is None else "tightened"
    return "loosened" if (new > old) == higher else "tightened"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if type(value) in (int, float) else str(value)


def champion_gates(store: Store, scorecard: str) -> dict[str, dict[str, Any]] | None:
    """The settings of the gates that a scorecard's verdicts are of; None when it is lost or older than this record."""
    return (_card(store, scorecard) or {}).get("gates")


def refused_before(store: Store, name: str, version: int, gates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each time that gates which asked more, or otherwise, said no to this very version."""
    found = set()
    for key in store.list(f"steps/gate/{name}/"):
        body = json.loads(store.get(key))
        if body["ingredients"]["version"] != version or body["output"].get("passed", True):
            continue
        card = _card(store, body["output"]["scorecard"]) or {}
        if sentences := looser(gate_changes(card.get("gates") or {}, gates)):
            found.add(f"This version was told no before: {card['verdict']}. Since then: {' '.join(sentences)}")
    return sorted(found)


def _card(store: Store, scorecard: str) -> dict[str, Any] | None:
    try:
        card = artifacts.load(store, "scorecards", scorecard)
        if artifacts.damage(store, card) is not None:
            return None
        return json.loads(store.get(f"{card.prefix}/scorecard.json"))
    except (NotFound, ValueError):
        return None


def experiment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line a field, as `training.epochs: from 4 to 6`. Gates are told apart from this."""
    from flows.explanation import explain

    old, new = ({key: value for key, value in one.items() if key != "gates"} for one in (before, now))
    return explain(old, new)[:SHOWN]


def code_changes(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str] | None:
    """`file: function, function` of what training ran, from two records of the step; None where one is lost."""
    from flows.code_key import changes

    if before is None or now is None:
        return None
    return changes(before["ingredients"].get("code", {}), now["ingredients"].get("code", {}))[:SHOWN]


def data_changes(store: Store, before: "Version", now: "Version") -> dict[str, Any]:
    """{"same", "before", "after", "sentences", "labels": label -> [rows before, rows after], "drifted": sentences}."""
    from data_contracts.diff import diff

    if before.digest == now.digest:
        return {"same": True, "before": before.ref, "after": now.ref, "sentences": [], "labels": {}, "drifted": []}
    found = diff(store, before, now)
    rows, schema = found["rows"], found["schema"]
    sentences = [
        f"{rows['added']:,} rows came, {rows['removed']:,} went, {rows['changed']:,} changed, {rows['same']:,} are the "
        f"same (matched by {rows['matched_by']})."
    ]
    if rows["moved"]:
        sentences.append(f"{rows['moved']:,} rows are in another split than before.")
    sentences += [
        f"{name}: {old:,} rows before, {new:,} now."
        for name, (old, new) in found["counts"].items()
        if old != new and name != "rows_in"
    ]
    sentences += [f"Column {name} is new." for name in schema["added"]]
    sentences += [f"Column {name} is gone." for name in schema["removed"]]
    sentences += [
        f"Column {one['column']}: {one['field']} from {one['before']} to {one['after']}." for one in schema["changed"]
    ]
    if schema["inputs"]:
        sentences.append(f"The inputs were {', '.join(schema['inputs'][0])} and are {', '.join(schema['inputs'][1])}.")
    if schema["label"]:
        sentences.append(f"The label was {schema['label'][0]} and is {schema['label'][1]}.")
    if schema["contract_changed"]:
        sentences.append("The contract changed.")
    return {
        "same": False,
        "before": before.ref,
        "after": now.ref,
        "sentences": sentences[:SHOWN],
        "labels": dict(list(found["labels"].items())[:SHOWN]),
        "drifted": [one["sentence"] for one in found["distribution"] if one["drifted"]][:SHOWN],
    }
