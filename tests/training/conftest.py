"""What tests of training share."""

from collections.abc import Iterator

import pytest

from tests.training.gloo_group import GlooGroup


@pytest.fixture(scope="session")
def gloo_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlooGroup]:
    """Two worker processes that stay for the whole session."""
    group = GlooGroup(2, tmp_path_factory.mktemp("gloo"))
    yield group
    group.close()


@pytest.fixture(scope="session")
def gloo_four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlooGroup]:
    """Four, for what is marked slow."""
    group = GlooGroup(4, tmp_path_factory.mktemp("gloo-four"))
    yield group
    group.close()
