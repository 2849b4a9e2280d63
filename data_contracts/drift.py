"""Whether one dataset version still looks like another, by their profiles alone: no row of either is read.

Each test gives a p-value and an effect size; a column has drifted only when both say so, the p-values corrected for
how many columns were tested (Holm 1979). `data_contracts/drift_tests/<name>.py`, one file a test, is found by its
name; here stands which test a column gets.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Contract

TESTS = Path(__file__).parent / "drift_tests"


@dataclass(frozen=True, kw_only=True)
class DriftResult:
    column: str
    kind: str
    """What of the column was compared: "label mix", "categories", "text length", "missing values"."""
    test: str
    statistic: float
    p_value: float
    """As the test gave it; what it is held against is `alpha`."""
    alpha: float
    """The contract's significance level, divided by the number of comparisons still open (Holm)."""
    effect: float
    """0 (the same) to 1 (nothing in common)."""
    threshold: float
    """The effect from which a change matters, by the contract."""
    drifted: bool
    sentence: str


def drift_tests() -> list[str]:
    return sorted(path.stem for path in TESTS.glob("*.py") if path.stem != "__init__")


def load_test(name: str) -> Any:
    """The module with `compare(before, after) -> {statistic, p_value, effect, sentence}`. Raises WrongInput."""
    if name not in drift_tests():
        raise WrongInput(f"drift test '{name}': is unknown; {choices(name, drift_tests())}")
    return import_module(f"data_contracts.drift_tests.{name}")


def compare(before: dict[str, Any], after: dict[str, Any], contract: "Contract") -> list[DriftResult]:
    """Compare two profiles of one dataset, the older first, by the (newer) contract's policy; the worst first."""
    found = []
    for column in contract.columns:
        old, new = before["columns"].get(column.name), after["columns"].get(column.name)
        if old is None or new is None or old["type"] != new["type"]:
            continue  # another schema: `diff` says so, and the new column has nothing to drift from
        for kind, test, old_counts, new_counts in _comparisons(column.name, contract, old, new):
            found.append((column.name, kind, test, load_test(test).compare(old_counts, new_counts)))
    policy = contract.drift
    results = []
    rejecting = True
    for rank, (column_name, kind, test, outcome) in enumerate(sorted(found, key=lambda entry: entry[3]["p_value"])):
        alpha = policy["alpha"] / (len(found) - rank)
        rejecting = rejecting and outcome["p_value"] < alpha  # Holm: the first that holds ends it
        threshold = policy["columns"].get(column_name, {}).get("effect", policy["effect"])
        drifted = rejecting and outcome["effect"] >= threshold
        verdict = "drifted" if drifted else "steady"
        results.append(
            DriftResult(
                column=column_name,
                kind=kind,
                test=test,
                statistic=outcome["statistic"],
                p_value=outcome["p_value"],
                alpha=alpha,
                effect=outcome["effect"],
                threshold=threshold,
                drifted=drifted,
                sentence=(
                    f"{kind} of {column_name} {verdict}: effect {outcome['effect']:.3f} (from {threshold:g}), "
                    f"p {outcome['p_value']:.2g} (below {alpha:.2g}); {outcome['sentence']}"
                ),
            )
        )
    return sorted(results, key=lambda result: (not result.drifted, -result.effect / (result.threshold or 1)))


def _comparisons(
    name: str, contract: "Contract", old: dict[str, Any], new: dict[str, Any]
) -> list[tuple[str, str, dict[str, int], dict[str, int]]]:
    """(kind, test, older counts, newer counts) of what can be compared of a column that a model sees or predicts."""
    if name != contract.label and name not in contract.inputs and name not in contract.drift["columns"]:
        return []
    found = []
    if "categories" in old and "categories" in new:
        kind = "label mix" if name == contract.label else "categories"
        found.append((kind, "categories", old["categories"], new["categories"]))
    elif name != contract.label and "length" in old and "length" in new:
        found.append(("text length", "categories", _bins(old), _bins(new)))
    if old["nulls"] or new["nulls"]:
        found.append(("missing values", "categories", _holes(old), _holes(new)))
    return found


def _bins(column: dict[str, Any]) -> dict[str, int]:
    """Text lengths by power of two, as categories with readable names."""
    names = ["0", *(f"{2 ** (k - 1)} to {2**k - 1} characters" for k in range(1, len(column["length"]["bins"])))]
    return {name: count for name, count in zip(names, column["length"]["bins"], strict=True) if count}


def _holes(column: dict[str, Any]) -> dict[str, int]:
    return {"missing": column["nulls"], "there": column["rows"] - column["nulls"]}
