"""How much of a picture is left when it went through an autoencoder, beside PCA with as many numbers or as many bits.

The error is the squared error of pixel values from 0 to 1, the mean over a picture, of pictures as whole bytes. A VAE
has a bound of the likelihood too (ELBO), held against the likelihood under probabilistic PCA of as many components
(Tipping & Bishop, JRSS B 61(3), 1999), which is what a linear VAE comes to (Lucas et al., NeurIPS 2019). Of a codebook
the perplexity of its use is told: exp(entropy), over its size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from training.evaluation import Asked, Kind, Picture, Say, write
from training.intervals import compare, estimate
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np

ASKED = 64
"""Rows that the model answers as a request: what the package has to repeat."""
SHOWN = 12
"""Pictures in a row."""


class Codec(Protocol):
    """What such an evaluation asks of a predictor, beside its answers; and either `width`, how many numbers a picture
    becomes, or `codebook` (training.codebook.Codebook) with `bits`, of a picture."""

    column: str
    image_size: int
    channels: int

    def encode(self, pixels: "np.ndarray") -> "np.ndarray": ...

    def decode(self, codes: "np.ndarray") -> "np.ndarray":
        """(n, H, W, C) uint8"""

    def bound(self, pixels: "np.ndarray") -> "np.ndarray | None":
        """The ELBO of each picture in nats, (n,), as a density of pixels from 0 to 1; None where there is none."""

    def pictures(self, pixels: "np.ndarray") -> list[Picture]:
        """What there is to see of the model beside reconstructions."""


def _perplexity(columns: "Mapping[str, np.ndarray]", block: "np.ndarray") -> "np.ndarray":
    """As a share of how many codes there are. codes: (N, places); block: (B, N), how often each row was drawn."""
    import numpy as np

    codes, size = columns["codes"].astype(np.int64), int(columns["codebook_size"][0])
    rows = np.arange(len(codes))[:, None] * size
    uses = np.bincount((rows + codes).reshape(-1), minlength=len(codes) * size).reshape(len(codes), size)
    # Floating point, exact at such counts: numpy multiplies matrices of integers without BLAS, in minutes.
    shares = (block.astype(float) @ uses.astype(float)) / (block.sum(1, keepdims=True) * codes.shape[1])  # (B, codes)
    nats = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    return np.exp(nats) / size


class Reconstruction(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "reconstruction_error": Metric(
            title="reconstruction error",
            columns=("squared_error",),
            higher_is_better=False,
            share=False,
            compared=True,
        ),
        "elbo": Metric(title="ELBO in nats a picture", columns=("elbo",), share=False),
        "codebook_use": Metric(
            title="codebook perplexity as a share of its size",
            columns=("codes", "codebook_size"),
            mean=False,
            weighted=_perplexity,
        ),
    }
    splits = ("test", "validation")
    rows = "pictures"
    baseline = "a linear code of the same size"
    advice = "more pictures, more steps, wider layers, or a larger code"

    def hub_task(self, reads: str) -> str:
        return "image-feature-extraction"

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        from training.images import table_images
        from training.reconstruction import squared_errors

        model: Any = asked.predictor  # a Codec
        pixels = {
            name: table_images(table, model.column, model.image_size, model.channels)
            for name, table in asked.splits.items()
        }
        own = pixels[asked.split]
        if not len(own):
            raise ValueError(f"{asked.split} split of {asked.dataset}: no pictures")
        say(0, f"reconstructing the {asked.split} split")
        codes = model.encode(own)
        again = model.decode(codes)
        say(0.3, "PCA")
        linear, about, likelihood = _linear(model, pixels, own)
        theirs = linear.reconstruct(own)
        say(0.7, "pictures")
        results = {"squared_error": squared_errors(own, again)}
        baseline = {"squared_error": squared_errors(own, theirs)}
        average = np.broadcast_to(pixels["train"].mean(0).round().astype(np.uint8), own.shape)
        bound = model.bound(own)
        if bound is not None:
            results["elbo"], baseline["elbo"] = bound, likelihood(own)
        if codebook := getattr(model, "codebook", None):
            results["codes"] = codes.reshape(len(codes), -1)
            results["codebook_size"] = np.full(len(codes), codebook.codes)
        answers = _answers(asked, len(own))
        say(0.9, "intervals")
        body: dict[str, Any] = {
            "task": "reconstruction",
            "subject": {"model": asked.model, "dataset": asked.dataset},
            "split": asked.split,
            "test_reads": asked.test_reads,
            "rows": len(own),
            "code": f"{model.bits:,.0f} bits" if codebook else f"{model.width:,} numbers",
            "model": {
                name: estimate(name, results).to_json()
                for name, metric in self.metrics.items()
                if set(metric.columns) <= results.keys()
            },
            "baseline": {**about, **{name: estimate(name, baseline).to_json() for name in self.compared}},
            "majority": {
                "label": "the average training picture",
                "reconstruction_error": estimate(
                    "reconstruction_error", {"squared_error": squared_errors(own, average)}
                ).to_json(),
            },
            "difference": {name: compare(name, results, baseline).to_json() for name in self.compared},
        }
        if bound is not None:
            body["likelihood"] = {
                "baseline": estimate("elbo", baseline).to_json(),
                "difference": compare("elbo", results, baseline).to_json(),
            }
        if codebook:
            used = np.bincount(results["codes"].reshape(-1), minlength=codebook.codes)
            body["codebook"] = {
                "codes": codebook.codes,
                "used": int((used > 0).sum()),
                "perplexity": body["model"]["codebook_use"]["value"] * codebook.codes,
            }
            results["codes"] = pa.array(results["codes"].tolist(), pa.list_(pa.int32()))
        columns = {
            "row_id": asked.judged["row_id"],
            **results,
            **{f"baseline_{name}": column for name, column in baseline.items()},
            "prediction": pa.array([one and one["label"] for one in answers], pa.string()),
            "confidence": pa.array([one and one["confidence"] for one in answers], pa.float64()),
        }
        shown = _side_by_side(own, again, theirs, results["squared_error"], about["name"])
        return write(folder, body, columns, [shown, *model.pictures(own)])


KIND = Reconstruction()


def _linear(model: Any, pixels: "Mapping[str, np.ndarray]", own: "np.ndarray") -> tuple[Any, Any, Any]:
    """PCA of the same size; what a page says of it; and its log likelihood of pictures in nats, (n,)."""
    from training.pca import best_quantised, fit_pca, linear_codec, values

    if not hasattr(model, "codebook"):
        pca = fit_pca(pixels["train"], min(model.width, own[0].size - 1))  # a likelihood needs something to be left out
        about: dict[str, Any] = {"name": f"PCA of {pca.n_components_} components", "settings": {}, "tried": []}
        return linear_codec(pca), about, lambda of: pca.score_samples(values(of))
    pca = fit_pca(pixels["train"], int(model.bits))
    held_out = "validation" if len(pixels["validation"]) else "train"
    codec, tried = best_quantised(pca, pixels[held_out], model.bits)
    settings: dict[str, Any] = {"bits a component": codec.bits, "components": len(codec.axes), "range": codec.reach}
    about = {"name": f"PCA of {model.bits:,.0f} bits", "settings": settings, "tried": tried}
    return codec, about, None


def _answers(asked: Asked, rows: int) -> list[dict[str, Any] | None]:
    """What the model answers to some rows, spread over the split; None for the others."""
    import numpy as np

    places = np.unique(np.linspace(0, rows - 1, min(ASKED, rows)).round().astype(int))
    found: list[dict[str, Any] | None] = [None] * rows
    for place, answer in zip(places, asked.predictor(asked.rows(asked.judged.take(places))), strict=True):
        found[place] = answer
    return found


def _side_by_side(
    own: "np.ndarray", again: "np.ndarray", theirs: "np.ndarray", errors: "np.ndarray", baseline: str
) -> Picture:
    """Some pictures and the worst ones, above what the model and the baseline leave of them."""
    import numpy as np

    from training.picture_grid import png_grid

    some = np.unique(np.linspace(0, len(own) - 1, min(SHOWN, len(own))).round().astype(int))
    worst = np.argsort(-errors, kind="stable")[:SHOWN]
    rows, titles = [], []
    for name, places in (("some pictures", some), ("those it does worst", worst)):
        for what, pixels in ((name, own), ("this model", again), (baseline, theirs)):
            rows.append(list(pixels[places]))
            titles.append(what)
    return Picture("reconstructions", "Pictures, and what is left of them", png_grid(rows, titles=titles))
