"""A user's own CSV, by the installed command alone, from a folder that holds packages of the same names as ours."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.flows.shop import CONTRACT, EXPERIMENT, SLIPWAY, Shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), ray_address)


@pytest.fixture(scope="module")
def promoted(shop: Shop) -> dict[str, Any]:
    """The whole way, a command a step; what each said."""
    return {
        "registered": shop.ask("data", "register", "reviews.odcs.yaml"),
        "trained": shop.ask("train", "reviews"),
        "evaluated": shop.ask("evaluate", "reviews"),
        "gated": shop.ask("gate", "reviews"),
        "promoted": shop.ask("promote", "reviews"),
    }


def test_registering_keeps_every_row_and_says_why_one_is_out(shop: Shop, promoted: dict[str, Any]) -> None:
    counts = promoted["registered"]["counts"]
    assert counts["rows_in"] == 701
    assert counts["train"] + counts["validation"] + counts["test"] == 700
    assert counts["quarantined"] == 1
    shown = shop.ask("data", "show", "reviews")
    assert sum(shown["quarantine_reasons"].values()) == 1
    again = shop.ask("data", "register", "reviews.odcs.yaml")
    assert (again["ref"], again["created"]) == (promoted["registered"]["ref"], False)


def test_what_was_trained_learned_and_was_measured(promoted: dict[str, Any]) -> None:
    metrics = promoted["evaluated"]
    assert metrics["model"]["accuracy"]["value"] > 0.9
    assert metrics["majority"]["accuracy"]["value"] < 0.7
    assert metrics["model"]["accuracy"]["low"] < metrics["model"]["accuracy"]["value"] < 1.0001
    assert promoted["trained"]["model"] == "reviews/1"


def test_gates_judged_with_evidence_and_wrote_a_scorecard(promoted: dict[str, Any]) -> None:
    verdicts = {one["gate"]: one for one in promoted["gated"]["verdicts"]}
    assert set(verdicts) == {"threshold", "champion", "baseline", "drift", "package", "answers"}
    assert all(one["passed"] and one["evidence"] and one["evidence_digest"] for one in verdicts.values())
    assert "no champion" in verdicts["champion"]["sentence"]
    page = Path(promoted["gated"]["page"]).read_text()
    assert "reviews" in page and "ada" in page


def test_the_champion_is_what_the_log_says_and_mlflow_follows(shop: Shop, promoted: dict[str, Any]) -> None:
    import mlflow

    entry = shop.ask("champion", "reviews")
    assert (entry["version"], entry["sequence"], entry["author"]) == (1, promoted["promoted"]["entry"], "ada")
    (only,) = shop.ask("history", "reviews")
    assert only["kind"] == "promotion"
    client = mlflow.MlflowClient(f"sqlite:///{shop.folder}/.slipway/mlflow.db")
    assert client.get_model_version_by_alias("reviews", "champion").version in ("1", 1)


def test_one_mlflow_run_holds_parameters_curves_dataset_and_model(shop: Shop, promoted: dict[str, Any]) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{shop.folder}/.slipway/mlflow.db")
    experiment = client.get_experiment_by_name("reviews")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "6.0"
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == "reviews"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    num_steps = shop.ask("runs")[0]["num_steps"]
    assert sorted(steps) == list(range(1, num_steps + 1)), "every step once"
    assert client.get_metric_history(run.info.run_id, "validation_accuracy")


def test_after_the_way_by_hand_a_plan_has_nothing_to_do(shop: Shop, promoted: dict[str, Any]) -> None:
    assert {one["step"]: one["reasons"] for one in shop.ask("plan", "reviews") if one["status"] != "cached"} == {}


ROWS = ["a lovely tasty thing5", "rude and late thing7", "nothing known here"]


def test_predict_and_mlflow_in_a_fresh_process_say_the_same(shop: Shop, promoted: dict[str, Any]) -> None:
    answers = shop.ask("predict", "reviews", *ROWS)["answers"]
    assert [one["label"] for one in answers[:2]] == ["good", "bad"]
    script = (
        "import mlflow, pandas, sys, json\n"
        f"mlflow.set_tracking_uri('sqlite:///{shop.folder}/.slipway/mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/reviews@champion')\n"
        "print(model.predict(pandas.DataFrame({'text': json.loads(sys.argv[1])})).to_json(orient='records'))\n"
    )
    # Started from the user's folder: `python -c` puts it first on the import path.
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(ROWS)],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    fresh = json.loads(done.stdout.strip().splitlines()[-1])
    assert [one["label"] for one in fresh] == [one["label"] for one in answers]
    assert [one["confidence"] for one in fresh] == pytest.approx([one["confidence"] for one in answers], abs=1e-6)


def test_who_saw_a_row_is_what_the_workers_noted(shop: Shop, promoted: dict[str, Any]) -> None:
    from data_contracts.registry import read_split, resolve
    from flows.lineage import who_saw
    from infra.store import open_store
    from training.feed import read_ledger
    from training.run_log import RunLog

    store = open_store((shop.folder / ".slipway" / "store").as_uri())
    version, run = resolve(store, "reviews"), promoted["trained"]["run"]
    attempts = [entry for entry in RunLog(store, run).entries() if entry["kind"] == "attempt"]
    ledger = read_ledger(shop.folder / "ledger", run, attempts)
    rows = read_split(store, version, "train")["row_id"].to_pylist()  # one sample a row, in this order
    assert {sample for samples in ledger.values() for sample in samples} == set(range(len(rows)))
    for index in np.random.default_rng(0).choice(len(rows), 100, replace=False).tolist():
        answer = who_saw(store, version, rows[index])
        assert [one.run for one in answer.sightings] == [run]
        assert answer.sightings[0].models == ("reviews/1",)
        assert list(answer.sightings[0].steps) == [step for step, samples in ledger.items() if index in samples]
    held_out = read_split(store, version, "test")["row_id"][0].as_py()
    found = shop.ask("data", "who-saw", f"reviews#{held_out[:16]}")
    assert (found["place"], found["sightings"], found["unknown"]) == ("test", [], [])


NOTEBOOK = """
import json
from infra.errors import WrongInput
from training.api import train
run = train("reviews", workers=2)
print(json.dumps([run.name, run.model, run.curves()["loss"][-1][0], sorted(path.name for path in run.files.iterdir())]))
try:
    train("reviews", **{"training.epoch": 3})
except WrongInput as error:
    print(error)
"""


def test_a_notebook_gets_the_run_that_the_command_trained(shop: Shop, promoted: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", NOTEBOOK], cwd=shop.folder, env=shop.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, refused = done.stdout.splitlines()
    name, model, last_step, files = json.loads(first)
    assert (name, model) == (promoted["trained"]["run"], promoted["trained"]["model"])
    assert last_step > 50
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert "training.epochs" in refused and "\n" not in refused


@pytest.fixture
def scoring_server(shop: Shop, promoted: dict[str, Any], free_port: int) -> Iterator[str]:
    environment = {**shop.environment, "MLFLOW_TRACKING_URI": f"sqlite:///{shop.folder}/.slipway/mlflow.db"}
    command = ["models", "serve", "-m", "models:/reviews@champion", "-p", str(free_port), "--env-manager", "local"]
    log = shop.folder / "serve.log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            [str(SLIPWAY.parent / "mlflow"), *command], cwd=shop.folder, env=environment, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{free_port}/ping", timeout=5).close()
            break
        except OSError:
            time.sleep(0.5)
    yield f"http://127.0.0.1:{free_port}"
    os.killpg(server.pid, 15)
    server.wait(30)


def test_mlflow_models_serve_answers_a_request(shop: Shop, scoring_server: str) -> None:
    body = json.dumps({"dataframe_records": [{"text": row} for row in ROWS]}).encode()
    request = urllib.request.Request(f"{scoring_server}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answers = json.load(response)["predictions"]
    assert [one["label"] for one in answers[:2]] == ["good", "bad"]


@pytest.fixture(scope="module")
def worse(shop: Shop, promoted: dict[str, Any]) -> str:
    """A model that hardly trained, refused by its gates."""
    trained = shop.ask("train", "reviews", "--set", "steps=2", "--set", "epochs=null", "--set", "seed=5")
    refused = shop.run("gate", "reviews", code=3)
    assert "the gates said no" in refused.stderr and "threshold" in refused.stderr
    return str(trained["model"])


def test_a_worse_model_is_refused_and_the_champion_stays(shop: Shop, worse: str) -> None:
    assert "says no" in shop.run("promote", "reviews", code=3).stderr
    assert shop.ask("champion", "reviews")["version"] == 1
    cached = shop.run("train", "reviews").stdout
    assert "next: slipway gate reviews/1" in cached, "the version it is about, not the newest"


def test_a_live_run_is_not_trained_twice(shop: Shop, promoted: dict[str, Any]) -> None:
    """The log says it runs, and its heartbeat is fresh: somebody else's. Then it is ours to take over."""
    from infra.store import FolderStore
    from training.run_log import RunLog

    finished = promoted["trained"]["run"]
    store = FolderStore(shop.folder / ".slipway" / "store")
    stem, _, number = finished.rpartition("-")
    log = RunLog(store, f"{stem}-{int(number) + 1}")
    log.append("run", experiment={}, key="", author="bob")
    log.append("attempt", 1, host="elsewhere", pid=1, workers=1, from_step=0, checkpoint=None)
    log.beat(1, step=1, num_steps=9, host="elsewhere", pid=1)
    said = shop.run("train", "reviews", "--fresh", code=3).stderr
    assert "elsewhere" in said and "is being trained" in said
    for key in list(store.list(f"runs/{log.run}/")):
        store.delete(key)


def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(shop: Shop, promoted: dict[str, Any]) -> None:
    import signal

    command = ["train", "reviews", "--set", "epochs=150", "--set", "seed=9", "--set", "checkpoint_every_s=0.5"]
    running = subprocess.Popen([str(SLIPWAY), *command], cwd=shop.folder, env=shop.environment, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 180
    while True:  # until it is well on its way, with a checkpoint behind it
        assert running.poll() is None and time.monotonic() < deadline
        state = next((run for run in shop.ask("runs") if run["status"] == "running"), None)
        if state and state["step"] > 100:
            break
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("train: reviews") and line.endswith("  interrupted")]
    (stopped,) = [run for run in shop.ask("runs") if run["run"] == state["run"]]
    assert stopped["status"] == "stopped" and stopped["step"] < stopped["num_steps"]
    assert re.search(r"going on from step \d+ of attempt 1\n", shop.run(*command).stderr)
    (ended,) = [run for run in shop.ask("runs") if run["run"] == state["run"]]
    assert (ended["status"], ended["step"], ended["attempts"]) == ("finished", ended["num_steps"], 2)


REGISTER = ["data", "register", "reviews.odcs.yaml", "--source"]
LACKING = CONTRACT.replace("name: text,", "name: txet,").replace("reviews", "bad")


def changed(old: str, new: str) -> dict[str, str]:
    assert old in EXPERIMENT
    return {"bad.yaml": EXPERIMENT.replace(old, new)}


BAD_INPUT: dict[str, tuple[list[str], dict[str, Any], int, str]] = {
    "contract is not YAML": (["data", "register", "bad.odcs.yaml"], {"bad.odcs.yaml": "a: ["}, 2, "bad.odcs.yaml"),
    "contract is not ODCS": (["data", "register", "bad.odcs.yaml"], {"bad.odcs.yaml": "a: b\n"}, 2, "bad.odcs.yaml"),
    "contract names a column the data lacks": (
        ["data", "register", "bad.odcs.yaml"],
        {"bad.odcs.yaml": LACKING, "bad.csv": "text,label\na,b\n"},
        2,
        "txet",
    ),
    "empty file": ([*REGISTER, "bad.csv"], {"bad.csv": ""}, 2, "bad.csv"),
    "not UTF-8": ([*REGISTER, "bad.csv"], {"bad.csv": b"text,label\ncaf\xe9,good\n"}, 3, "bad.csv row 1"),
    "truncated": ([*REGISTER, "bad.parquet"], {"bad.parquet": b"PAR1\x00\x01"}, 2, "bad.parquet"),
    "every row violates": ([*REGISTER, "bad.csv"], {"bad.csv": "text,label\n,good\n,bad\n"}, 3, "text"),
    "unknown key": (["train", "bad.yaml"], {"bad.yaml": EXPERIMENT + "sedules: {}\n"}, 2, "did you mean 'schedule'"),
    "unknown recipe": (["train", "bad.yaml"], changed("text_c", "tekst_c"), 2, "text_classifier"),
    "unknown dataset": (["train", "bad.yaml"], changed("dataset: reviews", "dataset: revews"), 2, "reviews"),
    "out of range": (["train", "bad.yaml"], changed("epochs: 6", "epochs: -6"), 2, "training.epochs"),
    "unknown gate": (["train", "bad.yaml"], changed("champion:", "champoin:"), 2, "did you mean 'champion'"),
    "approvals": (["train", "bad.yaml"], {"bad.yaml": EXPERIMENT + "promotion: {policy: approvals}\n"}, 2, "approvals"),
    "more workers than CPUs": (["train", "reviews", "--fresh", "--workers", "30"], {}, 2, "30 workers of 1 CPU"),
    "unknown model": (["predict", "revews", "x"], {}, 2, "did you mean 'reviews'"),
    "unknown option": (["train", "reviews", "--wrokers", "2"], {}, 2, "--workers"),
}


@pytest.mark.parametrize(("command", "files", "code", "said"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_no_trace(
    shop: Shop, promoted: dict[str, Any], command: list[str], files: dict[str, str | bytes], code: int, said: str
) -> None:
    def written() -> set[Path]:
        kept = shop.folder / ".slipway" / "store"
        return {path for path in kept.rglob("*") if path.is_file()}

    before = written()
    for name, content in files.items():
        (shop.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = shop.run(*command, code=code)
    lines = [line for line in done.stderr.splitlines() if line.startswith("slipway: ")]
    assert len(lines) == 1 and said in lines[0], done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert written() == before
    for name in files:
        (shop.folder / name).unlink()


def test_a_workspace_that_cannot_be_written_is_named(tmp_path: Path, shop: Shop) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    environment = {**shop.environment, "SLIPWAY_WORKSPACE": str(blocked / "inside")}
    done = subprocess.run([str(SLIPWAY), "init"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert str(blocked) in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_user_folders_are_there_to_be_avoided(shop: Shop) -> None:
    """The other tests prove nothing unless the user's packages would really break what imports them."""
    done = subprocess.run([sys.executable, "-c", "import training"], cwd=shop.folder, capture_output=True, text=True)
    assert "the user folder was imported" in done.stderr


def test_gates_that_ask_less_of_a_refused_model_say_what_it_was_told_before(shop: Shop, worse: str) -> None:
    """Else whoever takes the gate away promotes what was refused, and no reviewer learns of it."""
    experiment = shop.folder / "reviews.yaml"
    kept = experiment.read_text()
    experiment.write_text(re.sub("  (threshold|champion|baseline):.*\n", "", kept))
    eased = shop.run("gate", worse).stdout
    experiment.write_text(kept)
    assert "know before you decide: This version was told no before" in eased and "Gate threshold was removed" in eased
