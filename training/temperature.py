"""Temperature scaling: the one number by which logits are divided, so that a model is as sure as it is right.

Fitted on the validation split, by its log loss; no answer changes, only how sure it is (Guo, Pleiss, Sun & Weinberger,
"On calibration of modern neural networks", ICML 2017, §4.2). `training.calibration` measures; this is apart from it
because a recipe depends on it, and how figures are measured must retrain nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TEMPERATURES = (0.05, 20.0)
"""Looked for between these."""


def fit_temperature(logits: "np.ndarray", truth: "np.ndarray") -> float:
    """The temperature with the least log loss. logits: (N, K), up to a constant a row; truth: (N,) class indices.

    No row: 1, which changes nothing.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if len(truth) == 0:
        return 1.0
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, truth].mean())

    # Convex in 1 / temperature, so it has one minimum.
    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))
