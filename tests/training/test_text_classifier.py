"""Text classifiers beyond what every recipe must do: weighted and ordered labels, pairs, a frozen body, odd rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional

from infra.errors import WrongInput
from tests.training.observers import Silent
from tests.training.test_recipes import batch_of
from training import loop
from training.examples import ExampleContract, open_recipe, texts
from training.experiment import Training
from training.recipes.text_classifier import Recipe, Settings, load_predictor

CONTRACT = ExampleContract()
NAME = "text_classifier"


def opened(folder: Path, splits: dict[str, pa.Table], contract: Any = CONTRACT, **settings: Any) -> Recipe:
    recipe = Recipe(Settings(**{**Settings.presets["tiny"], **settings}), {})
    folder.mkdir()
    recipe.prepare(splits, contract, folder, lambda note: None)
    recipe.open(folder)
    return recipe


def stars(num_rows: int, seed: int) -> pa.Table:
    """Labels of another order as numbers than as words: 2, 10, 30."""
    table = texts(num_rows, seed)
    named = {"label 0": 2, "label 1": 10, "label 2": 30}
    return table.set_column(2, "label", pa.array([named[label] for label in table["label"].to_pylist()]))


def split(make: Any = texts, num_train: int = 120) -> dict[str, pa.Table]:
    return {"train": make(num_train, 1), "validation": make(60, 2), "test": make(60, 3)}


def trained(recipe: Any, **changed: Any) -> tuple[Any, Silent]:
    observer = Silent()
    config = Training(steps=12, batch_size=16, learning_rate=1e-2, validate_every=0.5)
    return loop.train(recipe, config.model_copy(update=changed), loop.World(), observer)[0], observer


def test_balanced_classes_weigh_alike_in_the_loss(tmp_path: Path) -> None:
    table = texts(200, 1)
    rare = np.array(table["label"].to_pylist()) == "label 1"
    kept = table.take(np.flatnonzero(~rare | (np.cumsum(rare) <= 5)))
    recipe = opened(tmp_path / "a", {**split(), "train": kept}, class_weight="balanced", dropout=0.0)
    torch.manual_seed(0)
    task = recipe.build()
    counts = np.bincount(batch_of(recipe, kept.num_rows)["labels"])
    batch = batch_of(recipe, 40)  # not all rows: of those the weights add up to their number
    labels = batch["labels"]
    each = functional.cross_entropy(task.logits(batch), labels, reduction="none").detach()
    expected = np.average(each.numpy(), weights=1 / counts[labels.numpy()])
    assert float(task(batch)["loss"].detach() / task.counts(batch)["loss"]) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        measured, count = task.eval().measure(batch)["loss"]
    assert measured / count == pytest.approx(float(each.mean()), rel=1e-5), "validation is of the rows as they are"


@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_weighted_losses_are_the_same_in_parts(micro_batch_size: int | None, tmp_path: Path) -> None:
    recipe = opened(tmp_path / "a", split(), class_weight="balanced", dropout=0.0)
    sgd = {"optimizer": "sgd", "steps": 3, "micro_batch_size": micro_batch_size}
    weights = trained(recipe, **sgd)[0].state_dict()
    whole = trained(recipe, **{**sgd, "micro_batch_size": None})[0].state_dict()
    assert all(torch.allclose(weights[key], value, atol=1e-6) for key, value in whole.items())


@torch.no_grad()
def test_ordered_labels_are_in_their_order_and_their_error_is_in_their_unit(tmp_path: Path) -> None:
    recipe = opened(tmp_path / "a", split(stars), ordinal=True)
    assert recipe.report["labels"] == ["2", "10", "30"]
    task = recipe.build().eval()
    batch = batch_of(recipe, 50)
    values = np.array([2, 10, 30])
    answered = values[task.logits(batch).argmax(-1).numpy()]
    total, count = task.measure(batch)["absolute_error"]
    assert total / count == pytest.approx(np.abs(answered - values[batch["labels"].numpy()]).mean())
    (tmp_path / "model").mkdir()
    recipe.save(task, tmp_path / "model")
    assert load_predictor(tmp_path / "model").ordinal
    assert "absolute_error" not in opened(tmp_path / "b", split(stars)).build().measure(batch)


def test_labels_on_no_scale_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match=r"column 'label' of dataset example holds 'label .', which is no number"):
        opened(tmp_path / "a", split(), ordinal=True)


def test_of_two_classes_the_f1_of_the_second_is_measured_over_any_parts(tmp_path: Path) -> None:
    def two(num_rows: int, seed: int) -> pa.Table:
        return texts(num_rows, seed).filter(pa.compute.not_equal(texts(num_rows, seed)["label"], "label 2"))

    recipe = opened(tmp_path / "a", split(two))
    task, _ = trained(recipe)
    task.eval()
    batch = batch_of(recipe, 60)
    said = task.logits(batch).argmax(-1)
    assert 0 < int(said.sum()) < 60
    expected = f1_score(batch["labels"], said)
    measured = loop.validate(recipe, task, "train", Training(steps=1, batch_size=3), loop.World(), at_most=60)
    assert measured["f1"] == pytest.approx(expected)
    with torch.no_grad():
        assert "f1" not in opened(tmp_path / "b", split()).build().measure(batch)


def test_pairs_are_told_apart_and_missing_halves_are_empty_texts(tmp_path: Path) -> None:
    def pairs(num_rows: int, seed: int) -> pa.Table:
        table = texts(num_rows, seed)
        second = ["w5 w6" if row % 2 else None for row in range(num_rows)]
        return table.append_column("other", pa.array(second, pa.string()))

    contract = replace(CONTRACT, inputs=("text", "other"))
    recipe = opened(tmp_path / "a", split(pairs), contract)
    batch = batch_of(recipe, 8)
    assert set(batch["type_ids"][0].tolist()) == {0, 1}
    (tmp_path / "model").mkdir()
    recipe.save(recipe.build(), tmp_path / "model")
    predictor = load_predictor(tmp_path / "model")
    there, none, swapped = predictor([{"text": "w1", "other": ""}, {"text": "w1", "other": None},
                                      {"text": "", "other": "w1"}])  # fmt: skip
    assert there["scores"] == pytest.approx(none["scores"]) and there["scores"] != pytest.approx(swapped["scores"])


def test_labels_unseen_in_training_are_counted_and_left_out_of_the_loss(tmp_path: Path) -> None:
    rows = split()
    odd = pa.table({"row_id": ["x"], "text": ["w1"], "label": ["never seen"]})
    recipe = opened(tmp_path / "a", {**rows, "validation": pa.concat_tables([odd, rows["validation"]])})
    assert recipe.report["validation"]["unseen_labels"] == 1
    assert recipe.num_samples("validation") == 60 and "x" not in recipe.row_ids("validation", np.arange(60))


def test_texts_that_are_cut_are_counted_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = Recipe(Settings(vocab_size=200, max_length=8), {})
    recipe.prepare(split(), CONTRACT, tmp_path, said.append)
    cut = json.loads((tmp_path / "report.json").read_text())["train"]["truncated"]
    longer = sum(len(text.split()) > 6 for text in split()["train"]["text"].to_pylist())
    assert cut >= longer > 50
    assert f"{cut} of 120 train texts cut to 8 tokens" in said


def test_many_rows_are_answered_sorted_by_length_as_each_alone_and_cut_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = opened(tmp_path / "a", split(), max_length=16, hidden_size=32, intermediate_size=64)
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    recipe.save(recipe.build(), tmp_path / "model")
    predictor = load_predictor(tmp_path / "model")
    rows = texts(50, 8).select(["text"]).to_pylist()
    alone = np.concatenate([predictor.probabilities([row]) for row in rows])
    longer = sum(len(row["text"].split()) > 14 for row in rows)
    assert predictor.truncated >= longer > 10
    seen: list[int] = []
    logits = predictor.model.logits

    def watched(batch: Any) -> Any:
        seen.extend(batch["lengths"].tolist())
        return logits(batch)

    monkeypatch.setattr("training.recipes.text_classifier.TOKENS_AT_ONCE", 64)
    monkeypatch.setattr(predictor.model, "logits", watched)
    assert np.allclose(predictor.probabilities(rows), alone, atol=1e-6)
    assert seen == sorted(seen) and seen[0] < seen[-1]


class TestFrozen:
    """A body that is not trained."""

    def test_it_drops_nothing_out_and_learns_nothing(self, tmp_path: Path) -> None:
        recipe = opened(tmp_path / "a", split(), freeze_encoder=True, dropout=0.5)
        torch.manual_seed(loop.stream_seed(0, "initial weights"))
        fresh = recipe.build()
        assert fresh.train().training and not any(part.training for part in fresh.encoder.modules())
        task, _ = trained(recipe, steps=4)
        for key, value in fresh.encoder.state_dict().items():
            assert torch.equal(value, task.encoder.state_dict()[key])
        assert not torch.equal(fresh.head.weight, task.head.weight)

    def test_its_features_are_computed_once_and_train_the_same_head(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = opened(tmp_path / "a", split(), freeze_encoder=True, dropout=0.0)
        kept, seen = trained(recipe)
        assert recipe.features.keys() == {"train", "validation"}
        batch = recipe.batch("train", np.array([3, 9]), batch_keys())
        assert batch.keys() == {"features", "labels"}
        monkeypatch.setattr("training.recipes.text_classifier.MOST_FEATURES", 0)
        recipe.open(tmp_path / "a")
        each, again = trained(recipe)
        assert not recipe.features
        assert torch.allclose(kept.head.weight, each.head.weight, atol=1e-4)
        assert seen.points[12]["validation_loss"] == pytest.approx(again.points[12]["validation_loss"], abs=1e-4)

    def test_noise_in_the_input_is_no_feature_to_keep(self, tmp_path: Path) -> None:
        recipe = opened(tmp_path / "a", split(), freeze_encoder=True, word_dropout=0.2)
        trained(recipe, steps=2)
        assert not recipe.features

    def test_a_new_epoch_computes_nothing_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = open_recipe(NAME, tmp_path, freeze_encoder=True)
        calls: list[str] = []

        def batches(split: str, device: Any) -> Any:
            calls.append(split)
            return iter(())

        monkeypatch.setattr(recipe, "_batches", batches)
        task = recipe.build()
        for epoch in range(3):
            recipe.refresh(task, epoch)
        assert calls == ["train", "validation"]


def batch_keys() -> Any:
    from training.randomness import SampleKeys

    index = np.array([3, 9])
    return SampleKeys.of(0, np.zeros_like(index), index)
