"""Figures of graded likeness equal scipy's, of each resample too; those of search are what comparing by hand gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.stats import pearsonr, spearmanr

from infra.errors import WrongInput
from tests.training.examples import EXAMPLES
from tests.training.test_sentence_embedding import searcher
from training.evaluation import Asked, load_kind
from training.evaluations.retrieval import _ranked
from training.evaluations.similarity import KIND
from training.intervals import figure


def test_correlations_of_a_resample_are_scipys_of_the_rows_it_drew() -> None:
    rng = np.random.default_rng(0)
    columns = {"score": rng.integers(0, 6, 80).astype(float), "similarity": rng.normal(size=80).round(1)}  # with ties
    block = rng.multinomial(80, np.full(80, 1 / 80), size=5)
    for name, reference in (("spearman", spearmanr), ("pearson", pearsonr)):
        weighted = KIND.metrics[name].weighted
        assert weighted is not None
        drawn = [np.repeat(np.arange(80), counts) for counts in block]
        expected = [reference(columns["score"][rows], columns["similarity"][rows])[0] for rows in drawn]
        assert weighted(columns, block) == pytest.approx(expected, abs=1e-12)
        assert figure(name, columns) == pytest.approx(reference(columns["score"], columns["similarity"])[0])


def test_a_model_that_grades_everything_alike_is_uncorrelated_and_no_crash() -> None:
    columns = {"score": np.array([1.0, 2, 3]), "similarity": np.full(3, 0.7)}
    assert figure("spearman", columns) == figure("pearson", columns) == 0


class Grades:
    """Grades pairs by the numbers it was given for them."""

    def __init__(self, found: dict[tuple[str, str], float], unit: float | None):
        self.found, self.unit = found, unit

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        cosines = [self.found[row["first"], row["second"]] for row in rows]
        scores = [{} if self.unit is None else {"score": self.unit * one} for one in cosines]
        return [
            {"similarity": one, "label": f"{one:.2f}", "confidence": one, **score}
            for one, score in zip(cosines, scores, strict=True)
        ]


def asked(splits: dict[str, pa.Table], predictor: Any, inputs: tuple[str, ...], label: str | None) -> Asked:
    return Asked(
        predictor=predictor, splits=splits, inputs=inputs, label=label, texts_only=True, reads="pairs", split="test",
        model="m", dataset="d@1",
    )  # fmt: skip


@pytest.mark.parametrize("unit", [5.0, None])
def test_graded_pairs_are_judged_beside_the_words_they_share(unit: float | None, tmp_path: Path) -> None:
    splits = {name: EXAMPLES["pairs"](120, seed) for seed, name in enumerate(("train", "validation", "test"))}
    rng = np.random.default_rng(1)
    keys = [(row["first"], row["second"]) for table in splits.values() for row in table.to_pylist()]
    truth = [row["score"] for table in splits.values() for row in table.to_pylist()]
    noisy = np.clip(np.array(truth) / 5 + rng.normal(0, 0.1, len(truth)), 0, 1)
    model = Grades(dict(zip(keys, noisy.tolist(), strict=True)), unit)
    found = KIND.evaluate(asked(splits, model, ("first", "second"), "score"), tmp_path, lambda share, note: None)
    own, test_truth = noisy[-120:], np.array(truth[-120:])
    assert found["model"]["spearman"]["value"] == pytest.approx(spearmanr(own, test_truth)[0])
    assert found["model"]["spearman"]["low"] < found["model"]["spearman"]["value"] < found["model"]["spearman"]["high"]
    if unit:
        assert found["model"]["score_error"]["value"] == pytest.approx(np.abs(5 * own - test_truth).mean())
    assert found["model"]["score_error"]["value"] < 0.6 < found["majority"]["score_error"]["value"]
    assert found["baseline"]["spearman"]["value"] > 0.9, "the examples' scores are the words they share"
    assert [one["counted"] for one in found["baseline"]["tried"]] == ["word 1-1", "word 1-2", "char_wb 2-4"]
    assert found["difference"]["spearman"]["value"] == pytest.approx(
        found["model"]["spearman"]["value"] - found["baseline"]["spearman"]["value"]
    )
    assert sum(one["rows"] for one in found["by_score"]) == 120
    assert all(one["low"] <= one["score"] <= one["high"] for one in found["by_score"])
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    written = parquet.read_table(tmp_path / "predictions.parquet")
    assert {"row_id", "score", "similarity", "baseline_similarity", "prediction", "confidence"} <= {
        *written.column_names
    }
    assert written["row_id"].to_pylist() == splits["test"]["row_id"].to_pylist()


def test_grades_that_are_no_numbers_are_refused_in_one_line(tmp_path: Path) -> None:
    table = pa.table({"row_id": ["1"], "first": ["a"], "second": ["b"], "score": ["very"]})
    given = asked(dict.fromkeys(("train", "validation", "test"), table), None, ("first", "second"), "score")
    with pytest.raises(WrongInput, match="column 'score' holds no grades"):
        KIND.evaluate(given, tmp_path, lambda share, note: None)


def test_the_rank_of_what_is_to_be_found_counts_all_others_but_the_query() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1.0]])
    found = _ranked(vectors, np.array([[0, 2], [0, 1], [3, 0]]))
    assert found["reciprocal_rank"].tolist() == [1, 1 / 2, 1 / 3]
    assert found["found"].tolist() == [1, 1, 1]


def test_search_is_judged_by_the_passage_that_follows_and_by_exact_search(tmp_path: Path) -> None:
    recipe, predictor = searcher(tmp_path)
    splits = dict.fromkeys(("train", "validation", "test"), EXAMPLES["text"](40, 1))
    kind = load_kind("retrieval")
    found = kind.evaluate(asked(splits, predictor, ("text",), None), tmp_path / "out", lambda share, note: None)
    assert found["rows"] == recipe.num_samples("test") and found["passages"] == found["indexed"]
    vectors = predictor.index.vectors
    ranks = []
    for first, second in recipe.pairs["test"]:
        scores = vectors @ vectors[first]
        ranks.append(
            1 + sum(scores[other] >= scores[second] for other in range(len(scores)) if other not in (first, second))
        )
    assert found["model"]["reciprocal_rank"]["value"] == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-3)
    assert found["model"]["index_recall_at_10"]["value"] == 1
    assert 0 < found["majority"]["reciprocal_rank"]["value"] < 0.2
    written = parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    prompted = [row for row in written if row["prompt"] is not None]
    assert 1 < len(prompted) <= 64
    assert all(len(row["prompt"].split()) <= 3 for row in prompted), "asked with half a passage of six words"
    assert all(predictor([{"text": row["prompt"]}])[0]["label"] == row["prediction"] for row in prompted[:5])
