"""Sentence embeddings: texts whose meaning is near lie near each other; compares, searches, classifies unseen labels.

Paper: Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, §3 (the three objectives, mean pooling); in-batch negatives:
Henderson et al., "Efficient natural language response suggestion for smart reply", 2017, §4.4.
How ours differs: texts are packed without padding; in-batch negatives are those of the whole global batch, gathered
across the workers with their gradient, without texts that are known to belong together; scores are scaled to 0..1 by
the training split's own ends. Negatives mined by likeness may be positives that nobody marked: on data with few marks
look at some before believing them.
Command: slipway train stsb --set base=FOLDER     (from a published encoder: safetensors + tokenizer.json)
Hardware and time: the experiment's header says what was measured.
Expected: on STS Benchmark a Spearman correlation of about 0.85 (ibid., table 2, BERT-base trained on NLI and STSb).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from infra.errors import WrongInput
from training import task
from training.clusters import cluster
from training.encoders import build_encoder, load_pretrained, save_pretrained
from training.model import label_answers
from training.pairs import Pairs, Pool, mine_negatives, neighbours, read_pairs, tfidf
from training.randomness import SampleKeys
from training.recipe import EncoderSettings, prepared_by
from training.siamese import (
    CosineRegression,
    InBatchNegatives,
    PairClassification,
    Siamese,
    TripletMargin,
    embed_texts,
    pair_features,
    unit_length,
)
from training.text import (
    TokenFile,
    load_tokenizer,
    pack,
    read_arrow,
    read_json,
    settle_tokenizer,
    tokenize,
    write_arrow,
    write_json,
    write_tokens,
)
from training.text_index import TextIndex

SPLITS = ("train", "validation", "test")
NEAREST = 5
"""Texts that a search answers."""


class Settings(EncoderSettings):
    roles: ClassVar[dict[str, str]] = {"base": "the encoder's weights and tokenizer; without it, random weights"}
    reads: ClassVar[str] = "pairs"
    evaluates: ClassVar[str] = "similarity"
    libraries: ClassVar[tuple[str, ...]] = (*EncoderSettings.libraries, "faiss-cpu")
    loss: Literal["cosine", "softmax", "triplet", "in_batch"] = prepared_by("cosine")
    """cosine: graded pairs, their score regressed on the cosine. softmax: labelled pairs, classified from (u, v,
    |u - v|). triplet: a pair is nearer than the first and a text of another pair, by a margin. in_batch: of all second
    texts in the batch, which belongs to the first?"""
    alike: float | str | None = prepared_by(None)
    """Of labelled pairs triplet and in_batch learn from those whose label is at least this number, or is this text."""
    hard_negatives: Literal["none", "tfidf"] = prepared_by("none")
    """tfidf: triplet and in_batch get, for each pair, the text of another pair that shares most of its words."""
    margin: float = Field(1.0, gt=0)
    """Of the triplet loss, in units of Euclidean distance."""
    scale: float = Field(20.0, gt=0)
    """What cosines are multiplied with before the softmax of in_batch: the inverse of a temperature."""

    clusters: int = Field(0, ge=0, le=1000)
    """Groups that the dataset's texts are put into by k-means, each told in the package's `clusters.json` by the texts
    nearest to its centre; 0: none."""

    @property
    def additive(self) -> bool:
        return self.loss != "in_batch"


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        settings, inputs = self.settings, list(contract.inputs)
        self.check(contract)
        labelled = settings.loss in ("cosine", "softmax")
        pool = Pool()
        pairs = {name: self.pairs_of(splits[name], inputs, contract.label, pool) for name in SPLITS}
        if len(pairs["train"].texts) < 2:
            raise WrongInput(
                f"dataset {contract.name}: has {len(pairs['train'].texts)} pair(s) to learn from, and 2 are needed; "
                "the recipe's settings decide which there are"
            )
        report: dict[str, Any] = {"inputs": inputs, **self.targets_of(pairs["train"].labels, contract)}
        tokenizer = settle_tokenizer(self.sources.get("base"), pool.texts, settings.vocab_size, say)
        tokenizer.save(str(folder / "tokenizer.json"))
        say(f"tokenising {len(pool.texts):,} texts")
        tokens = tokenize(tokenizer, pool.texts, settings.max_length)
        write_tokens(folder / "texts.arrow", tokens, {"row_id": pool.row_ids, "text": pool.texts})
        features = None
        if settings.hard_negatives == "tfidf" and not labelled:
            say("mining negatives by TF-IDF")
            features = tfidf(pool.texts)
        for name, found in pairs.items():
            columns: dict[str, Any] = {"row_id": found.row_ids, "first": found.texts[:, 0], "second": found.texts[:, 1]}
            if labelled:
                columns["target"] = self.as_targets(found.labels, report)
            if features is not None:
                columns["negative"] = mine_negatives(features, found.texts)
            write_arrow(folder / f"{name}.arrow", columns)
            report[name] = {"pairs": len(found.texts)}
        report |= {"vocabulary": tokenizer.get_vocab_size(), "texts": len(tokens), "truncated": tokens.truncated}
        write_json(folder / "report.json", report)

    def check(self, contract: Any) -> None:
        """Raises WrongInput for a dataset that is not made of labelled pairs."""
        if len(contract.inputs) != 2 or contract.label is None:
            raise WrongInput(
                f"contract {contract.name}: has {len(contract.inputs)} input column(s) and label {contract.label}; "
                "sentence_embedding needs two texts and a label; recipe text_search learns from texts alone"
            )
        if self.settings.loss in ("triplet", "in_batch") and self.settings.alike is None:
            raise WrongInput(
                f"settings.alike: is missing; settings.loss {self.settings.loss} learns from pairs that belong "
                f"together: say from which '{contract.label}' on, or with which, they do"
            )

    def pairs_of(self, table: Any, inputs: Sequence[str], label: str | None, pool: Pool) -> Pairs:
        settings = self.settings
        pairs = read_pairs(table, inputs, label, pool)
        alike = settings.alike
        if alike is None or settings.loss in ("cosine", "softmax"):
            return pairs
        try:
            return pairs.only([str(one) == alike if isinstance(alike, str) else float(one) >= alike
                               for one in pairs.labels])  # fmt: skip
        except (TypeError, ValueError) as error:
            raise WrongInput(f"settings.alike: {alike} cannot be held against column '{label}' ({error})") from error

    def targets_of(self, labels: list[Any], contract: Any) -> dict[str, Any]:
        """What the training split's labels say of all: the ends of the scores, or the classes."""
        if self.settings.loss == "softmax":
            classes = sorted(set(map(str, labels)))
            if len(classes) < 2:
                raise WrongInput(
                    f"dataset {contract.name}: column '{contract.label}' has {len(classes)} value; 2 needed"
                )
            return {"labels": classes}
        if self.settings.loss != "cosine":
            return {}
        try:
            scores = np.array(labels, np.float64)
        except (TypeError, ValueError) as error:
            raise WrongInput(f"contract {contract.name}: column '{contract.label}' holds no scores ({error}); "
                             "settings.loss cosine needs numbers, softmax takes labels") from error  # fmt: skip
        low, high = float(scores.min()), float(scores.max())
        if not low < high:
            raise WrongInput(f"dataset {contract.name}: every score is {low:g}; there is nothing to learn from them")
        scaled = (scores - low) / (high - low)
        return {"low": low, "high": high, "target": {"mean": float(scaled.mean()), "variance": float(scaled.var())}}

    def as_targets(self, labels: list[Any], report: Mapping[str, Any]) -> np.ndarray:
        if "labels" in report:
            number = {label: position for position, label in enumerate(report["labels"])}
            return np.array([number.get(str(label), -1) for label in labels], np.int64)
        return ((np.array(labels, np.float64) - report["low"]) / (report["high"] - report["low"])).astype(np.float32)

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.report = read_json(folder / "report.json")
        self.texts = TokenFile.open(folder / "texts.arrow")
        self.pairs, self.targets, self.ids = {}, {}, {}
        for name in SPLITS:
            table = read_arrow(folder / f"{name}.arrow")
            columns = [one for one in ("first", "second", "negative") if one in table.column_names]
            found = np.stack([table[one].to_numpy() for one in columns], 1).astype(np.int64)
            kept = np.arange(len(found))
            if "target" in table.column_names:
                target = table["target"].to_numpy()
                # A label unseen in training has no output to be right with.
                kept = np.flatnonzero(target >= 0) if self.settings.loss == "softmax" else kept
                self.targets[name] = target[kept]
            self.pairs[name], self.ids[name] = found[kept], table["row_id"].take(kept)

    def num_samples(self, split: str) -> int:
        return len(self.pairs[split])

    def num_tokens(self, split: str) -> int:
        return int(self.texts.tokens.lengths[self.pairs[split]].sum())

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.ids[split].take(index).to_pylist()

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        texts = self.pairs[split][index]  # (N, 2 or 3)
        drawn = self.settings.loss == "triplet" or (self.settings.loss == "in_batch" and split != "train")
        if drawn and texts.shape[1] == 2:
            every = self.num_samples(split)
            steps = keys.uniform("negative", np.ones_like(index)) * (every - 1)
            other = (index + 1 + steps.astype(np.int64)) % every
            texts = np.concatenate([texts, self.pairs[split][other, 1:2]], 1)
        batch = pack(self.texts.tokens, texts.ravel())
        batch["texts"] = torch.from_numpy(texts)
        if split in self.targets:
            batch["target"] = torch.from_numpy(self.targets[split][index])
        return batch

    def build(self) -> Siamese:
        settings = self.settings
        encoder = build_encoder(settings, self.sources.get("base"), self.report["vocabulary"])
        if settings.loss == "cosine":
            return CosineRegression(encoder, self.report["target"])
        if settings.loss == "softmax":
            return PairClassification(encoder, len(self.report["labels"]))
        if settings.loss == "triplet":
            return TripletMargin(encoder, settings.margin)
        return InBatchNegatives(encoder, settings.scale)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        save_pretrained(trained.encoder, self.folder, folder)
        told = ("inputs", "labels", "low", "high")
        facts: dict[str, Any] = {name: self.report[name] for name in told if name in self.report}
        if hasattr(trained, "head"):
            head = {name: value.contiguous() for name, value in trained.head.state_dict().items()}
            save_file(head, folder / "head.safetensors")
        settings = self.settings.model_dump(mode="json")
        write_json(folder / "recipe.json", {"recipe": "sentence_embedding", "settings": settings, **facts})
        texts, row_ids = (self.texts.columns[name].to_pylist() for name in ("text", "row_id"))
        vectors = unit_length(embed_texts(trained.encoder.eval(), self.texts.tokens))
        index = TextIndex.build(vectors, texts, row_ids)
        index.save(folder)
        if self.settings.clusters:
            write_json(folder / "clusters.json", {"clusters": cluster(vectors, texts, row_ids, self.settings.clusters)})
        inputs = tuple(self.report["inputs"])
        outputs = [("label", "string"), ("confidence", "double")]
        if len(inputs) == 1:
            outputs += [("row_id", "string")]
        else:
            outputs += [("similarity", "double"), *([("score", "double")] if "low" in facts else [])]
        return task.ModelFiles(
            loader="training.recipes.sentence_embedding:load_predictor",
            input_columns=inputs,
            input_example=(dict.fromkeys(inputs, "A man is playing a guitar."),),
            outputs=tuple(outputs),
            libraries=("torch", "transformers", "tokenizers", "safetensors", "faiss-cpu"),
            figures=index.figures() | self.correlations(vectors),
        )

    def correlations(self, vectors: np.ndarray) -> dict[str, float]:
        """Spearman's of the validation split's scores and cosines; and zero-shot, by the base as it was given."""
        if self.settings.loss != "cosine" or not self.num_samples("validation"):
            return {}
        from scipy.stats import spearmanr
        from transformers import AutoModel

        texts, pairs = np.unique(self.pairs["validation"], return_inverse=True)
        found = {"validation_spearman": vectors[texts]}
        if "base" in self.sources:
            base = load_pretrained(AutoModel, self.sources["base"]).eval()
            found["zero_shot_validation_spearman"] = unit_length(embed_texts(base, self.texts.tokens, texts))
        return {
            name: float(spearmanr((states[pairs[:, 0]] * states[pairs[:, 1]]).sum(1), self.targets["validation"])[0])
            for name, states in found.items()
        }


class EmbeddingPredictor(task.Predictor):
    """Compares the two texts of a row; of a row with one text, what lies nearest among the dataset's."""

    def __init__(self, folder: Path):
        from transformers import AutoModel

        facts = read_json(folder / "recipe.json")
        self.inputs, self.settings, self.facts = facts["inputs"], facts["settings"], facts
        self.labels = facts.get("labels", [])
        self.tokenizer = load_tokenizer(folder)
        encoder = load_pretrained(AutoModel, folder)
        encoder.pooler = None
        self.model = torch.nn.ModuleDict({"encoder": encoder})
        if self.labels:
            self.model["head"] = torch.nn.Linear(3 * encoder.config.hidden_size, len(self.labels))
            self.model["head"].load_state_dict(load_file(folder / "head.safetensors"))
        self.model.eval()
        self.index = TextIndex.open(folder)

    def states(self, texts: Sequence[str]) -> np.ndarray:
        tokens = tokenize(self.tokenizer, list(texts), self.settings["max_length"])
        self.truncated += tokens.truncated
        return embed_texts(self.model["encoder"], tokens)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, each of length 1."""
        return unit_length(self.states(texts))

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """(N,) cosines."""
        return (self.embed(first) * self.embed(second)).sum(1)

    def passages(self, table: Any) -> tuple[Pool, Pairs]:
        """A split's passages as they were cut for training, and which follows which."""
        pool = Pool()
        return pool, neighbours(table, self.inputs[0], self.settings["passage_words"], pool)

    def search(self, queries: Sequence[str], count: int = NEAREST) -> list[list[dict[str, Any]]]:
        """For each query the nearest of the dataset's texts: row_id, text, score (cosine)."""
        return self.index.search(self.embed(queries), count)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
        """Zero-shot: as `LabelPredictor` answers, of labels that were never trained. How sure it is goes by the scale
        of the in-batch loss and was fitted to nothing."""
        logits = self.settings["scale"] * self.embed(texts) @ self.embed(labels).T  # (N, labels)
        return label_answers(labels, torch.from_numpy(logits).double().softmax(-1).numpy())

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = [["" if row[name] is None else str(row[name]) for row in rows] for name in self.inputs]
        if len(texts) == 1:
            found = self.search(texts[0])
            return [{**one[0], "label": one[0]["text"], "confidence": one[0]["score"], "nearest": one} for one in found]
        u, v = (self.states(column) for column in texts)
        cosines = (unit_length(u) * unit_length(v)).sum(1).astype(float).tolist()
        if self.labels:
            with torch.inference_mode():
                logits = self.model["head"](pair_features(torch.from_numpy(u), torch.from_numpy(v)))
            named = label_answers(self.labels, logits.double().softmax(-1).numpy())
            return [{**answer, "similarity": cosine} for answer, cosine in zip(named, cosines, strict=True)]
        answers: list[dict[str, Any]] = []
        for cosine in cosines:
            answer = {"similarity": cosine, "confidence": cosine, "label": f"{cosine:.2f}"}
            if "low" in self.facts:  # in the unit of the labels; no pair is less alike than the least
                answer["score"] = self.facts["low"] + max(cosine, 0.0) * (self.facts["high"] - self.facts["low"])
                answer["label"] = f"{answer['score']:.1f}"
            answers.append(answer)
        return answers


def load_predictor(folder: Path) -> EmbeddingPredictor:
    return EmbeddingPredictor(folder)
