"""The linear model of texts goes the whole way: fitted without Ray, judged, promoted, asked, recorded, run again."""

import json
from pathlib import Path

from tests.flows.shop import BAD, GOOD, Shop

EXPERIMENT = """\
recipe: baseline
dataset: reviews
settings: {classifier: linear_svm}
gates:
  threshold: {metric: f1, minimum: 0.8}
  champion: {margin: 0.06}
  baseline: {margin: 0.1}
  package: {}
  answers: {}
"""


def test_fitted_judged_promoted_asked_recorded_and_run_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "127.0.0.1:1")  # a cluster there is none at: nothing asks for it
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT, encoding="utf-8")
    shop.run("data", "register", "reviews.odcs.yaml")
    trained = shop.ask("train", "reviews")
    card = shop.ask("gate", "reviews")
    assert card["passed"] and card["metrics"]["model"]["f1"]["value"] > 0.9, "of two labels the F1 of the second"
    shop.run("promote", "reviews/1")
    good, bad = shop.ask("predict", "reviews", f"it was {GOOD}", f"it was {BAD}")["answers"]
    assert (good["label"], bad["label"]) == ("good", "bad") and good["confidence"] > 0.6

    written = shop.ask("recipes", "record", trained["run"])
    assert Path(written["path"]) == shop.folder / "records" / "reviews.json"
    assert written["figures"]["test_accuracy"] == {**card["metrics"]["model"]["accuracy"], "seeds": 1}
    assert written["figures"]["times_judged"]["value"] == 1 and "validation_accuracy" in written["figures"]

    again = shop.ask("recipes", "verify", "--rerun", "reviews")
    assert again["run"] != trained["run"], "it was trained again"
    assert {"test_accuracy", "test_f1", "validation_accuracy"} <= again["figures"].keys()
    assert all(one["within"] for one in again["figures"].values())
    other = {**json.loads(Path(written["path"]).read_text(encoding="utf-8")), "dataset": "reviews@0"}
    Path(written["path"]).write_text(json.dumps(other), encoding="utf-8")
    said = shop.run("recipes", "verify", "--rerun", "reviews", code=3).stderr
    assert "the record is of reviews@0; register those rows" in said


def test_with_few_labels_the_simple_model_beside_it_learns_from_the_same_rows(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "127.0.0.1:1")
    (shop.folder / "reviews.yaml").write_text(
        "recipe: baseline\ndataset: reviews\ngates: {contract: {}}\n"
        "settings: {labels_per_class: 2, strengths: [1, 10, 30]}\n",
        encoding="utf-8",
    )
    shop.run("data", "register", "reviews.odcs.yaml")
    shop.ask("train", "reviews")
    metrics = shop.ask("gate", "reviews")["metrics"]
    assert 0 < metrics["model"]["accuracy"]["value"] < 0.99, "four rows are too few to learn it"
    assert metrics["baseline"]["accuracy"]["value"] == metrics["model"]["accuracy"]["value"], "they are one model"
