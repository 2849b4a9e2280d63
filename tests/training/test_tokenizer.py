"""A trained tokenizer is the same file each time, gives texts back where it says so, and its report counts rightly."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import WrongInput
from infra.settings import child_environment
from training.recipe import settings_class
from training.recipes.bert_mlm import Recipe as Mlm
from training.recipes.gpt import Recipe as Gpt
from training.recipes.tokenizer import Recipe, describe, load_predictor

MODELS = ["wordpiece", "bpe", "unigram"]


def lines() -> list[str]:
    """Words of few letters, many equally frequent; characters that occur once, and such as never stand alone: what an
    order could decide about."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 8))) for _ in range(400)]
    words += [f"{chr(0x3400 + 2 * place)}{chr(0x3401 + 2 * place)}" for place in range(20)]
    rare = [f"{words[place]}{chr(0x4E00 + place)} " for place in range(60)]
    return [" ".join(rng.choice(words, 12)) + "\n" for _ in range(150)] + rare


class Contract:
    name, inputs, images = "example", ("text",), ()


def fitted(folder: Path, **settings: Any) -> Path:
    table = pa.table({"row_id": [str(number) for number in range(210)], "text": lines()})
    recipe = Recipe(settings_class("tokenizer")(**settings), {})
    for part in ("prepared", "model"):
        (folder / part).mkdir(parents=True)
    recipe.prepare(
        {"train": table, "validation": table.slice(0, 20)}, Contract(), folder / "prepared", lambda note: None
    )
    recipe.open(folder / "prepared")
    recipe.fit(folder / "model", 0, lambda *given, **more: None)
    return folder / "model"


@pytest.mark.parametrize("model", MODELS)
def test_trained_again_in_other_processes_it_is_the_same_file(model, tmp_path):
    here = fitted(tmp_path / "here", model=model, vocab_size=600)
    script = (
        "import sys; from pathlib import Path; from training.text import train_wordpiece;"
        "from training.vocabulary import *; import json;"
        f"rows = json.loads(sys.stdin.read()); train_{model}(rows, 600).save(sys.argv[1])"
    )
    for turn in range(3):
        environment = child_environment(PYTHONHASHSEED=str(turn), RAYON_NUM_THREADS=str(turn + 1))
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / f"{turn}.json"],
            check=True, env=environment, input=json.dumps(lines()), text=True,
        )  # fmt: skip
        assert (tmp_path / f"{turn}.json").read_bytes() == (here / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_its_report_counts_what_it_does(model, tmp_path):
    folder = fitted(tmp_path, model=model, vocab_size=600)
    report = json.loads((folder / "report.json").read_text())
    tokenizer = load_predictor(folder).tokenizer
    tokens = [one.tokens for one in tokenizer.encode_batch(lines(), add_special_tokens=False)]
    words = sum(len(line.split()) for line in lines())
    assert report["vocabulary"] == tokenizer.get_vocab_size() <= 600
    assert report["train"]["words"] == words and report["train"]["tokens"] == sum(map(len, tokens))
    assert report["train"]["fertility"] == pytest.approx(sum(map(len, tokens)) / words)
    assert report["train"]["unknown_rate"] == 0
    assert len(report["longest"][0]) == max(map(len, report["longest"]))
    token, count = report["rarest"][0]
    assert count == sum(line.count(token) for line in tokens) > 0
    strange = describe(tokenizer, {"train": ["abc \U0001f642"]})
    assert (strange["train"]["unknown_rate"] > 0) == (model != "bpe")


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_a_language_model_reads_with_it_and_it_gives_texts_back(model, tmp_path):
    folder = fitted(tmp_path, model=model, vocab_size=600)
    text = "".join(lines()[:20]) + "  abc \n\n de"
    tokenizer = load_predictor(folder).tokenizer
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    gpt = Gpt(settings_class("gpt")(**settings_class("gpt").presets["tiny"]), {"tokenizer": folder})
    table = pa.table({"row_id": ["0"], "text": [text]})
    (tmp_path / "gpt").mkdir()
    gpt.prepare(dict.fromkeys(("train", "validation", "test"), table), Contract(), tmp_path / "gpt", lambda note: None)
    assert (tmp_path / "gpt" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    gpt.open(tmp_path / "gpt")
    assert gpt.build().model.config.vocab_size == tokenizer.get_vocab_size()


def test_masked_language_models_read_with_wordpiece_and_refuse_what_has_no_mask(tmp_path):
    folders = {model: fitted(tmp_path / model, model=model, vocab_size=600) for model in ("wordpiece", "bpe")}
    kind = settings_class("bert_mlm")
    table = pa.table({"row_id": ["0", "1"], "text": ["abc de", "fgh"]})
    splits = dict.fromkeys(("train", "validation", "test"), table)

    def prepare(**sources: Path) -> Mlm:
        recipe = Mlm(kind(**kind.presets["tiny"]), sources)
        recipe.prepare(splits, Contract(), tmp_path, lambda note: None)
        return recipe

    found = prepare(tokenizer=folders["wordpiece"])
    found.open(tmp_path)
    assert found.build().model.config.vocab_size == load_predictor(folders["wordpiece"]).tokenizer.get_vocab_size()
    with pytest.raises(WrongInput, match=r"has no \[MASK\] token"):
        prepare(tokenizer=folders["bpe"])
    with pytest.raises(WrongInput, match="leave one of the two out"):
        prepare(tokenizer=folders["wordpiece"], base=folders["wordpiece"])


def test_texts_that_are_all_empty_and_too_few_entries_are_refused_in_one_line(tmp_path):
    empty = pa.table({"row_id": ["0"], "text": [""]})
    recipe = Recipe(settings_class("tokenizer")(), {})
    with pytest.raises(WrongInput, match="every training text is empty"):
        recipe.prepare({"train": empty, "validation": empty}, Contract(), tmp_path, lambda note: None)
    with pytest.raises(ValueError, match="no room for the 256 bytes"):
        settings_class("tokenizer").model_validate({"model": "bpe", "vocab_size": 200})
