"""What a linear model makes of the same table: scaled numbers, one-hot categories, logistic regression tuned.

A whole number of few values is told apart value by value as well: by its size alone a line cannot say that the hours of
two rushes are busy and those between are not. What is missing is the median, and a column of its own says so.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from training.baseline import Baseline, choose_strength

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

C = (0.01, 0.1, 1, 10, 100)
"""Inverse regularisation strengths tried."""
FEW = 50
"""Values up to which a whole number is told apart by its values, too."""
NAME = "one-hot + logistic regression"


def fit_table_baseline(
    train: "pyarrow.Table",
    validation: "pyarrow.Table",
    test: "pyarrow.Table",
    inputs: Sequence[str],
    label: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> Baseline:
    """As `training.baseline.fit_baseline`: fit on train, choose C on validation, answer test."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from training import tables

    def say(done: int, note: str) -> None:
        if progress:
            progress(done, len(C) + 2, note)

    say(0, "the training split as numbers")
    train = train.filter(train[label].is_valid())
    answers, expected = (np.array([str(value) for value in part[label].to_pylist()]) for part in (train, validation))
    classes, counts = np.unique(answers, return_counts=True)
    majority = str(classes[counts.argmax()])
    if len(classes) == 1:
        return Baseline([majority] * test.num_rows, majority, {"C": None}, [], NAME)
    known, _ = tables.read_inputs(train, inputs)

    def numbers(part: "pyarrow.Table") -> "np.ndarray":
        values = tables.matrix(part, known)
        return np.where(np.isfinite(values), values, np.nan)

    features = numbers(train)
    categorical = tables.is_categorical(known)
    kinds = [one.type for one in known for _ in one.features]
    few = [
        place
        for place, kind in enumerate(kinds)
        if categorical[place] or (kind == "integer" and len(np.unique(features[:, place])) <= FEW)
    ]
    encoder = ColumnTransformer(
        [
            ("values", OneHotEncoder(handle_unknown="ignore"), few),
            (
                "sizes",
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                np.flatnonzero(~categorical),
            ),
        ]
    )
    encoded = encoder.fit_transform(features)

    model, c, tried = choose_strength(
        lambda strength: LogisticRegression(C=strength, max_iter=500).fit(encoded, answers),
        C,
        encoder.transform(numbers(validation)) if validation.num_rows else None,
        expected,
        say,
    )
    say(len(C) + 1, "answering the test split")
    predictions = model.predict(encoder.transform(numbers(test))).tolist() if test.num_rows else []
    return Baseline(predictions, majority, {"C": c, "features": int(encoded.shape[1])}, tried, NAME)
