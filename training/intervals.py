"""How sure a figure of a model is, and how sure the difference of two models on the same rows.

- accuracy alone: the Wilson score interval. E. B. Wilson, "Probable inference, the law of succession, and statistical
  inference", JASA 22(158), 1927; recommended by Brown, Cai & DasGupta, "Interval estimation for a binomial
  proportion", Statistical Science 16(2), 2001, §3.1.
- every other figure and every difference: the bias-corrected and accelerated bootstrap (BCa) over rows. Efron, "Better
  bootstrap confidence intervals", JASA 82(397), 1987; Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
  §14.3. The plain percentile interval lets twice as many worse models pass as it says where a few rows weigh most, as
  log loss has it. A difference keeps both models' results of a row together (paired), as Koehn, "Statistical
  significance tests for machine translation evaluation", EMNLP 2004, does.

scipy.stats.bootstrap has BCa as well, but resamples rows one by one. Rows with equal results are exchangeable: here a
resample is one multinomial draw over the distinct results that occur, three for accuracy and a few hundred for
macro-F1 however many rows there are.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from training.metrics import METRICS, known_metric

if TYPE_CHECKING:
    import numpy as np

ALPHA = 0.025
"""Beyond each end of an interval: 95 % of confidence."""
RESAMPLES = 2000
BEYOND = 50
"""At least so many resamples lie beyond each end of an interval: a small alpha draws more than RESAMPLES."""
Statistic = Callable[["np.ndarray"], "np.ndarray"]
"""(B, M) counts of cells -> (B,)"""
_BLOCK = 4_000_000  # resampled numbers held at once, to bound memory at 77 or 1,000 classes
_FEW = 64  # distinct differences up to which cells are fewer draws than rows


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Resampled:
    """A statistic and what the bootstrap made of it."""

    value: float
    draws: "np.ndarray"
    """(B,)"""
    acceleration: float = 0.0

    def interval(self, alpha: float) -> Estimate:
        """BCa, of confidence 1 - 2 alpha."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        if self.certain:
            return Estimate(self.value, self.value, self.value)
        shifted = self.bias + ndtri(np.array([alpha, 1 - alpha]))
        ends = ndtr(self.bias + shifted / (1 - self.acceleration * shifted))
        low, high = np.quantile(self.draws, ends)
        return Estimate(self.value, float(low), float(high))

    def p_below(self, bound: float) -> float:
        """One-sided p of "the truth is not below `bound`": the alpha whose interval ends there."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        if self.certain:
            return float(self.value >= bound)
        shifted = ndtri(np.clip(self.share_below(bound), *self._ends)) - self.bias
        return 1 - float(ndtr(shifted / (1 + self.acceleration * shifted) - self.bias))

    @property
    def certain(self) -> bool:
        return float(self.draws.max() - self.draws.min()) <= 1e-12

    @property
    def bias(self) -> float:
        import numpy as np
        from scipy.special import ndtri

        return float(ndtri(np.clip(self.share_below(self.value), *self._ends)))

    def share_below(self, bound: float) -> float:
        """Draws equal to it count half: of discrete results many are."""
        near = 1e-12 * max(1.0, abs(bound))
        return float(((self.draws < bound - near).mean() + (self.draws <= bound + near).mean()) / 2)

    @property
    def _ends(self) -> tuple[float, float]:
        return 1 / len(self.draws), 1 - 1 / len(self.draws)


@dataclass(frozen=True)
class Comparison(Estimate):
    """`value` is positive where the first model is better, whichever way the metric runs."""

    p_better: float | None = None
    """Accuracy only: McNemar's one-sided mid-p for "the first is no better"."""


def wilson(successes: int, rows: int, alpha: float = ALPHA) -> Estimate:
    """A proportion and its Wilson score interval. No rows: raises ValueError."""
    if rows <= 0:
        raise ValueError(f"a proportion of {rows} rows has no interval")
    z = NormalDist().inv_cdf(1 - alpha)
    share = successes / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def estimate(
    metric: str, results: Mapping[str, Any], alpha: float = ALPHA, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """A metric of one model and its interval. results: the columns that the metric reads.

    Macro-F1 is the unweighted mean of the F1 of every class in truth or predictions, as scikit-learn's.
    """
    import numpy as np

    known_metric(metric)
    rng = np.random.default_rng(seed)
    resamples = enough(resamples, alpha)
    if metric == "accuracy":
        right = METRICS[metric].per_row(results)
        return wilson(int(right.sum()), len(right), alpha)
    if METRICS[metric].mean:
        return resampled_mean(METRICS[metric].per_row(results), rng, resamples).interval(alpha)
    if METRICS[metric].weighted:
        statistic, counts = _of_rows(metric, results)
        return _of_cells(statistic, counts, 0, rng, resamples).interval(alpha)
    truth, answered, names = _indices(results["label"], results["prediction"])
    cells, counts = _cells(truth, answered)

    def value_of(block: "np.ndarray") -> "np.ndarray":
        return macro_f1_of(block, cells[:, 0], cells[:, 1], len(names))

    return _of_cells(value_of, counts, len(names), rng, resamples).interval(alpha)


def figure(metric: str, results: Mapping[str, Any]) -> float:
    """A metric of one model, without its interval."""
    import numpy as np

    if METRICS[metric].mean:
        return float(METRICS[metric].per_row(results).mean())
    if METRICS[metric].weighted:
        statistic, counts = _of_rows(metric, results)
        return float(statistic(counts[None])[0])
    truth, answered, names = _indices(results["label"], results["prediction"])
    return float(macro_f1_of(np.ones((1, len(truth))), truth, answered, len(names))[0])


def enough(resamples: int, alpha: float) -> int:
    return max(resamples, math.ceil(BEYOND / alpha))


def compare(
    metric: str,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    alpha: float = ALPHA,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """How much better `first` is than `second`, with its two-sided 1 - 2 alpha interval.

    first, second: the columns that `metric` reads (training.metrics.METRICS), row by row the same examples.
    Where not one row differs, resampling knows no doubt; then a share is as uncertain as no event among n rows leaves
    it (Clopper & Pearson, Biometrika 26(4), 1934): at most 1 - alpha^(1/n).
    Raises ValueError when they cannot be paired: no row, other lengths, other labels.
    """
    resampled = resampled_difference(metric, first, second, seed, enough(resamples, alpha))
    found = resampled.interval(alpha)
    if METRICS[metric].share and resampled.certain:
        doubt = 1 - alpha ** (1 / len(first[METRICS[metric].columns[0]]))
        found = Estimate(found.value, found.value - doubt, found.value + doubt)
    p_better = mcnemar(*discordant(first, second)) if metric == "accuracy" else None
    return Comparison(found.value, found.low, found.high, p_better)


def p_worse(
    metric: str, first: Mapping[str, Sequence[Any]], second: Mapping[str, Sequence[Any]], margin: float, alpha: float
) -> float:
    """One-sided p of "`first` is worse than `second` by no more than `margin`"; for accuracy McNemar's where larger.

    alpha: the smallest that it will be held against, for which there are resamples enough.
    """
    p = resampled_difference(metric, first, second, 0, enough(RESAMPLES, alpha)).p_below(-margin)
    if metric != "accuracy":
        return p
    gained, lost = discordant(first, second)
    return max(p, mcnemar(lost, gained))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p values, in the same order: S. Holm, Scandinavian Journal of Statistics 6(2), 1979."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def resampled_difference(
    metric: str, first: Mapping[str, Sequence[Any]], second: Mapping[str, Sequence[Any]], seed: int, resamples: int
) -> Resampled:
    """The difference of two models, positive where `first` is better. Raises ValueError as `compare`."""
    import numpy as np

    known_metric(metric)
    named, sign = METRICS[metric].columns, METRICS[metric].sign
    lengths = {len(columns[name]) for columns in (first, second) for name in named}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"results of {sorted(lengths)} rows cannot be paired")
    for name in METRICS[metric].shared:
        if not np.array_equal(np.asarray(first[name]), np.asarray(second[name])):
            raise ValueError(f"results of rows with other {name.removesuffix('s')}s cannot be paired")
    rng = np.random.default_rng(seed)
    if METRICS[metric].mean:
        gain = sign * (METRICS[metric].per_row(first) - METRICS[metric].per_row(second))
        return resampled_mean(gain, rng, resamples)
    if METRICS[metric].weighted:
        (mine_of, counts), (theirs_of, _) = _of_rows(metric, first), _of_rows(metric, second)
        return _of_cells(lambda block: sign * (mine_of(block) - theirs_of(block)), counts, 0, rng, resamples)
    truth, mine, theirs, names = _indices(first["label"], first["prediction"], second["prediction"])
    return resampled_macro_f1(*_cells(truth, mine, theirs), len(names), rng, resamples)


def discordant(first: Mapping[str, Sequence[Any]], second: Mapping[str, Sequence[Any]]) -> tuple[int, int]:
    """Rows that only the first has right, and that only the second has."""
    gain = METRICS["accuracy"].per_row(first) - METRICS["accuracy"].per_row(second)
    return int((gain > 0).sum()), int((gain < 0).sum())


def is_better(found: Comparison, alpha: float) -> bool:
    """Whether the interval says so, and for accuracy McNemar's test as well."""
    return found.low > 0 and (found.p_better is None or found.p_better <= alpha)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided mid-p of McNemar's test: of the rows only one of two models has right, does the first have too many?

    gained, lost: rows that only the first, only the second has right. Fagerland, Lydersen & Laake, "The McNemar test
    for binary matched-pairs data", BMC Medical Research Methodology 13:91, 2013: mid-p holds its level where the exact
    test is too careful and the asymptotic one too bold. scipy and scikit-learn have none.
    """
    from scipy.stats import binom

    if gained + lost == 0:
        return 1.0
    return float(binom.sf(gained, gained + lost, 0.5) + 0.5 * binom.pmf(gained, gained + lost, 0.5))


def resampled_mean(gain: "np.ndarray", rng: "np.random.Generator", resamples: int = RESAMPLES) -> Resampled:
    """The mean of `gain` (N,)."""
    import numpy as np

    value = float(gain.mean())
    centred = gain - value
    spread = float((centred**2).sum())
    if spread <= 1e-24 * max(1.0, value * value) * len(gain):
        return Resampled(value, np.full(resamples, value))
    values, counts = np.unique(gain, return_counts=True)
    if len(values) <= _FEW:
        draws = rng.multinomial(len(gain), counts / len(gain), size=resamples) @ values / len(gain)
    else:
        size = max(1, _BLOCK // len(gain))
        starts = range(0, resamples, size)
        parts = [gain[rng.integers(len(gain), size=(min(size, resamples - s), len(gain)))].mean(1) for s in starts]
        draws = np.concatenate(parts)
    return Resampled(value, draws, float((centred**3).sum()) / (6 * spread**1.5))


def resampled_macro_f1(
    cells: "np.ndarray", counts: "np.ndarray", classes: int, rng: "np.random.Generator", resamples: int = RESAMPLES
) -> Resampled:
    """The first's macro-F1 minus the second's. cells: (M, 3) label, first's and second's answer as class indices;
    counts: (M,) rows of each."""

    def difference(block: "np.ndarray") -> "np.ndarray":
        first = macro_f1_of(block, cells[:, 0], cells[:, 1], classes)
        return first - macro_f1_of(block, cells[:, 0], cells[:, 2], classes)

    return _of_cells(difference, counts, classes, rng, resamples)


def _of_cells(
    statistic: "Statistic", counts: "np.ndarray", width: int, rng: "np.random.Generator", resamples: int
) -> Resampled:
    import numpy as np

    draws = np.concatenate([statistic(block) for block in resampled(counts, rng, resamples, width)])
    return Resampled(float(statistic(counts[None])[0]), draws, acceleration(statistic, counts))


def _of_rows(metric: str, results: Mapping[str, Any]) -> "tuple[Statistic, np.ndarray]":
    """A metric that is no mean, as a statistic of how often each row was drawn; and the rows as they are, (N,) ones."""
    import numpy as np

    columns = {name: np.asarray(results[name], dtype=float) for name in METRICS[metric].columns}
    weighted = METRICS[metric].weighted
    assert weighted is not None

    def statistic(block: "np.ndarray") -> "np.ndarray":
        return weighted(columns, block)

    return statistic, np.ones(len(columns[METRICS[metric].columns[0]]), dtype=np.int64)


def acceleration(statistic: "Statistic", counts: "np.ndarray") -> float:
    """Efron & Tibshirani 1993, (14.15), by the jackknife: rows of one cell leave the same behind."""
    import numpy as np

    if counts.sum() < 2:
        return 0.0  # without the only row nothing is left
    without = np.concatenate(
        [
            statistic(counts[None] - np.eye(min(256, len(counts) - start), len(counts), start, dtype=counts.dtype))
            for start in range(0, len(counts), 256)
        ]
    )
    off = np.average(without, weights=counts) - without
    spread = float((counts * off**2).sum())
    return float((counts * off**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def resampled(
    counts: "np.ndarray", rng: "np.random.Generator", resamples: int, width: int = 0
) -> "Iterator[np.ndarray]":
    """Blocks of bootstrap resamples of the cells, each (B, M); in blocks, to hold little at once."""
    rows = int(counts.sum())
    size = max(1, _BLOCK // max(len(counts), width))
    for start in range(0, resamples, size):
        yield rng.multinomial(rows, counts / rows, size=min(size, resamples - start))


def macro_f1_of(block: "np.ndarray", truth: "np.ndarray", predictions: "np.ndarray", classes: int) -> "np.ndarray":
    """Macro-F1 of each resample, (B,). block: (B, M) counts of cells; truth, predictions: (M,) classes of the cells."""
    import numpy as np

    into = np.zeros((len(truth), 2 * classes))
    cell = np.arange(len(truth))
    hit = truth == predictions
    into[cell[hit], truth[hit]] = 1
    np.add.at(into, (cell, classes + truth), 1)
    np.add.at(into, (cell, classes + predictions), 1)
    both = block @ into
    hits, total = both[:, :classes], both[:, classes:]
    present = total > 0  # a class that a resample lost has no F1, as in scikit-learn on those rows
    return (2 * hits / np.where(present, total, 1)).sum(1) / present.sum(1)


def _indices(*columns: Sequence[str]) -> tuple[Any, ...]:
    """Each column as class indices (N,), and the sorted class names."""
    import numpy as np

    together = np.concatenate([np.asarray(column, dtype=object) for column in columns])
    names, flat = np.unique(together, return_inverse=True)
    return (*np.split(flat, len(columns)), names)


def _cells(*columns: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """The distinct rows of the columns, (M, len(columns)), and how often each occurs, (M,)."""
    import numpy as np

    return np.unique(np.stack(columns, 1), axis=0, return_counts=True)
