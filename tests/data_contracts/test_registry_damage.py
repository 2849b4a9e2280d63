"""A version that was interrupted, damaged or replaced is never believed, and registering again mends it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.registry import damage, list_versions, register, resolve
from infra.errors import SlipwayError, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": {"logicalType": "string", "required": True}, "kind": "string"}


class Crash(BaseException):
    """What SIGKILL looks like from inside: no handler of ours may see it as an error."""


@pytest.mark.parametrize("survives", [0, 4, 13, 14])
def test_a_crash_leaves_nothing_that_counts(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch, survives: int,
) -> None:  # fmt: skip
    path = str(write(tmp_path / "rows.csv", sentences))
    left = [survives]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(folder, "upload", dying(folder.upload))
        patch.setattr(folder, "create", dying(folder.create))
        with pytest.raises(Crash):
            register(folder, contract(COLUMNS), path)
    # 13 files, then the manifest, then the ref: only with the manifest is there a version.
    whole = survives > 13
    assert len(list_versions(folder)) == whole
    version, created = register(folder, contract(COLUMNS), path)
    assert created != whole and damage(folder, version) is None
    assert resolve(folder, "made").digest == version.digest


@pytest.mark.parametrize("file", ["data/train", "quarantine", "contract"])
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_damage_is_named_and_mended_by_registering_again(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, file: str, how: str
) -> None:
    path = str(write(tmp_path / "rows.csv", sentences))
    version, _ = register(folder, contract(COLUMNS), path)
    victim = folder.folder / version.key(version.manifest["files"][file]["name"])
    if how == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    found = damage(folder, version)
    assert found is not None and victim.name in found and how in found
    again, created = register(folder, contract(COLUMNS), path)
    assert created and again.digest == version.digest and damage(folder, again) is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"format": 1}'])
def test_an_altered_manifest_is_one_line(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, content: bytes
) -> None:
    path = str(write(tmp_path / "rows.csv", sentences))
    version, _ = register(folder, contract(COLUMNS), path)
    folder.put(version.key("manifest.json"), content)
    with pytest.raises(SlipwayError, match=r"manifest.json"):
        resolve(folder, "made")
    mended, _ = register(folder, contract(COLUMNS), path)
    assert resolve(folder, "made").digest == mended.digest == version.digest


def test_a_newer_manifest_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    version, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))
    folder.put(version.key("manifest.json"), json.dumps(version.manifest | {"format": 2}).encode())
    with pytest.raises(WrongInput, match=r"format 2 is newer"):
        resolve(folder, "made")


def test_a_version_copied_under_another_digest_is_not_believed(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    version, _ = register(folder, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))
    here = folder.folder / "datasets" / "made"
    shutil.copytree(here / version.digest, here / ("0" * 64))
    with pytest.raises(SlipwayError, match="another version's"):
        resolve(folder, "made@000000")
