"""Texts in groups by their embeddings (k-means), each group told by the texts nearest to its centre."""

from collections.abc import Sequence
from typing import Any

import numpy as np

SHOWN = 5
"""Texts of each group."""


def cluster(vectors: np.ndarray, texts: Sequence[str], row_ids: Sequence[str], count: int) -> list[dict[str, Any]]:
    """At most `count` groups, the largest first: rows, cohesion (mean cosine with the centre), texts (row_id, text,
    score: the cosine). vectors: (N, D) of length 1. By one thread, so that the same vectors give the same groups."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        found = KMeans(min(count, len(vectors)), n_init=1, random_state=0).fit(vectors)
    centres = found.cluster_centers_ / np.linalg.norm(found.cluster_centers_, axis=1, keepdims=True)
    groups = []
    for number, centre in enumerate(centres):
        rows = np.flatnonzero(found.labels_ == number)
        cosines = vectors[rows] @ centre
        nearest = np.argsort(-cosines, kind="stable")[:SHOWN]
        told = [{"row_id": row_ids[rows[i]], "text": texts[rows[i]], "score": float(cosines[i])} for i in nearest]
        groups.append({"rows": len(rows), "cohesion": float(cosines.mean()) if len(rows) else 0.0, "texts": told})
    return sorted((group for group in groups if group["rows"]), key=lambda group: -group["rows"])
