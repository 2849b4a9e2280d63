"""Compression of a trained text classifier: int8, magnitude pruning or low-rank factors for its linear layers.

Papers: Jacob et al., CVPR 2018 (8-bit integers); Han et al., NeurIPS 2015, §3 (pruning by magnitude); Yu & Wu,
"Compressing transformers: features are low-rank, but weights are not!", AAAI 2023 (factors). See training.compressed.
How ours differs: nothing is trained afterwards; embeddings stay as they are, and the linear layer that answers.
Command: slipway train emotion-int8
         slipway train emotion-pruned          (four strengths on the way: the curve of score against size)
Hardware and time: one process, without Ray; the records of emotion-int8, emotion-pruned and emotion-factorised.
Expected: int8 within a point of the original at a quarter of the bytes of the linear layers, and 1.3 times as fast;
pruned to 0.7 of the bytes it loses nothing, factorised to 0.7 a point and a half; neither is faster (0.95 and 0.91).
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.special import softmax

from infra.errors import WrongInput
from training import compressed, fit, task
from training.model import ModelFiles
from training.recipe import RecipeSettings
from training.recipes import text_classifier
from training.recipes.text_classifier import Classifier
from training.speed import texts_per_second
from training.text import by_length, pack, read_json, write_json

READ_TEXTS = 512
"""Training texts by which the factors are chosen."""
TIMED_TEXTS = 256
TIMED_ALONE = 32
"""Of them, those that are also asked one by one."""


class Settings(RecipeSettings):
    trains: ClassVar[bool] = False
    evaluates: ClassVar[str] = "classification"
    roles: ClassVar[dict[str, str]] = {"model": "required: a trained text_classifier, distillation or lora model"}
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {"model": ("tokenizer.json", "recipe.json")}
    example_sources: ClassVar[dict[str, str]] = {"model": "text_classifier"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"method": "factorisation", "keep": 0.7, "points": (0.5,)}}

    method: Literal["int8", "pruning", "factorisation"] = "int8"
    """What is done to the linear layers (training.compressed says how)."""
    keep: float = Field(0.5, gt=0, le=0.95)
    """Share of the weights of the linear layers that stays: 1 - sparsity of pruning, the factors' of factorisation;
    int8 keeps all."""
    points: tuple[Annotated[float, Field(gt=0, le=0.95)], ...] = ()
    """Further such shares, of which score, size and speed are measured on the way; none of them is packaged."""
    engine: Literal["onednn", "x86", "fbgemm", "qnnpack", "torchao"] = "onednn"
    """Of int8: what multiplies, where the model answers (training.compressed). The speed of all that are here is
    told."""

    @model_validator(mode="after")
    def _int8_is_one_strength(self) -> Self:
        if self.method == "int8" and self.points:
            raise ValueError("points: int8 has one strength; leave them out, or write method: pruning")
        return self


class Recipe(fit.Recipe):
    settings: Settings

    def __init__(self, settings: Any, sources: Mapping[str, Path]):
        super().__init__(settings, sources)
        self.source = sources["model"]
        if not (self.source / "head.safetensors").is_file() or not (self.source / "model.safetensors").is_file():
            raise WrongInput(
                f"from.model {self.source}: is no trained text classifier with whole weights; name one that "
                "text_classifier, distillation or lora trained"
            )
        self.facts = read_json(self.source / "recipe.json")
        known = text_classifier.Settings.model_fields
        asked = {name: value for name, value in self.facts["settings"].items() if name in known}
        self.data = text_classifier.Recipe(text_classifier.Settings(**asked), {"base": self.source})

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        self.data.prepare(splits, contract, folder, say)

    def open(self, folder: Path) -> None:
        self.data.open(folder)
        if self.data.report["labels"] != self.facts["labels"]:
            told, found = (", ".join(labels[:5]) for labels in (self.facts["labels"], self.data.report["labels"]))
            raise WrongInput(f"from.model {self.source}: tells {told} apart, the dataset has {found}")

    def num_samples(self, split: str) -> int:
        return self.data.num_samples(split)

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.data.row_ids(split, index)

    def fit(self, folder: Path, seed: int, report: fit.Report) -> ModelFiles:
        settings = self.settings
        if not self.num_samples("validation"):
            raise WrongInput("compression: there is no validation split to see the loss on; give the contract one")
        original = text_classifier.load_predictor(self.source).model
        report(1, 100, note="making the layers smaller")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums in another order would give other bytes
        try:
            shrink = self._method(original, seed)
            tried = {keep: shrink(keep) for keep in sorted({settings.keep, *settings.points})}
        finally:
            torch.set_num_threads(threads)
        layers = compressed.linear_layers(original.encoder).values()
        whole = compressed.size(one for layer in layers for one in layer.parameters())
        scores, step = {}, 1
        for keep, tensors in tried.items():
            scores[keep] = self._score(with_layers(original, tensors, settings.engine))
            step = min(99, max(step + 1, round(100 * compressed.size(tensors.values()) / whole)))
            report(step, 100, {f"{name}_by_size": value for name, value in scores[keep].items()})
        before, after, chosen = self._score(original), scores[settings.keep], tried[settings.keep]
        figures = {f"{name}_change": after[name] - before[name] for name in before}
        figures |= {"linear_bytes": (size := compressed.size(chosen.values())), "linear_bytes_ratio": size / whole}
        figures |= self._speed(original, chosen)
        ends = {f"{name}_by_size": value for name, value in before.items()}
        report(100, 100, {**ends, **{f"validation_{name}": value for name, value in after.items()}})
        return self._write(original, chosen, folder, figures)

    def _method(self, original: Classifier, seed: int) -> Callable[[float], compressed.Tensors]:
        """What gives the tensors of the smaller layers for a share that stays."""
        layers = compressed.linear_layers(original.encoder)
        if self.settings.method == "int8":
            return lambda keep: compressed.quantise(layers)
        if self.settings.method == "pruning":
            return lambda keep: compressed.prune(layers, keep)
        rows = np.random.default_rng(seed).permutation(self.num_samples("train"))[:READ_TEXTS]
        return compressed.Factors(layers, lambda: self._logits(original, "train", rows)).cut

    @torch.inference_mode()
    def _logits(self, model: Classifier, split: str, samples: np.ndarray) -> np.ndarray:
        """(N, labels), in the order of `samples`."""
        logits = np.empty((len(samples), len(self.facts["labels"])))
        for index, batch in self._batches(split, samples):
            logits[index] = model.logits(batch).numpy()
        return logits

    def _batches(self, split: str, samples: np.ndarray) -> list[tuple[np.ndarray, task.Batch]]:
        """(positions in `samples`, their batch), similar lengths together."""
        tokens, rows = self.data.files[split].tokens, self.data.rows[split][samples]
        groups = by_length(tokens.lengths[rows], text_classifier.TOKENS_AT_ONCE)
        return [(index, pack(tokens, rows[index])) for index in groups]

    def _score(self, model: Classifier) -> dict[str, float]:
        """On the validation split."""
        from sklearn.metrics import accuracy_score, f1_score, log_loss

        truth = self.data.labels["validation"][self.data.rows["validation"]]
        logits = self._logits(model, "validation", np.arange(len(truth)))
        answers, labels = logits.argmax(1), np.arange(logits.shape[1])
        return {
            "accuracy": float(accuracy_score(truth, answers)),
            "macro_f1": float(f1_score(truth, answers, average="macro", labels=labels, zero_division=0.0)),
            "loss": float(log_loss(truth, softmax(logits, axis=1), labels=labels)),
        }

    def _speed(self, original: Classifier, chosen: compressed.Tensors) -> dict[str, float]:
        """Texts a second in batches, and milliseconds of a text alone; of int8 on every engine that is here."""
        own = self.settings.engine
        names = dict.fromkeys([own, *compressed.engines()]) if self.settings.method == "int8" else [own]
        models = {name: with_layers(original, chosen, name) for name in names} | {"original": original}
        rows = np.arange(min(TIMED_TEXTS, self.num_samples("validation")))
        together = texts_per_second(models, [batch for _, batch in self._batches("validation", rows)])
        single = [batch for row in rows[:TIMED_ALONE] for _, batch in self._batches("validation", np.array([row]))]
        alone = {name: 1000 / rate for name, rate in texts_per_second(models, single).items()}
        figures = {"texts_per_s": together[own], "latency_ms": alone[own]}
        figures |= {"original_texts_per_s": together["original"], "original_latency_ms": alone["original"]}
        figures["speed_ratio"] = together[own] / together["original"]
        if self.settings.method == "int8":
            figures |= {f"texts_per_s_{name}": together[name] for name in names}
            figures |= {f"latency_ms_{name}": alone[name] for name in names}
        return figures

    def _write(
        self, original: Classifier, chosen: compressed.Tensors, folder: Path, figures: Mapping[str, float]
    ) -> ModelFiles:
        compressed.save(original.encoder, chosen, folder)
        for name in ("config.json", "tokenizer.json", "head.safetensors"):
            shutil.copyfile(self.source / name, folder / name)
        own = {"recipe": "compression", "compression": self.settings.model_dump(mode="json")}
        write_json(folder / "recipe.json", {**self.facts, **own})
        inputs = tuple(self.facts["inputs"])
        libraries = ("torch", "transformers", "tokenizers", "safetensors")
        return ModelFiles(
            loader="training.recipes.compression:load_predictor",
            input_columns=inputs,
            input_example=(dict.fromkeys(inputs, "fit a random forest to the training set"),),
            libraries=(*libraries, "torchao") if self.settings.engine == "torchao" else libraries,
            figures=figures,
        )


def with_layers(original: Classifier, tensors: compressed.Tensors, engine: str) -> Classifier:
    """A copy of the classifier with the smaller layers in place."""
    model = copy.deepcopy(original)
    compressed.put_in(model.encoder, tensors, engine)
    return model


def load_predictor(folder: Path) -> text_classifier.LabelPredictor:
    engine = read_json(folder / "recipe.json")["compression"]["engine"]
    return text_classifier.LabelPredictor(folder, lambda folder: compressed.load(folder, engine))
