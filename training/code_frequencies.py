"""The baseline of models over image codes: how often each code stands at each place, by caption where there are any."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STRENGTHS = (1, 4, 16, 64, 256)
"""Tried: how many pictures the frequencies of all captions weigh beside those of one."""


def frequencies(
    captions: Mapping[str, Sequence[str]], codes: Mapping[str, np.ndarray], split: str, size: int
) -> dict[str, Any]:
    """nats (N,): what a code costs on average by the frequencies at its place in training pictures of the same caption,
    those of all captions mixed in; unigram (N,): by the frequencies of codes anywhere; about: what a page says."""
    train, places = codes["train"], np.arange(codes["train"].shape[1])
    anywhere = np.bincount(train.reshape(-1), minlength=size) + 1.0
    anywhere /= anywhere.sum()
    of_place = np.stack([np.bincount(train[:, place], minlength=size) for place in places]) + size * anywhere
    of_place /= of_place.sum(1, keepdims=True)  # (places, codes)
    known: dict[str, list[int]] = {}
    for row, text in enumerate(captions["train"]):
        known.setdefault(text, []).append(row)

    def costs(name: str, strength: float) -> np.ndarray:
        found = np.empty(len(codes[name]))
        own: dict[str, list[int]] = {}
        for row, text in enumerate(captions[name]):
            own.setdefault(text, []).append(row)
        for text, rows in own.items():
            same = train[known.get(text, [])]
            counts = np.stack([np.bincount(same[:, place], minlength=size) for place in places])
            shares = (counts + strength * of_place) / (len(same) + strength)
            found[rows] = -np.log(shares[places, codes[name][rows]]).mean(1)
        return found

    chosen_on = "validation" if split != "validation" and len(codes["validation"]) else split
    tried = {strength: float(costs(chosen_on, strength).mean()) for strength in STRENGTHS}
    best = min(tried, key=lambda strength: tried[strength])
    return {
        "nats": costs(split, best),
        "unigram": -np.log(anywhere[codes[split]]).mean(1),
        "about": {
            "name": "code frequencies by caption and place" if len(known) > 1 else "code frequencies by place",
            "settings": {"strength": best, "chosen_on": chosen_on},
            "tried": [{"strength": strength, "image_loss": value} for strength, value in tried.items()],
        },
    }
