"""Dataset versions: immutable, named by what they hold, whole or absent.

    datasets/<name>/<digest>/manifest.json              written last, created if absent: with it the version exists
                             data/<split>-<sha256>.parquet, order-, quarantine-, filtered-, repeats-<sha256>.parquet,
                             contract-<sha256>.odcs.yaml, README-<sha256>.md, validation-, profile-, corrections-,
                             croissant-<sha256>.json
    datasets/<name>/refs/<tag>/<sequence>.json          a tag is its newest entry
    datasets/<name>/corrections/<sequence>.json         what persons corrected
    datasets/<name>/withdrawn/<digest>/<sequence>.json  why a version is barred
    datasets/<name>/erased/<digest>/<sequence>.json     that the rows of a barred version were removed

Every file carries its hash in its name, so two writers of one version cannot spoil each other's. The digest is of
`rows` (ordered row ids with their splits, ids and rules of quarantined and filtered rows) and `contract` (canonical
JSON): never of Parquet bytes, times or reports.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import sequence
from data_contracts.contract import NAME, Contract, parse_contract
from data_contracts.source import at, load_source
from data_contracts.splits import SPLITS
from infra.artifacts import check_format
from infra.digests import digest, digest_file
from infra.errors import SlipwayError, WrongInput, choices
from infra.progress import Progress
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.corrections import Corrections
    from data_contracts.draft import Draft

FORMAT = 1
LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Version:
    name: str
    digest: str
    rows: str
    """Digest of the row ids, their splits, and what was kept out: with `schema_digest`, the key of what is trained."""
    contract_digest: str
    schema_digest: str
    counts: dict[str, int]
    """Rows of each split, and `quarantined`, `filtered`, `rows_in`: what came in is the sum of all the others."""
    manifest: dict[str, Any]

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.digest[:12]}"

    def key(self, file: str) -> str:
        return f"datasets/{self.name}/{self.digest}/{file}"


# Reading ------------------------------------------------------------------------------------------------------------


def list_versions(store: Store) -> list[Version]:
    """All versions of all datasets, by name, the oldest first."""
    found = [_load(store, *key.split("/")[1:3]) for key in store.list("datasets/") if key.endswith("/manifest.json")]
    return sorted(found, key=lambda version: (version.name, version.manifest["created"], version.digest))


def _load(store: Store, name: str, version_digest: str) -> Version:
    """Raises NotFound, WrongInput when a newer Slipway wrote it, SlipwayError when the manifest was altered."""
    key = _manifest_key(name, version_digest)
    try:
        body = json.loads(store.get(key))
        check_format(body, FORMAT, key)
        version = Version(
            name=body["name"],
            digest=body["digest"],
            rows=body["rows"],
            contract_digest=body["contract"],
            schema_digest=body["schema"],
            counts=body["counts"],
            manifest=body,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise SlipwayError(f"{key}: was altered ({error}); register the dataset again") from None
    except NotFound:
        raise
    except KeyError as error:
        raise SlipwayError(f"{key}: was altered (no {error}); register the dataset again") from None
    named = digest({"rows": version.rows, "contract": version.contract_digest})
    if (version.name, version.digest, named) != (name, version_digest, version_digest):
        raise SlipwayError(f"{key}: was altered (its digests are another version's); register the dataset again")
    return version


def resolve(store: Store, ref: str) -> Version:
    """`name` (its latest), `name@digest-prefix` or `name@tag`. Raises WrongInput listing what there is."""
    name, _, wanted = ref.partition("@")
    if not NAME.fullmatch(name):
        raise _unregistered(store, name)
    newest = _newest(store, name, wanted or LATEST)
    if newest is not None:
        return _load(store, name, newest["digest"])
    digests = [key.split("/")[2] for key in store.list(f"datasets/{name}/") if key.endswith("/manifest.json")]
    if not digests:
        raise _unregistered(store, name)
    matching = [found for found in digests if wanted and found.startswith(wanted)]
    if len(matching) == 1:
        return _load(store, name, matching[0])
    tags = sorted({key.split("/")[3] for key in store.list(f"datasets/{name}/refs/")})
    if matching:
        shown = ", ".join(found[:16] for found in matching)
        raise WrongInput(f"dataset '{ref}': fits {len(matching)} versions ({shown}); write more of the digest")
    raise WrongInput(
        f"dataset '{ref}': no such version or tag; {choices(wanted, tags + [found[:12] for found in digests])}"
    )


def _unregistered(store: Store, name: str) -> WrongInput:
    names = sorted({key.split("/")[1] for key in store.list("datasets/") if key.endswith("/manifest.json")})
    return WrongInput(f"dataset '{name}': is not registered; {choices(name, names)} (slipway data register makes one)")


def _newest(store: Store, name: str, tag: str) -> dict[str, Any] | None:
    return sequence.newest(store, tag_prefix(name, tag), FORMAT) if NAME.fullmatch(tag) else None


def tag_prefix(name: str, tag: str) -> str:
    return f"datasets/{name}/refs/{tag}/"


def registered_from(store: Store, name: str) -> dict[str, Any] | None:
    """The newest `latest` entry: digest, source, contract_path, fingerprint, corrections (entries applied), time.

    None when nothing is registered.
    """
    return _newest(store, name, LATEST)


def moved(store: Store, contract: Contract, source_uri: str | None, cache: Path | None = None) -> str | None:
    """Why the source has to be read again, in one phrase; None when neither it nor the contract moved. Cheap."""
    entry = registered_from(store, contract.name)
    if entry is None:
        return "not registered yet"
    version = _load(store, contract.name, entry["digest"])
    if version.contract_digest != contract.digest:
        return f"contract {contract.path} changed"
    contract, own = at(contract, source_uri), "the contract's own"
    if entry["source"] != _address(source_uri):
        return f"source is {source_uri or own}, was {entry['source'] or own}"
    if entry.get("corrections", 0) != num_corrections(store, contract.name):
        return "rows were corrected, or a correction withdrawn"
    now = json.loads(
        json.dumps(load_source(contract.source).fingerprint(contract, source_uri, cache or default_cache()))
    )
    if now == entry["fingerprint"]:
        return None
    return f"source changed: {_difference(entry['fingerprint'], now)}"


def num_corrections(store: Store, name: str) -> int:
    """How many entries of corrections there are; what `latest` was made with stands in its own entry. Cheap."""
    return len(sequence.keys(store, f"datasets/{name}/corrections/"))


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), key)
    if isinstance(before, list) and isinstance(now, list):
        for old, new in zip(before, now, strict=False):
            if old != new:
                name = new[0] if isinstance(new, list) and new else new
                return f"{name} is not what it was"
        return f"{len(now)} {path}, were {len(before)}"
    return f"{path} is {now}, was {before}"


def contract_of(store: Store, version: Version) -> Contract:
    """The contract a version was registered under."""
    return parse_contract(store.get(version.key(version.manifest["files"]["contract"]["name"])).decode(), version.ref)


def read_split(store: Store, version: Version, split: str, columns: list[str] | None = None) -> "pa.Table":
    """A split's rows in source order, `row_id` first; memory-mapped from the store's file where that is local."""
    import pyarrow.parquet as pq

    if split not in SPLITS:
        raise WrongInput(f"dataset {version.ref}: split '{split}' is unknown; {choices(split, SPLITS)}")
    if columns is not None:
        there = [column["name"] for column in version.manifest["columns"]]
        for name in columns:
            if name not in there and name != "row_id":
                raise WrongInput(f"dataset {version.ref}: has no column '{name}'; {choices(name, there)}")
        columns = ["row_id", *(name for name in columns if name != "row_id")]
    return pq.read_table(read_file(store, version, f"data/{split}"), columns=columns, memory_map=True)


def read_quarantine(store: Store, version: Version) -> "pa.Table":
    """row_id, rules, reason, file, row, values (JSON), raw (bytes): one row for each that was kept out."""
    import pyarrow.parquet as pq

    return pq.read_table(read_file(store, version, "quarantine"), memory_map=True)


def read_file(store: Store, version: Version, file: str) -> Path:
    """A file of a version on this machine, by its name in the manifest (`order`). Raises SlipwayError."""
    if file not in version.manifest["files"]:
        raise SlipwayError(f"dataset {version.ref}: has no file '{file}' (an older Slipway made it); register it again")
    key = version.key(version.manifest["files"][file]["name"])
    try:
        return store.local_path(key)
    except NotFound:
        gone = _erased(store, version, file)
        why = f"was removed on {gone}" if gone else "is missing; register it again (slipway data register)"
        raise SlipwayError(f"dataset {version.ref}: {key} {why}") from None


def _erased(store: Store, version: Version, file: str) -> str | None:
    """When and why that file's rows were removed, as `2026-03-01: was withdrawn by ...`; None: they were not."""
    from data_contracts.withdrawal import erased

    entry = erased(store, version)
    return f"{entry['time'][:10]}: its version {entry['reason']}" if entry and file in entry["files"] else None


def damage(store: Store, version: Version) -> str | None:
    """The first file that is missing or is not what the manifest says, as one phrase; None when all is whole.

    Rows that were removed because the version is barred are not missing.
    """
    for file, entry in version.manifest["files"].items():
        key = version.key(entry["name"])
        try:
            path = store.local_path(key)
        except NotFound:
            if _erased(store, version, file):
                continue
            return f"{key} is missing"
        if path.stat().st_size != entry["bytes"] or digest_file(path) != entry["sha256"]:
            return f"{key} was altered"
    return None


# Writing ------------------------------------------------------------------------------------------------------------


def register(
    store: Store,
    contract: Contract,
    source_uri: str | None = None,
    progress: Progress | None = None,
    tag: str = LATEST,
    cache: Path | None = None,
    memory_limit: int | None = None,
    corrections: "Corrections | None" = None,
    accept: "Callable[[Draft], None] | None" = None,
) -> tuple[Version, bool]:
    """Read the source, validate, and make the version if it is new; `tag` then names it.

    `memory_limit` in bytes, by default the machine's memory. `corrections`, by default those in force. `accept` sees
    the draft before anything is written and may raise.

    Raises WrongInput for a source that cannot be read as the contract says, Refused for one that violates it; in
    both cases nothing is written.
    """
    from data_contracts.corrections import in_force
    from data_contracts.draft import Draft
    from data_contracts.memory import Memory, source_bytes
    from data_contracts.withdrawal import retention_days

    if not NAME.fullmatch(tag):
        raise WrongInput(f"tag '{tag}': cannot name a version; use letters, digits, '-' and '_'")
    retention_days(contract)  # what is wrong with it is said before an hour of reading
    cache, contract = cache or default_cache(), at(contract, source_uri)
    source = load_source(contract.source)
    fingerprint = source.fingerprint(contract, source_uri, cache)
    corrections = corrections or in_force(store, contract.name)
    memory = Memory(contract, source_bytes(fingerprint), memory_limit)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        draft = Draft(contract, source_uri, cache, Path(folder), progress, corrections, memory)
        if source.fingerprint(contract, source_uri, cache) != fingerprint:
            raise WrongInput(f"{draft.where}: changed while it was read; register it again")
        if accept is not None:
            accept(draft)
        damaged = store.exists(_manifest_key(contract.name, draft.digest))
        version, created = _whole(store, contract.name, draft.digest), False
        if version is not None:
            refresh(store, version)
        else:
            version, committed = _commit(store, contract, draft)
            created = committed or damaged
    facts = {
        "source": _address(source_uri),
        "contract_path": os.path.abspath(contract.path) if os.path.exists(contract.path) else contract.path,
        "fingerprint": fingerprint,
        "corrections": corrections.state,
    }
    add_tag(store, version, tag, facts)
    return version, created


def _manifest_key(name: str, version_digest: str) -> str:
    return f"datasets/{name}/{version_digest}/manifest.json"


def _whole(store: Store, name: str, version_digest: str) -> Version | None:
    """The version, if it is there and nothing of it is missing or altered."""
    try:
        version = _load(store, name, version_digest)
    except (NotFound, SlipwayError):
        return None
    return None if damage(store, version) else version


def _commit(store: Store, contract: Contract, draft: "Draft") -> tuple[Version, bool]:
    """Write the files, then the manifest that makes them a version; whether it was this caller's manifest."""
    from data_contracts.version_files import VersionFiles
    from data_contracts.withdrawal import expiry

    key = _manifest_key(contract.name, draft.digest)
    created = sequence.now()
    body = {
        "format": FORMAT,
        "name": contract.name,
        "digest": draft.digest,
        "rows": draft.rows,
        "contract": contract.digest,
        "schema": contract.schema_digest,
        **contract.schema_section,
        **VersionFiles(draft, store, key.removesuffix("manifest.json"), created).facts,
        "created": created,
        "expires": expiry(contract, created),
        "nonce": os.urandom(8).hex(),  # of two writers in one second one made the version
    }
    manifest = json.dumps(body, indent=1, sort_keys=True).encode()
    made = store.create(key, manifest)
    if not made and _whole(store, contract.name, draft.digest) is None:
        store.put(key, manifest)  # it was whole once, and somebody altered it or took a file
        made = True
    # Of two writers that finish together the first one's manifest is the version's; both wrote all it names.
    return _load(store, contract.name, draft.digest), made


def validate_source(
    contract: Contract,
    source_uri: str | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    memory_limit: int | None = None,
    corrections: "Corrections | None" = None,
) -> dict[str, Any]:
    """What `register` would find, writing nothing: digest, counts, warnings, up to 100 quarantined rows, the report.

    `corrections`, as `corrections.in_force` gives them; by default none. Raises as `register` does.
    """
    from data_contracts.draft import Draft
    from data_contracts.memory import Memory, source_bytes
    from data_contracts.withdrawal import retention_days

    retention_days(contract)
    cache, contract = cache or default_cache(), at(contract, source_uri)
    fingerprint = load_source(contract.source).fingerprint(contract, source_uri, cache)
    memory = Memory(contract, source_bytes(fingerprint), memory_limit)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        draft = Draft(contract, source_uri, cache, Path(folder), progress, corrections, memory)
        shown = [
            {"row_id": row.row_id, "reason": row.reason, "file": row.file, "row": row.row}
            for row in draft.intake.quarantined[:100]
        ]
        return {
            "digest": draft.digest,
            "counts": draft.counts,
            "corrected": len(draft.corrections.applied),
            "filtered_by": draft.filtered_by,
            "repeated": draft.intake.repeated,
            "warnings": draft.findings.warnings,
            "quarantined": shown,
            "validation": draft.findings.report,
        }


def refresh(store: Store, version: Version) -> None:
    """Write the manifest again as it is: the version is in use, and `slipway gc` leaves alone what is young."""
    key = version.key("manifest.json")
    store.put(key, store.get(key))


def add_tag(store: Store, version: Version, tag: str, facts: dict[str, Any]) -> bool:
    """Append an entry to the tag, unless the newest says the same; whether one was written."""
    entry = json.loads(json.dumps({"digest": version.digest, **facts}))

    def make(newest: dict[str, Any] | None) -> dict[str, Any] | None:
        same = newest is not None and all(newest.get(key) == value for key, value in entry.items())
        return None if same else entry

    return sequence.append(store, tag_prefix(version.name, tag), FORMAT, make) is not None


def _address(uri: str | None) -> str | None:
    """A source's address as it means the same from any folder."""
    return None if uri is None else uri if "://" in uri else os.path.abspath(uri)


def default_cache() -> Path:
    """Where fetched files are kept when nobody says where."""
    return Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}" / "cache"
