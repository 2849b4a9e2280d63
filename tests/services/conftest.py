"""What tests of the services share."""

from collections.abc import Iterator

import pytest

from tests.services import postgres as server
from tests.services.servers import unused_port


@pytest.fixture(scope="module")
def postgres() -> Iterator[server.Postgres]:
    if why := server.missing():
        pytest.skip(why)
    with server.Postgres(unused_port()) as running:
        yield running
