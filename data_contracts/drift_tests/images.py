"""Images: whether a classifier on simple pixel statistics can tell the two versions apart.

What it sees of an image (`pixels`): an 8 x 8 thumbnail in grey, mean and deviation of each colour, how sharp it is. So
it finds other brightness, contrast, tint, blur, framing and mix of subjects; another species of bird it does not see.
"""

from typing import Any

from data_contracts.two_samples import MIN_ROWS, folds_of, separate

TYPES = ("image",)
MEASURE = "2 AUC - 1"
STRENGTH = 0.1


def take(column: dict[str, Any], sample: list[Any]) -> list[str] | None:
    return [value for value in sample if value is not None] if sample else None


def compare(before: list[str], after: list[str]) -> dict[str, Any]:
    """{statistic, p_value, effect, sentence, interval}: statistic and interval are of the AUC."""
    if min(len(before), len(after)) < MIN_ROWS:
        few = f"{min(len(before), len(after))} images are too few to tell ({MIN_ROWS})"
        return {"statistic": 0.5, "p_value": 1.0, "effect": 0.0, "sentence": few, "interval": (0.0, 1.0)}
    import numpy as np

    from data_contracts.pixels import NAMES, unpack

    images = [*before, *after]
    features = unpack(images)
    newer = np.repeat([0, 1], [len(before), len(after)])
    deviations = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviations > 0, deviations, 1.0)
    found = separate(scaled, newer, folds_of([image.encode() for image in images]), STRENGTH)
    means = features[newer == 0].mean(axis=0), features[newer == 1].mean(axis=0)
    most = int(np.argmax(np.abs(means[1] - means[0]) / np.where(deviations > 0, deviations, np.inf)))
    return {
        "statistic": found.auc,
        "p_value": found.p_value,
        "effect": found.effect,
        "sentence": (
            f"AUC {found.auc:.3f} ({found.low:.3f} to {found.high:.3f}); "
            f"{NAMES[most]} {means[0][most]:.0f} -> {means[1][most]:.0f} of 255"
        ),
        "interval": (found.low, found.high),
    }
