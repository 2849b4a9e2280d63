"""What runs again and what does not, by the installed command, on two experiments of which one builds on the other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.shop import EXPERIMENT, Shop, reviews

PRETRAINING = """\
recipe: bert_mlm
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {steps: 40, batch_size: 32}
contract: reviews.odcs.yaml
"""
STEPS = [
    "register reviews",
    "prepare words",
    "train words",
    "prepare reviews",
    "train reviews",
    "evaluate reviews",
    "gate reviews",
    "promote reviews",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("retrain"), ray_address)
    (shop.folder / "words.yaml").write_text(PRETRAINING)
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT + "from: {base: words}\ncontract: reviews.odcs.yaml\n")
    return shop


@pytest.fixture(scope="module")
def first(shop: Shop) -> dict[str, Any]:
    return shop.ask("retrain", "reviews")


def states(document: Any) -> dict[str, str]:
    steps = document["steps"] if isinstance(document, dict) else document
    return {one["step"]: one["status"] for one in steps}


def reasons(shop: Shop) -> dict[str, list[str]]:
    """Step -> why it would run, of the steps that would."""
    return {one["step"]: one["reasons"] for one in shop.ask("plan", "reviews") if one["status"] != "cached"}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_first_time_everything_runs_from_source_to_champion(shop: Shop, first: dict[str, Any]) -> None:
    assert states(first) == dict.fromkeys(STEPS, "ran")
    assert shop.ask("champion", "reviews")["version"] == 1


def test_the_flow_was_run_by_prefect_with_a_task_a_step(shop: Shop, first: dict[str, Any]) -> None:
    import sqlite3

    with sqlite3.connect(shop.folder / ".slipway" / "prefect.db") as database:
        tasks = dict(database.execute("select name, state_type from task_run"))
        flows = database.execute("select name, state_type from flow_run").fetchall()
    assert tasks == dict.fromkeys(STEPS, "COMPLETED")
    assert flows == [("reviews", "COMPLETED")]


def test_a_second_run_runs_nothing_and_starts_neither_prefect_nor_ray(shop: Shop, first: dict[str, Any]) -> None:
    script = (
        "import sys, atexit\n"
        "heavy = ('torch', 'ray', 'prefect', 'mlflow', 'great_expectations', 'transformers', 'pandas')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "sys.path = [entry for entry in sys.path if entry]\n"
        "from flows.cli import main\n"
        "main(['retrain', 'reviews', '--json'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=shop.folder, env=shop.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert states(json.loads(done.stdout)) == dict.fromkeys(STEPS, "cached")
    assert "HEAVY []" in done.stderr


def test_a_comment_reruns_nothing(shop: Shop, first: dict[str, Any]) -> None:
    with (shop.folder / "words.yaml").open("a") as file:
        file.write("# a thought\n")
    assert reasons(shop) == {}


def test_the_masking_rate_reruns_pretraining_and_what_follows_and_says_so(shop: Shop, first: dict[str, Any]) -> None:
    edit(shop.folder / "words.yaml", "vocab_size: 300,", "vocab_size: 300, masking_rate: 0.3,")
    stale = reasons(shop)
    assert stale["train words"] == ["settings.masking_rate: from 0.15 to 0.3"]
    assert list(stale) == ["train words", *STEPS[3:]]
    assert stale["train reviews"] == ["follows train words", "follows prepare reviews"]
    edit(shop.folder / "words.yaml", " masking_rate: 0.3,", "")
    assert reasons(shop) == {}


def test_the_number_of_workers_reruns_nothing(shop: Shop, first: dict[str, Any]) -> None:
    edit(shop.folder / "reviews.yaml", "scaling: {workers: 2}", "scaling: {workers: 1}")
    assert reasons(shop) == {}
    edit(shop.folder / "reviews.yaml", "scaling: {workers: 1}", "scaling: {workers: 2}")


def test_a_stricter_gate_reruns_the_gates_alone(shop: Shop, first: dict[str, Any]) -> None:
    edit(shop.folder / "reviews.yaml", "minimum: 0.8", "minimum: 0.81")
    assert reasons(shop) == {
        "gate reviews": ["gates.threshold.minimum: from 0.8 to 0.81"],
        "promote reviews": ["follows gate reviews"],
    }
    edit(shop.folder / "reviews.yaml", "minimum: 0.81", "minimum: 0.8")


def test_touching_the_data_reads_it_again_and_reruns_nothing_else(shop: Shop, first: dict[str, Any]) -> None:
    (shop.folder / "reviews.csv").touch()
    document = shop.ask("retrain", "reviews")
    assert states(document) == {**dict.fromkeys(STEPS, "cached"), "register reviews": "ran"}
    assert "moved" in document["steps"][0]["reasons"][0]


def test_check_data_reads_the_source_although_nothing_moved(shop: Shop, first: dict[str, Any]) -> None:
    document = shop.ask("retrain", "reviews", "--check", "data")
    assert states(document)["register reviews"] == "ran"
    assert set(states(document).values()) == {"ran", "cached"}


def test_new_rows_make_everything_stale(shop: Shop, first: dict[str, Any]) -> None:
    shop.write(reviews(760))
    stale = reasons(shop)
    assert next(iter(stale)) == "register reviews" and "moved" in stale["register reviews"][0]
    assert len(stale) == len(STEPS)
    shop.write(reviews(700))


def test_a_lost_model_file_is_noticed(shop: Shop, first: dict[str, Any]) -> None:
    shop.ask("retrain", "reviews")
    digest = next(one for one in first["steps"] if one["step"] == "train words")["output"]["model"]
    path = shop.folder / ".slipway" / "store" / "models" / digest / "model.safetensors"
    content = path.read_bytes()
    for damaged, said in ((None, "is missing"), (content[:-1] + b"?", "was altered")):
        path.unlink(missing_ok=True)
        if damaged:
            path.write_bytes(damaged)
        (reason,) = reasons(shop)["train words"]
        assert said in reason and digest in reason
    path.write_bytes(content)
    assert reasons(shop) == {}


def test_accept_needs_a_reason(shop: Shop) -> None:
    assert "--reason" in shop.run("retrain", "reviews", "--accept", "code", code=2).stderr


def test_a_withdrawn_version_is_refused_although_all_is_cached(shop: Shop, first: dict[str, Any]) -> None:
    shop.ask("retrain", "reviews")
    assert states(shop.ask("train", "reviews")) == dict.fromkeys(STEPS[1:5], "cached")
    shop.run("data", "withdraw", "reviews", "--reason", "no consent")
    for command in ("train", "retrain", "plan"):
        (line,) = shop.run(command, "reviews", code=3).stderr.splitlines()
        assert "reviews@" in line and "was withdrawn by ada" in line and "no consent" in line, command
        assert "slipway data register" in line, "the way out"
    shop.write(reviews(760))
    assert "prepare reviews" in reasons(shop), "other rows are another version"
    shop.write(reviews(700))
