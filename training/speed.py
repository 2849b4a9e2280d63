"""How fast classifiers of packed texts are, measured in turn in one process, so that other load falls on all alike."""

import time
from collections.abc import Mapping, Sequence

import torch

from training.recipes.text_classifier import Classifier
from training.task import Batch, to_device

ROUNDS = 5


@torch.inference_mode()
def texts_per_second(
    models: Mapping[str, Classifier], batches: Sequence[Batch], rounds: int = ROUNDS
) -> dict[str, float]:
    """Texts a second of each model, by the clock; of several rounds the fastest, because other work only slows down."""
    num_texts = sum(len(batch["lengths"]) for batch in batches)
    best: dict[str, float] = {}
    for number in range(rounds + 1):  # the first warms caches up
        for name, model in models.items():
            device = model.head.weight.device
            there = [to_device(batch, device) for batch in batches]
            _settle(device)
            begun = time.perf_counter()
            for batch in there:
                model.logits(batch)
            _settle(device)
            seconds = time.perf_counter() - begun
            if number:
                best[name] = min(best.get(name, seconds), seconds)
    return {name: num_texts / seconds for name, seconds in best.items()}


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
