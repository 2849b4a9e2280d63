"""The metrics that evaluations support, and the per-example results each is made of.

Each kind of evaluation (training/evaluations/) declares its own; every gate can then use them. Most are means over
examples; one that is none says how it is computed of a resample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

KINDS = Path(__file__).parent / "evaluations"


def told(value: float, sign: str = "") -> str:
    """A figure as a sentence writes it: three decimals, of what is below 0.01 two significant digits. sign: as Python's
    format has it."""
    return f"{value:{sign}#.2g}" if 1e-9 < abs(value) < 0.01 else f"{value:{sign}.3f}"


@dataclass(frozen=True, kw_only=True)
class Metric:
    title: str
    """How a page writes it."""
    columns: tuple[str, ...]
    """Columns of `predictions.parquet` that it is computed from. One alone: the metric is that column's mean."""
    shared: tuple[str, ...] = ()
    """Those of them that are true of a row whoever answers (its label): two models are compared where these agree."""
    higher_is_better: bool = True
    share: bool = True
    """From 0 to 1: differences are told in percentage points."""
    mean: bool = True
    """A mean over examples; when not, a resample computes it anew."""
    weighted: "Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray] | None" = None
    """Of one that is no mean: (its columns (N,), how often each row was drawn (B, N)) -> (B,). Macro-F1 alone has a
    quicker way of its own (training.intervals)."""
    compared: bool = False
    """Whether the baseline has it too: its own answers are the columns `baseline_<column>`."""

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1

    def per_row(self, results: Mapping[str, Sequence[Any]]) -> "np.ndarray":
        """What each example adds to the mean, (N,) float64."""
        import numpy as np

        if self.columns == ("label", "prediction"):
            right = np.asarray(results["label"], dtype=object) == np.asarray(results["prediction"], dtype=object)
            return right.astype(float)
        return np.asarray(results[self.columns[0]], dtype=float)

    def difference(self, value: float, high: float | None = None) -> str:
        """A difference as a sentence writes it: `+1.2 points`, `-0.4 to +2.8` with two ends, `+0.031` of no share."""
        if not self.share:
            return told(value, "+") if high is None else f"{told(value, '+')} to {told(high, '+')}"
        return f"{100 * value:+.1f} points" if high is None else f"{100 * value:+.1f} to {100 * high:+.1f}"

    def minus(self, other: str) -> str:
        """How a difference from `other` ("the champion's") is called; positive is better."""
        return f"{self.title} minus {other}" if self.higher_is_better else f"{other} {self.title} minus its own"

    def amount(self, value: float) -> str:
        """A margin as a sentence writes it: `2.0 points`, `0.05` of no share."""
        return f"{100 * value:.1f} points" if self.share else f"{value:g}"


class _OfEveryKind(Mapping[str, Metric]):
    """Name -> metric. The files are read when it is first asked: they import this one."""

    @cached_property
    def _all(self) -> dict[str, Metric]:
        kinds = [import_module(f"training.evaluations.{name}") for name in kind_names()]
        return {name: metric for kind in kinds for name, metric in kind.KIND.metrics.items()}

    def __getitem__(self, name: str) -> Metric:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


METRICS: Mapping[str, Metric] = _OfEveryKind()


def kind_names() -> list[str]:
    return sorted(path.stem for path in KINDS.glob("*.py") if path.stem != "__init__")


def known_metric(metric: str) -> str:
    """The metric itself. Raises ValueError listing what there is, for a setting that names another."""
    if metric not in METRICS:
        raise ValueError(f"no such metric; there is: {', '.join(METRICS)}")
    return metric


def compared_metric(metric: str) -> str:
    """The metric itself. Raises ValueError listing what a baseline has, for a setting that names another."""
    if metric not in METRICS or not METRICS[metric].compared:
        known = [name for name, one in METRICS.items() if one.compared]
        raise ValueError(f"no such metric of a baseline; there is: {', '.join(known)}")
    return metric
