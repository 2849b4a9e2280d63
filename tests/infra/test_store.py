"""Both kinds of object store keep the same promises."""

import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from infra.errors import SlipwayError, WrongInput
from infra.store import FolderStore, NotFound, S3Store, Store, open_store


def test_what_was_put_is_got_and_the_newest_counts(store):
    store.put("a/b/c.bin", b"\x00first")
    store.put("a/b/c.bin", b"second")
    assert store.get("a/b/c.bin") == b"second"
    assert store.exists("a/b/c.bin")


def test_absent_objects_are_not_found(store):
    store.put("a/b", b"x")
    assert not store.exists("a")  # a folder of keys is no object
    assert not store.exists("a/c")
    for absent in ("a", "a/c", "a/b/c"):
        with pytest.raises(NotFound):
            store.get(absent)
        with pytest.raises(NotFound):
            store.local_path(absent)
    with pytest.raises(NotFound):
        store.local_folder("a", ["b", "c"])


def test_create_writes_once_and_says_whose_bytes_are_there(store):
    assert store.create("log/000000000001.json", b"mine")
    assert store.create("log/000000000001.json", b"mine"), "the answer to a first try that got lost"
    assert not store.create("log/000000000001.json", b"theirs")
    assert store.get("log/000000000001.json") == b"mine"


def test_delete_removes_and_may_be_repeated(store):
    store.put("a", b"x")
    store.delete("a")
    store.delete("a")
    store.delete("a/b")
    assert not store.exists("a")
    assert store.create("a", b"y")


def test_deleting_what_is_no_object_deletes_nothing(store):
    store.put("a/b", b"x")
    store.delete("a")
    store.delete("a/b/c")
    assert list(store.list("")) == ["a/b"]


def test_modified_is_when_the_object_was_written(store):
    before = time.time()
    store.put("a/b", b"x")
    assert before - 2 <= store.modified("a/b") <= time.time() + 2  # S3 tells whole seconds
    with pytest.raises(NotFound):
        store.modified("a/c")


def test_list_is_sorted_by_key_and_starts_after(store):
    keys = ["log/10", "log/9", "log/a/b", "log/a-b", "log/é", "logs/1", "other"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("log/")) == ["log/10", "log/9", "log/a-b", "log/a/b", "log/é"]
    assert list(store.list("log/", after="log/9")) == ["log/a-b", "log/a/b", "log/é"]
    assert list(store.list("log/", after="log/95")) == ["log/a-b", "log/a/b", "log/é"]  # need not exist
    assert list(store.list("log")) == ["log/10", "log/9", "log/a-b", "log/a/b", "log/é", "logs/1"]
    assert list(store.list("log/1")) == ["log/10"]
    assert list(store.list("nothing/")) == []
    assert list(store.list("")) == sorted(keys)


def test_upload_and_local_path_keep_every_byte(store, tmp_path):
    data = bytes(range(256)) * 50_000  # 12.8 MB: more than boto3 sends in one part
    (tmp_path / "weights").write_bytes(data)
    store.upload(tmp_path / "weights", "models/x/weights")
    assert store.local_path("models/x/weights").read_bytes() == data
    store.put("models/x/weights", b"other")
    assert store.local_path("models/x/weights").read_bytes() == b"other"


def test_local_folder_shows_what_the_store_holds_now(store):
    for content in (b"one", b"two"):
        store.put("models/x/a", content)
        store.put("models/x/deep/b", content)
        folder = store.local_folder("models/x", ["a", "deep/b"])
        assert [(folder / name).read_bytes() for name in ("a", "deep/b")] == [content, content]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a/..", "a\0b"])
def test_keys_that_leave_the_store_are_refused(store, tmp_path, key):
    for call in (store.get, store.exists, store.delete, store.local_path, lambda k: list(store.list(k))):
        with pytest.raises(WrongInput, match="leads out of the object store"):
            call(key)
    for write in (store.put, store.create):
        with pytest.raises(WrongInput):
            write(key, b"x")
    assert not list(tmp_path.rglob("x"))


def _race(folder: Path, number: int, start: Barrier, won: "multiprocessing.Queue[tuple[int, int]]") -> None:
    store = FolderStore(folder)
    for round_ in range(50):
        start.wait()
        if store.create(f"log/{round_:012d}", f"writer {number}".encode()):
            won.put((round_, number))


def test_of_racing_writers_on_a_folder_one_wins(tmp_path):
    """Not on S3 here: moto checks and writes in two steps, so two racers can both win, which a real server prevents."""
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(8), context.Queue()
    writers = [context.Process(target=_race, args=(tmp_path, number, start, won)) for number in range(8)]
    for writer in writers:
        writer.start()
    winners = sorted(won.get(timeout=60) for _ in range(50))
    for writer in writers:
        writer.join(timeout=60)  # its exit code is that of what others have left to be done at an exit
    assert won.empty(), "two writers of one round believe that they won"
    assert [round_ for round_, _ in winners] == list(range(50))
    store = FolderStore(tmp_path)
    for round_, number in winners:
        assert store.get(f"log/{round_:012d}") == f"writer {number}".encode()
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [f"{n:012d}" for n in range(50)]


def test_an_unfinished_file_is_no_object(tmp_path):
    """What a process that was killed while writing leaves behind."""
    store = FolderStore(tmp_path)
    store.put("log/1", b"x")
    (tmp_path / "log" / ".aside-0123").write_bytes(b"half")
    assert list(store.list("")) == ["log/1"]


def test_a_failed_write_leaves_nothing(tmp_path):
    store = FolderStore(tmp_path / "store")
    with pytest.raises(SlipwayError):
        store.upload(tmp_path / "absent", "a/b")
    with pytest.raises(TypeError):
        store.put("a/b", "text")  # type: ignore[arg-type]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_objects_are_as_private_as_the_umask_says(tmp_path):
    before = os.umask(0o077)
    try:
        FolderStore(tmp_path).put("secret", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_unwritable_folder_is_one_line_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("a store cannot be made below a file; this holds for root too")
    for write in (FolderStore.put, FolderStore.create):
        with pytest.raises(WrongInput, match=r"cannot write.*SLIPWAY_STORE") as told:
            write(FolderStore(tmp_path / "file" / "store"), "a", b"x")
        assert "\n" not in str(told.value)


def test_unreadable_object_is_one_line(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(WrongInput, match="cannot read loop"):
        FolderStore(tmp_path).get("loop")


def test_wrong_bucket_is_told_from_an_absent_object(s3_store, tmp_path):
    assert not s3_store.exists("absent")
    wrong = S3Store("no-such-bucket", "", tmp_path / "cache")
    (tmp_path / "file").write_bytes(b"x")
    calls = [
        lambda: wrong.get("a"),
        lambda: wrong.put("a", b"x"),
        lambda: wrong.create("a", b"x"),
        lambda: wrong.exists("a"),
        lambda: list(wrong.list("a")),
        lambda: wrong.upload(tmp_path / "file", "a"),
        lambda: wrong.local_path("a"),
    ]
    for call in calls:
        with pytest.raises(WrongInput, match="bucket does not exist") as told:
            call()
        assert "\n" not in str(told.value)


def test_missing_credentials_are_one_line(s3_store, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(WrongInput, match="AWS_ACCESS_KEY_ID"):
        S3Store(s3_store.bucket, "", tmp_path).put("a", b"x")


def test_stores_of_one_bucket_do_not_see_each_other(s3_store, tmp_path):
    other = S3Store(s3_store.bucket, "team/slip", tmp_path / "cache")
    s3_store.put("a", b"x")
    assert list(other.list("")) == []
    assert list(s3_store.list("")) == ["a"]


def test_a_cached_file_that_is_short_is_fetched_again(s3_store):
    s3_store.put("a", b"whole")
    s3_store.local_path("a").write_bytes(b"who")
    assert s3_store.local_path("a").read_bytes() == b"whole"


def test_addresses_open_the_store_they_name(tmp_path, monkeypatch, s3_store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "with space#1"

    def folder_of(uri: str) -> Path:
        opened = open_store(uri)
        assert isinstance(opened, FolderStore)
        return opened.folder

    assert folder_of(folder.as_uri()) == folder_of(str(folder)) == folder
    assert folder_of("relative") == tmp_path / "relative"
    assert folder_of("~/store") == tmp_path / "home" / "store"
    opened: Store = open_store("s3://bucket/some/prefix/")
    assert isinstance(opened, S3Store)
    assert (opened.bucket, opened.prefix, opened.uri) == ("bucket", "some/prefix", "s3://bucket/some/prefix")


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3:///prefix", "file://relative/path", "file://"])
def test_addresses_that_name_no_store_are_refused(uri):
    with pytest.raises(WrongInput, match="SLIPWAY_STORE"):
        open_store(uri)
