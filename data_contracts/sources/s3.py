"""A prefix on S3, read as files, images, IDX or a corpus: objects are fetched into the cache, by key and ETag.

Endpoint and keys come from boto3's own chain (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ~/.aws), as for the store.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.source import Source, Unreadable, check_server, load_source
from data_contracts.sources import corpus, files, idx, images
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

READS = ("files", "images", "idx", "corpus")
SERVER: dict[str, Any] = {
    **corpus.SERVER,
    **idx.SERVER,
    **images.SERVER,
    **files.SERVER,
    "location": str,
    "reads": str,
}
"""location: s3://BUCKET/PREFIX/, may be a glob; reads: the source that reads what lies there (default files), whose own
keys stand beside it."""


def _as_read(contract: "Contract", uri: str | None) -> "tuple[Source, Contract, str]":
    server = contract.server
    name = server.get("reads", "files")
    if name not in READS:
        raise WrongInput(f"contract {contract.path}: slipway.reads '{name}' is unknown; {choices(name, READS)}")
    location = uri or server.get("location", "")
    if not location.startswith("s3://"):
        raise WrongInput(f"contract {contract.path}: servers[0].location '{location}': write s3://BUCKET/PREFIX/")
    own = {key: value for key, value in server.items() if key not in ("location", "reads")} | {"source": name}
    check_server(own, f"contract {contract.path}: servers[0]")
    return load_source(name), replace(contract, server=own), location


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    source, read_as, location = _as_read(contract, uri)
    return source.fingerprint(read_as, location, cache)


def read(
    contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None"
) -> "Iterator[pa.RecordBatch | Unreadable]":
    source, read_as, location = _as_read(contract, uri)
    return source.read(read_as, location, cache, progress)
