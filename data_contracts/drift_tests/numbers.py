"""Numbers: Kolmogorov-Smirnov for "is it chance", Wasserstein distance in deviations for "does it matter".

Two-sample Kolmogorov-Smirnov (Smirnov 1939) on the samples that the profiles keep; ties make it cautious, never rash.
The effect is the 1-Wasserstein distance divided by twice the deviation of both samples together, which lies between 0
and 1 (two far points reach it) and has a meaning also where one version is constant. Two normal distributions a fifth
of a deviation apart ("small", Cohen 1988) are 0.1, which is also what their Jensen-Shannon distance is, nearly.
"""

from typing import Any

TYPES = ("number", "integer")
MEASURE = "Wasserstein distance / 2 deviations"
TAIL = 0.005
"""Values beyond these quantiles of both samples together are moved in to them: one typo of 1e300 would hide a shift."""


def take(column: dict[str, Any], sample: list[Any]) -> list[float] | None:
    """What of a column is compared; None where its profile does not hold it."""
    return [float(value) for value in sample if value is not None] if sample else None


def compare(before: list[float], after: list[float]) -> dict[str, Any]:
    """{statistic, p_value, effect, sentence} of the older and the newer sample."""
    import numpy as np
    from scipy.stats import ks_2samp, wasserstein_distance

    if not before or not after:
        same = not before and not after
        sentence = "no values in either" if same else f"no values in the {'newer' if before else 'older'} version"
        return {"statistic": 0.0, "p_value": 1.0 if same else 0.0, "effect": 0.0 if same else 1.0, "sentence": sentence}
    old, new = np.array(before), np.array(after)
    test = ks_2samp(old, new, method="auto" if min(len(old), len(new)) < 50 else "asymp")
    # Each version counts half, however many rows its sample has.
    weights = np.concatenate([np.full(len(old), 0.5 / len(old)), np.full(len(new), 0.5 / len(new))])
    both = np.concatenate([old, new])
    low, high = np.quantile(both, [TAIL, 1 - TAIL], method="closest_observation")
    clipped = np.clip(both, low, high) / (max(abs(low), abs(high)) or 1.0)
    deviation = float(np.sqrt(np.sum(weights * (clipped - np.sum(weights * clipped)) ** 2)))
    distance = float(wasserstein_distance(clipped[: len(old)], clipped[len(old) :]))
    middle, name = [float(np.median(side)) for side in (old, new)], "median"
    if middle[0] == middle[1]:
        middle, name = [float(np.mean(np.clip(side, low, high))) for side in (old, new)], "mean"
    return {
        "statistic": float(test.statistic),
        "p_value": float(min(max(test.pvalue, 0.0), 1.0)),
        "effect": min(distance / (2 * deviation), 1.0) if deviation > 0 else 0.0,
        "sentence": f"{name} {middle[0]:.4g} -> {middle[1]:.4g}",
    }
