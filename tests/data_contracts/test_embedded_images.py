"""Images that stand in Parquet or Arrow are the rows that a folder of the same images gives."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_contracts.audit import audit
from data_contracts.contract import Contract, parse_contract
from data_contracts.drafting import draft
from data_contracts.registry import read_file, read_quarantine, read_split, register
from infra.errors import WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
IMAGE = {"logicalType": "string", "customProperties": [{"property": "slipway.type", "value": "image"}]}
COLUMNS = {"image": IMAGE, "label": "string"}
ROWS = 60


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (4 + n % 3, 5, 3), dtype=np.uint8)) for n in range(ROWS)]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def labels() -> list[str]:
    return ["cat" if n < ROWS // 2 else "dog" for n in range(ROWS)]


def hub_parquet(path: Path) -> Path:
    """As `datasets` writes it."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": pictures(), "label": labels()}, features=features).to_parquet(str(path))
    return path


def plain_parquet(path: Path) -> Path:
    images = [encoded(image, "BMP") for image in pictures()]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "label": labels()}), path, row_group_size=7)
    return path


def plain_arrow(path: Path) -> Path:
    images = pa.array([encoded(image) for image in pictures()], pa.large_binary())
    table = pa.table({"label": labels(), "image": images})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path


def folder(path: Path) -> Path:
    for number, (image, label) in enumerate(zip(pictures(), labels(), strict=True)):
        (path / label).mkdir(parents=True, exist_ok=True)
        image.save(path / label / f"{number:03}.png")
    return path


def test_images_in_a_table_are_the_rows_of_a_folder(contract: Maker, tmp_path: Path) -> None:
    assert pq.read_schema(hub_parquet(tmp_path / "hub.parquet")).field("image").type == pa.struct(
        [("bytes", pa.binary()), ("path", pa.string())]
    )
    store, made = FolderStore(tmp_path / "store"), contract(COLUMNS, label="label")
    paths = [tmp_path / "hub.parquet", plain_parquet(tmp_path / "a.parquet"), plain_arrow(tmp_path / "a.arrow")]
    versions = [register(store, made, str(path))[0] for path in paths]
    as_folder = contract(COLUMNS, label="label", server={"source": "images"})
    versions.append(register(store, as_folder, str(folder(tmp_path / "folder")))[0])
    assert len({version.rows for version in versions}) == 1
    train = read_split(store, versions[0], "train")
    row = train.slice(0, 1).to_pylist()[0]
    assert len(row["image"]) == row["image_width"] * row["image_height"] * 3 and row["image_mode"] == "RGB"
    assert all(check.passed for check in audit(store, versions[0]))


def test_an_image_that_does_not_decode_is_kept_apart_as_its_bytes(contract: Maker, tmp_path: Path) -> None:
    good = [encoded(image) for image in pictures()]
    cells: list[Any] = [{"bytes": image, "path": None} for image in good]
    cells[3] = {"bytes": b"no image", "path": "x.png"}
    cells[40] = {"bytes": good[40][:60], "path": None}
    cells[50] = {"bytes": None, "path": "/etc/passwd"}
    cells[51] = {"bytes": None, "path": None}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": cells, "label": labels()}), path)
    store, made = FolderStore(tmp_path / "store"), contract({**COLUMNS, "image": {**IMAGE, "required": True}})
    version, _ = register(store, made, str(path))
    found = {row["row"]: row for row in read_quarantine(store, version).to_pylist()}
    assert sorted(found) == [4, 41, 51, 52] and found[4]["raw"] == b"no image"
    assert found[4]["reason"] == "row image: is no image that is known, or is cut off"
    assert "only its path is there ('/etc/passwd')" in found[51]["reason"] and found[51]["raw"] == b"/etc/passwd"
    assert found[52]["rules"] == ["image_height:required", "image_mode:required", "image_width:required"]


def test_images_that_are_not_required_may_be_missing(contract: Maker, tmp_path: Path) -> None:
    cells = [None if n % 5 == 0 else encoded(image) for n, image in enumerate(pictures())]
    pq.write_table(pa.table({"image": cells, "label": labels()}), tmp_path / "a.parquet")
    version, _ = register(FolderStore(tmp_path / "store"), contract(COLUMNS, inputs=["label", "image"]),
                          str(tmp_path / "a.parquet"))  # fmt: skip
    assert version.counts["quarantined"] == 0


def test_rules_and_modes_hold_for_images_in_a_table(contract: Maker, tmp_path: Path) -> None:
    columns = {**COLUMNS, "image_height": {"logicalType": "integer", "logicalTypeOptions": {"maximum": 5}}}
    made = contract(columns, server={"mode": "L"}, quarantine={"limit": 0.5})
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, made, str(plain_parquet(tmp_path / "a.parquet")))
    assert version.counts["quarantined"] == ROWS // 3
    assert set(read_split(store, version, "train").column("image_mode").to_pylist()) == {"L"}
    assert read_file(store, version, "profile").exists()


@pytest.mark.parametrize("make", [hub_parquet, plain_arrow])
def test_a_draft_of_images_in_a_table_registers(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / ("a.arrow" if make is plain_arrow else "a.parquet"))
    made = parse_contract(draft(str(path)), "drafted")
    assert made.images == ("image",) and made.inputs == ("image",) and made.label == "label"
    version, _ = register(FolderStore(tmp_path / "store"), made)
    assert version.counts["rows_in"] == ROWS and version.counts["quarantined"] == 0


def test_what_is_no_image_column_is_said(document: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2], "label": ["a", "b"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("image,label\nx.png,a\n", encoding="utf-8")
    made = parse_contract(yaml.safe_dump(document(COLUMNS)), "made.odcs.yaml")
    for name, words in {"a.parquet": "column 'image': is int64, and no image", "a.csv": "no csv holds images"}.items():
        with pytest.raises(WrongInput, match=words) as caught:
            register(FolderStore(tmp_path / "store"), made, str(tmp_path / name))
        assert name in str(caught.value)
