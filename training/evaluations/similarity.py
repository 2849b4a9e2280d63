"""How well a model grades the likeness of two texts: the correlation of its grades with people's, beside TF-IDF.

Spearman's correlation is what STS Benchmark is told by (Cer et al., SemEval 2017, task 1; Reimers, Beyer & Gurevych,
COLING 2016, on why not Pearson's): it asks for the right order alone, so a cosine needs no unit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from infra.errors import WrongInput
from training.evaluation import TEXT_CHARS, Asked, Kind, Say, shown, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

BINS = 5
TRIED = (("word", 1, 1), ("word", 1, 2), ("char_wb", 2, 4))
"""What the baseline may count, words or parts of words, and of which lengths; the validation split chooses."""


def correlation(x: "np.ndarray", y: "np.ndarray", block: "np.ndarray") -> "np.ndarray":
    """Pearson's of each resample, (B,). x, y: (N,) or (B, N); block: (B, N), how often each row was drawn. 0 where one
    of them does not vary."""
    import numpy as np

    rows = block.sum(1, keepdims=True)
    x = x - (block * x).sum(1, keepdims=True) / rows
    y = y - (block * y).sum(1, keepdims=True) / rows
    spread = np.sqrt((block * x * x).sum(1) * (block * y * y).sum(1))
    return np.divide((block * x * y).sum(1), spread, out=np.zeros_like(spread), where=spread > 1e-12 * rows[:, 0])


def ranks(values: "np.ndarray", block: "np.ndarray") -> "np.ndarray":
    """The rank of each row's value in each resample, (B, N); of equal values the mean of theirs. values: (N,)."""
    import numpy as np

    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    first = np.flatnonzero(np.diff(inverse[order], prepend=-1))
    drawn = np.add.reduceat(block[:, order], first, axis=1)  # (B, distinct values)
    return (np.cumsum(drawn, 1) - (drawn - 1) / 2)[:, inverse]


def _spearman(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    return correlation(ranks(columns["score"], block), ranks(columns["similarity"], block), block)


def _pearson(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    return correlation(columns["score"], columns["similarity"], block)


def _correlation_metric(title: str, weighted: Any) -> Metric:
    return Metric(
        title=title,
        columns=("score", "similarity"),
        shared=("score",),
        share=False,
        mean=False,
        weighted=weighted,
        compared=True,
    )


class Similarity(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "spearman": _correlation_metric("Spearman's correlation", _spearman),
        "pearson": _correlation_metric("Pearson's correlation", _pearson),
        "score_error": Metric(
            title="mean absolute error of the score",
            columns=("score_error",),
            higher_is_better=False,
            share=False,
            compared=True,
        ),
    }
    needs_label = True
    rows = "pairs"
    baseline = "counting the words that two texts share"
    advice = "more graded pairs, other settings, or an encoder pretrained on much more text (--set base=PATH)"

    def hub_task(self, reads: str) -> str:
        return "sentence-similarity"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        if len(asked.inputs) != 2:
            raise WrongInput(f"contract: slipway.inputs names {len(asked.inputs)} columns; graded likeness reads two")
        scores = {name: _scores(table, str(asked.label)) for name, table in asked.splits.items()}
        truth = scores[asked.split]
        if not len(truth):
            raise ValueError(f"{asked.split} split of {asked.dataset}: no rows")
        say(0, f"answering the {asked.split} split")
        rows = asked.judged.select(list(asked.inputs)).to_pylist()
        answers = asked.predictor(rows)
        similarity = np.array([one["similarity"] for one in answers])
        given = [one.get("score", np.nan) for one in answers]
        say(0.5, "baseline: TF-IDF")
        simple = _tfidf(asked, scores)
        say(0.8, "intervals")
        mean = float(scores["train"].mean())
        # A model that gives likeness in no unit gets the line that the baseline gets, through training pairs.
        guessed = np.array(given) if np.isfinite(given).all() else _fitted_line(asked, scores["train"], similarity)
        results = {
            "model": _columns(truth, similarity, guessed),
            "baseline": _columns(truth, simple["similarity"], simple["score"]),
            "mean": {"score_error": np.abs(mean - truth)},
        }
        body = {
            "task": "similarity",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(truth),
            "model": self._figures(results["model"]),
            "baseline": {**simple["about"], **self._figures(results["baseline"])},
            "majority": {
                "label": f"the mean score, {mean:.2f}",
                "score_error": estimate("score_error", results["mean"]).to_json(),
            },
            "difference": {
                name: compare(name, results["model"], results["baseline"]).to_json() for name in self.compared
            },
            "by_score": _by_score(truth, guessed),
        }
        columns = {
            "row_id": asked.judged["row_id"],
            **results["model"],
            **{f"baseline_{name}": results["baseline"][name] for name in ("similarity", "score_error")},
            "prediction": pa.array([one["label"] for one in answers], pa.string()),
            "confidence": pa.array([one["confidence"] for one in answers], pa.float64()),
            "text": pa.array([shown(row, True)[:TEXT_CHARS] for row in rows], pa.string()),
        }
        return write(folder, body, columns)

    def _figures(self, results: "Mapping[str, np.ndarray]") -> dict[str, Any]:
        return {name: estimate(name, results).to_json() for name in self.compared}


KIND = Similarity()


def _scores(table: "pyarrow.Table", label: str) -> "np.ndarray":
    import numpy as np

    try:
        return np.array(table[label].to_pylist(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise WrongInput(f"column '{label}' holds no grades ({error}); likeness is judged against numbers") from error


def _columns(truth: "np.ndarray", similarity: "np.ndarray", score: "np.ndarray") -> "dict[str, np.ndarray]":
    import numpy as np

    return {"score": truth, "similarity": similarity, "score_error": np.abs(score - truth)}


def _by_score(truth: "np.ndarray", guessed: "np.ndarray") -> list[dict[str, float]]:
    """Pairs of like score together, the range of the scores cut in BINS: where a model grades too high or too low."""
    import numpy as np

    edges = np.linspace(truth.min(), truth.max(), BINS + 1)
    bins = np.digitize(truth, edges[1:-1])
    return [
        {
            "low": float(edges[one]),
            "high": float(edges[one + 1]),
            "rows": int((bins == one).sum()),
            "score": float(truth[bins == one].mean()),
            "given": float(guessed[bins == one].mean()),
            "error": float(np.abs(guessed - truth)[bins == one].mean()),
        }
        for one in np.unique(bins)
    ]


def _fitted_line(asked: Asked, scores: "np.ndarray", similarity: "np.ndarray") -> "np.ndarray":
    """Scores of these similarities, by the line through the model's own of the training split."""
    import numpy as np

    own = [one["similarity"] for one in asked.predictor(asked.splits["train"].select(list(asked.inputs)).to_pylist())]
    return np.polyval(np.polyfit(own, scores, 1), similarity)


def _tfidf(asked: Asked, scores: "Mapping[str, np.ndarray]") -> dict[str, Any]:
    """similarity and score of the judged pairs: cosines of TF-IDF vectors, and the line through the training pairs';
    about: what a page says of it."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {name: _texts(table, asked.inputs) for name, table in asked.splits.items()}
    tried: list[dict[str, Any]] = []
    best: Any = None
    for analyzer, shortest, longest in TRIED:
        vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer=analyzer, ngram_range=(shortest, longest))
        vectorizer.fit([*texts["train"][0], *texts["train"][1]])

        def cosines(name: str, vectorizer: Any = vectorizer) -> "np.ndarray":
            first, second = (vectorizer.transform(column) for column in texts[name])
            return np.asarray(first.multiply(second).sum(1)).ravel()

        held_out = "validation" if len(scores["validation"]) else "train"
        found = {"score": scores[held_out], "similarity": cosines(held_out)}
        reached = float(_spearman(found, np.ones((1, len(scores[held_out]))))[0])
        settings = {"counted": f"{analyzer} {shortest}-{longest}"}
        tried.append({**settings, f"{held_out}_spearman": reached})
        if best is None or reached > best[0]:
            best = (reached, settings, cosines)
    _, settings, chosen = best
    own = chosen(asked.split)
    line = np.polyfit(chosen("train"), scores["train"], 1)
    about = {"name": "TF-IDF cosine", "settings": {**settings, "sublinear_tf": True}, "tried": tried}
    return {"similarity": own, "score": np.polyval(line, own), "about": about}


def _texts(table: "pyarrow.Table", inputs: Sequence[str]) -> list[list[str]]:
    return [[text or "" for text in table[name].to_pylist()] for name in inputs]
