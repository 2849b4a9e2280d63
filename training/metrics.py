"""The metrics that an evaluation supports, and the per-example results each is made of.

A new kind of evaluation adds its rows here: a metric that is a mean over examples (absolute error, reciprocal rank)
names the column of `predictions.parquet` that holds it, and every gate can then use it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Metric:
    title: str
    """How a page writes it."""
    columns: tuple[str, ...]
    """Columns of `predictions.parquet` that it is computed from. One alone: the metric is that column's mean."""
    higher_is_better: bool = True
    share: bool = True
    """From 0 to 1: differences are told in percentage points."""
    mean: bool = True
    """A mean over examples; when not, a resample computes it anew."""

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
            return f"{value:+.3f}" if high is None else f"{value:+.3f} to {high:+.3f}"
        return f"{100 * value:+.1f} points" if high is None else f"{100 * value:+.1f} to {100 * high:+.1f}"


METRICS = {
    "accuracy": Metric(title="accuracy", columns=("label", "prediction")),
    "macro_f1": Metric(title="macro-F1", columns=("label", "prediction"), mean=False),
    "log_loss": Metric(title="log loss", columns=("log_loss",), higher_is_better=False, share=False),
    "brier": Metric(title="Brier score", columns=("brier",), higher_is_better=False, share=False),
}


def known_metric(metric: str) -> str:
    """The metric itself. Raises ValueError listing what there is, for a setting that names another."""
    if metric not in METRICS:
        raise ValueError(f"no such metric; there is: {', '.join(METRICS)}")
    return metric
