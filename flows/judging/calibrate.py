"""How often the statistical gates err, found by trying them on pairs whose true difference is known.

Each test has a null, a boundary where its error is most frequent, and an alpha that the error may not exceed:

    better              promotes a model that is exactly as good
    not worse           promotes a model that is worse by exactly the margin
    threshold           promotes a model whose true figure is exactly the limit
    slices              refuses a model of which every slice is worse by exactly the margin, and none by more

Beside the error stand the A/A rate (how often a model passes against its equal), the power at an effect, and what the
normal approximation says of both. The gates' own functions decide; only the rows are planted (flows.judging.planted).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from flows.judging.planted import Cells, Population, loss_gains, pair, true_difference
from training.calibration import expected_calibration_error
from training.intervals import (
    ALPHA,
    Comparison,
    Estimate,
    estimate,
    is_better,
    mcnemar,
    resampled_macro_f1,
    resampled_mean,
    wilson,
)

MARGIN = 0.02
"""The gates' own default."""
EFFECT = 0.03
MAX_ROWS = 1000
"""Test rows of a trial: more take longer and err less."""
SLICES = 6
SLICE_EFFECT = 0.2
"""How much worse the planted slice is: the smallest slice worth the name has 100 rows and no more power."""
CONFIDENCE = 0.99
"""Of the binomial interval of a rate. A gate errs too often when all of it is above alpha; at 95 % one of so many tests
would be found out by chance in every third calibration."""


@dataclass(frozen=True)
class Rate:
    count: int
    trials: int
    rate: float
    low: float
    high: float
    """Clopper & Pearson, "The use of confidence or fiducial limits", Biometrika 26(4), 1934."""

    @classmethod
    def of(cls, decisions: Iterable[bool]) -> "Rate":
        from scipy.stats import binomtest

        told = [bool(decision) for decision in decisions]
        found = binomtest(sum(told), len(told)).proportion_ci(CONFIDENCE, method="exact")
        return cls(sum(told), len(told), sum(told) / len(told), float(found.low), float(found.high))


@dataclass(frozen=True)
class Row:
    """One test of one gate."""

    gate: str
    test: str
    metric: str
    alpha: float
    boundary: Rate
    """How often it errs where erring is most frequent."""
    same: Rate | None
    """How often a model passes against its equal (A/A)."""
    effect: float
    power: Rate
    """How often it decides rightly at the effect."""
    theory_same: float | None
    theory_power: float | None

    @property
    def holds(self) -> bool:
        return self.boundary.low <= self.alpha

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


@dataclass
class Trials:
    """Draws test rows again and again; what a metric's pairs came to is kept, since several gates ask the same."""

    population: Population
    trials: int
    seed: int = 0
    say: Callable[[str], None] = lambda note: None
    kept: dict[tuple[str, float], list[Comparison]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return min(MAX_ROWS, len(self.population.truth))

    def compared(self, metric: str, difference: float) -> list[Comparison]:
        """What the champion and baseline gates see of a pair that differs by exactly that, once a trial."""
        if (metric, difference) not in self.kept:
            self.say(f"{metric}, pairs {difference:+g} apart")
            self.kept[metric, difference] = self._compared(metric, difference)
        return self.kept[metric, difference]

    def _compared(self, metric: str, difference: float) -> list[Comparison]:
        if metric == "log_loss":
            gains = loss_gains(self.population, difference)
            drawn = self.random().integers(len(gains), size=(self.trials, self.rows))
            return self.map(lambda rows: _comparison(resampled_mean(gains[rows], _fresh()).interval(ALPHA)), drawn)
        cells = pair(self.population, metric, difference)
        drawn = self.random().multinomial(self.rows, cells.shares, size=self.trials)
        return self.map(lambda counts: compare_cells(cells, counts, metric), drawn)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy draws and multiplies without the interpreter's lock
            return list(pool.map(function, items))

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def spread(self, metric: str, difference: float) -> float:
        """The standard error of an estimated difference, by the normal approximation."""
        if metric == "log_loss":
            return float(loss_gains(self.population, difference).std() / self.rows**0.5)
        cells = pair(self.population, metric, difference)
        if metric == "accuracy":
            return float(((cells.shares @ cells.gain**2 - difference**2) / self.rows) ** 0.5)
        drawn = self.random().multinomial(self.rows, cells.shares, size=400)
        return float(np.std([true_difference(Cells(cells.kinds, one, cells.classes), metric) for one in drawn]))


def compare_cells(cells: Cells, counts: np.ndarray, metric: str) -> Comparison:
    """As `training.intervals.compare` of rows that are these cells so often."""
    if metric == "accuracy":
        found = resampled_mean(np.repeat(cells.gain, counts), _fresh()).interval(ALPHA)
        won, lost = int(counts[cells.gain > 0].sum()), int(counts[cells.gain < 0].sum())
        return Comparison(found.value, found.low, found.high, mcnemar(won, lost))
    there = counts > 0
    return _comparison(resampled_macro_f1(cells.kinds[there], counts[there], cells.classes, _fresh()).interval(ALPHA))


def better(trials: Trials, gate: str, metric: str) -> Row:
    def rate(difference: float) -> Rate:
        return Rate.of(is_better(one, ALPHA) for one in trials.compared(metric, difference))

    same = rate(0.0)
    return Row(
        gate=gate,
        test="better",
        metric=metric,
        alpha=ALPHA,
        boundary=same,
        same=same,
        effect=EFFECT,
        power=rate(EFFECT),
        theory_same=ALPHA,
        theory_power=_power(EFFECT, trials.spread(metric, EFFECT)),
    )


def not_worse(trials: Trials, gate: str, metric: str) -> Row:
    def rate(difference: float) -> Rate:
        return Rate.of(one.low >= -MARGIN for one in trials.compared(metric, difference))

    return Row(
        gate=gate,
        test=f"not worse by {MARGIN:g}",
        metric=metric,
        alpha=ALPHA,
        boundary=rate(-MARGIN),
        same=rate(0.0),
        effect=EFFECT,
        power=rate(EFFECT),
        theory_same=_power(MARGIN, trials.spread(metric, 0.0)),
        theory_power=_power(MARGIN + EFFECT, trials.spread(metric, EFFECT)),
    )


def threshold(trials: Trials, gate: str, metric: str) -> Row:
    """The limit is the stored model's own figure, and in the second case worse than it by the effect."""
    population, rows = trials.population, trials.rows
    trials.say(f"{metric} against a limit")
    drawn = trials.random().integers(len(population.truth), size=(trials.trials, rows))
    truth, answers, losses = population.truth, population.answers, population.losses
    if metric == "accuracy":
        right = truth == answers
        value, deviation = float(right.mean()), float(right.std())
        found = [wilson(int(right[one].sum()), rows) for one in drawn]
    elif metric == "log_loss":
        value, deviation = float(losses.mean()), float(losses.std())
        found = trials.map(lambda one: resampled_mean(losses[one], _fresh()).interval(ALPHA), drawn)
    else:
        whole: dict[str, Any] = {"label": truth, "prediction": answers}
        value, deviation = estimate(metric, whole).value, None
        found = trials.map(lambda one: estimate(metric, {name: whole[name][one] for name in whole}), drawn)

    def reached(by: float) -> Rate:
        if metric == "log_loss":
            return Rate.of(one.high <= value + by for one in found)
        return Rate.of(one.low >= value - by for one in found)

    spread = float(np.std([one.value for one in found])) if deviation is None else deviation / rows**0.5
    return Row(
        gate=gate,
        test="interval reaches limit",
        metric=metric,
        alpha=ALPHA,
        boundary=reached(0.0),
        same=None,
        effect=EFFECT,
        power=reached(EFFECT),
        theory_same=None,
        theory_power=_power(EFFECT, spread),
    )


def slices(trials: Trials, gate: str, metric: str) -> Row:
    """Six slices of equal size; the tree is offered them and one column that says nothing."""
    from flows.gates.slices import Slices
    from flows.judging.weak_slices import weak_slices

    settings = Slices(metric=metric, margin=MARGIN)
    rows = trials.rows
    inside = np.arange(rows) % SLICES
    row_ids = [f"{row:064x}" for row in range(rows)]
    named = {f"slice {number}": inside == number for number in range(SLICES)}
    offered = {f"slice = {number}": mask.astype(float) for number, mask in enumerate(named.values())}
    alike = {d: pair(trials.population, metric, d) for d in (0.0, -MARGIN, -MARGIN - SLICE_EFFECT)}

    def results(cells: Cells, rng: np.random.Generator, count: int) -> np.ndarray:
        return cells.kinds[rng.choice(len(cells.shares), size=count, p=cells.shares)]

    def refused(differences: Sequence[float], seed: int) -> bool:
        rng = np.random.default_rng([trials.seed, seed])
        kinds = np.empty((rows, 3), dtype=int)
        for number, difference in enumerate(differences):
            kinds[inside == number] = results(alike[difference], rng, int((inside == number).sum()))
        label, candidate, champion = kinds.T
        gains = (label == candidate).astype(float) - (label == champion)
        found = weak_slices(row_ids, {**offered, "noise": rng.random(rows)}, gains, settings.minimum_rows)
        mine, theirs = {"label": label, "prediction": candidate}, {"label": label, "prediction": champion}
        judged = settings.judge_slices({**named, **found}, mine, theirs)
        return any(row["verdict"] != "fine" for row in judged)

    def rate(differences: Sequence[float]) -> Rate:
        trials.say(f"slices {differences[0]:+g} apart")
        return Rate.of(trials.map(lambda seed: refused(differences, seed), range(trials.trials)))

    spread = _spread_of_slice(alike[-MARGIN - SLICE_EFFECT], rows // SLICES)
    same = rate([0.0] * SLICES)
    return Row(
        gate=gate,
        test=f"no slice worse by {MARGIN:g}: refuses",
        metric=metric,
        alpha=settings.alpha,
        boundary=rate([-MARGIN] * SLICES),
        same=Rate.of([True] * (same.trials - same.count) + [False] * same.count),
        effect=-MARGIN - SLICE_EFFECT,
        power=rate([-MARGIN - SLICE_EFFECT, *[0.0] * (SLICES - 1)]),
        theory_same=None,
        theory_power=_power(SLICE_EFFECT, spread, settings.alpha / (SLICES + 3)),
    )


def calibration(trials: Trials, gate: str, metric: str) -> Row:
    """Models that are too sure by the same amount everywhere: their true ECE is that amount."""
    from flows.gates.calibration import Calibration

    confidence = trials.population.confidence
    maximum = Calibration().maximum
    trials.say("calibration")
    confidence = confidence[confidence > maximum]

    def passes(gap: float, seed: int) -> bool:
        rng = np.random.default_rng([trials.seed, seed])
        sure = rng.choice(confidence, trials.rows)
        return expected_calibration_error(sure, rng.random(len(sure)) < sure - gap).high <= maximum

    def rate(gap: float) -> Rate:
        return Rate.of(trials.map(lambda seed: passes(gap, seed), range(trials.trials)))

    return Row(
        gate=gate,
        test=f"interval under {maximum:g}",
        metric=metric,
        alpha=ALPHA,
        boundary=rate(maximum),
        same=None,
        effect=-0.05,
        power=rate(maximum - 0.05),
        theory_same=None,
        theory_power=None,
    )


TESTS: dict[str, list[tuple[Callable[[Trials, str, str], Row], tuple[str, ...]]]] = {
    "champion": [(better, ("accuracy", "macro_f1", "log_loss")), (not_worse, ("accuracy", "macro_f1", "log_loss"))],
    "baseline": [(not_worse, ("accuracy", "macro_f1"))],
    "beats_baseline": [(better, ("accuracy", "macro_f1"))],
    "threshold": [(threshold, ("accuracy", "macro_f1", "log_loss"))],
    "slices": [(slices, ("accuracy",))],
    "calibration": [(calibration, ("ece",))],
}
"""Gate -> its tests, each with the metrics it is tried on. The other gates decide nothing by chance."""


def calibrate(
    population: Population, gates: Sequence[str], trials: int, say: Callable[[str], None] = lambda note: None
) -> list[Row]:
    """Try the tests of those gates. Deterministic: the same population and number of trials give the same rates."""
    tried = Trials(population, trials, say=say)
    return [test(tried, gate, metric) for gate in gates for test, metrics in TESTS[gate] for metric in metrics]


def _comparison(found: Estimate) -> Comparison:
    return Comparison(found.value, found.low, found.high)


def _fresh() -> np.random.Generator:
    """The gates' own seed."""
    return np.random.default_rng(0)


def _power(distance: float, spread: float, alpha: float = ALPHA) -> float:
    """Normal approximation: how often an estimate this far from the boundary is beyond it by its interval."""
    normal = NormalDist()
    return normal.cdf(distance / spread - normal.inv_cdf(1 - alpha)) if spread > 0 else 1.0


def _spread_of_slice(cells: Cells, rows: int) -> float:
    mean = float(cells.shares @ cells.gain)
    return float(((cells.shares @ cells.gain**2 - mean**2) / rows) ** 0.5)
