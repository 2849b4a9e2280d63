"""What simple models make of the same pictures: logistic regression and a support vector machine on pixels.

On little data they are hard to beat, so both are tuned on the validation split, and the better one is the baseline.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from training.baseline import Baseline, choose_strength
from training.images import table_images

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

LARGEST = 32
"""Side to which larger pictures are brought: 1,024 numbers, or 3,072 in colour."""
SVM_ROWS = 10_000
"""That the support vector machine learns from at most, chosen by chance: its time grows with their square."""
LOGISTIC, SVM = "logistic regression on pixels", "SVM on pixels"
STRENGTHS = {LOGISTIC: (0.01, 0.1, 1.0, 10.0), SVM: (1.0, 10.0)}
"""Inverse regularisation strengths tried of each."""


def fit_image_baseline(
    train: "pyarrow.Table",
    validation: "pyarrow.Table",
    test: "pyarrow.Table",
    inputs: Sequence[str],
    label: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> Baseline:
    """As `training.baseline.fit_baseline`: fit on train, choose model and C on validation, answer test. What the one
    that was not chosen answers is in `others`."""
    import numpy as np

    steps = sum(map(len, STRENGTHS.values())) + 2

    def say(before: int, done: int, note: str) -> None:
        if progress:
            progress(before + done, steps, note)

    say(0, 0, "pixels of the training split")
    train = train.filter(train[label].is_valid())
    answers, expected = (np.array([str(value) for value in part[label].to_pylist()]) for part in (train, validation))
    classes, counts = np.unique(answers, return_counts=True)
    majority = str(classes[counts.argmax()])
    if len(classes) == 1:
        return Baseline([majority] * test.num_rows, majority, {"model": None}, [], LOGISTIC)
    (column,) = inputs
    size, channels = _size(train, column)
    features, held_out, judged = (_pixels(part, column, size, channels) for part in (train, validation, test))
    some = np.random.default_rng(0).permutation(len(answers))[:SVM_ROWS]
    rows = {LOGISTIC: np.arange(len(answers)), SVM: some if len(np.unique(answers[some])) > 1 else slice(None)}

    tried: list[dict[str, Any]] = []
    reached: dict[str, float] = {}
    found: dict[str, list[str]] = {}
    chosen: dict[str, str] = {}
    for place, (name, strengths) in enumerate(STRENGTHS.items()):
        model, c, attempts = choose_strength(
            lambda c, name=name: _model(name, c).fit(features[rows[name]], answers[rows[name]]),  # type: ignore[misc]
            strengths,
            held_out if len(held_out) else None,
            expected,
            partial(say, place * len(STRENGTHS[LOGISTIC])),
        )
        chosen[name] = f"{name}, C = {c:g}"
        tried += [
            {"model": f"{name}, C = {one['C']:g}", "validation_accuracy": one["validation_accuracy"]}
            for one in attempts
        ]
        reached[name] = max(one["validation_accuracy"] for one in attempts)
        found[name] = model.predict(judged).tolist() if len(judged) else []
    best = max(STRENGTHS, key=lambda name: reached[name])  # of equals the first
    settings = {"model": chosen[best], "features": int(features.shape[1])}
    others = {name: given for name, given in found.items() if name != best}
    return Baseline(found[best], majority, settings, tried, best, others)


def _size(train: "pyarrow.Table", column: str) -> tuple[int, int]:
    """Side and channels: the usual width, and colour where a picture has it."""
    import numpy as np

    side = int(np.median(train[f"{column}_width"].to_numpy()))
    grey = set(train[f"{column}_mode"].unique().to_pylist()) <= {"L", "I;16"}
    return min(side, LARGEST), 1 if grey else 3


def _pixels(table: "pyarrow.Table", column: str, size: int, channels: int) -> "np.ndarray":
    """(N, size x size x channels) float32 from 0 to 1."""
    import numpy as np

    pixels = table_images(table, column, size, channels)
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


def _model(name: str, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    if name == LOGISTIC:
        return LogisticRegression(C=c, max_iter=100)
    return SVC(C=c, gamma="scale")
