"""What tests of several rooms share: shared data, stores, an S3 server."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from infra.store import FolderStore, S3Store, Store

# No deadline: a first example pays for the imports, and the machine's speed is not what is tested.
hypothesis.settings.register_profile("slipway", deadline=None)
hypothesis.settings.load_profile("slipway")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED_DATA.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(pytest.mark.skip(reason=f"{SHARED_DATA} is not there"))


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the libraries read from the environment, set once: the first workspace to set it may be gone when a later
    test, or its child process, opens Prefect's database."""
    from infra.settings import Settings, quiet_environment

    quiet_environment(Settings(workspace=str(tmp_path_factory.mktemp("environment"))))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; its tests carry the mark `shared_data`."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """`S3_ENDPOINT` (`make test-s3`), else an S3 server of this test session: moto's, which keeps create-if-absent one
    request at a time, but not between racers."""
    if "S3_ENDPOINT" in os.environ:
        yield os.environ["S3_ENDPOINT"]
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _s3_environment(address: str) -> dict[str, str]:
    keys = {} if "S3_ENDPOINT" in os.environ else {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return {
        "AWS_ENDPOINT_URL_S3": address,
        **keys,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


@pytest.fixture
def s3_store(s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty bucket, and a prefix in it."""
    for name, value in _s3_environment(s3_address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # boto3 keeps the credentials it found first
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    store = S3Store(bucket, "team/slipway", tmp_path / "cache")
    store.client.create_bucket(Bucket=bucket)
    return store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of object store in turn, empty."""
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    return request.getfixturevalue("s3_store")


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory, s3_address: str) -> Iterator[str]:
    """The one Ray cluster of the test session: in this process joined, for child processes an address. Its nodes reach
    the session's S3 server, as those of a real one reach theirs: by their own environment."""
    import ray

    from infra.cluster import connect
    from infra.settings import Settings, quiet_environment

    settings = Settings(workspace=str(tmp_path_factory.mktemp("ray")))
    quiet_environment(settings)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in _s3_environment(s3_address).items():
            environment.setenv(name, value)
        connect(settings, workers=3)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
