"""Recall both ways is what comparing by hand gives, beside the chance of a guess; its pictures can be looked at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from infra.errors import WrongInput
from training.evaluation import Asked
from training.evaluations.image_retrieval import DEPTHS, KIND, WAYS, extremes, rank_both
from training.examples import EXAMPLES
from training.images import table_images
from training.recipe import settings_class
from training.siamese import unit_length

MADE = EXAMPLES["image-caption"]


class Knows:
    """Embeds a picture of the examples and its caption at one place, moved by noise."""

    def __init__(self, table: pa.Table, noise: float):
        kind = settings_class("clip")
        self.settings: Any = kind(**kind.presets["tiny"])
        self.labels = sorted(set(table["label"].to_pylist()))
        captions = sorted(set(table["caption"].to_pylist()))
        rng = np.random.default_rng(0)
        self.texts = {text: rng.normal(size=16) for text in captions}
        self.pictures = {
            picture.tobytes(): self.texts[text] + noise * rng.normal(size=16)
            for picture, text in zip(table_images(table, "image", 8, 1), table["caption"].to_pylist(), strict=True)
        }

    def embed_images(self, images: Any) -> np.ndarray:
        return unit_length(np.stack([self.pictures[image.tobytes()] for image in images]))

    def embed_texts(self, texts: Any) -> np.ndarray:
        return unit_length(np.stack([self.texts[text] for text in texts]))

    def embed_labels(self, labels: Any) -> np.ndarray:
        named = [[vector for text, vector in self.texts.items() if label in text] for label in labels]
        return unit_length(np.stack([np.mean(vectors, 0) for vectors in named]))

    def __call__(self, rows: Any) -> list[dict[str, Any]]:
        return [{"label": "bar", "confidence": 0.5} for _ in rows]


def asked(table: pa.Table, predictor: Any, **more: Any) -> Asked:
    given = {"inputs": ("image", "caption"), "images": ("image",), "label": "label", **more}
    return Asked(
        predictor=predictor, splits={"train": MADE(200, 1), "validation": MADE(40, 2), "test": table}, texts_only=False,
        reads="image-caption", split="test", model="m", dataset="d@1", **given,
    )  # fmt: skip


def quiet(share: float, note: str) -> None:
    return


def test_ranks_are_those_of_comparing_one_by_one_and_the_same_caption_is_no_rival() -> None:
    rng = np.random.default_rng(3)
    images, texts = unit_length(rng.normal(size=(30, 6))), unit_length(rng.normal(size=(9, 6)))
    numbers = rng.integers(0, 9, 30)
    found = rank_both(images, texts, numbers)
    for row, own in enumerate(numbers):
        nearer = sum(images[row] @ texts[other] > images[row] @ texts[own] for other in range(9))
        rivals = [other for other in range(30) if numbers[other] != own]
        before = sum(texts[own] @ images[other] > texts[own] @ images[row] for other in rivals)
        assert (found["image_to_text"][row], found["text_to_image"][row]) == (1 + nearer, 1 + before)


def test_a_model_that_embeds_everything_alike_finds_nothing() -> None:
    ranks = rank_both(np.ones((20, 4)) / 2, np.ones((20, 4)) / 2, np.arange(20))
    assert (ranks["image_to_text"] == 20).all() and (ranks["text_to_image"] == 20).all()


@pytest.mark.parametrize(("noise", "good"), [(0.3, True), (30.0, False)])
def test_a_model_is_judged_beside_chance_and_a_linear_map(noise: float, good: bool, tmp_path: Path) -> None:
    table = MADE(150, 5)
    predictor = Knows(table, noise)
    body = KIND.evaluate(asked(table, predictor), tmp_path, quiet)
    assert body == json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert (body["rows"], body["captions"], body["restated"]) == (150, 12, False)
    for way in WAYS:
        for depth in DEPTHS:
            own, guess = (body[who][f"{way}_recall_at_{depth}"] for who in ("model", "majority"))
            assert own["low"] <= own["value"] <= own["high"]
            assert own["value"] > 0.9 if good else abs(own["value"] - guess["value"]) < 0.12
    assert body["majority"]["image_to_text_recall_at_5"]["value"] == pytest.approx(5 / 12)
    counts = [table["caption"].to_pylist().count(text) for text in table["caption"].to_pylist()]
    chance = np.mean([10 / (1 + 150 - count) for count in counts])
    assert body["majority"]["text_to_image_recall_at_10"]["value"] == pytest.approx(chance)
    assert body["majority"]["zero_shot_accuracy"]["value"] == pytest.approx(1 / 3)
    assert body["model"]["zero_shot_accuracy"]["value"] > (0.6 if good else 0.1)
    assert body["baseline"]["image_to_text_recall_at_1"]["value"] > 0.4, "shapes can be read off the pixels"
    assert [one["alpha"] for one in body["baseline"]["tried"]] == [1, 10, 100]
    written = parquet.read_table(tmp_path / "predictions.parquet")
    assert written["row_id"].to_pylist() == table["row_id"].to_pylist()
    metrics = [column for metric in KIND.metrics.values() for column in metric.columns]
    assert {*metrics, *(f"baseline_{one}" for one in metrics), "prediction", "confidence"} <= {*written.column_names}


def test_the_matrix_and_the_best_and_worst_cases_are_pictures(tmp_path: Path) -> None:
    table = MADE(60, 6)
    KIND.evaluate(asked(table, Knows(table, 0.8)), tmp_path, quiet)
    for name in ("retrieval_matrix", "best", "worst"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG" and min(image.size) > 100
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10, "something is drawn"


def test_each_caption_is_among_the_worst_by_its_worst_picture() -> None:
    ranks = {"text_to_image": np.array([1, 9, 1, 2]), "image_to_text": np.array([1, 1, 1, 2])}
    found = extremes(ranks, np.array([0.5, 0.9, 0.8, 0.1]), np.array([0, 0, 1, 1]))
    assert found["best"].tolist() == [2, 0] and found["worst"].tolist() == [1, 3]


def test_captions_that_restate_the_labels_are_told_apart_from_those_that_say_more(tmp_path: Path) -> None:
    table = MADE(60, 7)
    same = table.set_column(table.column_names.index("caption"), "caption", table["label"])
    predictor = Knows(same, 0.3)
    body = KIND.evaluate(asked(same, predictor), tmp_path, quiet)
    assert body["restated"]


def test_pairs_without_classes_are_judged_by_recall_alone(tmp_path: Path) -> None:
    table = MADE(60, 8)
    body = KIND.evaluate(asked(table, Knows(table, 0.3), label=None), tmp_path, quiet)
    assert "zero_shot_accuracy" not in body["model"] and "zero_shot_accuracy" not in body["majority"]
    assert not body["restated"]


def test_what_is_no_pair_of_picture_and_text_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match="image_retrieval judges a picture and its caption"):
        KIND.evaluate(asked(MADE(5, 1), None, inputs=("image",)), tmp_path, quiet)
