"""How well pictures find their captions and captions their pictures, beside chance and a linear map; and, where rows
have a class, how often the model names it from texts alone.

Recall@k: the share of queries whose own partner is among the k nearest (Hodosh, Young & Hockenmaier, "Framing image
description as a ranking task", JAIR 47, 2013, §4). A picture competes with the other distinct captions; a caption's
picture with those of rows that say something else, so that a picture of the same caption is no mistake. Of equals, the
one to find comes last. Intervals are over rows, as if each were drawn on its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from infra.errors import WrongInput
from training.evaluation import TEXT_CHARS, Asked, Kind, Picture, Say, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow

DEPTHS = (1, 5, 10)
WAYS = {"image_to_text": "picture to caption", "text_to_image": "caption to picture"}
ALPHAS = (1.0, 10.0, 100.0)
"""Tried for the linear map: penalties on its weights, pixels in 0..1."""
PIXELS = 28
"""Side of the pictures that the linear map sees at most."""
WORDS = 4096
"""Of the captions, the most frequent, that the linear map foretells at most."""
BLOCK = 512
"""Queries compared with all candidates at once."""


class ImageRetrieval(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        **{
            f"{way}_recall_at_{depth}": Metric(
                title=f"{words} recall@{depth}", columns=(f"{way}_at_{depth}",), compared=True
            )
            for depth in DEPTHS
            for way, words in WAYS.items()
        },
        "zero_shot_accuracy": Metric(title="zero-shot accuracy", columns=("zero_shot",)),
    }
    rows = "pairs"
    baseline = "a linear map from pixels to the captions' words"
    advice = "more pairs, a larger tower, or a text tower pretrained on much more text (--set base=PATH)"

    def hub_task(self, reads: str) -> str:
        return "zero-shot-image-classification"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np

        image, caption = _columns(asked)
        table, predictor = asked.judged, asked.predictor
        if not table.num_rows:
            raise ValueError(f"{asked.split} split of {asked.dataset}: has no row")
        texts = table[caption].to_pylist()
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        numbers = np.array([place[text] for text in texts])
        say(0, f"embedding {table.num_rows:,} pictures")
        rows = asked.rows(table)
        pictures = [row[image] for row in rows]
        vectors = predictor.embed_images(pictures)
        words = predictor.embed_texts(distinct)
        say(0.4, "ranking")
        ranks = rank_both(vectors, words, numbers)
        say(0.5, "fitting the linear map")
        linear = fit_linear(asked, image, caption, min(PIXELS, predictor.settings.image_size))
        flat = linear.embed_images(table)
        theirs = rank_both(flat, linear.embed_texts(distinct), numbers)
        say(0.8, "intervals")
        results = {"model": found_within(ranks), "baseline": found_within(theirs)}
        model = {name: estimate(name, results["model"]).to_json() for name in self.compared}
        baseline = {name: estimate(name, results["baseline"]).to_json() for name in self.compared}
        restated = False
        if asked.label is not None:
            truth = [str(label) for label in table[asked.label].to_pylist()]
            restated = len({*zip(texts, truth, strict=True)}) == len(distinct) <= len(set(truth))
            for results_of, told, embedded in (
                (results["model"], model, (vectors, predictor.embed_labels(predictor.labels))),
                (
                    results["baseline"],
                    baseline,
                    (flat, linear.embed_labels(predictor.labels, predictor.settings.prompts)),
                ),
            ):
                best = (embedded[0] @ embedded[1].T).argmax(1)
                right = [predictor.labels[one] == label for one, label in zip(best, truth, strict=True)]
                results_of["zero_shot"] = np.array(right, float)
                told["zero_shot_accuracy"] = estimate("zero_shot_accuracy", results_of).to_json()
        say(0.9, "answering")
        answers = predictor(rows)
        body = {
            "task": "image_retrieval",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(texts),
            "captions": len(distinct),
            "restated": restated,
            "model": model,
            "baseline": {"name": "ridge regression", "settings": linear.settings, "tried": linear.tried, **baseline},
            "majority": {"label": "a guess", **self.chance(numbers, asked, predictor)},
            "difference": {
                name: compare(name, results["model"], results["baseline"]).to_json() for name in self.compared
            },
        }
        columns = {
            "row_id": table["row_id"],
            **{f"{way}_rank": rank for way, rank in ranks.items()},
            **results["model"],
            **{f"baseline_{name}": column for name, column in results["baseline"].items()},
            "prediction": [one["label"] for one in answers],
            "confidence": [float(one["confidence"]) for one in answers],
            "text": [text[:TEXT_CHARS] for text in texts],
        }
        say(0.95, "drawing")
        return write(folder, body, columns, draw(pictures, texts, numbers, distinct, vectors, words, ranks))

    def chance(self, numbers: "np.ndarray", asked: Asked, predictor: Any) -> dict[str, dict[str, float]]:
        """What a random order reaches: k of the candidates are looked at."""
        import numpy as np

        counts = np.bincount(numbers)
        candidates = {
            "image_to_text": np.full(len(numbers), len(counts)),
            "text_to_image": 1 + len(numbers) - counts[numbers],
        }
        found = {
            f"{way}_recall_at_{depth}": float(np.minimum(1, depth / candidates[way]).mean())
            for depth in DEPTHS
            for way in WAYS
        }
        if asked.label is not None:
            found["zero_shot_accuracy"] = 1 / len(predictor.labels)
        return {name: {"value": value, "low": value, "high": value} for name, value in found.items()}


KIND = ImageRetrieval()


def _columns(asked: Asked) -> tuple[str, str]:
    texts = [name for name in asked.inputs if name not in asked.images]
    if len(asked.images) != 1 or len(texts) != 1:
        raise WrongInput(
            f"contract: slipway.inputs is {', '.join(asked.inputs)}; image_retrieval judges a picture and its caption"
        )
    return asked.images[0], texts[0]


def rank_both(images: "np.ndarray", texts: "np.ndarray", numbers: "np.ndarray") -> "dict[str, np.ndarray]":
    """The rank, from 1, of each row's own partner, both ways.

    images: (N, D), texts: (captions, D), rows of length 1; numbers: (N,) the caption of each row."""
    import numpy as np

    ranks: dict[str, list[Any]] = {way: [] for way in WAYS}
    for begin in range(0, len(images), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(images)))
        own = (images[rows] * texts[numbers[rows]]).sum(1)[:, None]
        ranks["image_to_text"].append(_place(images[rows] @ texts.T, own, np.arange(len(texts)) == numbers[rows, None]))
        ranks["text_to_image"].append(_place(texts[numbers[rows]] @ images.T, own, numbers == numbers[rows, None]))
    return {way: np.concatenate(found) for way, found in ranks.items()}


def _place(scores: "np.ndarray", own: "np.ndarray", same: "np.ndarray") -> "np.ndarray":
    """scores: (n, candidates); same: those that are its own, or say the same. Returns (n,) ranks from 1."""
    # Sums of one product in another order differ by rounding: what is as near as that counts as equal.
    return 1 + ((scores >= own - 1e-6) & ~same).sum(1)


def found_within(ranks: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
    return {f"{way}_at_{depth}": (ranks[way] <= depth).astype(float) for depth in DEPTHS for way in WAYS}


class Linear:
    """Ridge regression of the captions' words (TF-IDF) on pixels: Hodosh et al. 2013 show how far linear maps go."""

    def __init__(self, vectorizer: Any, ridge: Any, column: str, size: int, channels: int):
        self.vectorizer, self.ridge = vectorizer, ridge
        self.column, self.size, self.channels = column, size, channels
        self.tried: list[dict[str, Any]] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {"alpha": self.ridge.alpha, "pixels": self.size}

    def embed_images(self, table: "pyarrow.Table") -> "np.ndarray":
        from training.siamese import unit_length

        return unit_length(self.ridge.predict(_flat(table, self.column, self.size, self.channels)))

    def embed_texts(self, texts: "Sequence[str]") -> "np.ndarray":
        return self.vectorizer.transform(texts).toarray()

    def embed_labels(self, labels: "Sequence[str]", prompts: "Sequence[str]") -> "np.ndarray":
        from training.siamese import unit_length

        texts = [prompt.replace("{label}", label) for label in labels for prompt in prompts]
        return unit_length(self.embed_texts(texts).reshape(len(labels), len(prompts), -1).mean(1))


def fit_linear(asked: Asked, image: str, caption: str, size: int) -> Linear:
    """The one of the ALPHAS that finds most captions of the validation split; the middle one where there is none."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    channels = asked.predictor.settings.channels
    train, validation = asked.splits["train"], asked.splits["validation"]
    vectorizer = TfidfVectorizer(dtype=np.float32, token_pattern=r"\w+", max_features=WORDS).fit(
        train[caption].to_pylist()
    )
    pixels = _flat(train, image, size, channels)
    words = vectorizer.fit_transform(train[caption].to_pylist()).toarray()
    distinct, numbers = np.unique(np.array(validation[caption].to_pylist(), object), return_inverse=True)
    tried, fits = [], []
    for alpha in ALPHAS if validation.num_rows else ALPHAS[1:2]:
        one = Linear(vectorizer, Ridge(alpha).fit(pixels, words), image, size, channels)
        reached = 0.0
        if validation.num_rows:
            ranks = rank_both(one.embed_images(validation), one.embed_texts(distinct.tolist()), numbers)
            reached = float((1 / ranks["image_to_text"]).mean())
        tried.append({"alpha": alpha, "reciprocal_rank": reached})
        fits.append((reached, one))
    best = max(fits, key=lambda fit: fit[0])[1]
    best.tried = tried
    return best


def _flat(table: "pyarrow.Table", column: str, size: int, channels: int) -> "np.ndarray":
    """(N, pixels) float32 in 0..1"""
    import numpy as np

    from training.images import table_images

    pixels = table_images(table, column, size, channels)
    return (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)


def extremes(ranks: "dict[str, np.ndarray]", cosines: "np.ndarray", numbers: "np.ndarray") -> "dict[str, np.ndarray]":
    """`best` and `worst`: rows by their ranks both ways, of equal ones by how near the pair is; one row a caption."""
    import numpy as np

    order = np.lexsort((-cosines, ranks["text_to_image"] + ranks["image_to_text"]))
    ordered = {"best": order, "worst": order[::-1]}
    return {
        name: rows[np.sort(np.unique(numbers[rows], return_index=True)[1])][:CASES] for name, rows in ordered.items()
    }


SHOWN = 12
"""Pairs of the matrix."""
CASES = 6
"""Of the best, and of the worst."""
NEIGHBOURS = 5


def draw(
    pictures: "Sequence[np.ndarray]",
    texts: "Sequence[str]",
    numbers: "np.ndarray",
    distinct: "Sequence[str]",
    vectors: "np.ndarray",
    words: "np.ndarray",
    ranks: "dict[str, np.ndarray]",
) -> list[Picture]:
    """How near some pictures and captions are; the best and the worst cases, each the pair's own picture and those that
    its caption found. pictures: (H, W) or (H, W, C) uint8; the rest as `rank_both` has it."""
    import numpy as np

    from training.images import read_image
    from training.picture_grid import png_grid
    from training.retrieval_matrix import draw_matrix

    firsts = np.unique(numbers, return_index=True)[1]
    chosen = firsts[np.linspace(0, len(firsts) - 1, min(SHOWN, len(firsts))).round().astype(int)]
    cosines = vectors[chosen] @ words[numbers[chosen]].T

    def shown(row: int) -> np.ndarray:
        return read_image(pictures[row], max(pictures[row].shape[:2]), 3)  # what is transparent on white

    matrix = draw_matrix([shown(row) for row in chosen], [texts[row] for row in chosen], cosines)
    found = [Picture("retrieval_matrix", "How near some pictures and captions are; framed, the pairs", matrix)]
    for name, cases in extremes(ranks, (vectors * words[numbers]).sum(1), numbers).items():
        rows, captions, titles = [], [], []
        for row in cases:
            scores = words[numbers[row]] @ vectors.T
            nearest = np.argsort(-scores, kind="stable")[:NEIGHBOURS]
            said = [distinct[one] for one in np.argsort(-(words @ vectors[row]), kind="stable")[:3]]
            rows.append([shown(row), *(shown(one) for one in nearest)])
            captions.append([texts[row], *(texts[one] for one in nearest)])
            own, other = (int(ranks[way][row]) for way in ("text_to_image", "image_to_text"))
            titles.append(
                f"picture at place {own} of its caption, caption at place {other}; nearest: {'; '.join(said)}"
            )
        title = f"The {name} cases: a picture, and the nearest to its caption"
        found.append(Picture(name, title, png_grid(rows, captions, titles, side=88)))
    return found
