"""A package that answers, and one that imports a library which it does not declare."""

import json
import textwrap
from collections.abc import Callable
from typing import Any

import pyarrow as pa

WRONG = [({"rows": 8}, "package.rows: unknown key")]


def example(world: Any, good: bool) -> Any:
    address = save_package(world, "record", imports="json" if good else "datasketch")
    return {}, world.candidate(right=0.9, package=address), None


def save_package(
    world: Any,
    answer: str,
    imports: str = "json",
    seconds: float = 0.0,
    ballast_bytes: int = 0,
    right: float = 0.9,
    dataset: str = "old",
    plant: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> str:
    """An MLflow package that declares mlflow alone. It answers as the evaluation of `world.candidate` with the same
    `right`, `dataset` and `plant` recorded ("record"), always `answer`, or does not load ("torn"); it takes `seconds`
    to answer."""
    import mlflow.pyfunc
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from data_contracts.registry import read_split

    folder = world.folder / f"package-{answer}-{len(list(world.folder.glob('package-*')))}"
    (folder / "data").mkdir(parents=True)
    code = folder / "animal_package.py"
    code.write_text(
        textwrap.dedent(
            f"""
            import json
            import time
            from pathlib import Path

            import pandas


            def _load_pyfunc(path):
                import {imports}

                return Package(json.loads(Path(path, "answers.json").read_text()))


            class Package:
                def __init__(self, answers):
                    self.answers = answers
                    if answers is None:
                        raise RuntimeError("weights are torn")

                def predict(self, model_input, params=None):
                    time.sleep({seconds})
                    found = [self.answers.get(text, ("ant", 0.9)) for text in model_input["text"]]
                    return pandas.DataFrame(found, columns=["label", "confidence"])
            """
        )
    )
    table = read_split(world.store, world.dataset(dataset), "test")
    texts, truth = table["text"].to_pylist(), table["label"].to_pylist()
    count = round(right * len(truth))
    order = ["ant", "bee", "cat"]
    answers = truth[:count] + [order[(order.index(label) + 1) % 3] for label in truth[count:]]
    table = plant(pa.table({"label": truth, "prediction": answers, "confidence": [0.9] * len(truth)}))
    given = zip(table["prediction"].to_pylist(), table["confidence"].to_pylist(), strict=True)
    recorded: dict[str, Any] | None = dict(zip(texts, given, strict=True)) if answer == "record" else {}
    (folder / "data" / "answers.json").write_text(json.dumps(None if answer == "torn" else recorded))
    (folder / "data" / "ballast").write_bytes(b"\0" * ballast_bytes)
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        loader_module="animal_package",
        data_path=str(folder / "data"),
        code_paths=[str(code)],
        signature=ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "label")])),
        input_example=pandas.DataFrame([{"text": "an ant"}]) if answer != "torn" else None,
        pip_requirements=["mlflow"],
    )
    return str(folder / "model")
