"""How well a language model foretells unseen text: loss a token, perplexity, bits a character, beside n-grams.

Each text is cut into passages of PASSAGE characters. A passage is a row: what its tokens cost together. So the
intervals are over passages, not over tokens, which depend on their neighbours; and two models that cut the text into
other tokens or blocks are still compared on the same rows, by bits a character. A text's first token is not foretold.

The model also goes on from the beginnings of some passages, which the page shows and the package has to repeat.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from infra.errors import WrongInput
from training.evaluation import TEXT_CHARS, Asked, Kind, Say, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

PASSAGE = 1000
"""Characters."""
PROMPTS = 16
"""Passages from whose beginning the model goes on."""
ORDER = 8
"""Longest n-gram tried."""
HELD_OUT = 0.1
"""Of the training tokens: what an order is chosen on where the validation split is what is judged."""


class LanguageModel(Protocol):
    """What such an evaluation asks of a predictor, beside its answers: `label`, the text as it goes on."""

    vocabulary: int
    """How many tokens there are."""
    longest_prompt: int
    """Tokens."""

    def encode(self, texts: Sequence[str]) -> "list[tuple[np.ndarray, np.ndarray]]":
        """Of each text its token ids (n,) and the character at which each begins (n,)."""

    def surprisals(self, ids: "Sequence[np.ndarray]") -> "list[np.ndarray]":
        """Of each text, given as token ids (n,), what each token but the first costs: (n - 1,) nats."""

    def answerable(self, prompt: str) -> bool:
        """Whether it would go on from that."""


def _a_token(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    return (block @ columns["nats"]) / (block @ columns["tokens"])


def _perplexity(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.exp(_a_token(columns, block))


def _bits(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return (block @ columns["nats"]) / (block @ columns["characters"]) / np.log(2)


def _metric(title: str, shared: str, weighted: Any) -> Metric:
    return Metric(
        title=title,
        columns=("nats", shared),
        shared=(shared,),
        higher_is_better=False,
        share=False,
        mean=False,
        weighted=weighted,
        compared=True,
    )


class LanguageModelling(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": _metric("loss in nats a token", "tokens", _a_token),
        "perplexity": _metric("perplexity", "tokens", _perplexity),
        "bits_per_character": _metric("bits a character", "characters", _bits),
    }
    splits = ("test", "validation")
    rows = "passages"
    baseline = "a model that counts n-grams"
    advice = "more text, a larger model, more steps"

    def hub_task(self, reads: str) -> str:
        return "text-generation"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        if len(asked.inputs) != 1:
            raise WrongInput(f"contract: slipway.inputs names {len(asked.inputs)} columns; a language model reads one")
        model: LanguageModel = asked.predictor
        texts = {name: _texts(table, asked.inputs[0]) for name, table in asked.splits.items()}
        say(0, "tokens")
        encoded = {name: model.encode(part) for name, part in texts.items()}
        own = encoded[asked.split]
        say(0.2, f"the {asked.split} split's loss")
        nats = model.surprisals([ids for ids, _ in own])
        say(0.5, "n-grams")
        counting = _ngrams(encoded, asked.split, model.vocabulary)
        judged = _passages(asked.judged["row_id"].to_pylist(), texts[asked.split], own)
        if not judged["row_id"]:
            raise ValueError(f"{asked.split} split of {asked.dataset}: no text of two tokens")
        costs = {
            "nats": np.concatenate(nats),
            "baseline_nats": np.concatenate(counting["nats"]),
            "unigram": np.concatenate(counting["unigram"]),
        }
        summed = {name: np.bincount(judged["of"], cost) for name, cost in costs.items()}
        results = {name: {**judged["counts"], "nats": summed[name]} for name in costs}
        say(0.7, "going on from the beginnings of some passages")
        prompts, going_on = _continued(asked, texts[asked.split], own, judged)
        say(0.9, "intervals")
        body = {
            "task": "language_modelling",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(judged["row_id"]),
            "texts": len(own),
            "tokens": int(judged["counts"]["tokens"].sum()),
            "characters": int(judged["counts"]["characters"].sum()),
            "model": self._figures(results["nats"]),
            "baseline": {**counting["about"], **self._figures(results["baseline_nats"])},
            "majority": {"label": "token frequencies alone", **self._figures(results["unigram"])},
            "difference": {
                name: compare(name, results["nats"], results["baseline_nats"]).to_json() for name in self.compared
            },
        }
        columns = {
            "row_id": judged["row_id"],
            "tokens": judged["counts"]["tokens"],
            "characters": judged["counts"]["characters"],
            "nats": summed["nats"],
            "baseline_nats": summed["baseline_nats"],
            "prompt": pa.array(prompts, pa.string()),
            "prediction": pa.array([one and one["label"] for one in going_on], pa.string()),
            "confidence": pa.array([one and one["confidence"] for one in going_on], pa.float64()),
            "text": pa.array([text[:TEXT_CHARS] for text in judged["text"]], pa.string()),
        }
        return write(folder, body, columns)

    def _figures(self, results: Mapping[str, Any]) -> dict[str, Any]:
        return {name: estimate(name, results).to_json() for name in self.compared}


KIND = LanguageModelling()


def _texts(table: "pyarrow.Table", column: str) -> list[str]:
    return [text or "" for text in table[column].to_pylist()]


def _passages(
    row_ids: Sequence[str], texts: Sequence[str], encoded: "Sequence[tuple[np.ndarray, np.ndarray]]"
) -> dict[str, Any]:
    """row_id, text and begin (text number, token number) of each passage in which a token is foretold; counts: its
    tokens and their characters; of: the passage of every token that is foretold, the texts end to end."""
    import numpy as np

    found: dict[str, list[Any]] = {"row_id": [], "text": [], "begin": [], "of": [], "characters": []}
    for number, (row_id, text, (_, starts)) in enumerate(zip(row_ids, texts, encoded, strict=True)):
        if len(starts) < 2:
            continue
        passage, first, of = np.unique(starts[1:] // PASSAGE, return_index=True, return_inverse=True)
        found["of"].append(of + len(found["row_id"]))
        found["characters"].append(np.diff(np.append(starts[1:], len(text))))
        found["row_id"] += [f"{row_id}:{one}" for one in passage]
        found["text"] += [text[one * PASSAGE : (one + 1) * PASSAGE] for one in passage]
        found["begin"] += [(number, int(token) + 1 if one else 0) for one, token in zip(passage, first, strict=True)]
    empty = np.empty(0, np.int64)
    of = np.concatenate([empty, *found["of"]])
    counts = {
        "tokens": np.bincount(of, minlength=len(found["row_id"])),
        "characters": np.bincount(of, np.concatenate([empty, *found["characters"]])).astype(np.int64),
    }
    return {**{name: found[name] for name in ("row_id", "text", "begin")}, "of": of, "counts": counts}


def _ngrams(
    encoded: "Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]", split: str, vocabulary: int
) -> dict[str, Any]:
    """nats, unigram: what each token but a text's first costs, a text each; about: what a page says of the baseline."""
    import numpy as np

    from training.ngrams import surprisals

    tokens = {name: [ids for ids, _ in part] for name, part in encoded.items()}

    def costs(train: "Sequence[np.ndarray]", texts: "Sequence[np.ndarray]") -> "list[np.ndarray]":
        ends = np.cumsum([len(text) for text in texts])[:-1]
        return [part[:, 1:] for part in np.split(surprisals(train, texts, vocabulary, ORDER), ends, axis=1)]

    chosen_on, train, held_out = "the validation split", tokens["train"], tokens["validation"]
    if split == "validation" or not held_out:
        chosen_on = "the last tenth of each training text"
        cuts = [round((1 - HELD_OUT) * len(text)) for text in train]
        held_out = [text[cut:] for text, cut in zip(train, cuts, strict=True)]
        train = [text[:cut] for text, cut in zip(train, cuts, strict=True)]
    tried = np.concatenate(costs(train, held_out), axis=1).mean(1)
    order = int(tried.argmin()) + 1
    own = costs(tokens["train"], tokens[split])
    return {
        "nats": [part[order - 1] for part in own],
        "unigram": [part[0] for part in own],
        "about": {
            "name": f"interpolated {order}-grams",
            "settings": {"order": order, "smoothing": "Witten-Bell"},
            "tried": [{"order": place + 1, "loss": float(value)} for place, value in enumerate(tried)],
            "chosen_on": chosen_on,
        },
    }


def _continued(
    asked: Asked, texts: Sequence[str], encoded: "Sequence[tuple[np.ndarray, np.ndarray]]", judged: Mapping[str, Any]
) -> tuple[list[str | None], list[dict[str, Any] | None]]:
    """Of every passage the prompt it was gone on from and the answer; of most neither."""
    model: LanguageModel = asked.predictor
    rows = len(judged["row_id"])
    prompts: list[str | None] = [None] * rows
    answers: list[dict[str, Any] | None] = [None] * rows
    for turn in range(min(PROMPTS, rows)):
        row = turn * rows // min(PROMPTS, rows)
        number, begin = judged["begin"][row]
        ids, starts = encoded[number]
        end = min(begin + max(1, model.longest_prompt // 2), len(ids) - 1)
        prompt = texts[number][starts[begin] : starts[end]]
        if end > begin and model.answerable(prompt):
            prompts[row] = prompt
    places = [row for row, prompt in enumerate(prompts) if prompt is not None]
    going_on = model([{asked.inputs[0]: prompts[row]} for row in places])  # type: ignore[operator]
    for row, one in zip(places, going_on, strict=True):
        answers[row] = one
    return prompts, answers
