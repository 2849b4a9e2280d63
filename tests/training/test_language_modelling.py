"""The GPT's own forward is transformers', its answers are their own, and its evaluation says what its tokens cost."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from infra.errors import WrongInput
from training.evaluation import Asked, load_kind
from training.evaluations.language_modelling import PASSAGE
from training.generation import Reader, Sampling, go_on, sample
from training.ngrams import surprisals
from training.randomness import SampleKeys
from training.recipe import settings_class
from training.recipes.gpt import Recipe, encode, load_predictor
from training.vocabulary import train_bpe, train_characters


class OneText:
    name, inputs, images, label = "example", ("text",), (), None


def texts(seed: int, count: int = 3, size: int = 700) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = ["never ", "the ", "king ", "again\n", "shall ", "naïve ", "sleep, "]
    rows = ["".join(rng.choice(words, size // 5)) for _ in range(count)]
    return pa.table({"row_id": [f"{seed}-{number}" for number in range(count)], "text": rows})


def opened(folder: Path, **settings: Any) -> Recipe:
    kind = settings_class("gpt")
    recipe = Recipe(kind(**{**kind.presets["tiny"], **settings}), {})
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": texts(1), "validation": texts(2, 1), "test": texts(3, 2)}
    recipe.prepare(splits, OneText(), folder, lambda note: None)
    recipe.open(folder)
    return recipe


@pytest.fixture(scope="module", params=["characters", "bpe"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any, Path]:
    """A recipe, its task with weights large enough that layers matter, and the saved model's folder."""
    folder = tmp_path_factory.mktemp("gpt")
    recipe = opened(folder / "prepared", tokens=request.param, vocab_size=270)
    torch.manual_seed(0)
    task = recipe.build()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    task.eval()
    (folder / "model").mkdir()
    recipe.save(task, folder / "model")
    return recipe, task, folder / "model"


def reference(folder: Path) -> Any:
    """transformers' own model, with its own attention and activation."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", use_safetensors=True)
    config = model.config
    config.activation_function = "gelu_new"
    return GPT2LMHeadModel.from_pretrained(folder, config=config, attn_implementation="eager").eval()


@torch.no_grad()
def test_logits_of_a_packed_batch_and_of_reading_piecewise_are_transformers_own(saved):
    recipe, task, folder = saved
    model = reference(folder)
    index = np.array([0, recipe.num_samples("validation") - 1, 1])  # the last piece is shorter
    batch = recipe.batch("validation", index, SampleKeys.of(0, index, index))
    ours = task.model.lm_head(_hidden(task, batch))
    parts = batch["input_ids"][0].split(batch["lengths"].tolist())
    assert len({len(part) for part in parts}) == 2
    theirs = torch.cat([model(part[None]).logits[0] for part in parts])
    largest = theirs.abs().max()
    assert largest > 1 and (ours - theirs).abs().max() <= 1e-5 * largest
    reader = Reader(load_predictor(folder).model)
    cuts = np.split(parts[0].numpy(), [3, 4, 9])
    cached = torch.cat([reader.read(cut) for cut in cuts])
    assert (cached - theirs[: len(parts[0])]).abs().max() <= 1e-5 * largest


def _hidden(task: Any, batch: Any) -> Any:
    from training.text import encode_packed

    return encode_packed(task.model.transformer, batch)


def test_training_pieces_begin_at_other_places_each_epoch_and_know_their_next_token(tmp_path):
    recipe = opened(tmp_path, tokens="characters")
    ids, block = recipe.files["train"].tokens.ids, recipe.settings.block_size
    index = np.arange(recipe.num_samples("train"))
    begins = []
    for epoch in range(2):
        batch = recipe.batch("train", index, SampleKeys.of(0, np.full_like(index, epoch), index))
        inputs, targets = batch["input_ids"][0].numpy(), batch["targets"].numpy()
        assert (batch["lengths"] == block).all()
        assert (inputs.reshape(-1, block)[:, 1:] == targets.reshape(-1, block)[:, :-1]).all()
        begins.append(inputs)
    assert not np.array_equal(*begins)
    held_out = recipe.batch("validation", np.arange(recipe.num_samples("validation")), SampleKeys.of(0, index, index))
    assert np.array_equal(held_out["targets"].numpy(), recipe.files["validation"].tokens.ids[1:]), "each token once"
    assert len(ids) > 2 * block


def test_going_on_is_the_same_alone_and_with_others_and_past_the_block(saved):
    recipe, _, folder = saved
    model = load_predictor(folder)
    rows = [{"text": text} for text in ("the king", "never", "sleep, ")]
    answers = model(rows)
    assert answers == [model([row])[0] for row in rows]
    assert all(one["label"] and 0 < one["confidence"] < 1 for one in answers)
    long = model.write("the king", 3 * recipe.settings.block_size, Sampling(), seed=1)
    assert len(model.read(long["label"][: recipe.settings.block_size // 2])) > 0
    assert model.write("the king", 20, Sampling(), seed=1) != model.write("the king", 20, Sampling(), seed=2)


@torch.no_grad()
def test_going_on_greedily_takes_the_likeliest_token_of_transformers_own_forward(saved):
    """Also past the block, of which the newer half is kept."""
    recipe, _, folder = saved
    model, own, block = load_predictor(folder), reference(folder), recipe.settings.block_size
    seen = model.read("the king").tolist()
    written, shares = go_on(model.model, np.array(seen), 2 * block, Sampling(temperature=0), 0, None)
    for token, share in zip(written, shares, strict=True):
        chances = own(torch.tensor([seen])).logits[0, -1].softmax(-1)
        assert int(token) == int(chances.argmax()) and share == pytest.approx(float(chances[token]), rel=1e-4)
        seen = [*(seen if len(seen) < block else seen[-(block // 2) + 1 :]), int(token)]


def test_sampling_draws_by_probability_from_what_the_cuts_leave():
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    chances = (np.arange(1000) + 0.5) / 1000

    def shares(**settings: Any) -> dict[int, float]:
        drawn = Counter(sample(logits, Sampling(**settings), chance) for chance in chances)
        return {token: count / 1000 for token, count in sorted(drawn.items())}

    assert shares() == pytest.approx({0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}, abs=0.002)
    assert shares(temperature=0) == {1: 1.0}
    assert shares(top_k=2) == pytest.approx({1: 4 / 7, 3: 3 / 7}, abs=0.002)
    assert shares(top_p=0.75) == pytest.approx({1: 4 / 9, 2: 2 / 9, 3: 3 / 9}, abs=0.002)
    colder = shares(temperature=0.5)
    assert colder == pytest.approx({0: 1 / 30, 1: 16 / 30, 2: 4 / 30, 3: 9 / 30}, abs=0.002)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "is empty"),
        ("the kïng 漢", "holds 'ï'"),
        ("the king shall sleep, never again", "33 tokens long, its model sees 24"),
    ],
)
def test_a_prompt_it_cannot_go_on_from_is_refused_in_one_line(prompt, said, tmp_path):
    recipe = opened(tmp_path / "prepared")
    (tmp_path / "model").mkdir()
    recipe.save(recipe.build(), tmp_path / "model")
    model = load_predictor(tmp_path / "model")
    said = said if "ï" not in said else "holds '漢'"  # ï is in naïve
    with pytest.raises(WrongInput, match=said):
        model([{"text": prompt}])


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    from training.text import train_wordpiece

    train_wordpiece(texts(1)["text"].to_pylist(), 200).save(str(tmp_path / "tokenizer.json"))
    kind = settings_class("gpt")
    recipe = Recipe(kind(**kind.presets["tiny"]), {"tokenizer": tmp_path})
    with pytest.raises(WrongInput, match=r"does not give texts back: '.*' became"):
        recipe.prepare(dict.fromkeys(("train", "validation", "test"), texts(1)), OneText(), tmp_path, lambda note: None)


def test_a_tokenizer_with_more_entries_than_the_model_is_refused(saved, tmp_path):
    import shutil

    folder = shutil.copytree(saved[2], tmp_path / "model")
    train_characters(["abcdefghijklmnopqrstuvwxyz" + "".join(map(chr, range(0x4E00, 0x5000)))]).save(
        str(folder / "tokenizer.json")
    )
    with pytest.raises(WrongInput, match=r"tokenizer has 539 entries, its model \d+"):
        load_predictor(folder)


@pytest.mark.parametrize("train", [train_characters, lambda rows: train_bpe(rows, 300)])
def test_tokenizers_give_every_text_back_with_the_place_of_each_token(train):
    rows = [*texts(1)["text"].to_pylist(), "  spaces  and\n\nlines\t", "naïve 漢字 🙂"]
    tokenizer = train(rows)
    for text, (ids, starts) in zip(rows, encode(tokenizer, rows), strict=True):
        assert tokenizer.decode(ids.tolist()) == text
        assert len(ids) == len(starts) and (np.diff(starts) >= 0).all() and starts[-1] < len(text)


def test_ngrams_are_witten_bell_interpolated_and_sum_to_one():
    rng = np.random.default_rng(0)
    train = [rng.integers(0, 5, 60), rng.integers(0, 4, 30)]

    def counted(context: tuple[int, ...], token: int) -> float:
        followers = Counter(
            int(text[place + len(context)])
            for text in train
            for place in range(len(text) - len(context))
            if tuple(text[place : place + len(context)]) == context
        )
        lower = counted(context[1:], token) if context else 1 / 6
        if not followers:
            return lower
        return (followers[token] + len(followers) * lower) / (followers.total() + len(followers))

    judged = np.array([1, 0, 3, 5, 2, 2, 4])
    found = surprisals(train, [judged], 6, 3)
    for order in (1, 2, 3):
        for place, token in enumerate(judged):
            context = tuple(int(one) for one in judged[max(0, place - order + 1) : place])
            assert found[order - 1, place] == pytest.approx(-math.log(counted(context, int(token))))
    ends = [np.append(judged[:4], token) for token in range(6)]
    assert sum(math.exp(-surprisals(train, [text], 6, 3)[2, -1]) for text in ends) == pytest.approx(1)


def asked(recipe: Recipe, folder: Path, **splits: pa.Table) -> Asked:
    given = {"train": texts(1), "validation": texts(2, 1), "test": texts(3, 2, 3000)} | splits
    split = load_kind("language_modelling").judged_split({name: len(part) for name, part in given.items()})
    return Asked(predictor=load_predictor(folder), splits=given, inputs=("text",), label=None, texts_only=True,
                 reads="text", split=split, model="m", dataset="d@1")  # fmt: skip


def test_an_evaluation_costs_tokens_as_transformers_do_and_counts_passages(saved, tmp_path):
    recipe, _, folder = saved
    subject = asked(recipe, folder)
    found = load_kind("language_modelling").evaluate(subject, tmp_path, lambda share, note: None)
    assert json.loads((tmp_path / "metrics.json").read_text()) == found and found["split"] == "test"
    model, block, costs, passages = reference(folder), recipe.settings.block_size, [], []
    rows = subject.judged["text"].to_pylist()
    for row, (ids, starts) in enumerate(encode(load_predictor(folder).tokenizer, rows)):
        passages += [(row, int(start) // PASSAGE) for start in starts[1:]]
        for begin in range(0, len(ids) - 1, block):
            part = torch.from_numpy(ids[begin : begin + block + 1])
            with torch.no_grad():
                logits = model(part[None, :-1]).logits[0]
            costs += torch.nn.functional.cross_entropy(logits, part[1:], reduction="none").tolist()
    mean = float(np.mean(costs))
    assert found["tokens"] == len(costs)
    assert found["model"]["loss"]["value"] == pytest.approx(mean, rel=1e-5)
    assert found["model"]["perplexity"]["value"] == pytest.approx(math.exp(mean), rel=1e-5)
    bits = sum(costs) / math.log(2) / found["characters"]
    assert found["model"]["bits_per_character"]["value"] == pytest.approx(bits, rel=1e-5)
    assert found["model"]["loss"]["low"] < mean < found["model"]["loss"]["high"]
    assert found["difference"]["loss"]["value"] < 0, "random weights are worse than counting"
    written = parquet.read_table(tmp_path / "predictions.parquet")
    assert written.num_rows == found["rows"] == sum(-(-len(text) // PASSAGE) for text in rows)
    assert len(set(written["row_id"].to_pylist())) == found["rows"]
    expected = [
        sum(cost for cost, of in zip(costs, passages, strict=True) if of == one) for one in sorted(set(passages))
    ]
    assert written["nats"].to_pylist() == pytest.approx(expected, rel=1e-5)
    asked_for = [row for row in written.to_pylist() if row["prompt"] is not None]
    assert asked_for and [one["prediction"] for one in asked_for] == [
        one["label"] for one in load_predictor(folder)([{"text": row["prompt"]} for row in asked_for])
    ]


def test_without_a_test_split_the_validation_split_is_judged_and_the_order_chosen_elsewhere(saved, tmp_path):
    recipe, _, folder = saved
    found = load_kind("language_modelling").evaluate(
        asked(recipe, folder, test=texts(3, 0)), tmp_path, lambda share, note: None
    )
    assert found["split"] == "validation" and "training" in found["baseline"]["chosen_on"]


def test_characters_unseen_in_training_are_counted_and_cost_what_the_model_gives_them(tmp_path):
    kind = settings_class("gpt")
    recipe = Recipe(kind(**kind.presets["tiny"]), {})
    strange = pa.table({"row_id": ["x"], "text": ["the 漢 king 字"]})
    recipe.prepare({"train": texts(1), "validation": strange, "test": strange}, OneText(), tmp_path, lambda note: None)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["test"]["unknown"] == 2 and report["train"]["unknown"] == 0
