"""How often a classifier is right where nobody knows the answers yet: the mean of its calibrated confidence.

If a model is right in 80 % of the rows in which it says 80 %, the mean of what it says is its accuracy: average
confidence (Guillory et al., "Predicting with confidence on unseen distributions", ICCV 2021, §3), which NannyML calls
confidence-based performance estimation (CBPE). Confidence is calibrated first, by a logistic regression of "it was
right" on the confidence's logit (Platt, "Probabilistic outputs for support vector machines", 1999), fitted where the
labels are known. Unlike one temperature its intercept makes the estimate unbiased there, and it needs no other class's
probability, so that any server's log will do.

What it rests on stands in `ASSUMPTIONS`: it sees inputs on which the model is less sure, and never that the world
gives other answers to the same inputs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.intervals import ALPHA, Estimate

if TYPE_CHECKING:
    import numpy as np

ASSUMPTIONS = (
    "no concept drift: equal inputs still have the answers that they had in training",
    "calibration holds: the model is as often right as it says on these inputs too, though there may be more of some",
)
RESAMPLES = 200
"""Of the labelled rows, each with a calibration of its own."""
MINIMUM_ROWS = 100
"""Labelled rows below which no calibration is fitted."""
MAXIMUM_ROWS = 10_000
"""Labelled rows drawn, where there are more: their share of chance in the estimate is then small."""
EDGE = 1e-6
"""A confidence is moved in to this distance from 0 and 1, where it has no logit."""
NEWTON_STEPS = 25


@dataclass(frozen=True)
class Calibration:
    """P(right) = 1 / (1 + exp(-(slope x logit(confidence) + intercept)))."""

    slope: float
    intercept: float
    draws: "np.ndarray"
    """(B, 2): slope and intercept of each resample of the labelled rows."""

    def chance_right(self, confidence: "np.ndarray") -> "np.ndarray":
        """(N,) from 0 to 1."""
        from scipy.special import expit

        return expit(self.slope * _logit(confidence) + self.intercept)


def fit_calibration(confidence: "np.ndarray", right: "np.ndarray", seed: int = 0) -> Calibration:
    """confidence: (N,) from 0 to 1; right: (N,) bool. Raises ValueError for fewer than MINIMUM_ROWS rows."""
    import numpy as np

    rows = len(right)
    if rows < MINIMUM_ROWS:
        raise ValueError(f"{rows} labelled rows are too few to calibrate on ({MINIMUM_ROWS})")
    rng = np.random.default_rng(seed)
    if rows > MAXIMUM_ROWS:
        chosen = rng.choice(rows, MAXIMUM_ROWS, replace=False)
        confidence, right, rows = confidence[chosen], right[chosen], MAXIMUM_ROWS
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    found = _fit(_logit(confidence), right.astype(float), np.vstack([np.ones(rows), counts]))
    return Calibration(float(found[0, 0]), float(found[0, 1]), found[1:])


def estimated_accuracy(calibration: Calibration, confidence: "np.ndarray", alpha: float = ALPHA) -> Estimate:
    """The accuracy to be expected of these rows, (N,), and the interval in which their real one lies if the assumptions
    hold: the calibration's own uncertainty (bootstrap) and chance within these rows, whose number of right answers is
    Poisson-binomial and for a few dozen rows nearly normal. Raises ValueError for no row."""
    import numpy as np
    from scipy.special import expit

    if not len(confidence):
        raise ValueError("no row whose accuracy could be estimated")
    logits, repeats = np.unique(_logit(confidence), return_counts=True)
    slopes, intercepts = calibration.draws[:, :1], calibration.draws[:, 1:]
    means, deviations = [], []
    for part in np.array_split(np.arange(len(calibration.draws)), 1 + len(logits) // 20_000):  # bounds memory
        chances = expit(slopes[part] * logits + intercepts[part])
        means.append(chances @ repeats / len(confidence))
        deviations.append(np.sqrt((chances * (1 - chances)) @ repeats) / len(confidence))
    mean, deviation = np.concatenate(means), np.concatenate(deviations)
    # Each draw of the calibration with 100 outcomes of the rows: the quantiles of the mixture.
    outcomes = mean[:, None] + deviation[:, None] * _normal_quantiles(100)
    low, high = np.quantile(outcomes, [alpha, 1 - alpha])
    value = float(calibration.chance_right(confidence).mean())
    return Estimate(value, max(0.0, float(low)), min(1.0, float(high)))


def _normal_quantiles(count: int) -> "np.ndarray":
    import numpy as np
    from scipy.special import ndtri

    return ndtri((np.arange(count) + 0.5) / count)


def _logit(confidence: "np.ndarray") -> "np.ndarray":
    import numpy as np
    from scipy.special import logit

    return logit(np.clip(confidence, EDGE, 1 - EDGE))


def _fit(logits: "np.ndarray", right: "np.ndarray", weights: "np.ndarray") -> "np.ndarray":
    """(B, 2): slope and intercept by Newton's method for each row of `weights` (B, N). scikit-learn's fits one at a
    time, which takes 50 times as long here.

    As Platt has it, the targets are not quite 0 and 1: a model that was never wrong in 100 rows is not certain.
    """
    import numpy as np
    from scipy.special import expit, logit

    hits, misses = weights @ right, weights @ (1 - right)
    target = np.where(right > 0, ((hits + 1) / (hits + 2))[:, None], (1 / (misses + 2))[:, None])
    mean = (weights * target).sum(1) / weights.sum(1)
    found = np.stack([np.zeros(len(weights)), logit(mean)], 1)
    for _ in range(NEWTON_STEPS):
        chance = expit(found[:, :1] * logits + found[:, 1:])
        error, curve = weights * (chance - target), weights * chance * (1 - chance)
        gradient = np.stack([error @ logits, error.sum(1)], 1)
        hessian = np.array([[curve @ logits**2, curve @ logits], [curve @ logits, curve.sum(1)]]).transpose(2, 0, 1)
        step = np.linalg.solve(hessian + 1e-6 * np.eye(2), gradient[:, :, None])[:, :, 0]
        found -= step
        if np.abs(step).max() < 1e-6:
            break
    return found
