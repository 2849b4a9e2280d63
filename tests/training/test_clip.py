"""CLIP: negatives of all workers with their gradient, classes named from texts alone, search both ways."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from flows.inference.predict import Served, nearest, zero_shot
from flows.proofs.parity import _gradients
from infra import artifacts
from infra.errors import WrongInput
from infra.store import FolderStore
from tests.training.examples import open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Silent
from training import image_text, loop
from training.examples import CONTRACTS, EXAMPLES, ExampleContract
from training.experiment import Training
from training.images import table_arrays
from training.randomness import SampleKeys
from training.recipe import load_recipe, settings_class
from training.recipes import clip
from training.sharding import World
from training.text_index import TextIndex

PROMPTS = ("a dark {label} at the left", "a bright {label} at the right")


def _without_gradient(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """torch.distributed's own all_gather: right values, and no gradient for rows that are another worker's."""
    found = [torch.zeros_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(found, rows.detach())
    found[dist.get_rank()] = rows
    return torch.cat(found), dist.get_rank() * len(rows)


def _of_this_worker(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    return rows, 0


GATHERS = {"right": image_text.gather, "without gradient": _without_gradient, "of this worker": _of_this_worker}


def _gradient(world: World, prepared: str, gather: str) -> dict[str, torch.Tensor]:
    """Of the first step of a run, as the optimiser gets it."""
    right, image_text.gather = image_text.gather, GATHERS[gather]
    try:
        found = _gradients(open_recipe("clip", Path(prepared), dropout=0.0), world)
    finally:
        image_text.gather = right
    return found if world.rank == 0 else {}


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm."""
    assert one.keys() == other.keys() and "log_scale" in one
    squares = sum(float(((one[name] - other[name]).double() ** 2).sum()) for name in one)
    return math.sqrt(squares / sum(float((value.double() ** 2).sum()) for value in one.values()))


@pytest.mark.parametrize(("gather", "equal"), [("right", True), ("without gradient", False), ("of this worker", False)])
def test_gradients_of_two_workers_are_those_of_one_only_when_negatives_are_gathered_with_gradient(
    gather: str, equal: bool, tmp_path: Path, gloo_pair: GlooGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.proofs.parity.BATCH_SIZE", 16)  # the gathers that are wrong take equal shares alone
    alone = _gradient(World(), str(tmp_path), "right")
    apart = _apart(alone, gloo_pair.run(_gradient_of_16, str(tmp_path), gather)[0])
    assert apart <= 1e-5 if equal else apart > 1e-2, f"{apart:.1e}"


def _gradient_of_16(world: World, prepared: str, gather: str) -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flows.proofs.parity.BATCH_SIZE", 16)
        return _gradient(world, prepared, gather)


@pytest.mark.slow
def test_gradients_of_four_workers_with_unequal_shares_are_those_of_one(tmp_path: Path) -> None:
    alone = _gradient(World(), str(tmp_path / "prepared"), "right")
    group = GlooGroup(4, tmp_path)
    try:
        assert _apart(alone, group.run(_gradient, str(tmp_path / "prepared"), "right")[0]) <= 1e-5
    finally:
        group.close()


def test_the_loss_is_the_mean_of_both_cross_entropies_over_pairs_that_say_something_else(tmp_path: Path) -> None:
    recipe = open_recipe("clip", tmp_path, dropout=0.0)
    torch.manual_seed(0)
    task = recipe.build()
    index = np.arange(20)  # of twelve captions: some are there twice
    batch = recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))
    with torch.no_grad():
        images, texts = (one.double().numpy() for one in task.embed(batch))
        captions, scale = batch["captions"].numpy(), float(task.scale)
        expected = 0.0
        for row in range(20):
            rivals = [other for other in range(20) if other == row or captions[other] != captions[row]]
            for ask, answers in ((images, texts), (texts, images)):
                scores = {other: scale * ask[row] @ answers[other] for other in rivals}
                expected += (math.log(sum(map(math.exp, scores.values()))) - scores[row]) / 2
        assert len(set(captions.tolist())) < 20
        assert float(task(batch)["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe and its predictor, trained for some seconds."""
    folder = tmp_path_factory.mktemp("clip")
    recipe = open_recipe("clip", folder / "prepared", 300, dropout=0.0, prompts=PROMPTS)
    config = Training(steps=120, batch_size=48, learning_rate=5e-3, warmup=0.1, validate_every=1e9, diagnose_every=None)
    task, _ = loop.train(recipe, config, loop.World(), Silent())
    (folder / "model").mkdir()
    recipe.save(task, folder / "model")
    return recipe, load_recipe("clip").load_predictor(folder / "model")


def test_classes_are_named_by_prompts_without_a_label_in_training(trained: Any) -> None:
    _, predictor = trained
    table = EXAMPLES["image-caption"](120, 9)
    pictures, labels = table_arrays(table, "image"), table["label"].to_pylist()
    named = [one["label"] for one in predictor.classify(pictures, predictor.labels)]
    assert np.mean([one == label for one, label in zip(named, labels, strict=True)]) > 0.85
    vectors = predictor.embed_texts([prompt.replace("{label}", "cross") for prompt in PROMPTS])
    mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    assert predictor.embed_labels(["cross"])[0] == pytest.approx(mean, abs=1e-6)


def test_a_text_finds_pictures_and_a_picture_its_caption(trained: Any) -> None:
    recipe, predictor = trained
    table = EXAMPLES["image-caption"](40, 10)
    right = [
        one["label"] == label and one["caption"].split()[2] == label
        for one, label in zip(
            predictor([{"image": picture} for picture in table_arrays(table, "image")]),
            table["label"].to_pylist(),
            strict=True,
        )
    ]
    assert np.mean(right) > 0.8
    text = "a bright cross at the left"
    found, captions = predictor.search([text, table_arrays(table, "image")[0]], 5)
    assert [one["text"] for one in found] == [text] * 5
    assert {one["row_id"] for one in found} <= set(recipe.images["train"].columns["row_id"].to_pylist())
    assert len({one["text"] for one in captions}) == 5, "each caption of the library is there once"


def test_predict_takes_a_file_for_a_picture_and_other_words_for_a_text(trained: Any, tmp_path: Path) -> None:
    recipe, predictor = trained
    store = FolderStore(tmp_path / "store")
    files = {"files": {"loader": "training.recipes.clip:load_predictor"}}
    model = artifacts.commit_folder(store, "models", recipe.folder.parent / "model", files)
    version: Any = SimpleNamespace(model=model.digest, ref="shapes/1", experiment={"recipe": "clip"})
    contract: Any = CONTRACTS["image-caption"]
    asked = Served(version, contract, ["image"])
    picture = recipe.images["train"].pixels(np.array([0]))[0]
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "one.png")
    texts, pictures = nearest(store, asked, (str(tmp_path / "one.png"), "a dark bar at the left"), 3)
    assert texts["nearest"] == predictor.search([picture], 3)[0]
    assert [one["text"] for one in pictures["nearest"]] == ["a dark bar at the left"] * 3
    (named,) = zero_shot(store, asked, (str(tmp_path / "one.png"),), predictor.labels)
    assert named["label"] == predictor.classify([picture], predictor.labels)[0]["label"]
    with pytest.raises(WrongInput, match="'no such file' is no base64 text of a file"):
        zero_shot(store, asked, ("no such file",), predictor.labels)


def test_a_library_of_another_model_is_refused(trained: Any, tmp_path: Path) -> None:
    import shutil

    recipe, _ = trained
    shutil.copytree(recipe.folder.parent / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model_image.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(WrongInput, match="was built for model"):
        TextIndex.open(tmp_path / "model" / clip.PICTURES, tmp_path / "model")


def test_a_frozen_text_tower_is_embedded_once_and_stays(tmp_path: Path) -> None:
    recipe = open_recipe("clip", tmp_path, freeze_text=True)
    config = Training(steps=3, batch_size=16, learning_rate=0.01, validate_every=1e9, diagnose_every=None)
    torch.manual_seed(loop.stream_seed(config.seed, "initial weights"))
    before = recipe.build().text.state_dict()
    task: Any = loop.train(recipe, config, loop.World(), Silent())[0]
    assert all(torch.equal(value, before[name]) for name, value in task.text.state_dict().items())
    index = np.arange(8)
    keys = SampleKeys.of(0, np.zeros_like(index), index)
    kept = recipe.batch("train", index, keys)
    assert "states" in kept and "input_ids" not in kept
    recipe.states = None
    task.eval()
    with torch.no_grad():
        assert torch.allclose(task.embed(kept)[1], task.embed(recipe.batch("train", index, keys))[1], atol=1e-5)


def prepare(folder: Path, table: pa.Table, contract: ExampleContract) -> None:
    kind = settings_class("clip")
    recipe = load_recipe("clip").Recipe(kind(**kind.presets["tiny"]), {})
    folder.mkdir(exist_ok=True)
    recipe.prepare(dict.fromkeys(("train", "validation", "test"), table), contract, folder, lambda note: None)


@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_a_picture_without_a_caption_is_refused_by_its_row(empty: str | None, tmp_path: Path) -> None:
    table = EXAMPLES["image-caption"](5, 1)
    captions = [*table["caption"].to_pylist()[:4], empty]
    table = table.set_column(table.column_names.index("caption"), "caption", pa.array(captions, pa.string()))
    with pytest.raises(WrongInput, match=f"train row {table['row_id'][4].as_py()[:12]} has no caption") as caught:
        prepare(tmp_path, table, CONTRACTS["image-caption"])
    assert "\n" not in str(caught.value)


def test_data_without_pairs_or_with_one_caption_are_refused(tmp_path: Path) -> None:
    table = EXAMPLES["image-caption"](5, 1)
    with pytest.raises(WrongInput, match=r"reads one column with slipway\.type: image and one of texts"):
        prepare(tmp_path, table, CONTRACTS["image"])
    same = table.set_column(table.column_names.index("caption"), "caption", pa.array(["a thing"] * 5))
    with pytest.raises(WrongInput, match="says 1 different thing"):
        prepare(tmp_path, same, CONTRACTS["image-caption"])


def test_an_over_long_caption_is_cut_and_said(tmp_path: Path) -> None:
    table = EXAMPLES["image-caption"](5, 1)
    captions = [*table["caption"].to_pylist()[:4], "a cross " * 40]
    table = table.set_column(table.column_names.index("caption"), "caption", pa.array(captions))
    kind = settings_class("clip")
    said: list[str] = []
    recipe = load_recipe("clip").Recipe(kind(**kind.presets["tiny"]), {})
    splits = dict.fromkeys(("train", "validation", "test"), table)
    recipe.prepare(splits, CONTRACTS["image-caption"], tmp_path, said.append)
    assert any(one.startswith("1 of ") and one.endswith("captions cut to 24 tokens") for one in said), said


def test_a_prompt_without_a_place_for_the_class_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say where the class goes"):
        settings_class("clip").model_validate({"prompts": ["a photo"]})
