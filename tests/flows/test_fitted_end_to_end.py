"""A model that is fitted in one go goes the same way as any other: drafted, fitted without Ray, judged, promoted."""

import random
from pathlib import Path

import pytest

from tests.flows.shop import Shop

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: loans
version: 1.0.0
status: active
servers: [{server: files, type: local, path: loans.csv, format: csv}]
schema:
  - name: loans
    properties:
      - {name: amount, logicalType: number}
      - {name: months, logicalType: integer, required: true}
      - {name: town, logicalType: string}
      - {name: opened, logicalType: date, required: true}
      - {name: lost, logicalType: number, required: true}
      - name: bad
        logicalType: boolean
        customProperties:
          - property: slipway.condition
            value: {type: comparison, column: {name: lost}, operator: ">", parameter: 1}
customProperties:
  - {property: slipway.label, value: bad}
  - {property: slipway.inputs, value: [amount, months, town, opened]}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("loans"), "127.0.0.1:1")  # a cluster there is none at: nothing asks for it
    draw = random.Random(0)
    lines = ["amount,months,town,opened,lost"]
    for _ in range(1200):
        amount, months, town = draw.uniform(0, 2), draw.choice([6, 12, 24]), draw.choice(["Ulm", "Bonn", ""])
        lost = 1 + ((amount > 1) != (town == "Ulm")) - 0.5 + draw.gauss(0, 0.1)  # which no linear model can say
        shown = "" if draw.random() < 0.05 else f"{amount:.3f}"
        lines.append(f"{shown},{months},{town},2024-{draw.randint(1, 12):02d}-11,{lost:.3f}")
    (made.folder / "loans.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (made.folder / "loans.odcs.yaml").write_text(CONTRACT, encoding="utf-8")
    return made


def test_drafted_fitted_judged_promoted_and_asked(shop: Shop) -> None:
    shop.run("data", "register", "loans.odcs.yaml")
    drafted = shop.run("recipes", "draft", "tabular", "loans").stdout
    (Path(shop.folder) / "loans.yaml").write_text(drafted, encoding="utf-8")
    trained = shop.ask("train", "loans")
    assert trained["model"] == "loans/1"
    card = shop.ask("gate", "loans/1")
    assert card["passed"] and card["metrics"]["baseline"]["name"] == "one-hot + logistic regression"
    assert {"package", "answers"} <= {verdict["gate"] for verdict in card["verdicts"] if verdict["passed"]}
    shop.run("promote", "loans/1")
    asked = '["0.2", "24", "Ulm", "2024-05-11"]'
    (answer,) = shop.ask("predict", "loans", asked)["answers"]
    assert answer["label"] == "True" and answer["confidence"] > 0.9
    (run,) = shop.ask("runs")
    assert run["status"] == "finished" and run["step"] == run["num_steps"] and "validation_loss" in run["validation"]
    assert [one["status"] for one in shop.ask("train", "loans")["steps"]] == ["cached", "cached"]
    plan = {one["step"]: one for one in shop.ask("plan", "loans", "--set", "max_leaves=7")}
    assert "max_leaves" in str(plan["train loans"]["reasons"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs=3", "training.epochs: recipe 'tabular' is fitted in one go and has none"),
        ("workers=2", "scaling.workers: 2: recipe 'tabular' is fitted in one process"),
        ("max_leafs=3", "max_leaves"),
    ],
)
def test_what_a_fit_does_not_have_is_refused_in_one_line(shop: Shop, setting: str, said: str) -> None:
    (shop.folder / "one.yaml").write_text("recipe: tabular\ndataset: loans\n", encoding="utf-8")
    assert said in shop.run("plan", "one", "--set", setting, code=2).stderr
