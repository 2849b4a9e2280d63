"""Models over image codes beyond what every recipe must do: the sequence, drawing, completing, captions, evaluation."""

import base64
import copy
import io
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from infra.errors import WrongInput
from tests.training.examples import open_recipe
from tests.training.observers import Silent
from training import loop
from training.code_frequencies import frequencies
from training.copies import nearest
from training.drawing import Drawer, chances
from training.evaluation import Asked
from training.evaluations.image_generation import KIND, _reranked
from training.examples import EXAMPLES, example_sources
from training.experiment import Training
from training.generation import Sampling
from training.image_tokens import ImageLanguageModel, Layout, as_tokens, build_model
from training.randomness import SampleKeys
from training.recipe import load_recipe, settings_class

SIZES: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "dropout": 0.0}
LAYOUT = Layout(text_vocabulary=11, text_length=6, codes=7, grid=3, end=2)
TEXTS = [np.array([2, 5, 2]), np.array([2, 3, 4, 9, 2]), np.array([2, 8, 2])]
CODES = np.random.default_rng(0).integers(0, 7, (3, 9))


@cache
def small_model(layout: Layout = LAYOUT) -> ImageLanguageModel:
    """With weights far from their start: near it every code is as likely as any other."""
    torch.manual_seed(1)
    settings = settings_class("dalle")(**SIZES)
    task = ImageLanguageModel(build_model(layout, settings), layout, 0.125).eval()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return task


def test_a_sequence_is_the_caption_then_the_codes_and_each_part_foretells_its_own() -> None:
    batch = LAYOUT.pack(as_tokens(TEXTS), np.array([1, 0]), CODES[[1, 0]])
    read, positions = batch["input_ids"][0], batch["boundaries"].position_ids[0]
    assert read.tolist() == [2, 3, 4, 9, 2, *(11 + CODES[1, :-1]), 2, 5, 2, *(11 + CODES[0, :-1])]
    # A code's position does not depend on the caption's length: its END always stands at text_length - 1.
    assert positions.tolist() == [0, 1, 2, 3, 5, *range(6, 14), 0, 1, 5, *range(6, 14)]
    assert batch["text_targets"].tolist() == [3, 4, 9, 2, 5, 2]
    assert read[batch["text_at"]].tolist() == [2, 3, 4, 9, 2, 5]
    assert batch["image_targets"].tolist() == [*CODES[1], *CODES[0]]
    assert (batch["image_at"].reshape(2, 9)[:, 0]).tolist() == [4, 15], (
        "the last of the caption foretells the first code"
    )
    left_out = LAYOUT.pack(as_tokens(TEXTS), np.array([1, 0]), CODES[[1, 0]], np.array([True, False]))
    assert left_out["input_ids"][0][:3].tolist() == [2, 2, 11 + CODES[1, 0]]
    assert left_out["text_targets"].tolist() == [5, 2], "a caption that is left out is not foretold"
    assert small_model().counts(left_out) == {"loss": 18, "text_loss": 2}


def test_losses_are_cross_entropies_within_each_part_weighed_as_the_settings_say() -> None:
    task = small_model()
    texts = as_tokens(TEXTS)
    with torch.no_grad():
        losses = task(LAYOUT.pack(texts, np.arange(3), CODES))
        image, text = 0.0, 0.0
        for ids, codes in zip(TEXTS, CODES, strict=True):  # transformers' own model, one sequence at a time
            whole = torch.tensor([*ids, *(11 + codes[:-1])])[None]
            positions = torch.tensor([*range(len(ids) - 1), *range(5, 14)])[None]
            plain = type(task.model)(copy.deepcopy(task.model.config))
            plain.load_state_dict(task.model.state_dict())
            plain.set_attn_implementation("eager")
            logits = plain.eval()(whole, position_ids=positions).logits[0]
            begin = len(ids) - 1
            image += float(functional.cross_entropy(logits[begin:, 11:], torch.tensor(codes), reduction="sum"))
            text += float(functional.cross_entropy(logits[:begin, :11], torch.tensor(ids[1:]), reduction="sum"))
    assert float(losses["loss"]) == pytest.approx(image, rel=1e-5)
    assert float(losses["text_loss"]) == pytest.approx(text, rel=1e-5)
    assert (task.loss_weight("loss"), task.loss_weight("text_loss")) == (0.875, 0.125)
    nats, text_nats = task.surprisals(texts, CODES)
    assert nats.sum() == pytest.approx(image, rel=1e-5) and text_nats.sum() == pytest.approx(text, rel=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("known", [0, 4])
def test_what_is_drawn_is_the_same_with_the_cache_as_without(guidance: float, known: int) -> None:
    task = small_model()
    drawn = [
        Drawer(task.model, LAYOUT, cached=cached).draw(
            TEXTS, chances(0, ["a", "b", "c"], 9), Sampling(top_k=6), guidance=guidance, known=CODES[:, :known]
        )
        for cached in (True, False)
    ]
    assert np.array_equal(drawn[0][0], drawn[1][0]) and np.allclose(drawn[0][1], drawn[1][1], atol=1e-6)
    assert np.array_equal(drawn[0][0][:, :known], CODES[:, :known]) and drawn[0][1].shape == (3, 9 - known)


def test_a_picture_depends_on_its_caption_and_name_and_on_no_neighbour() -> None:
    drawer = Drawer(small_model().model, LAYOUT)
    together, _ = drawer.draw(TEXTS, chances(0, ["a", "b", "c"], 9), Sampling())
    alone = [
        drawer.draw([text], chances(0, [name], 9), Sampling())[0][0] for text, name in zip(TEXTS, "abc", strict=True)
    ]
    assert np.array_equal(together, np.stack(alone))
    other, _ = drawer.draw(TEXTS, chances(0, ["a", "b", "d"], 9), Sampling())
    assert np.array_equal(other[:2], together[:2]) and not np.array_equal(other[2], together[2])


def test_drawn_codes_have_the_probabilities_of_the_model() -> None:
    """Of the first code over many draws: the softmax of the logits behind the caption, guided as the paper says."""
    task = small_model()
    with torch.no_grad():
        texts = [TEXTS[1], LAYOUT.no_caption]
        logits = [
            task.logits(LAYOUT.pack(as_tokens([text]), np.array([0]), CODES[:1]))[0][0].double() for text in texts
        ]
    many = 600
    for guidance in (1.0, 2.5):
        wanted = (logits[1] + guidance * (logits[0] - logits[1])).softmax(-1).numpy()
        names = [str(number) for number in range(many)]
        codes, shares = Drawer(task.model, LAYOUT).draw(
            [TEXTS[1]] * many, chances(0, names, 9), Sampling(), guidance=guidance
        )
        seen = np.bincount(codes[:, 0], minlength=7) / many
        assert np.abs(seen - wanted).max() < 0.08
        assert np.allclose(shares[:, 0], logits[0].softmax(-1).numpy()[codes[:, 0]], atol=1e-5)


@cache
def trained() -> tuple[Path, Any]:
    """A dalle that knows the example pictures well enough, in a folder that goes with the process."""
    import tempfile

    scratch = tempfile.TemporaryDirectory(prefix="slipway-")
    folder = Path(scratch.name)
    recipe = open_recipe("dalle", folder / "prepared", dropout=0.0)
    task, _ = loop.train(
        recipe,
        Training(steps=120, batch_size=32, learning_rate=5e-3, validate_every=1e9),
        loop.World(),
        Silent(),
    )
    (folder / "model").mkdir()
    recipe.save(task, folder / "model")
    return folder / "model", scratch


def painter(**settings: Any) -> Any:
    model = load_recipe("dalle").load_predictor(trained()[0])
    model.settings = {**model.settings, **settings}
    return model


def shown(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_captions_are_left_out_in_training_alone_as_often_as_said(tmp_path: Path) -> None:
    recipe = open_recipe("dalle", tmp_path, drop_caption=0.25)
    index = np.arange(200)
    counts = {}
    for split in ("train", "validation"):
        part = index[: recipe.num_samples(split)]
        batch = recipe.batch(split, part, SampleKeys.of(0, np.zeros_like(part), part))
        lengths = batch["lengths"].numpy() - recipe.layout.image_tokens + 1
        counts[split] = float((lengths == 2).mean())
    assert 0.15 < counts["train"] < 0.35 and counts["validation"] == 0


def test_captions_are_read_in_lower_case_and_cut_ones_are_counted(tmp_path: Path) -> None:
    recipe = open_recipe("dalle", tmp_path, text_length=5)
    report = recipe.report
    assert report["train"]["cut"] > 0 and report["train"]["captions"] == 200 and report["train"]["empty"] == 0
    assert recipe.files["train"].tokens.lengths.max() == 5
    assert "bright" in report["words"] and report["layout"]["text_length"] == 5
    model = painter()
    first, second = model([{"caption": "A DARK bar at the left"}, {"caption": " a dark bar at the left "}])
    assert first == second


def test_a_prompt_is_answered_with_pictures_and_unseen_words_are_said() -> None:
    model = painter(samples=3)
    known, strange = model([{"caption": "a dark bar at the left"}, {"caption": "a purple bar, purple"}])
    assert "unseen_words" not in known and strange["unseen_words"] == ["purple"]
    assert [shown(text).shape for text in known["images"]] == [(8, 8)] * 3 and known["images"][0] == known["image"]
    assert len(set(known["images"])) > 1, "samples differ"
    assert 0 < known["confidence"] <= 1
    assert model([{"caption": "a dark bar at the left"}], answer_seed=1)[0]["label"] != known["label"]


@pytest.mark.parametrize(
    ("prompt", "said"), [("", "holds no word"), (" ... ", "holds no word"), ("bar " * 40, "tokens long")]
)
def test_prompts_that_cannot_be_drawn_are_refused(prompt: str, said: str) -> None:
    with pytest.raises(WrongInput, match=said):
        painter()([{"caption": prompt}])


@pytest.mark.parametrize("setting", [{"samples": 0}, {"samples": 10_000}, {"guidance": -1.0}, {"temperature": -1.0}])
def test_settings_of_a_request_that_mean_nothing_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(WrongInput, match=next(iter(setting))):
        painter()([{"caption": "a dark bar"}], **setting)


def test_a_completion_keeps_what_is_given_and_sees_nothing_of_the_rest() -> None:
    model = painter()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)
    names = ["a", "b", "c", "d"]
    pictures, codes, _ = model.complete(pixels, names, model.settings)
    assert model.cut == 4 and np.array_equal(pictures[:, :4], pixels[:, :4])
    other = pixels.copy()
    other[:, 4:] = 255 - other[:, 4:]
    again, same, _ = model.complete(other, names, model.settings)
    assert np.array_equal(codes, same) and np.array_equal(pictures, again)


def test_clip_puts_first_what_fits_the_caption_best() -> None:
    class Brightness:
        """Finds that bright pictures fit every caption."""

        def embed_images(self, pictures: Any) -> np.ndarray:
            return np.array([[picture.mean()] for picture in pictures], float)

        def embed_texts(self, texts: Any) -> np.ndarray:
            return np.ones((len(texts), 1))

    model = painter(samples=2)
    model.clip = Brightness()
    (answer,) = model([{"caption": "a dark bar at the left"}], candidates=12)
    model.clip = None
    (plain,) = model([{"caption": "a dark bar at the left"}], samples=12)
    bright = sorted((shown(text).mean() for text in plain["images"]), reverse=True)
    assert [shown(text).mean() for text in answer["images"]] == bright[:2]


def test_a_codebook_that_the_codes_were_not_made_with_is_refused_with_both_digests(tmp_path: Path) -> None:
    sources = example_sources("dalle")
    recipe = open_recipe("dalle", tmp_path / "prepared", sources=sources)
    other = tmp_path / "other"
    shutil.copytree(sources["dvae"], other)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    save_file(
        {name: value + 0.01 if value.is_floating_point() else value for name, value in weights.items()},
        other / "model.safetensors",
    )
    with pytest.raises(WrongInput) as refusal:
        load_recipe("dalle").Recipe(recipe.settings, {"dvae": other}).open(tmp_path / "prepared")
    from training.codebook import Codebook

    found = Codebook.load(other).digest
    assert recipe.report["codebook"][:12] in str(refusal.value) and found[:12] in str(refusal.value)
    model = tmp_path / "model"
    shutil.copytree(trained()[0], model)
    shutil.copyfile(other / "model.safetensors", model / "dvae" / "model.safetensors")
    with pytest.raises(WrongInput, match=found[:12]):
        load_recipe("dalle").load_predictor(model)


def test_contracts_without_one_image_and_one_caption_are_refused(tmp_path: Path) -> None:
    from training.examples import ExampleContract

    recipe = load_recipe("dalle").Recipe(settings_class("dalle")(), example_sources("dalle"))
    splits = {name: EXAMPLES["image"](4, 1) for name in ("train", "validation", "test")}
    for inputs, said in ((("image",), "is image; this recipe"), (("caption",), "and found 0")):
        contract = ExampleContract(inputs=inputs, images=("image",))
        with pytest.raises(WrongInput, match=said):
            recipe.prepare(splits, contract, tmp_path, lambda note: None)
    with pytest.raises(WrongInput, match=r"from\.dvae"):
        load_recipe("image_gpt").Recipe(settings_class("image_gpt")(), {})


class Judge:
    """Tells the example shapes apart by their lit pixels: a bar has 5, a square 10, a cross 8."""

    image, labels = "image", ["bar", "cross", "square"]

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = []
        for row in rows:
            lit = int((row["image"].reshape(8, 8) > 60).sum())
            answers.append({"label": "bar" if lit <= 6 else "cross" if lit <= 8 else "square"})
        return answers


def asked(model: Any, **splits: Any) -> Asked:
    tables = {
        name: EXAMPLES["image-caption"](60, seed) for name, seed in (("train", 1), ("validation", 2), ("test", 3))
    }
    return Asked(
        predictor=model,
        splits={**tables, **splits},
        inputs=("image", "caption"),
        images=("image",),
        label="label",
        texts_only=False,
        reads="image-caption",
        split="test",
        model="m" * 64,
        dataset="example@1",
    )


def test_an_evaluation_tells_losses_agreement_copies_and_shows_pictures(tmp_path: Path) -> None:
    from pyarrow import parquet

    model = painter()
    model.judge = Judge()
    body = KIND.evaluate(asked(model), tmp_path, lambda share, note: None)
    assert set(body["model"]) == {"image_loss", "text_loss", "judge_agreement", "completion_agreement", "copies"}
    table = parquet.read_table(tmp_path / "predictions.parquet")
    assert table.num_rows == body["rows"] == 60 and body["drawn"] == 1020
    assert body["judge"]["real"]["value"] > 0.9, "the judge knows real pictures"
    for picture in body["pictures"]:
        with Image.open(tmp_path / picture["file"]) as page:
            assert page.width > 100
    assert {picture["file"] for picture in body["pictures"]} == {"drawn.png", "completed.png", "nearest.png"}
    prompts = [row for row in table.to_pylist() if row["prompt"]]
    assert prompts and prompts[0]["prediction"] == model([{"caption": prompts[0]["prompt"]}])[0]["label"]
    assert json.loads((tmp_path / "metrics.json").read_text())["codebook"] == model.codebook.digest
    model.judge, model.settings = None, model.settings
    without = KIND.evaluate(asked(model), tmp_path / "again", lambda share, note: None)
    assert set(without["model"]) == {"image_loss", "text_loss", "copies"}
    assert without["model"]["image_loss"] == body["model"]["image_loss"]


def test_what_repeats_training_pictures_is_called_copies(tmp_path: Path) -> None:
    model = painter()
    train = asked(model).splits["train"]
    from training.images import table_images

    own = table_images(train, "image", 8, 1)
    model.decode = lambda codes: np.resize(own, (len(codes), 8, 8, 1)).copy()
    body = KIND.evaluate(asked(model), tmp_path, lambda share, note: None)
    assert body["model"]["copies"]["value"] == 1 and body["nearest"]["drawn"] < 1e-3


def test_reranking_is_told_beside_drawing_without_it() -> None:
    class Oracle:
        """Embeds what the judge sees, and the shape that a caption names."""

        def embed_images(self, pictures: Any) -> np.ndarray:
            seen = [one["label"] for one in Judge()([{"image": picture} for picture in pictures])]
            return np.array([[label == name for name in Judge.labels] for label in seen], float)

        def embed_texts(self, texts: Any) -> np.ndarray:
            return np.array([[name in text for name in Judge.labels] for text in texts], float)

    model = painter(temperature=3.0)
    model.judge, model.clip = Judge(), Oracle()
    table = EXAMPLES["image-caption"](12, 3)
    captions, labels = table["caption"].to_pylist(), table["label"].to_pylist()
    found = _reranked(model, captions, model.tokens(captions), labels, {**model.settings, "samples": 1})
    assert found["with"]["value"] > found["without"]["value"] and found["difference"]["value"] > 0


def test_the_baseline_counts_codes_at_their_places_by_caption() -> None:
    codes = {"train": np.array([[0, 1], [0, 1], [1, 0], [1, 0]] * 50), "validation": np.array([[0, 1], [1, 0]])}
    codes["test"] = np.array([[0, 1], [0, 1]])
    captions = {"train": ["a", "a", "b", "b"] * 50, "validation": ["a", "b"], "test": ["a", "b"]}
    found = frequencies(captions, codes, "test", 3)
    assert found["nats"][0] < 0.05 and found["nats"][1] > 3, "right by its caption, wrong by the other"
    assert found["unigram"] == pytest.approx([np.log(203 / 201 * 2)] * 2, rel=0.02)
    assert found["about"]["settings"]["strength"] == 1


def test_the_nearest_picture_is_found_and_how_far_it_is() -> None:
    others = np.zeros((3, 2, 2, 1), np.uint8)
    others[1], others[2] = 255, 51
    distances, which = nearest(np.array([others[1], others[2] + 51]), others)
    assert which.tolist() == [1, 2] and distances == pytest.approx([0, 0.2], abs=1e-6)
