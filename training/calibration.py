"""Whether a classifier is as often right as it says it is.

ECE is the mean gap between confidence and accuracy over bins that hold equally many rows (Nguyen & O'Connor, "Posterior
calibration and exploratory analysis for natural language processing models", EMNLP 2015, §3): bins of equal width leave
most of them nearly empty. Chance alone makes gaps, so on few rows ECE overstates (Kumar, Liang & Ma, "Verified
uncertainty calibration", NeurIPS 2019, §3): it errs towards "badly calibrated".
"""

from typing import TYPE_CHECKING, Any

from training.intervals import ALPHA, RESAMPLES, Estimate, enough, wilson

if TYPE_CHECKING:
    import numpy as np

BINS = 15
"""As in Guo et al. 2017, §2."""
ROWS_A_BIN = 20
"""Fewer rows in a bin tell nothing: a small split gets fewer bins."""


def reliability(confidence: "np.ndarray", right: "np.ndarray", bins: int = BINS) -> list[dict[str, Any]]:
    """One row a bin, least sure first: what a reliability plot draws.

    confidence: (N,) from 0 to 1; right: (N,) bool. Rows of equal confidence share a bin, so there may be fewer.
    """
    import numpy as np

    place = bin_of(confidence, bins)
    table = []
    for number in np.unique(place):
        inside = place == number
        share = wilson(int(right[inside].sum()), int(inside.sum()))
        table.append(
            {
                "from": float(confidence[inside].min()),
                "to": float(confidence[inside].max()),
                "rows": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": share.value,
                "low": share.low,
                "high": share.high,
            }
        )
    return table


def expected_calibration_error(
    confidence: "np.ndarray", right: "np.ndarray", bins: int = BINS, alpha: float = ALPHA, seed: int = 0
) -> Estimate:
    """ECE and its bootstrap interval, the bins kept. confidence: (N,); right: (N,) bool."""
    import numpy as np

    rows = len(confidence)
    if rows == 0:
        raise ValueError("no row to be calibrated on")
    place = bin_of(confidence, bins)
    held = np.bincount(place)
    mean = np.bincount(place, weights=confidence) / np.maximum(held, 1)
    # A resample draws cells (bin, right or not), each row with its bin's mean confidence: that confidences differ
    # within a bin of equal mass is little beside that a row is right or wrong.
    counts = np.bincount(2 * place + right, minlength=2 * len(held))
    gaps = np.zeros((len(counts), len(held)))
    for number in range(len(held)):
        gaps[2 * number : 2 * number + 2, number] = -mean[number], 1 - mean[number]

    def error(block: "np.ndarray") -> "np.ndarray":
        return np.abs(block @ gaps).sum(1) / rows

    draws = error(np.random.default_rng(seed).multinomial(rows, counts / rows, size=enough(RESAMPLES, alpha)))
    value = float(error(counts[None])[0])
    # Noise makes ECE larger, and drawing from noisy rows does so once more: the draws are moved back by that.
    low, high = np.quantile(draws - (draws.mean() - value), [alpha, 1 - alpha])
    return Estimate(value, max(0.0, float(low)), float(high))


def bin_of(confidence: "np.ndarray", bins: int = BINS) -> "np.ndarray":
    """The bin of each row, (N,): bins of equally many rows, as far as equal confidences can be parted."""
    import numpy as np

    bins = max(1, min(bins, len(confidence) // ROWS_A_BIN))
    edges = np.unique(np.quantile(confidence, np.arange(1, bins) / bins)) if bins > 1 else np.empty(0)
    return np.searchsorted(edges[edges > confidence.min()], confidence, side="right")


def per_row_losses(probabilities: "np.ndarray", truth: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Log loss in nats and Brier score (0 to 2: Brier, Monthly Weather Review 78(1), 1950) of each row, (N,) each.

    probabilities: (N, K); truth: (N,) class indices, -1 for a class the model does not know: probability 0.
    """
    import numpy as np

    rows = np.arange(len(truth))
    known = truth >= 0
    of_truth = np.where(known, probabilities[rows, truth], 0.0)
    # As scikit-learn's log_loss: a probability of 0 costs as much as the smallest difference from 1.
    losses = -np.log(np.clip(of_truth, np.finfo(float).eps, 1.0))
    return losses, (probabilities**2).sum(1) - 2 * of_truth + 1
