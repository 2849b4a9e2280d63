"""Categories: chi-square for "is it chance", Jensen-Shannon distance for "does it matter".

Chi-square of homogeneity (Pearson 1900) over the two rows of counts, rare categories pooled until each is expected
five times; Jensen-Shannon distance (Lin 1991; base 2, so from 0 to 1) between the two shares, nothing pooled. A
thousand more rows make any p-value small: only the distance says whether the change is worth a word.
"""

import math
from collections import Counter
from typing import Any

TYPES = ("string", "boolean", "integer")
MEASURE = "Jensen-Shannon distance"
MIN_EXPECTED = 5
"""Below this expected count the chi-square approximation is poor (Cochran 1954)."""


def take(column: dict[str, Any], sample: list[Any]) -> dict[str, int] | None:
    """Counts by category: of all rows, or, of a column with too many values for that, of the sample's."""
    if "categories" in column:
        return column["categories"]
    found = [str(value).lower() if isinstance(value, bool) else str(value) for value in sample if value is not None]
    return dict(Counter(found)) if sample else None


def compare(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    """{statistic, p_value, effect, sentence}: counts by category, of the older and the newer version."""
    names = sorted(before.keys() | after.keys())
    old = [before.get(name, 0) for name in names]
    new = [after.get(name, 0) for name in names]
    if not sum(old) or not sum(new):
        same = sum(old) == sum(new)
        sentence = "no values in either" if same else f"no values in the {'older' if not sum(old) else 'newer'} version"
        return {"statistic": 0.0, "p_value": 1.0 if same else 0.0, "effect": 0.0 if same else 1.0, "sentence": sentence}
    statistic, p_value = _chi_square(_pooled(old, new))
    shares = [(a / sum(old), b / sum(new)) for a, b in zip(old, new, strict=True)]
    change, index = max((abs(b - a), index) for index, (a, b) in enumerate(shares))
    sentence = f"'{names[index][:40]}' {shares[index][0]:.1%} -> {shares[index][1]:.1%}" if change else "same shares"
    return {"statistic": statistic, "p_value": p_value, "effect": _distance(shares), "sentence": sentence}


def _pooled(old: list[int], new: list[int]) -> list[tuple[int, int]]:
    """The two counts of each category, rare ones added up."""
    total_old, total_new = sum(old), sum(new)
    smaller = min(total_old, total_new) / (total_old + total_new)
    cells, rare = [], (0, 0)
    for a, b in zip(old, new, strict=True):
        if (a + b) * smaller >= MIN_EXPECTED:
            cells.append((a, b))
        else:
            rare = (rare[0] + a, rare[1] + b)
    if sum(rare) * smaller >= MIN_EXPECTED or not cells:
        cells.append(rare)
    elif sum(rare):
        cells.sort(key=sum)
        cells[0] = (cells[0][0] + rare[0], cells[0][1] + rare[1])
    return cells


def _chi_square(cells: list[tuple[int, int]]) -> tuple[float, float]:
    from scipy.stats import chi2

    total_old, total_new = sum(a for a, _ in cells), sum(b for _, b in cells)
    total = total_old + total_new
    statistic = 0.0
    for a, b in cells:
        for seen, column in ((a, total_old), (b, total_new)):
            expected = (a + b) * column / total
            statistic += (seen - expected) ** 2 / expected if expected else 0.0
    return statistic, float(chi2.sf(statistic, len(cells) - 1)) if len(cells) > 1 else 1.0


def _distance(shares: list[tuple[float, float]]) -> float:
    def part(p: float, q: float) -> float:
        return p * math.log2(2 * p / (p + q)) if p else 0.0

    divergence = sum(part(p, q) + part(q, p) for p, q in shares) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))
