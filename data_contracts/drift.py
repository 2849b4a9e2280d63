"""Whether one dataset version still looks like another, by their profiles alone: no row of either is read.

Each test gives a p-value and an effect size; a column has drifted only when both say so, the p-values corrected for
how many comparisons were made (Holm 1979). `data_contracts/drift_tests/<name>.py`, one file a test, is found by its
name; a column gets the test of its type, or the one that the contract's `slipway.drift` names.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import DERIVED
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Contract

TESTS = Path(__file__).parent / "drift_tests"
KINDS = {"numbers": "values", "categories": "categories", "text": "words", "images": "pixels"}
"""What a test compares, in a report's words; another test's is its own name."""


@dataclass(frozen=True, kw_only=True)
class DriftResult:
    column: str
    kind: str
    """What of the column was compared: "label mix", "categories", "values", "words", "pixels", "text length", "missing
    values"."""
    test: str
    measure: str
    """Name of the effect size."""
    statistic: float
    p_value: float
    """As the test gave it; what it is held against is `alpha`."""
    alpha: float
    """The contract's significance level, divided by the number of comparisons still open (Holm)."""
    effect: float
    """0 (the same) to 1 (nothing in common)."""
    threshold: float
    """The effect from which a change matters, by the contract."""
    interval: tuple[float, float] | None
    """95 %, of the statistic, where the test gives one."""
    drifted: bool
    blocks: bool
    """Whether drift of this column stops a promotion, or is only said."""
    change: str
    """What changed most, in values: `median 3 -> 5`."""
    sentence: str


def drift_tests() -> list[str]:
    return sorted(path.stem for path in TESTS.glob("*.py") if path.stem != "__init__")


def load_test(name: str) -> Any:
    """A module with TYPES, MEASURE, `take(column, sample) -> data | None` and
    `compare(before, after) -> {statistic, p_value, effect, sentence}`. Raises WrongInput."""
    if name not in drift_tests():
        raise WrongInput(f"drift test '{name}': is unknown; {choices(name, drift_tests())}")
    return import_module(f"data_contracts.drift_tests.{name}")


def compare(before: dict[str, Any], after: dict[str, Any], contract: "Contract") -> list[DriftResult]:
    """Compare two profiles of one dataset, the older first, by the (newer) contract's policy; the worst first."""
    found = []
    for column in contract.columns:
        old, new = before["columns"].get(column.name), after["columns"].get(column.name)
        if _left_out(column.name, old, new, contract):
            continue
        samples = [side["sample"]["columns"].get(column.name, []) for side in (before, after)]
        for kind, test, data in _comparisons(column.name, contract, (old, new), samples):
            found.append((column.name, kind, test, load_test(test).compare(*data)))
    policy = contract.drift
    results = []
    rejecting = True
    for rank, (column_name, kind, test, outcome) in enumerate(sorted(found, key=lambda entry: entry[3]["p_value"])):
        alpha = policy["alpha"] / (len(found) - rank)
        rejecting = rejecting and outcome["p_value"] < alpha  # Holm: the first that holds ends it
        own = policy["columns"].get(column_name, {})
        threshold = own.get("effect", policy["effect"])
        drifted = rejecting and outcome["effect"] >= threshold
        verdict = "drifted" if drifted else "steady"
        results.append(
            DriftResult(
                column=column_name,
                kind=kind,
                test=test,
                measure=load_test(test).MEASURE,
                statistic=outcome["statistic"],
                p_value=outcome["p_value"],
                alpha=alpha,
                effect=outcome["effect"],
                threshold=threshold,
                interval=outcome.get("interval"),
                drifted=drifted,
                blocks=own.get("block", policy["block"]),
                change=outcome["sentence"],
                sentence=(
                    f"{kind} of {column_name} {verdict}: effect {outcome['effect']:.3f} (from {threshold:g}), "
                    f"p {outcome['p_value']:.2g} (below {alpha:.2g}); {outcome['sentence']}"
                ),
            )
        )
    return sorted(results, key=lambda result: (not result.drifted, -result.effect / (result.threshold or 1)))


def not_compared(before: dict[str, Any], after: dict[str, Any], contract: "Contract") -> dict[str, str]:
    """Column -> why its values are not compared, of those where it is so: what is not said cannot be seen."""
    found = {}
    for column in contract.columns:
        old, new = before["columns"].get(column.name), after["columns"].get(column.name)
        reason = _left_out(column.name, old, new, contract)
        if reason is None and old is not None and new is not None:
            named = contract.drift["columns"].get(column.name, {}).get("test")
            if not named and _usual_test((old, new), column.name == contract.label) is None:
                reason = f"no drift test is of a {column.type}; only its missing values are counted"
        if reason is not None:
            found[column.name] = reason
    return found


def _left_out(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None, contract: "Contract") -> str | None:
    """Why nothing of a column is compared, if so."""
    if old is None or new is None:
        return f"is not in the {'older' if old is None else 'newer'} version"
    if old["type"] != new["type"]:
        return f"was {old['type']}, is {new['type']}"
    if ("personal" in old) != ("personal" in new):
        return "is marked as personal in one of the two only"
    own = contract.drift["columns"].get(name)
    if own is not None:
        return "slipway.drift ignores it" if own.get("ignore") else None
    seen = {contract.label, *contract.inputs}
    seen |= {f"{image}_{fact}" for image in contract.images if image in seen for fact in DERIVED}
    return None if name in seen else "is neither an input nor the label"


def _comparisons(
    name: str, contract: "Contract", columns: tuple[dict[str, Any], dict[str, Any]], samples: list[list[Any]]
) -> list[tuple[str, str, list[Any]]]:
    """(kind, test, [older data, newer data]) of what can be compared of a column."""
    found = []
    test = contract.drift["columns"].get(name, {}).get("test") or _usual_test(columns, name == contract.label)
    if test is not None:
        data = [load_test(test).take(column, sample) for column, sample in zip(columns, samples, strict=True)]
        if None not in data:
            kind = "label mix" if name == contract.label and test == "categories" else KINDS.get(test, test)
            kind = "list length" if columns[0]["type"] == "array" and test == "numbers" else kind
            found.append((kind, test, data))
    if all("categories" in column.get("item", {}) for column in columns):
        found.append(("items", "categories", [column["item"]["categories"] for column in columns]))
    if name != contract.label and test != "categories" and all("length" in column for column in columns):
        found.append(("text length", "categories", [_bins(column) for column in columns]))
    if any(column["nulls"] or column.get("infinite") for column in columns):
        found.append(("missing values", "categories", [_holes(column) for column in columns]))
    return found


def _usual_test(columns: tuple[dict[str, Any], dict[str, Any]], label: bool) -> str | None:
    from data_contracts.profile import is_text

    kind = columns[0]["type"]
    personal = "personal" in columns[0]
    if kind == "string" and not label and not personal and any(map(is_text, columns)):
        return "text"
    if personal or kind in ("string", "boolean") or (label and any("categories" in column for column in columns)):
        return "categories"
    return {"number": "numbers", "integer": "numbers", "array": "numbers", "image": "images"}.get(kind)


def _bins(column: dict[str, Any]) -> dict[str, int]:
    """Text lengths by power of two, as categories with readable names."""
    names = ["0", *(f"{2 ** (k - 1)} to {2**k - 1} characters" for k in range(1, len(column["length"]["bins"])))]
    return {name: count for name, count in zip(names, column["length"]["bins"], strict=True) if count}


def _holes(column: dict[str, Any]) -> dict[str, int]:
    infinite = column.get("infinite", 0)
    filled = column["rows"] - column["nulls"] - infinite
    return {"filled": filled, "missing": column["nulls"], **({"infinite": infinite} if infinite else {})}
