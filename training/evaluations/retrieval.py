"""How well a search finds: of each passage of unseen texts the one after it, beside TF-IDF; and how much the index
misses of what comparing with every text finds.

Reciprocal rank: Voorhees, "The TREC-8 question answering track report", 1999, §3. That the next passage is the one to
find is a stand-in: passages elsewhere may answer as well, so the figures compare models and promise nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from infra.errors import WrongInput
from training.evaluation import TEXT_CHARS, Asked, Kind, Say, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from training.pairs import Pairs, Pool
    from training.text_index import TextIndex

NEAREST = 10
SHOWN = 64
"""Queries whose answer the page shows and the package has to repeat."""
BLOCK = 512
"""Queries compared with every passage at once."""


class Searcher(Protocol):
    """What such an evaluation asks of a predictor, beside its answers: `label`, the nearest text."""

    index: "TextIndex"

    def passages(self, table: "pyarrow.Table") -> "tuple[Pool, Pairs]":
        """A split's passages, and which follows which."""

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """(N, D), each of length 1."""


class Retrieval(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "reciprocal_rank": Metric(title="mean reciprocal rank", columns=("reciprocal_rank",), compared=True),
        "recall_at_10": Metric(title="recall@10", columns=("found",), compared=True),
        "index_recall_at_10": Metric(title="the index's recall@10 of exact search", columns=("index_found",)),
    }
    rows = "queries"
    baseline = "counting the words that two passages share"
    advice = "more text, passages of another length, or an encoder pretrained on much more of it (--set base=PATH)"

    def hub_task(self, reads: str) -> str:
        return "sentence-similarity"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        from training.pairs import tfidf

        if len(asked.inputs) != 1:
            raise WrongInput(f"contract: slipway.inputs names {len(asked.inputs)} columns; a search reads one")
        searcher: Searcher = asked.predictor
        pool, pairs = searcher.passages(asked.judged)
        if not len(pairs.texts):
            raise ValueError(f"{asked.split} split of {asked.dataset}: no text of two passages")
        queries = [pool.texts[number] for number in pairs.texts[:, 0]]
        say(0, f"{len(pool.texts):,} passages")
        vectors = searcher.embed(pool.texts)
        say(0.6, "comparing with every passage")
        own = vectors[pairs.texts[:, 0]]
        _, found = searcher.index.nearest(own, NEAREST + 1)
        _, exact = searcher.index.exact(own, NEAREST + 1)
        # Without the nearest, which is the passage itself: that it is found is no feat.
        shares = [len(set(some) & set(every[1:])) / len(every[1:]) for some, every in zip(found, exact, strict=True)]
        results = {
            "model": {**_ranked(vectors, pairs.texts), "index_found": np.array(shares)},
            "baseline": _ranked(tfidf(pool.texts), pairs.texts),
        }
        shown = range(0, len(queries), -(-len(queries) // SHOWN))
        asks = {row: _half(queries[row]) for row in shown}
        answers: dict[int, dict[str, Any]] = dict(
            zip(shown, asked.predictor([{asked.inputs[0]: asks[row]} for row in shown]), strict=True)
        )
        say(0.9, "intervals")
        chance = 1 / np.arange(1, len(pool.texts))  # the reciprocal of every rank that the next passage may have
        guess = {"reciprocal_rank": chance.mean(), "recall_at_10": (chance >= 1 / NEAREST).mean()}
        body = {
            "task": "retrieval",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(queries),
            "passages": len(pool.texts),
            "indexed": len(searcher.index),
            "model": {name: estimate(name, results["model"]).to_json() for name in self.metrics},
            "baseline": {
                "name": "TF-IDF cosine",
                "settings": {"sublinear_tf": True},
                "tried": [],
                **{name: estimate(name, results["baseline"]).to_json() for name in self.compared},
            },
            "majority": {
                "label": "a passage at random",
                **{name: {"value": value, "low": value, "high": value} for name, value in guess.items()},
            },
            "difference": {
                name: compare(name, results["model"], results["baseline"]).to_json() for name in self.compared
            },
        }
        places = range(len(queries))
        columns = {
            "row_id": [f"{row_id}:{place}" for place, row_id in enumerate(pairs.row_ids)],
            **results["model"],
            **{f"baseline_{name}": column for name, column in results["baseline"].items()},
            "prompt": pa.array([asks.get(row) for row in places], pa.string()),
            "prediction": pa.array([answers[row]["label"] if row in answers else None for row in places], pa.string()),
            "confidence": pa.array(
                [answers[row]["confidence"] if row in answers else None for row in places], pa.float64()
            ),
            "text": pa.array([query[:TEXT_CHARS] for query in queries], pa.string()),
        }
        return write(folder, body, columns)


KIND = Retrieval()


def _half(passage: str) -> str:
    """The first half of its words: a question that no passage is the whole answer to."""
    words = passage.split()
    return " ".join(words[: -(-len(words) // 2)])


def _ranked(vectors: Any, pairs: "np.ndarray") -> "dict[str, np.ndarray]":
    """reciprocal_rank and found (among the ten nearest) of each pair's second text, the first itself left out.

    vectors: (texts, D) rows of length 1, sparse or dense; pairs: (N, 2). Of equals, the one to find comes last."""
    import numpy as np

    ranks = []
    for begin in range(0, len(pairs), BLOCK):
        first, second = pairs[begin : begin + BLOCK].T
        alike = vectors[first] @ vectors.T
        alike = alike.toarray() if hasattr(alike, "toarray") else alike  # (block, texts)
        place = np.arange(len(first))
        wanted = alike[place, second]
        alike[place, first] = -np.inf
        ranks.append((alike >= wanted[:, None]).sum(1))
    rank = np.concatenate(ranks)
    return {"reciprocal_rank": 1 / rank, "found": (rank <= NEAREST).astype(float)}
