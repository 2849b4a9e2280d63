"""A package that answers as its model was evaluated, and one that always says the same."""

import json
import textwrap
from typing import Any

WRONG = [({"rows": True}, "package.rows: found True")]


def example(world: Any, good: bool) -> Any:
    address = save_package(world, "record" if good else "ant")
    return {}, world.candidate(right=0.9, package=address), None


def save_package(world: Any, answer: str) -> str:
    """An MLflow package that answers as the evaluation of `world.candidate(right=0.9)` recorded, or always `answer`."""
    import mlflow.pyfunc
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from data_contracts.registry import read_split

    folder = world.folder / f"package-{answer}"
    folder.mkdir()
    code = folder / "animal_package.py"
    code.write_text(
        textwrap.dedent(
            """
            import json

            def _load_pyfunc(path):
                return Package(json.load(open(path)))

            class Package:
                def __init__(self, answers):
                    self.answers = answers
                    if answers is None:
                        raise RuntimeError("weights are torn")

                def predict(self, model_input, params=None):
                    import pandas

                    found = [self.answers.get(text, "ant") for text in model_input["text"]]
                    return pandas.DataFrame({"label": found, "confidence": [0.9] * len(found)})
            """
        )
    )
    table = read_split(world.store, world.dataset("old"), "test")
    texts, truth = table["text"].to_pylist(), table["label"].to_pylist()
    right = round(0.9 * len(truth))
    order = ["ant", "bee", "cat"]
    answers = truth[:right] + [order[(order.index(label) + 1) % 3] for label in truth[right:]]
    recorded: dict[str, str] | None = dict(zip(texts, answers, strict=True)) if answer == "record" else {}
    (folder / "answers.json").write_text(json.dumps(None if answer == "torn" else recorded))
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        loader_module="animal_package",
        data_path=str(folder / "answers.json"),
        code_paths=[str(code)],
        signature=ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "label")])),
        input_example=pandas.DataFrame([{"text": "an ant"}]) if answer != "torn" else None,
        pip_requirements=["mlflow"],
    )
    return str(folder / "model")
