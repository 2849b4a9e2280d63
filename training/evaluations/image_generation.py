"""How well a model of pictures foretells and draws: loss of codes and captions on unseen rows; what a judge, that is a
classifier trained apart, sees in what was drawn; whether pictures are completed to what they were, and are no copies.

A row is an unseen picture with its caption. For each, pictures are drawn by its caption alone, about DRAWN in all, and
the picture is completed from its upper rows. Not copies: the distance of what was drawn to the nearest training picture
(root mean square of pixels, 0 to 1) is laid beside that of unseen pictures, these as the codebook gives them back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from training.evaluation import TEXT_CHARS, Asked, Kind, Picture, Say, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

JUDGED = 1000
"""Rows at most, spread evenly over the split."""
DRAWN = 1000
"""Pictures, at least one a row."""
RERANKED = 200
"""Rows of which `candidates` pictures are drawn for clip to choose from."""
CANDIDATES = 8
"""Of those, where the model's settings name fewer."""
PROMPTS = 16
"""Captions whose answer the package has to repeat."""


class Generator(Protocol):
    """What such an evaluation asks of a predictor, beside its answers: `label`, the digest of the picture's codes."""

    codebook: Any
    """training.codebook.Codebook"""
    task: Any
    """training.image_tokens.ImageLanguageModel"""
    settings: Mapping[str, Any]
    caption: str
    """The column of captions; empty: it reads none, and only completes."""
    judge: Any
    """A classifier's predictor, or None."""
    clip: Any
    """Embeds pictures and texts, or None."""

    def tokens(self, captions: Sequence[str]) -> "list[np.ndarray]": ...
    def draw(self, texts: "Sequence[np.ndarray]", names: Sequence[str], asked: Mapping[str, Any]) -> Any: ...
    def given(self, pixels: "np.ndarray") -> "np.ndarray": ...
    def complete(
        self, pixels: "np.ndarray", names: Sequence[str], asked: Mapping[str, Any], texts: "Sequence[np.ndarray]" = ()
    ) -> Any: ...


def _a_token(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    return (block @ columns["text_nats"]) / (block @ columns["text_tokens"])


class ImageGeneration(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "image_loss": Metric(
            title="loss in nats a code", columns=("image_nats",), higher_is_better=False, share=False, compared=True
        ),
        "text_loss": Metric(
            title="loss in nats a token of the caption",
            columns=("text_nats", "text_tokens"),
            shared=("text_tokens",),
            higher_is_better=False,
            share=False,
            mean=False,
            weighted=_a_token,
        ),
        "judge_agreement": Metric(title="pictures in which the judge sees what was asked", columns=("named",)),
        "completion_agreement": Metric(
            title="completed pictures in which the judge sees what they were", columns=("completed",)
        ),
        "copies": Metric(
            title="pictures nearer to a training picture than 95 % of unseen ones",
            columns=("copied",),
            higher_is_better=False,
        ),
    }
    splits = ("test", "validation")
    rows = "pictures"
    baseline = "a model that counts the codes at each place"
    advice = "more pictures, a larger model, more steps, or a codebook with fewer codes"

    def hub_task(self, reads: str) -> str:
        return "text-to-image" if reads == "image-caption" else "image-to-image"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        from training.code_frequencies import frequencies
        from training.copies import nearness

        model: Generator = asked.predictor
        (image,) = asked.images
        book = model.codebook
        if not asked.judged.num_rows:
            raise ValueError(f"{asked.split} split of {asked.dataset}: has no row")
        every = np.linspace(0, asked.judged.num_rows - 1, min(JUDGED, asked.judged.num_rows)).round().astype(int)
        tables = {**asked.splits, asked.split: asked.judged.take(every)}
        say(0, "codes")
        pixels = {name: _pixels(table, image, book) for name, table in tables.items()}
        codes = {name: _codes(book, part) for name, part in pixels.items()}
        own, captions = tables[asked.split], _texts(tables[asked.split], model.caption)
        texts = model.tokens(captions)
        say(0.2, f"the {asked.split} split's loss")
        nats, text_nats = _surprisals(model, texts, codes[asked.split])
        said = {name: _texts(table, model.caption) for name, table in tables.items()}
        counted = frequencies(said, codes, asked.split, book.codes)
        results: dict[str, Any] = {"image_nats": nats.mean(1)}
        if model.caption:
            results |= {"text_nats": text_nats, "text_tokens": np.array([len(one) - 1 for one in texts])}
        say(0.3, "drawing")
        settings = {**model.settings, "samples": 1}
        drawn = _draw(model, captions, texts, settings)
        labels = own[asked.label].to_pylist() if asked.label and model.judge else None
        say(0.5, "completing")
        names = _completion_names(pixels[asked.split])
        completed, given_codes, shares = model.complete(
            pixels[asked.split], names, settings, texts if model.caption else ()
        )
        real: dict[str, Any] = {}
        if labels is not None:
            say(0.6, "asking the judge")
            results["completed"] = _seen(model.judge, completed, labels)
            known = {"named": _seen(model.judge, pixels[asked.split], labels)}
            real = {"real": estimate("judge_agreement", known).to_json()}
            real["chance"] = 1 / len(getattr(model.judge, "labels", set(labels)))
            if drawn is not None:
                seen = _seen(model.judge, drawn["pictures"], [labels[row] for row in drawn["of"]])
                results["named"] = np.bincount(drawn["of"], seen) / np.bincount(drawn["of"])
        say(0.7, "looking for copies")
        near: dict[str, Any] = {}
        shown = _pictures(model, captions, pixels[asked.split], completed, drawn)
        pictures, of = (drawn["pictures"], drawn["of"]) if drawn else (completed, np.arange(len(completed)))
        if len(pixels["train"]):
            made = drawn["codes"] if drawn else given_codes
            near, distances, which = nearness(book, pixels, codes, asked.split, pictures, made)
            results["copied"] = np.bincount(of, distances < near["copies_below"]) / np.bincount(of)
            shown.append(_beside_nearest(pictures, pixels["train"], distances, which))
        say(0.8, "choosing by clip")
        chosen = _reranked(model, captions, texts, labels, settings) if model.clip and labels is not None else None
        say(0.9, "intervals")
        baseline = {"image_nats": counted["nats"]}
        body = {
            "task": "image_generation",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(every),
            "drawn": len(pictures),
            "codebook": book.digest,
            "model": {name: estimate(name, results).to_json() for name in self._there(results)},
            "baseline": {**counted["about"], "image_loss": estimate("image_loss", baseline).to_json()},
            "majority": {
                "label": "code frequencies alone",
                "image_loss": estimate("image_loss", {"image_nats": counted["unigram"]}).to_json(),
            },
            "difference": {"image_loss": compare("image_loss", results, baseline).to_json()},
            **({"judge": real} if real else {}),
            **({"nearest": near} if near else {}),
            **({"reranking": chosen} if chosen else {}),
        }
        asks = _prompts(captions) if model.caption else {}
        answers = dict(zip(asks, asked.predictor([{model.caption: text} for text in asks.values()]), strict=True))
        columns = {
            "row_id": own["row_id"],
            **results,
            "baseline_image_nats": counted["nats"],
            **_answered(asks, answers, given_codes, shares),
            "text": pa.array([text[:TEXT_CHARS] for text in captions], pa.string()),
        }
        return write(folder, body, columns, shown)

    def _there(self, results: Mapping[str, Any]) -> list[str]:
        """The metrics whose columns there are: without captions or a judge some cannot be told."""
        return [name for name, metric in self.metrics.items() if all(column in results for column in metric.columns)]


KIND = ImageGeneration()


def _pixels(table: "pyarrow.Table", column: str, book: Any) -> "np.ndarray":
    from training.images import table_images

    return table_images(table, column, book.image_size, book.channels)


def _codes(book: Any, pixels: "np.ndarray") -> "np.ndarray":
    from training.image_tokens import encode_pictures

    return encode_pictures(book, pixels)


def _texts(table: "pyarrow.Table", column: str) -> list[str]:
    return [text or "" for text in table[column].to_pylist()] if column else [""] * table.num_rows


def _surprisals(
    model: Generator, texts: "Sequence[np.ndarray]", codes: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray]":
    from training.image_tokens import as_tokens

    found: tuple[np.ndarray, np.ndarray] = model.task.surprisals(as_tokens(texts), codes)
    return found


def _draw(
    model: Generator, captions: Sequence[str], texts: "Sequence[np.ndarray]", settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """pictures, codes, and the row of each (`of`), by captions alone; None for a model that reads none."""
    import numpy as np

    if not model.caption:
        return None
    of = np.repeat(np.arange(len(captions)), -(-DRAWN // len(captions)))
    rows = of.tolist()
    pictures, codes, _ = model.draw([texts[row] for row in rows], _numbered([captions[row] for row in rows]), settings)
    return {"pictures": pictures, "codes": codes, "of": of}


def _numbered(captions: Sequence[str]) -> list[str]:
    """Names of drawn pictures, the first of a caption, the second of it ..."""
    seen: dict[str, int] = {}
    names = []
    for caption in captions:
        names.append(f"{caption}/{seen.get(caption, 0)}")
        seen[caption] = seen.get(caption, 0) + 1
    return names


def _completion_names(pixels: "np.ndarray") -> list[str]:
    """As a request for the same picture names what is drawn."""
    from infra.digests import digest_bytes

    return [f"{digest_bytes(picture.tobytes())}/0" for picture in pixels]


def _seen(judge: Any, pictures: "np.ndarray", labels: Sequence[Any]) -> "np.ndarray":
    """(N,) whether the judge gives each picture its label."""
    import numpy as np

    column = getattr(judge, "image", "image")
    answers = judge([{column: picture} for picture in pictures])
    return np.array([str(one["label"]) == str(label) for one, label in zip(answers, labels, strict=True)], float)


def _reranked(
    model: Generator,
    captions: Sequence[str],
    texts: "Sequence[np.ndarray]",
    labels: Sequence[Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """How often the judge agrees with the picture that clip likes best, and with any of them: paired by row."""
    import numpy as np

    count = max(CANDIDATES, settings["candidates"])
    rows = np.linspace(0, len(captions) - 1, min(RERANKED, len(captions))).round().astype(int)
    of = np.repeat(rows, count)
    names = [f"reranking/{row}/{number}" for row in rows for number in range(count)]
    pictures, _, _ = model.draw([texts[row] for row in of], names, settings)
    right = _seen(model.judge, pictures, [labels[row] for row in of]).reshape(-1, count)
    fits = (
        model.clip.embed_images(list(pictures)).reshape(len(rows), count, -1)
        @ model.clip.embed_texts([captions[row] for row in rows])[:, :, None]
    )
    best = fits[:, :, 0].argmax(1)
    without, chosen = {"named": right.mean(1)}, {"named": right[np.arange(len(rows)), best]}
    return {
        "rows": len(rows),
        "candidates": count,
        "without": estimate("judge_agreement", without).to_json(),
        "with": estimate("judge_agreement", chosen).to_json(),
        "difference": compare("judge_agreement", chosen, without).to_json(),
    }


def _prompts(captions: Sequence[str]) -> dict[int, str]:
    """Row -> caption, of some captions that differ and say something."""
    first = {caption: row for row, caption in reversed(list(enumerate(captions))) if caption.strip()}
    return {row: captions[row] for row in sorted(first.values())[:PROMPTS]}


def _answered(
    asks: Mapping[int, str], answers: Mapping[int, Mapping[str, Any]], codes: "np.ndarray", shares: "np.ndarray"
) -> dict[str, Any]:
    """prompt, prediction and confidence of what the package has to repeat: the captions asked; without captions, every
    completion."""
    import pyarrow as pa

    from training.drawing import answer_of

    if not asks:
        found = [answer_of(*pair) for pair in zip(codes, shares, strict=True)]
        return {
            name: [one[key] for one in found] for name, key in (("prediction", "label"), ("confidence", "confidence"))
        }
    rows = range(len(codes))
    return {
        "prompt": pa.array([asks.get(row) for row in rows], pa.string()),
        "prediction": pa.array([answers[row]["label"] if row in answers else None for row in rows], pa.string()),
        "confidence": pa.array([answers[row]["confidence"] if row in answers else None for row in rows], pa.float64()),
    }


SHOWN = (10, 8)
"""Rows and columns of a page of pictures."""


def _pictures(
    model: Generator,
    captions: Sequence[str],
    originals: "np.ndarray",
    completed: "np.ndarray",
    drawn: Mapping[str, Any] | None,
) -> list[Picture]:
    """Captions and what was drawn by them; what was given, completed and the original."""
    from training.picture_grid import png_grid

    lines, wide = SHOWN
    found = []
    if drawn is not None:
        by_caption: dict[str, list[Any]] = {}
        for row, picture in zip(drawn["of"], drawn["pictures"], strict=True):
            by_caption.setdefault(captions[row], []).append(picture)
        kept = sorted(sorted(by_caption, key=lambda one: -len(by_caption[one]))[:lines])
        body = png_grid([by_caption[caption][:wide] for caption in kept], titles=kept)
        found.append(Picture("drawn", "Drawn by captions alone", body))
    given = model.given(originals[: 2 * lines])
    triples = [[given[row], completed[row], originals[row]] for row in range(len(given))]
    rows = [[one for triple in triples[begin : begin + 2] for one in triple] for begin in range(0, len(triples), 2)]
    told = [["given", "completed", "original"] * (len(row) // 3) for row in rows]
    return [*found, Picture("completed", "Completed from the upper rows", png_grid(rows, captions=told))]


def _beside_nearest(
    pictures: "np.ndarray", train: "np.ndarray", distances: "np.ndarray", which: "np.ndarray"
) -> Picture:
    """The pictures that are nearest to a training picture, each with that one at its right."""
    import numpy as np

    from training.picture_grid import png_grid

    worst = np.argsort(distances, kind="stable")[: SHOWN[0] * 4]
    cells = [(pictures[one], train[which[one]], distances[one]) for one in worst]
    rows = [cells[begin : begin + 4] for begin in range(0, len(cells), 4)]
    told = [[text for cell in row for text in (f"apart {cell[2]:.3f}", "training")] for row in rows]
    body = png_grid([[one for cell in row for one in cell[:2]] for row in rows], captions=told)
    return Picture("nearest", "Of those drawn the nearest to training pictures, each beside its training picture", body)
