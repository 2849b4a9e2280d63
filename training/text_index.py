"""The texts nearest to a query by their embeddings: an index kept beside the model that embedded them.

HNSW: Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable small
world graphs", TPAMI 42(4), 2020. FAISS's, because on 20,000 vectors of 384 numbers it was built twice as fast as
usearch's and answered twice as fast at the same recall; the two gave the same bytes from the same vectors.
"""

import json
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from infra.artifacts import check_format
from infra.digests import digest, digest_file
from infra.errors import WrongInput
from training.text import read_arrow, write_arrow

FORMAT = 1
LINKS = 32
"""Neighbours of a text in the graph (M of §4.1)."""
NEAREST = 10
"""Texts by which its recall is told."""
EF_CONSTRUCTION = 200
EF_SEARCH = 128
"""Candidates held while the graph is built, and while it is searched."""


class TextIndex:
    """Texts, the rows they are from, and an index of their embeddings (unit length: the score is their cosine)."""

    def __init__(self, graph: Any, texts: Any):
        self.graph, self.texts = graph, texts
        self.graph.hnsw.efSearch = EF_SEARCH

    @classmethod
    def build(cls, vectors: np.ndarray, texts: Sequence[str], row_ids: Sequence[str]) -> "TextIndex":
        """vectors: (N, D) float32. By one thread: more would give another graph each time."""
        import faiss
        import pyarrow as pa

        graph = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            graph.add(np.ascontiguousarray(vectors, np.float32))
        finally:
            faiss.omp_set_num_threads(threads)
        return cls(graph, pa.table({"row_id": list(row_ids), "text": list(texts)}))

    def save(self, folder: Path, model: Path | None = None) -> None:
        """Into the folder of the model whose embeddings these are; or one below it, then that is `model`."""
        import faiss

        folder.mkdir(exist_ok=True)
        faiss.write_index(self.graph, str(folder / "index.faiss"))
        write_arrow(folder / "texts.arrow", {name: self.texts[name] for name in self.texts.column_names})
        body = {"format": FORMAT, "model": model_digest(model or folder), "texts": len(self), "width": self.graph.d}
        (folder / "index.json").write_text(json.dumps(body, indent=1, sort_keys=True), encoding="utf-8")

    @classmethod
    def open(cls, folder: Path, model: Path | None = None) -> "TextIndex":
        """Raises WrongInput for the index of another model: its scores would mean nothing."""
        import faiss

        body = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        check_format(body, FORMAT, f"index {folder}")
        own = model_digest(model or folder)
        if body["model"] != own:
            raise WrongInput(
                f"index {folder}: was built for model {body['model'][:12]}, and this is {own[:12]}; train again, which "
                "builds its own"
            )
        return cls(faiss.read_index(str(folder / "index.faiss")), read_arrow(folder / "texts.arrow"))

    @cached_property
    def vectors(self) -> np.ndarray:
        """(texts, D), as they were given."""
        return self.graph.reconstruct_n(0, len(self))

    def __len__(self) -> int:
        return self.texts.num_rows

    def nearest(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores, numbers of texts), both (N, at most count), the nearest first; -1 where the graph found no more."""
        return self.graph.search(np.ascontiguousarray(vectors, np.float32), min(count, len(self)))

    def exact(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The same by comparing with every text."""
        scores = vectors @ self.vectors.T
        count = min(count, len(self))
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable"), 1)
        return np.take_along_axis(scores, best, 1), best

    def figures(self, queries: int = 200) -> dict[str, float]:
        """How much it misses and how fast it is, asked for the texts nearest to some of its own, one at a time."""
        chosen = range(0, len(self), -(-len(self) // queries))
        vectors = self.vectors[:: chosen.step]
        found, seconds = {}, {}
        for name, ask in (("index", self.nearest), ("exact", self.exact)):
            begun = time.perf_counter()
            found[name] = [set(ask(vector[None], NEAREST + 1)[1][0].tolist()) for vector in vectors]
            seconds[name] = time.perf_counter() - begun
        pairs = zip(found["index"], found["exact"], chosen, strict=True)  # each finds itself, which is no feat
        shares = [len((some & every) - {own}) / max(len(every - {own}), 1) for some, every, own in pairs]
        return {
            f"index_recall_at_{NEAREST}": float(np.mean(shares)),
            "index_queries_per_second": len(chosen) / seconds["index"],
            "exact_queries_per_second": len(chosen) / seconds["exact"],
        }

    def search(self, vectors: np.ndarray, count: int) -> list[list[dict[str, Any]]]:
        """For each vector its nearest texts: row_id, text, score."""
        scores, numbers = self.nearest(vectors, count)
        ids, texts = self.texts["row_id"], self.texts["text"]
        return [
            [
                {"row_id": ids[int(number)].as_py(), "text": texts[int(number)].as_py(), "score": float(score)}
                for score, number in zip(*row, strict=True)
                if number >= 0
            ]
            for row in zip(scores, numbers, strict=True)
        ]


def model_digest(folder: Path) -> str:
    """Of what decides an embedding: weights, configuration, tokenizer."""
    files = [*sorted(folder.glob("model*.safetensors")), folder / "config.json", folder / "tokenizer.json"]
    return digest({path.name: digest_file(path) for path in files})
