"""The object store over a network that fails one request in ten, before or after it was done."""

import uuid
from collections.abc import Iterator

import pytest

from infra.errors import SlipwayError
from infra.store import S3Store
from tests.services.fault_proxy import WAYS, FaultProxy, share

OBJECTS = 60


@pytest.fixture
def proxied(
    s3_store: S3Store, s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[S3Store, FaultProxy]]:
    with FaultProxy(s3_address, share(0.1)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield S3Store(s3_store.bucket, s3_store.prefix, s3_store.cache), proxy


def test_one_request_in_ten_may_fail_and_nothing_is_lost_or_written_twice(
    proxied: tuple[S3Store, FaultProxy], s3_store: S3Store, tmp_path
) -> None:
    store, proxy = proxied
    (tmp_path / "file").write_bytes(big := bytes(range(256)) * 40_000)  # 10 MB: boto3 sends it in parts
    store.upload(tmp_path / "file", "big")
    mine = b""
    for number in range(OBJECTS):
        key, mine = f"log/{number:012d}", f"mine {uuid.uuid4().hex}".encode()
        assert store.create(key, mine), "won, also where the answer to the first try was lost"
        assert not store.create(key, b"theirs"), "lost, whatever was lost on the way"
        assert store.get(key) == mine
        store.put(f"name/{number % 10}", mine)
    assert store.local_path("big").read_bytes() == big
    assert list(store.list("log/")) == [f"log/{number:012d}" for number in range(OBJECTS)]
    assert s3_store.get("name/9") == mine, "the same without the proxy"
    assert all(proxy.counts[way] for way in WAYS), f"every way of failing was tried: {proxy.counts}"
    assert 0.05 < proxy.failed / proxy.counts["requests"] < 0.2


def test_an_answer_that_never_arrives_whole_is_one_line_and_not_half_an_object(
    proxied: tuple[S3Store, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = proxied
    monkeypatch.setattr("infra.store.TRIES", 3)
    store.put("a", b"a whole object")
    proxy.plan = lambda method, path: "cut" if method == "GET" else ""
    with pytest.raises(SlipwayError, match="object a") as told:
        store.get("a")
    assert "\n" not in str(told.value)
