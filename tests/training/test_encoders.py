"""Pretrained encoders from a folder: each answers packed as alone, and what cannot be used is refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from infra.errors import WrongInput
from training.encoders import load_pretrained, refuse_longer
from training.examples import ExampleContract, texts
from training.recipes.text_classifier import Recipe, Settings, load_predictor
from training.text import Tokens, encode_packed, load_tokenizer, pack, train_wordpiece

SIZES = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": 40}  # fmt: skip


def saved(folder: Path, kind: str = "Bert", **changed: Any) -> Path:
    """A folder with a model of random weights, and a tokenizer that fits it."""
    sizes: dict[str, Any] = {**SIZES, **changed}
    if kind == "DistilBert":
        sizes = {"vocab_size": 120, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2,
                 "max_position_embeddings": 40}  # fmt: skip
    if kind == "Roberta":
        sizes["pad_token_id"] = 1
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)  # positions must matter
    model.save_pretrained(folder)
    train_wordpiece(texts(100, 1)["text"].to_pylist(), 120).save(str(folder / "tokenizer.json"))
    return folder


def prepared(base: Path, folder: Path, **settings: Any) -> Recipe:
    recipe = Recipe(Settings(max_length=24, **settings), {"base": base})
    folder.mkdir()
    splits = {name: texts(40, seed) for seed, name in enumerate(("train", "validation", "test"))}
    recipe.prepare(splits, ExampleContract(), folder, lambda note: None)
    recipe.open(folder)
    return recipe


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "Electra", "Albert"])
def test_packed_texts_are_encoded_as_each_alone(kind: str, tmp_path: Path) -> None:
    """RoBERTa counts positions from 2."""
    folder = saved(tmp_path / "base", kind)
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    encoder = load_pretrained(transformers.AutoModel, folder).eval()
    lengths = np.array([7, 3, 12])
    ids = torch.randint(5, 100, (int(lengths.sum()),))
    tokens = Tokens(ids.numpy().astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    with torch.no_grad():
        alone = [plain(input_ids=one[None]).last_hidden_state[0] for one in ids.split(lengths.tolist())]
        assert torch.allclose(encode_packed(encoder, pack(tokens, np.arange(3))), torch.cat(alone), atol=1e-5)


def test_a_folder_with_a_pickle_only_is_refused_and_says_why(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WrongInput, match=r"no \.safetensors file; pickled weights .* can run code"):
        prepared(folder, tmp_path / "prepared").build()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "brandnew"}, "model_type 'brandnew' is unknown to transformers"),
        ({"model_type": None}, "model_type 'None' is unknown"),
        ({"model_type": "t5"}, "encoder-decoder|cannot load it"),
    ],
)
def test_an_unknown_architecture_is_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(WrongInput, match=said) as caught:
        load_pretrained(transformers.AutoModel, folder)
    assert "\n" not in str(caught.value)


def test_an_architecture_whose_texts_would_see_each_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match="attention of a mpnet cannot be replaced"):
        load_pretrained(transformers.AutoModel, saved(tmp_path / "base", "MPNet"))


def test_a_config_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(WrongInput, match=r"config\.json is not JSON"):
            load_pretrained(transformers.AutoModel, folder)


def test_a_tokenizer_that_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", vocab_size=50)
    entries = load_tokenizer(folder).get_vocab_size()
    with pytest.raises(WrongInput, match=f"its tokenizer has {entries} entries, its model 50"):
        prepared(folder, tmp_path / "prepared").build()


@pytest.mark.parametrize(("kind", "room"), [("Bert", 40), ("Roberta", 38)])
def test_more_tokens_than_the_base_has_positions_are_refused(kind: str, room: int, tmp_path: Path) -> None:
    encoder = load_pretrained(transformers.AutoModel, saved(tmp_path / "base", kind))
    refuse_longer(encoder, room)
    with pytest.raises(WrongInput, match=f"max_length: {room + 1} tokens, the base takes {room}"):
        refuse_longer(encoder, room + 1)


def test_empty_and_missing_texts_have_an_answer_alone_or_among_others(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    recipe = prepared(folder, tmp_path / "prepared")
    (tmp_path / "model").mkdir()
    recipe.save(recipe.build(), tmp_path / "model")
    predictor = load_predictor(tmp_path / "model")
    together: list[dict[str, Any]] = [{"text": "w1 w2"}, {"text": ""}, {"text": None}]
    for rows in (together[1:2], together):
        answers = predictor(rows)
        assert all(np.isfinite(one["confidence"]) for one in answers)
        assert answers[-1]["scores"] == pytest.approx(predictor([{"text": ""}])[0]["scores"])
