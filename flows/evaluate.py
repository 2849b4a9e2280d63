"""Evaluate: a model version on the test split of its dataset, beside a tuned linear baseline and the majority class."""

import tempfile
from pathlib import Path
from typing import Any

from data_contracts import registry
from flows import references
from flows.code_key import code_of
from flows.models import ModelVersion
from flows.steps import Outputs, Step, artifact_damage, libraries
from infra import artifacts
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.recipe import settings_class
from training.run_log import RunLog, read_tail

SPLIT = "test"


def evaluate_step(settings: Settings, name: str, needs: tuple[str, ...], ablation: str = "") -> Step:
    """`ablation`: the experiment that trained the same network from random weights, compared with when given."""
    store = settings.object_store
    trained = f"train {name}"

    def candidate(outputs: Outputs) -> ModelVersion:
        return references.resolve(store, f"{name}/{outputs[trained]['version']}")

    def random_start(outputs: Outputs) -> str:
        return outputs[f"train {ablation}"]["model"] if ablation else ""

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        version = candidate(outputs)
        return {
            "model": version.model,
            "dataset": version.dataset,
            "split": SPLIT,
            "ablation": random_start(outputs),
            "code": code_of(["flows.evaluate", f"training.recipes.{version.experiment['recipe']}"]),
            "libraries": libraries(
                "numpy", "scipy", "scikit-learn", *settings_class(version.experiment["recipe"]).libraries
            ),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        return {"evaluation": evaluate(settings, candidate(outputs), progress, random_start(outputs))}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "evaluations", output["evaluation"])

    return Step(kind="evaluate", subject=name, needs=(*needs, trained), ingredients=ingredients, run=run, damage=damage)


def evaluate(settings: Settings, version: ModelVersion, progress: Progress, random_start: str = "") -> str:
    """Write the evaluation of a version. Returns its artifact's digest. Raises WrongInput for a model that has none."""
    from training.baseline import fit_baseline
    from training.evaluation import evaluate_classification
    from training.table_baseline import fit_table_baseline

    store = settings.object_store
    recipe = version.experiment["recipe"]
    kind = settings_class(recipe)
    if kind.evaluates != "classification":
        raise WrongInput(f"model {version.ref}: recipe '{recipe}' has no evaluation on a test split; its validation "
                         "metrics are on its run (slipway runs)")  # fmt: skip
    data = registry.resolve(store, version.dataset)
    contract = registry.contract_of(store, data)
    columns = [*contract.inputs, str(contract.label)]
    reads = count_read(store, version, settings.author_name)
    splits = {name: registry.read_split(store, data, name, columns) for name in ("train", "validation", SPLIT)}
    test = splits[SPLIT]

    progress.update(0, 5, "loading the model")
    labels, table = answer(store, version.model, test, contract)
    random_predictions = None
    if random_start:
        progress.update(1, 5, "answering with the model from random weights")
        random_predictions = answer(store, random_start, test, contract)[1]["prediction"].to_pylist()
    progress.update(2, 5, "baseline")
    baseline = (fit_table_baseline if kind.reads == "table" else fit_baseline)(
        splits["train"],
        splits["validation"],
        test,
        list(contract.inputs),
        str(contract.label),
        lambda done, total, note: progress.update(2 + 2 * done / total, 5, f"baseline: {note}"),
    )
    progress.update(4, 5, "intervals")
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        evaluate_classification(
            table,
            labels,
            Path(scratch),
            baseline=baseline,
            model=version.model,
            dataset=version.dataset,
            split=SPLIT,
            test_reads=reads,
            random_start=random_predictions,
        )
        written = artifacts.commit_folder(store, "evaluations", Path(scratch))
    progress.update(5, 5, "")
    return written.digest


def count_read(store: Store, version: ModelVersion, who: str) -> int:
    """Enter in the run's log that this model is about to be judged on the test split: how often that was, this time
    included. A second look is a choice that was made knowing the first, so it is told on the scorecard."""
    log = RunLog(store, version.run)
    finished = read_tail(log).ending.get("sequence", 0)
    since = log.entries(after=finished)
    before = sum(entry["kind"] == "test_read" and entry["model"] == version.model for entry in since)
    log.append("test_read", model=version.model, dataset=version.dataset, split=SPLIT, who=who)
    return before + 1


def answer(store: Store, model: str, test: Any, contract: Any) -> tuple[list[str], Any]:
    """A model's answers to a split: its labels, and a table row_id, label, prediction, confidence, text in the
    split's order; and `probabilities`, one of each label, where it gives them."""
    import pyarrow as pa

    predictor = load_predictor(store, model)
    rows = test.select(list(contract.inputs)).to_pylist()
    answers = predictor(rows)
    table = pa.table(
        {
            "row_id": test["row_id"],
            "label": pa.array([str(value) for value in test[contract.label].to_pylist()]),
            "prediction": pa.array([one["label"] for one in answers]),
            "confidence": pa.array([one["confidence"] for one in answers], pa.float64()),
            "text": pa.array([_shown(row, contract) for row in rows]),
        }
    )
    if answers and all(set(predictor.labels) <= one.get("scores", {}).keys() for one in answers):
        shares = [[one["scores"][label] for label in predictor.labels] for one in answers]
        table = table.append_column("probabilities", pa.array(shares, pa.list_(pa.float32())))
    return predictor.labels, table


def _shown(row: dict[str, Any], contract: Any) -> str:
    """A row's inputs on a page: a text alone, other columns by name."""
    texts = all(contract.column(name).type == "string" for name in row)
    return "\n".join(str(value) if texts else f"{name}: {value}" for name, value in row.items())


def load_predictor(store: Store, model: str) -> Any:
    """The predictor of a `models` artifact, its files verified first."""
    from importlib import import_module

    artifact = artifacts.load(store, "models", model)
    module, _, function = artifact.facts["files"]["loader"].partition(":")
    return getattr(import_module(module), function)(artifacts.fetch(store, artifact))
