"""A withdrawn or expired version stays readable and is barred."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import Contract, parse_contract
from data_contracts.registry import Version, read_split, register, resolve
from data_contracts.withdrawal import barred, refuse_withdrawn, retention_days, withdraw
from infra.errors import Refused, WrongInput
from infra.store import FolderStore, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": "string", "kind": "string"}


@pytest.fixture
def version(contract: Maker, write: Writer, store: Store, tmp_path: Path, sentences: Rows) -> Version:
    return register(store, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))[0]


def test_a_withdrawn_version_is_refused_and_stays_readable(
    store: Store, version: Version, contract: Maker, tmp_path: Path
) -> None:
    refuse_withdrawn(store, version)
    entry, written = withdraw(store, version, "ann", "scraped without\n consent")
    assert written and entry["reason"] == "scraped without consent"
    with pytest.raises(Refused) as caught:
        refuse_withdrawn(store, resolve(store, "made"))
    assert f"dataset {version.ref}: was withdrawn by ann on" in str(caught.value)
    assert "scraped without consent" in str(caught.value)
    assert read_split(store, version, "train").num_rows > 0
    again, created = register(store, contract(COLUMNS), str(tmp_path / "rows.csv"))
    assert not created and barred(store, again), "the same rows again are the same version"
    entry, written = withdraw(store, version, "bob", "other")
    assert (entry["who"], written) == ("ann", False), "once is for good"


def test_the_next_version_is_not_barred(
    store: Store, version: Version, contract: Maker, write: Writer, tmp_path: Path, sentences: Rows
) -> None:
    withdraw(store, version, "ann", "wrong")
    other, _ = register(store, contract(COLUMNS), str(write(tmp_path / "b.csv", sentences[:350])))
    assert barred(store, other) is None


def test_a_reason_is_asked_for(store: Store, version: Version) -> None:
    with pytest.raises(WrongInput, match="withdrawing needs a reason"):
        withdraw(store, version, "ann", "  ")


def with_retention(document: Callable[..., dict[str, Any]], **retention: Any) -> Contract:
    body = document(COLUMNS) | {"slaProperties": [{"property": "retention", **retention}]}
    return parse_contract(yaml.safe_dump(body), "made.odcs.yaml")


def test_an_expired_retention_bars(
    document: Callable[..., dict[str, Any]], write: Writer, tmp_path: Path, sentences: Rows
) -> None:
    store = FolderStore(tmp_path / "store")
    made = with_retention(document, value=2, unit="y")
    version, _ = register(store, made, str(write(tmp_path / "rows.csv", sentences)))
    created = datetime.fromisoformat(version.manifest["created"])
    assert barred(store, version) is None
    assert barred(store, version, created + timedelta(days=729)) is None
    assert "expired on" in (barred(store, version, created + timedelta(days=730)) or "")
    assert datetime.now(UTC) - created < timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "unit", "days"), [(2, "y", 730), (18, "months", 540), ("30", "d", 30), (1, "week", 7)]
)
def test_retention_is_read_in_days(document: Callable[..., dict[str, Any]], value: Any, unit: str, days: float) -> None:
    assert retention_days(with_retention(document, value=value, unit=unit)) == days


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (2, "parsec", "unit 'parsec' is unknown"),
        ("soon", "d", "is not a number"),
        (0, "d", "is not a number above 0"),
        (True, "d", "is not a number"),
    ],
)
def test_a_retention_that_cannot_be_read_refuses_the_registration(
    document: Callable[..., dict[str, Any]],
    write: Writer,
    tmp_path: Path,
    sentences: Rows,
    value: Any,
    unit: str,
    words: str,
) -> None:
    store = FolderStore(tmp_path / "store")
    made = with_retention(document, value=value, unit=unit)
    with pytest.raises(WrongInput, match=words):
        register(store, made, str(write(tmp_path / "rows.csv", sentences)))
    assert not list(store.list(""))
