"""A model of pictures goes the same way: packaged, judged, asked by a file's name, by a table, and over HTTP."""

import base64
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_contracts import registry
from data_contracts.contract import load_contract
from flows import models
from flows.evaluate import evaluate
from flows.inference.pictures import write_found
from flows.inference.predict import Served, library, predict_file, predict_inputs
from flows.judging.evidence import Evidence, Subject
from infra import artifacts, scoring, tracking
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from training import loop
from training.experiment import Training
from training.recipe import load_recipe, settings_class

ROWS = 500


class Silent(loop.Observer):
    pass


class Gallery:
    """A store with the first digits, a small network trained on them, and its package."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = Settings(workspace=str(folder / "workspace"), store=str(folder / "store"))
        self.settings.create_workspace()
        self.store = self.settings.object_store
        self.evidence = Evidence(self.store, self.settings)
        spec = find_spec("sklearn")
        assert spec is not None and spec.origin is not None
        with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
            rows = [next(file) for _ in range(ROWS)]
        (folder / "some.csv.gz").write_bytes(gzip.compress("".join(rows).encode()))
        contract = load_contract("digits")
        self.data, _ = registry.register(self.store, contract, str(folder / "some.csv.gz"), cache=folder / "cache")
        settings = {"image_size": 8, "widths": [16, 32], "dropout": 0}
        experiment = {"name": "digits", "recipe": "cnn", "dataset": "digits", "settings": settings,
                      "training": {"steps": 100}}  # fmt: skip
        recipe = load_recipe("cnn").Recipe(settings_class("cnn")(**settings), {})
        for name in ("prepared", "model"):
            (folder / name).mkdir()
        splits = {name: registry.read_split(self.store, self.data, name) for name in ("train", "validation", "test")}
        recipe.prepare(splits, contract, folder / "prepared", lambda note: None)
        recipe.open(folder / "prepared")
        training = Training(steps=100, batch_size=50, learning_rate=1e-2, validate_every=1e9, diagnose_every=None)
        task, _ = loop.train(recipe, training, loop.World(), Silent())
        files = asdict(recipe.save(task, folder / "model"))
        model = artifacts.commit_folder(self.store, "models", folder / "model", {"files": files})
        facts = {"name": "digits", "digest": self.data.digest, "counts": dict(self.data.counts)}
        run = tracking.open_run(
            self.settings, "digits", "digits-1", {"parameters": {}, "tags": {}, "dataset": facts}
        )  # fmt: skip
        address, digest, _ = tracking.log_package(self.settings, run, folder / "model", files, "digits")
        self.version = models.add_version(
            self.store, name="digits", run="digits-1", experiment=experiment, model=model.digest, package=address,
            package_digest=digest, dataset=self.data.ref, author="mel", created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        self.subject = Subject.of(self.version, evaluate(self.settings, self.version, Progress("evaluate")))
        self.served = Served(self.version, contract, ["image"])
        self.test = registry.read_split(self.store, self.data, "test").to_pylist()

    def picture(self, row: int) -> Image.Image:
        return Image.frombytes("L", (8, 8), self.test[row]["image"])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    yield Gallery(tmp_path_factory.mktemp("gallery"))


def test_it_is_judged_beside_simple_models_of_the_same_pixels(gallery: Gallery) -> None:
    evaluation = gallery.evidence.evaluation(gallery.subject)
    metrics = evaluation.metrics
    assert metrics["model"]["accuracy"]["value"] > 0.8
    assert metrics["baseline"]["name"].endswith("on pixels") and metrics["baseline"]["accuracy"]["value"] > 0.8
    assert gallery.evidence.shown_inputs(gallery.subject, [gallery.test[0]["row_id"]]) == ["a picture"]


def test_a_file_a_list_and_a_table_are_answered_as_the_evaluation_was(gallery: Gallery, tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    recorded = gallery.evidence.evaluation(gallery.subject).predictions(["row_id", "prediction", "confidence"])
    expected = {row["row_id"]: row for row in recorded.to_pylist()}
    names = []
    for row in range(6):
        names.append(f"{row}.png")
        gallery.picture(row).save(tmp_path / names[-1])
    wanted = [expected[gallery.test[row]["row_id"]] for row in range(6)]
    answers = predict_inputs(gallery.store, gallery.served, tuple(str(tmp_path / name) for name in names))
    assert [one["label"] for one in answers] == [one["prediction"] for one in wanted]
    assert [one["confidence"] for one in answers] == pytest.approx([one["confidence"] for one in wanted], abs=1e-4)
    (tmp_path / "list.csv").write_text("image\n" + "\n".join([*names, "lost.png"]) + "\n")
    bodies = [{"image": (tmp_path / name).read_bytes()} for name in names]
    parquet.write_table(Table.from_pylist([*bodies, {"image": b"no picture"}]), tmp_path / "table.parquet")
    for file in ("list.csv", "table.parquet"):
        out = tmp_path / "out.parquet"
        counts = predict_file(gallery.store, gallery.served, tmp_path / file, out, Progress("predict"))
        assert counts == {"rows": 7, "answered": 6, "faults": 1, "truncated": 0}
        rows = parquet.read_table(out).to_pylist()
        assert [row["label"] for row in rows[:6]] == [one["prediction"] for one in wanted]
        assert rows[6]["label"] is None and "image" in rows[6]["error"]


def test_what_a_search_finds_is_written_as_pictures(gallery: Gallery, tmp_path: Path) -> None:
    some = registry.read_split(gallery.store, gallery.data, "test").slice(0, 3)
    ids = some["row_id"].to_pylist()
    found = library(gallery.store, gallery.served, ids)
    for row, body in zip(ids, some["image"].to_pylist(), strict=True):
        assert found[row].tobytes() == body
    answers = [{"nearest": [{"row_id": row, "text": "a digit", "score": 0.5} for row in ids]}]
    write_found(tmp_path / "found.png", ["what was asked"], answers, found)
    shown = np.asarray(Image.open(tmp_path / "found.png").convert("L"))
    wide = np.kron(found[ids[0]], np.ones((12, 12), np.uint8))  # 8 pixels of a side are shown as 96
    windows = np.lib.stride_tricks.sliding_window_view(shown, wide.shape)[:, :20]
    assert any((window == wide).all() for line in windows for window in line)
    with pytest.raises(WrongInput, match="searches texts"):
        library(gallery.store, Served(gallery.version, gallery.served.contract, ["number"]), ids)


def bad_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Name -> bytes of a file, and what is said of it."""
    body = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(body, "PNG")
    return {
        "text.png": (b"not a picture at all", "is no image that is known"),
        "cut.png": (body.getvalue()[:900], "cannot be decoded|is cut off|truncated"),
        "absent.png": (b"", "is no file; the model reads a picture"),
    }


def test_what_is_no_picture_is_refused_in_one_line(gallery: Gallery, tmp_path: Path) -> None:
    for name, (body, said) in bad_files(tmp_path).items():
        if body:
            (tmp_path / name).write_bytes(body)
        with pytest.raises(WrongInput, match=said):
            predict_inputs(gallery.store, gallery.served, (str(tmp_path / name),))


def test_other_modes_and_sizes_are_converted_and_answered(gallery: Gallery, tmp_path: Path) -> None:
    (plain,) = predict_inputs(gallery.store, gallery.served, (saved(gallery.picture(0), tmp_path / "a.png"),))
    deep = Image.fromarray(np.asarray(gallery.picture(0)).astype(np.uint16) * 257)
    rgba = gallery.picture(0).convert("RGBA")
    for name, other in (("deep", deep), ("rgba", rgba), ("palette", rgba.convert("RGB").quantize(256))):
        (answer,) = predict_inputs(gallery.store, gallery.served, (saved(other, tmp_path / f"{name}.png"),))
        assert answer["label"] == plain["label"], name
    large = gallery.picture(0).resize((80, 80), Image.Resampling.NEAREST)
    (answer,) = predict_inputs(gallery.store, gallery.served, (saved(large, tmp_path / "large.png"),))
    assert answer["label"] == plain["label"]


def saved(image: Image.Image, path: Path) -> str:
    image.save(path)
    return str(path)


def test_the_package_answers_base64_text_over_http(gallery: Gallery) -> None:
    from fastapi.testclient import TestClient

    heard: list[Any] = []
    package = tracking.package_files(gallery.settings, gallery.version.package)
    app = scoring.scoring_app(package, lambda predictor: lambda *told: heard.append(told))
    expected = gallery.evidence.test_inputs(gallery.subject, [row["row_id"] for row in gallery.test[:3]])
    body = io.BytesIO()
    gallery.picture(0).save(body, "PNG")
    assert base64.b64decode(expected[0]["image"]) == body.getvalue()
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.post("/invocations", json={"dataframe_records": expected})
    recorded = gallery.evidence.evaluation(gallery.subject).predictions(["row_id", "prediction"]).to_pylist()
    said = {row["row_id"]: row["prediction"] for row in recorded}
    assert answer.status_code == 200, answer.text
    assert [one["label"] for one in answer.json()["predictions"]] == [
        said[row["row_id"]] for row in gallery.test[:3]
    ]  # fmt: skip
    assert len(heard) == 1
    # A path is no picture: who asks a server must not choose what it reads.
    refused = client.post("/invocations", content=json.dumps({"dataframe_records": [{"image": "/etc/hostname"}]}),
                          headers={"Content-Type": "application/json"})  # fmt: skip
    assert refused.status_code >= 400 and "is no base64 text of a file" in refused.text
