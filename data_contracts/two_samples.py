"""Whether a classifier can tell two samples apart: the test for data that has no order and no categories.

A logistic regression learns which sample a row is from and is asked about rows it did not learn from (Lopez-Paz &
Oquab, "Revisiting classifier two-sample tests", 2017, §3). If the two are draws of one source its AUC is 0.5 by
construction, whatever the features. Folds follow from the rows' own content: the same samples give the same answer.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

FOLDS = 5
MIN_ROWS = 20
"""In each sample: with fewer nothing is learned, and the normal approximation of the AUC is poor."""


@dataclass(frozen=True)
class Separation:
    auc: float
    """Chance that the classifier takes a newer row for newer than an older one; 0.5: no difference."""
    low: float
    high: float
    """95 % interval."""
    p_value: float
    """One-sided: of an AUC as large without any difference."""

    @property
    def effect(self) -> float:
        """2 AUC - 1 (Somers' D), 0 where it is below 0.5: from 0 (the same) to 1 (nothing in common)."""
        return max(0.0, 2 * self.auc - 1)


def folds_of(contents: list[bytes]) -> Any:
    """The fold of each row. Equal contents share one, so that no row is judged by what its twin taught."""
    import numpy as np

    digests = [hashlib.blake2b(content, digest_size=8).digest() for content in contents]
    rank = {digest: position for position, digest in enumerate(sorted(set(digests)))}
    return np.array([rank[digest] % FOLDS for digest in digests])


def separate(features: Any, newer: Any, folds: Any, strength: float) -> Separation:
    """Cross-validated AUC of `newer` (0 or 1 a row) from `features` (rows x features, dense or sparse).

    strength: the regression's C. The folds' AUCs are not independent, because the same rows teach several: their mean's
    variance is corrected by Nadeau & Bengio ("Inference for the generalization error", 2003, §3), which doubles it.
    """
    import numpy as np
    from scipy.stats import norm, rankdata
    from sklearn.linear_model import LogisticRegression

    aucs, weights, chance, spread = [], [], [], []
    for fold in range(FOLDS):
        asked = folds == fold
        truth = newer[asked]
        ones, zeros = int(truth.sum()), int((1 - truth).sum())
        if not ones or not zeros or len(set(newer[~asked])) < 2:
            continue
        wide = features.shape[1] > features.shape[0]  # the dual is then a hundred times faster, and solves the same
        model = LogisticRegression(C=strength, solver="liblinear", dual=wide, random_state=0)
        scores = model.fit(features[~asked], newer[~asked]).decision_function(features[asked])
        ranks = rankdata(scores)
        auc = (ranks[truth == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)
        # What each row adds to the AUC, and from it the variance (DeLong et al. 1988, eq. 5).
        inside = rankdata(scores[truth == 1]), rankdata(scores[truth == 0])
        above = (ranks[truth == 1] - inside[0]) / zeros
        below = 1 - (ranks[truth == 0] - inside[1]) / ones
        aucs.append(auc)
        weights.append(ones * zeros)
        chance.append((ones + zeros + 1) / (12 * ones * zeros))  # Mann & Whitney 1947
        spread.append(above.var(ddof=1) / ones + below.var(ddof=1) / zeros if min(ones, zeros) > 1 else 0.25)
    if not aucs:
        return Separation(0.5, 0.0, 1.0, 1.0)
    share = np.array(weights) / sum(weights)
    correction = 1 + len(aucs) / (FOLDS - 1)
    auc = float(share @ np.array(aucs))
    p_value = float(norm.sf((auc - 0.5) / np.sqrt(correction * (share**2 @ np.array(chance)))))
    width = 1.96 * float(np.sqrt(correction * (share**2 @ np.array(spread))))
    return Separation(auc, max(0.0, auc - width), min(1.0, auc + width), p_value)
