"""Where rows come from: one file in `data_contracts/sources` for each kind, found by its name.

A source module has

    SERVER: dict[str, type]      keys it takes from the contract's server section (customProperties `slipway.*` too),
                                 each told of in the text below it, which `slipway sources NAME` shows
    fingerprint(contract, uri, cache) -> dict    what would change if the data did; cheap: sizes, times, versions
    read(contract, uri, cache, progress) -> Iterator[RecordBatch | Unreadable]   in a fixed order

`read` gives columns by the contract's names, in the types the data has (a CSV's are all text): casting is not its
affair. Columns that the contract does not name may be left out. A batch's schema metadata say where it is from:
`file`, and `row`, the number of its first row in it, from 1 (`file_rows` and `file_bytes` too, where the file says how
many rows it has); or `files`, a JSON list, where each row is a file of its own. A row that cannot be parsed is an
`Unreadable`; a file that cannot be opened as what it claims to be is a WrongInput.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

SOURCES = Path(__file__).parent / "sources"


@dataclass(frozen=True)
class Unreadable:
    """A row that is there and cannot be parsed."""

    file: str
    row: int
    """Its number in the file, from 1, the header not counted."""
    line: int
    """Where it begins in the file, from 1."""
    raw: bytes
    reason: str


class Source(Protocol):
    __doc__: str
    SERVER: dict[str, Any]

    def fingerprint(self, contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]: ...

    def read(
        self, contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None"
    ) -> "Iterator[pa.RecordBatch | Unreadable]": ...


def sources() -> list[str]:
    """Names of the sources there are."""
    return sorted(path.stem for path in SOURCES.glob("*.py") if path.stem != "__init__")


def load_source(name: str) -> Source:
    """Raises WrongInput listing the choices."""
    if name not in sources():
        raise WrongInput(f"source '{name}': is unknown; {choices(name, sources())}")
    return cast(Source, import_module(f"data_contracts.sources.{name}"))


def source_sheet(name: str) -> tuple[str, str]:
    """What a source's file says: of itself, and of SERVER, the options of a contract's server, each written there as
    `slipway.OPTION`. Without importing it. Raises WrongInput listing the choices."""
    if name not in sources():
        raise WrongInput(f"source '{name}': is unknown; {choices(name, sources())}")
    module = ast.parse((SOURCES / f"{name}.py").read_text(encoding="utf-8"))
    options = ""
    for node, after in pairwise(module.body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == "SERVER" for one in targets):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    options = cleandoc(text)
    return ast.get_docstring(module) or "", options


HUB = "hf://"
"""How an address of the hub begins, whatever source the contract's first server is read by."""


def at(contract: "Contract", uri: str | None) -> "Contract":
    """The contract with the server that reads an address: its own server of the hub for hf://, else the first."""
    if uri is None or not uri.startswith(HUB):
        return contract
    hub = next((server for server in contract.servers if server["source"] == "hub"), {"source": "hub"})
    return replace(contract, server=hub)


def check_server(server: dict[str, Any], where: str) -> None:
    """Check the server section against what its source takes. Raises WrongInput."""
    if server["source"] not in sources():
        raise WrongInput(
            f"{where}: slipway.source '{server['source']}' is unknown; {choices(server['source'], sources())}"
        )
    known = load_source(server["source"]).SERVER
    for key, value in server.items():
        if key in STANDARD:
            continue
        if key not in known:
            raise WrongInput(f"{where}: '{key}' is nothing source {server['source']} takes; {choices(key, known)}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
            raise WrongInput(f"{where}: {key}: {value!r} is not {known[key].__name__}")


STANDARD = {"id", "server", "type", "description", "environment", "roles", "source"}
"""Keys of a server section that say nothing about reading."""
