"""An artifact is whole or absent, and has the same name wherever it is made."""

import json

import pytest

from infra import artifacts
from infra.errors import WrongInput
from infra.store import FolderStore, NotFound

FILES = {"weights.safetensors": b"\x00\x01\x02", "deep/config.json": b"{}"}


@pytest.fixture
def written(tmp_path):
    """Files to commit: name -> path."""
    paths = {}
    for name, content in FILES.items():
        paths[name] = tmp_path / "files" / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(content)
    return paths


def test_what_is_committed_is_fetched(store, written):
    made = artifacts.commit(store, "models", written, {"rows": 3})
    found = artifacts.load(store, "models", made.digest)
    assert found == made
    assert found.facts == {"rows": 3}
    folder = artifacts.fetch(store, found)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert artifacts.is_whole(store, "models", made.digest)


def test_same_files_have_the_same_digest_in_any_order_anywhere(tmp_path, store, written):
    first = artifacts.commit(store, "models", written, {"host": "a"})
    other = FolderStore(tmp_path / "other")
    second = artifacts.commit(other, "models", dict(reversed(written.items())), {"host": "b"})
    assert second.digest == first.digest
    assert artifacts.commit_folder(other, "models", tmp_path / "files").digest == first.digest


def test_name_and_content_both_count(tmp_path, store, written):
    digests = {artifacts.commit(store, "models", written).digest}
    renamed = {("other" if name == "deep/config.json" else name): path for name, path in written.items()}
    digests.add(artifacts.commit(store, "models", renamed).digest)
    written["deep/config.json"].write_bytes(b"{ }")
    digests.add(artifacts.commit(store, "models", written).digest)
    assert len(digests) == 3


def test_manifest_is_written_last(tmp_path, written):
    order = []

    class Watched(FolderStore):
        def put(self, key, data):
            order.append(key)
            super().put(key, data)

        def create(self, key, data):
            order.append(key)
            return super().create(key, data)

        def upload(self, path, key):
            order.append(key)
            super().upload(path, key)

    made = artifacts.commit(Watched(tmp_path / "store"), "models", written)
    assert sorted(order[:-1]) == sorted(f"{made.prefix}/{name}" for name in FILES)
    assert order[-1] == f"{made.prefix}/manifest.json"


def test_without_its_manifest_an_artifact_does_not_exist(store, written):
    made = artifacts.commit(store, "models", written)
    store.delete(f"{made.prefix}/manifest.json")
    assert not artifacts.is_whole(store, "models", made.digest)
    with pytest.raises(NotFound):
        artifacts.load(store, "models", made.digest)


def test_a_second_writer_of_the_same_files_changes_nothing(store, written):
    first = artifacts.commit(store, "models", written, {"by": "first"})
    before = store.get(f"{first.prefix}/manifest.json")
    assert artifacts.commit(store, "models", written, {"by": "second"}) == first
    assert store.get(f"{first.prefix}/manifest.json") == before


@pytest.mark.parametrize("content", [None, b"\x00\x01\x03", b""])
def test_a_missing_or_altered_file_is_found_and_mended_by_committing_again(store, written, content):
    made = artifacts.commit(store, "models", written)
    key = f"{made.prefix}/weights.safetensors"
    if content is None:
        store.delete(key)
    else:
        store.put(key, content)
    assert artifacts.damage(store, made) == f"{key} {'is missing' if content is None else 'was altered'}"
    assert not artifacts.is_whole(store, "models", made.digest)
    with pytest.raises(artifacts.Damaged, match=r"weights\.safetensors .*slipway retrain"):
        artifacts.fetch(store, made)
    artifacts.commit(store, "models", written)
    assert (artifacts.fetch(store, made) / "weights.safetensors").read_bytes() == FILES["weights.safetensors"]


def test_an_altered_manifest_is_found_and_mended_by_committing_again(store, written, tmp_path):
    made = artifacts.commit(store, "models", written)
    (tmp_path / "other").write_bytes(b"another artifact")
    other = artifacts.commit(store, "models", {"other": tmp_path / "other"})
    key = f"{made.prefix}/manifest.json"
    body = json.loads(store.get(key))
    lacking = {**body, "files": {name: entry for name, entry in body["files"].items() if name != "deep/config.json"}}
    for altered in (b"{", b'{"format": 1}', json.dumps(lacking).encode(), store.get(f"{other.prefix}/manifest.json")):
        store.put(key, altered)
        assert not artifacts.is_whole(store, "models", made.digest)
        with pytest.raises(artifacts.Damaged):
            artifacts.load(store, "models", made.digest)
        artifacts.commit(store, "models", written)
        assert artifacts.load(store, "models", made.digest).files == made.files


def test_a_newer_format_is_refused_and_never_taken_for_damage(store, written):
    made = artifacts.commit(store, "models", written)
    key = f"{made.prefix}/manifest.json"
    store.put(key, json.dumps({**json.loads(store.get(key)), "format": artifacts.FORMAT + 1}).encode())
    for read in (artifacts.load, artifacts.is_whole):
        with pytest.raises(WrongInput, match=r"format 2 is newer .*upgrade slipway"):
            read(store, "models", made.digest)


@pytest.mark.parametrize("document", [{}, {"format": None}, {"format": "1"}, {"format": True}, {"format": 0}, [], "x"])
def test_a_file_without_a_format_number_is_refused(document):
    with pytest.raises(WrongInput, match=r"x\.json: has no format number"):
        artifacts.check_format(document, 1, "x.json")


def test_older_and_present_formats_are_read():
    for found in (1, 2, 3):
        artifacts.check_format({"format": found}, 3, "x.json")


def test_a_file_may_not_take_the_manifests_name(store, written):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        artifacts.commit(store, "models", {"manifest.json": written["deep/config.json"]})
