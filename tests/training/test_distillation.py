"""Distillation beyond what every recipe must do: where the student begins, what it is taught, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from infra.errors import WrongInput
from tests.training.examples import open_recipe
from training.examples import example_sources
from training.randomness import SampleKeys
from training.recipe import load_recipe
from training.recipes import text_classifier
from training.text import encode_packed


def built(folder: Path, **settings: Any) -> tuple[Any, Any, Any]:
    """A recipe, its task in evaluation, and one batch."""
    recipe = open_recipe("distillation", folder / "prepared", **settings)
    torch.manual_seed(0)
    task = recipe.build().eval()
    index = np.arange(16)
    return recipe, task, recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))


def test_the_student_begins_with_every_second_layer_of_the_teacher(tmp_path: Path) -> None:
    _, task, _ = built(tmp_path)
    own, teachers = task.model.encoder, task.teacher.model.encoder
    assert (len(own.encoder.layer), len(teachers.encoder.layer)) == (1, 2) and own.config.num_hidden_layers == 1
    for part, whole in ((own.embeddings, teachers.embeddings), (own.encoder.layer[0], teachers.encoder.layer[0])):
        assert all(torch.equal(value, whole.state_dict()[name]) for name, value in part.state_dict().items())
    whole_student = built(tmp_path, keep_every=1)[1].model.encoder
    assert len(whole_student.encoder.layer) == 2


def test_the_teacher_is_no_part_of_what_is_trained_saved_or_dropped_out(tmp_path: Path) -> None:
    _, task, _ = built(tmp_path)
    assert {name.split(".")[0] for name in task.state_dict()} == {"model"}
    assert all(parameter.requires_grad for parameter in task.parameters())
    task.train()
    assert not task.teacher.model.training
    assert not any(parameter.requires_grad for parameter in task.teacher.model.parameters())


def test_the_losses_are_the_papers(tmp_path: Path) -> None:
    """Against their plain formulas: T^2 x (cross-entropy with the teacher's shares - their entropy); 1 - cosine."""
    _, task, batch = built(tmp_path, temperature=3.0)
    model = text_classifier.load_predictor(example_sources("distillation")["teacher"]).model
    with torch.no_grad():
        logits, wanted = task.model.logits(batch), model.logits(batch)
        shares = (wanted / 3).softmax(-1)
        entropy = -(shares * shares.log()).sum()
        soft = 9 * (functional.cross_entropy(logits / 3, shares, reduction="sum") - entropy)
        states, teachers = (encode_packed(one.encoder, batch) for one in (task.model, model))
        cosines = (states * teachers).sum(-1) / (states.norm(dim=-1) * teachers.norm(dim=-1))
        losses, counts = task(batch), task.counts(batch)
    assert float(losses["soft_loss"]) == pytest.approx(float(soft), rel=1e-4)
    assert float(losses["hidden_loss"]) == pytest.approx(float((1 - cosines).sum()), rel=1e-4)
    assert losses["loss"] == functional.cross_entropy(logits, batch["labels"], reduction="sum")
    assert counts == {"loss": 16, "soft_loss": 16, "hidden_loss": len(states)}
    assert [task.loss_weight(name) for name in ("loss", "soft_loss", "hidden_loss")] == [2, 5, 1]


def test_who_is_the_teacher_has_nothing_to_learn_from_it(tmp_path: Path) -> None:
    _, task, batch = built(tmp_path, keep_every=1)
    task.model.load_state_dict(task.teacher.model.state_dict())
    with torch.no_grad():
        losses, measured = task(batch), task.measure(batch)
    assert abs(float(losses["soft_loss"])) < 1e-4 and abs(float(losses["hidden_loss"])) < 1e-3
    assert measured["agreement"] == (16, 16)


def test_without_weight_the_teacher_is_not_asked_in_training(tmp_path: Path) -> None:
    _, task, batch = built(tmp_path, alpha_soft=0, alpha_hidden=0)
    task.teacher.model = None
    assert list(task(batch)) == list(task.counts(batch)) == ["loss"]


def test_speed_and_size_are_told_beside_the_teachers(tmp_path: Path) -> None:
    recipe, task, _ = built(tmp_path)
    (tmp_path / "model").mkdir()
    figures = recipe.save(task, tmp_path / "model").figures
    assert figures["body_parameters"] == sum(
        value.numel() for name, value in task.named_parameters() if ".embeddings." not in name
    )
    assert 0.4 < figures["body_parameters_ratio"] < 0.6
    assert figures["speed_ratio"] == figures["texts_per_s"] / figures["teacher_texts_per_s"] > 0


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    recipe, _, _ = built(tmp_path)
    kind, settings = load_recipe("distillation").Recipe, recipe.settings
    teacher = example_sources("distillation")["teacher"]
    with pytest.raises(WrongInput, match=r"from.teacher: is missing"):
        kind(settings, {"base": teacher})

    def refused(change: Any, **more: Path) -> str:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        shutil.copytree(teacher, tmp_path / "other")
        change(tmp_path / "other")
        other = kind(settings, {"teacher": tmp_path / "other", "base": teacher})
        other.open(tmp_path / "prepared")
        with pytest.raises(WrongInput) as refusal:
            other.build()
        return str(refusal.value)

    def other_labels(folder: Path) -> None:
        facts = json.loads((folder / "recipe.json").read_text())
        (folder / "recipe.json").write_text(json.dumps({**facts, "labels": ["a", "b", "c"]}))

    def other_words(folder: Path) -> None:
        text = (folder / "tokenizer.json").read_text()
        (folder / "tokenizer.json").write_text(text.replace('"w1"', '"v1"'))

    assert "tells a, b, c apart, the dataset has label 0, label 1, label 2" in refused(other_labels)
    assert "another vocabulary" in refused(other_words)
    assert "no trained text_classifier" in refused(lambda folder: (folder / "head.safetensors").unlink())


def test_a_student_that_fills_masks_learns_from_a_teacher_that_does(tmp_path: Path) -> None:
    recipe = open_recipe("distillation_mlm", tmp_path / "prepared")
    torch.manual_seed(0)
    task = recipe.build().eval()
    index = np.arange(16)
    batch = recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))
    own, teachers = task.model.model.bert, task.teacher.model.model.bert
    assert (len(own.encoder.layer), len(teachers.encoder.layer)) == (1, 2)
    assert {name.split(".")[0] for name in task.state_dict()} == {"model"}
    with torch.no_grad():
        logits, wanted = (one.states(batch)[1] / 2 for one in (task.model, task.teacher.model))
        shares = wanted.softmax(-1)
        entropy = -(shares * shares.log()).sum()
        soft = 4 * (functional.cross_entropy(logits, shares, reduction="sum") - entropy)
        losses, counts, measured = task(batch), task.counts(batch), task.measure(batch)
    assert float(losses["soft_loss"]) == pytest.approx(float(soft), rel=1e-3)
    assert counts["soft_loss"] == counts["mlm_loss"] == len(batch["targets"]) == measured["agreement"][1]
    assert [task.loss_weight(name) for name in ("mlm_loss", "soft_loss", "hidden_loss")] == [2, 5, 1]
    (tmp_path / "model").mkdir()
    figures = recipe.save(task, tmp_path / "model").figures
    assert 0.4 < figures["body_parameters_ratio"] < 0.8
    classifier = example_sources("distillation")["teacher"]
    other = load_recipe("distillation_mlm").Recipe(recipe.settings, {"teacher": classifier})
    other.open(tmp_path / "prepared")
    with pytest.raises(WrongInput, match=r"from.teacher .*: has no head"):
        other.build()
