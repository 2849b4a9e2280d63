"""What passes through a worker is counted and written down as it was."""

from pathlib import Path

import numpy as np
import torch

from training import loop
from training.examples import open_recipe
from training.experiment import Training
from training.feed import Feed, Ledger, read_ledger
from training.randomness import stream_seed
from training.sampler import SampleOrder

RUN = "example-0123456789ab-1"


class Silent(loop.Observer):
    """Wishes for nothing."""


def test_the_ledger_says_what_the_arithmetic_says(tmp_path: Path) -> None:
    recipe = open_recipe("text_classifier", tmp_path / "prepared")
    feed = Feed(recipe)
    feed.ledger = Ledger(str(tmp_path / "ledger"), RUN, 1, 0, 1, batch_size=15, step=0)
    config = Training(steps=20, batch_size=15, micro_batch_size=4, seed=3)
    loop.train(feed, config, loop.World(), Silent())  # type: ignore[arg-type]
    order = SampleOrder(stream_seed(3, "samples"), 200)
    _, index = order.at(np.arange(20 * 15))
    found = read_ledger(tmp_path / "ledger", RUN, [{"attempt": 1, "workers": 1}])
    assert found == {step + 1: index[15 * step : 15 * (step + 1)].tolist() for step in range(20)}
    lengths = np.asarray([recipe.batch("train", np.array([one]), None)["lengths"].sum() for one in index])
    assert (feed.tokens, feed.padding) == (int(lengths.sum()), 0)


def test_ledgers_of_several_workers_and_attempts_make_one_order(tmp_path: Path) -> None:
    def attempt(number: int, workers: int, first: int, last: int) -> None:
        for rank in range(workers):
            ledger = Ledger(str(tmp_path), RUN, number, rank, workers, batch_size=5, step=first)
            for step in range(first, last):
                ledger.write(np.arange(5 * step, 5 * step + 5)[rank::workers])

    attempt(1, 2, 0, 7)
    attempt(2, 4, 4, 9)
    attempt(3, 1, 8, 12)
    with (tmp_path / RUN / "3-0.jsonl").open("a") as file:
        file.write('{"step": 13, "sam')  # killed in the middle of a line
    entries = [{"attempt": number, "workers": workers} for number, workers in ((1, 2), (2, 4), (3, 1))]
    found = read_ledger(tmp_path, RUN, entries)
    assert found == {step + 1: list(range(5 * step, 5 * step + 5)) for step in range(12)}


def test_padding_is_counted_where_a_batch_has_a_mask() -> None:
    class Padded:
        def batch(self, split: str, index: np.ndarray, keys: object) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.zeros(2, 6), "attention_mask": torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]])}

    feed = Feed(Padded())  # type: ignore[arg-type]
    feed.batch("train", np.arange(2), None)  # type: ignore[arg-type]
    feed.batch("validation", np.arange(2), None)  # type: ignore[arg-type]
    assert (feed.tokens, feed.padding) == (8, 4)
