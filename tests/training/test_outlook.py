"""What a run says before its first step is what it then does."""

import numpy as np

from infra.store import FolderStore
from tests.training.attempts import RUN, attempt, make_run
from tests.training.examples import open_recipe
from training.experiment import Training
from training.outlook import duration, outlook, sentence
from training.randomness import SampleKeys
from training.run_log import RunLog
from training.sharding import World


def test_counts_are_those_of_the_batches_and_of_the_optimiser(tmp_path):
    recipe = open_recipe("text_classifier", tmp_path)
    task = recipe.build()
    training = Training(epochs=2, batch_size=8)
    found = outlook(recipe, task, training, World())
    num_samples = recipe.num_samples("train")
    keys = SampleKeys(np.zeros(num_samples, np.uint64))
    assert found["tokens_per_epoch"] == recipe.batch("train", np.arange(num_samples), keys)["input_ids"].numel()
    assert found["steps"] == -(-2 * num_samples // 8)
    weights = sum(value.numel() for value in task.parameters())
    assert found["memory_gb"] * 1e9 == 16 * weights  # float32: weights, gradients, two moments
    assert outlook(recipe, task, training, World(size=4, sharding="fsdp"))["memory_gb"] * 1e9 == 4 * weights
    task.encoder.requires_grad_(False)
    frozen = outlook(recipe, task, training, World())
    head = sum(value.numel() for value in task.head.parameters())
    assert (frozen["trained_parameters"], frozen["memory_gb"] * 1e9) == (head, 4 * weights + 12 * head)
    assert f"{weights - head:,} of them frozen" in sentence(frozen)


def test_an_attempt_announces_it_once(tmp_path):
    store = FolderStore(tmp_path / "store")
    process = attempt(make_run(store, tmp_path, steps=20))
    process.join()
    (told,) = [entry for entry in RunLog(store, RUN).entries() if entry["kind"] == "outlook"]
    assert (told["steps"], told["batch_size"], told["workers"]) == (20, 8, 1)


def test_durations_are_told_as_a_person_does():
    assert [duration(seconds) for seconds in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]
