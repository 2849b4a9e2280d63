"""Dataset versions: immutable, named by what they hold, whole or absent.

    datasets/<name>/<digest>/manifest.json              written last, created if absent: with it the version exists
                             data/<split>-<sha256>.parquet, quarantine-<sha256>.parquet, filtered-<sha256>.parquet,
                             contract-<sha256>.odcs.yaml, validation-<sha256>.json, profile-<sha256>.json
    datasets/<name>/refs/<tag>/<sequence>.json          a tag is its newest entry

Every file carries its hash in its name, so two writers of one version cannot spoil each other's. The digest is of
`rows` (ordered row ids with their splits, ids and rules of quarantined and filtered rows) and `contract` (canonical
JSON): never of Parquet bytes, times or reports.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import Contract, parse_contract
from data_contracts.source import load_source
from data_contracts.splits import SPLITS
from infra.artifacts import check_format
from infra.digests import digest, digest_file
from infra.errors import Refused, SlipwayError, WrongInput, choices
from infra.progress import Progress
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.intake import Intake

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
    key = f"datasets/{name}/{version_digest}/manifest.json"
    body = json.loads(store.get(key))
    check_format(body, FORMAT, key)
    return Version(
        name=body["name"],
        digest=body["digest"],
        rows=body["rows"],
        contract_digest=body["contract"],
        schema_digest=body["schema"],
        counts=body["counts"],
        manifest=body,
    )


def resolve(store: Store, ref: str) -> Version:
    """`name` (its latest), `name@digest-prefix` or `name@tag`. Raises WrongInput listing what there is."""
    name, _, wanted = ref.partition("@")
    newest = _newest(store, name, wanted or LATEST)
    if newest is not None:
        return _load(store, name, newest["digest"])
    digests = [key.split("/")[2] for key in store.list(f"datasets/{name}/") if key.endswith("/manifest.json")]
    if not digests or not name:
        names = sorted({key.split("/")[1] for key in store.list("datasets/") if key.endswith("/manifest.json")})
        raise WrongInput(
            f"dataset '{name}': is not registered; {choices(name, names)} (slipway data register makes one)"
        )
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


def _entries(store: Store, name: str, tag: str) -> list[str]:
    return list(store.list(f"datasets/{name}/refs/{tag}/"))


def _newest(store: Store, name: str, tag: str) -> dict[str, Any] | None:
    keys = _entries(store, name, tag) if name and ".." not in f"{name}/{tag}" else []
    if not keys:
        return None
    body = json.loads(store.get(keys[-1]))
    check_format(body, FORMAT, keys[-1])
    return body


def registered_from(store: Store, name: str) -> dict[str, Any] | None:
    """The newest `latest` entry: digest, source, contract_path, fingerprint, time. None when nothing is registered."""
    return _newest(store, name, LATEST)


def moved(store: Store, contract: Contract, source_uri: str | None, cache: Path | None = None) -> str | None:
    """Why the source has to be read again, in one phrase; None when neither it nor the contract moved. Cheap."""
    entry = registered_from(store, contract.name)
    if entry is None:
        return "not registered yet"
    version = _load(store, contract.name, entry["digest"])
    if version.contract_digest != contract.digest:
        return f"contract {contract.path} changed"
    own = "the contract's own"
    if entry["source"] != _address(source_uri):
        return f"source is {source_uri or own}, was {entry['source'] or own}"
    now = json.loads(json.dumps(load_source(contract.source).fingerprint(contract, source_uri, cache or _cache())))
    if now == entry["fingerprint"]:
        return None
    return f"source changed: {_difference(entry['fingerprint'], now)}"


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
    return pq.read_table(_path(store, version, f"data/{split}"), columns=columns, memory_map=True)


def read_quarantine(store: Store, version: Version) -> "pa.Table":
    """row_id, rules, reason, file, row, values (JSON), raw (bytes): one row for each that was kept out."""
    import pyarrow.parquet as pq

    return pq.read_table(_path(store, version, "quarantine"), memory_map=True)


def _path(store: Store, version: Version, file: str) -> Path:
    key = version.key(version.manifest["files"][file]["name"])
    try:
        return store.local_path(key)
    except NotFound:
        raise SlipwayError(
            f"dataset {version.ref}: {key} is missing; register it again (slipway data register)"
        ) from None


def damage(store: Store, version: Version) -> str | None:
    """The first file that is missing or is not what the manifest says, as one phrase; None when all is whole."""
    manifest = version.manifest
    if version.digest != digest({"rows": version.rows, "contract": version.contract_digest}):
        return f"{version.key('manifest.json')} was altered"
    for entry in manifest["files"].values():
        key = version.key(entry["name"])
        try:
            path = store.local_path(key)
        except NotFound:
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
) -> tuple[Version, bool]:
    """Read the source, validate, and make the version if it is new; `tag` then names it.

    Raises WrongInput for a source that cannot be read as the contract says, Refused for one that violates it; in
    both cases nothing is written.
    """
    cache = cache or _cache()
    fingerprint = load_source(contract.source).fingerprint(contract, source_uri, cache)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        draft = _Draft(contract, source_uri, cache, Path(folder), progress)
        if load_source(contract.source).fingerprint(contract, source_uri, cache) != fingerprint:
            raise WrongInput(f"source {source_uri or contract.path}: changed while it was read; register it again")
        manifest = f"datasets/{contract.name}/{draft.digest}/manifest.json"
        created = not store.exists(manifest)
        version = None if created else _load(store, contract.name, draft.digest)
        if version is None or damage(store, version):
            version = draft.write(store, manifest)
    _tag(
        store,
        version,
        tag,
        {
            "source": _address(source_uri),
            "contract_path": _absolute(contract.path),
            "fingerprint": fingerprint,
        },
    )
    return version, created


def validate_source(
    contract: Contract, source_uri: str | None = None, progress: Progress | None = None, cache: Path | None = None
) -> dict[str, Any]:
    """What `register` would find, without writing: counts, warnings, the validation report. Raises as it does."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        draft = _Draft(contract, source_uri, cache or _cache(), Path(folder), progress)
        return {
            "digest": draft.digest,
            "counts": draft.counts,
            "warnings": draft.findings.warnings,
            "quarantined": [
                {"row_id": entry.row_id, "reason": entry.reason, "file": entry.file, "row": entry.row}
                for entry in draft.intake.quarantined[:100]
            ],
            "validation": draft.findings.report,
        }


class _Draft:
    """A version that is not in the store yet: every row judged, split and counted."""

    def __init__(self, contract: Contract, uri: str | None, cache: Path, folder: Path, progress: Progress | None):
        from data_contracts.intake import duplicates, most_common, quarantine_failing, take_in
        from data_contracts.splits import assign
        from data_contracts.validation import validate

        self.contract, self.folder, self.progress = contract, folder, progress
        self.intake = intake = take_in(contract, uri, cache, folder, progress)
        self.where = uri or contract.path
        self.filtered = duplicates(intake, contract)
        self._say("checking the rules")
        judged = [index for index in range(len(intake.ids)) if index not in self.filtered]
        table = intake.table.take(judged) if self.filtered else intake.table
        if not judged:
            self._refuse_all(intake, most_common(intake.quarantined))
        self.findings = validate(table, contract)
        failing = {judged[index]: reasons for index, reasons in self.findings.rows.items()}
        quarantine_failing(intake, failing)
        if self.findings.refusals:
            raise Refused(
                f"source {self.where}: violates contract {contract.path}: {'; '.join(self.findings.refusals)[:500]}"
            )
        self.kept = [index for index in judged if index not in failing]
        worst = most_common(intake.quarantined)
        if not self.kept:
            self._refuse_all(intake, worst)
        share = len(intake.quarantined) / intake.rows_in
        if share > contract.quarantine_limit:
            raise Refused(
                f"source {self.where}: {share:.1%} of {intake.rows_in:,} rows violate contract {contract.path} "
                f"(slipway.quarantine.limit {contract.quarantine_limit:.1%}): {worst}"
            )
        self._say("assigning splits")
        self.table = intake.table.take(self.kept) if len(self.kept) < len(intake.ids) else intake.table
        self.splits = assign(self.table, contract)
        self._check_splits()
        self.counts = self._count()
        self.rows = self._rows_digest(intake)
        self.digest = digest({"rows": self.rows, "contract": contract.digest})

    def _say(self, note: str) -> None:
        if self.progress is not None:
            self.progress.say(note)

    def _refuse_all(self, intake: "Intake", worst: str) -> None:
        raise Refused(
            f"source {self.where}: every row ({intake.rows_in:,}) violates contract {self.contract.path}: {worst}; "
            "mend the data or the contract"
        )

    def _check_splits(self) -> None:
        sizes = Counter(self.splits)
        shares = {"test": self.contract.split.test, "validation": self.contract.split.validation, "train": 1.0}
        for split, share in shares.items():
            if share > 0 and not sizes[split]:
                what = f"groups of {self.contract.split.group}" if self.contract.split.group else "distinct inputs"
                raise Refused(
                    f"source {self.where}: split '{split}' would be empty ({len(self.splits):,} rows, too few {what}); "
                    f"give more rows, or set slipway.split in {self.contract.path} to larger shares (or 0)"
                )

    def _count(self) -> dict[str, int]:
        sizes = Counter(self.splits)
        counts = {split: sizes[split] for split in SPLITS}
        counts |= {"quarantined": len(self.intake.quarantined), "filtered": len(self.filtered)}
        if sum(counts.values()) != self.intake.rows_in:
            raise SlipwayError(
                f"{self.where}: {self.intake.rows_in} rows came in and {sum(counts.values())} are accounted for"
            )
        return counts | {"rows_in": self.intake.rows_in}

    def _rows_digest(self, intake: "Intake") -> str:
        sha = hashlib.sha256()

        def add(lines: Iterable[str]) -> None:
            sha.update("".join(f"{line}\n" for line in lines).encode())

        add(f"{intake.ids[index]} {split}" for index, split in zip(self.kept, self.splits, strict=True))
        # Sorted: a row that fails its cast is met before one that fails a rule, whatever their order in the source.
        add(sorted(f"quarantined {entry.row_id} {json.dumps(entry.rules)}" for entry in intake.quarantined))
        add(
            f"filtered {intake.ids[index]} duplicate {intake.ids[first]}"
            for index, first in sorted(self.filtered.items())
        )
        return sha.hexdigest()

    def write(self, store: Store, manifest: str) -> Version:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from data_contracts.intake import quarantine_table
        from data_contracts.profile import profile

        contract, intake = self.contract, self.intake
        prefix = manifest.removesuffix("manifest.json")
        files: dict[str, dict[str, Any]] = {}

        def put(name: str, path: Path) -> None:
            sha = digest_file(path)
            target = f"{name}-{sha}{''.join(path.suffixes)}"
            files[name] = {"name": target, "sha256": sha, "bytes": path.stat().st_size}
            store.upload(path, prefix + target)

        def put_table(name: str, table: pa.Table) -> None:
            path = self.folder / f"{name.replace('/', '-')}.parquet"
            pq.write_table(table, path, compression="zstd")
            put(name, path)
            files[name]["rows"] = table.num_rows

        def put_json(name: str, body: dict[str, Any]) -> None:
            path = self.folder / f"{name}.json"
            path.write_text(json.dumps(body, indent=1, sort_keys=True, default=str), encoding="utf-8")
            put(name, path)

        self._say("writing the version")
        ids = pa.array([intake.ids[index] for index in self.kept], pa.string())
        rows = self.table.add_column(0, "row_id", ids)
        splits = pa.array(self.splits, pa.string())
        for split in SPLITS:
            put_table(f"data/{split}", rows.filter(pc.equal(splits, split)))
        put_table("quarantine", quarantine_table(intake.quarantined))
        put_table(
            "filtered",
            pa.table(
                {
                    "row_id": pa.array([intake.ids[index] for index in sorted(self.filtered)], pa.string()),
                    "duplicate_of": pa.array(
                        [intake.ids[self.filtered[index]] for index in sorted(self.filtered)], pa.string()
                    ),
                }
            ),
        )
        put_json("validation", self.findings.report)
        put_json("profile", profile(self.table, contract))
        path = self.folder / "contract.odcs.yaml"
        path.write_text(contract.text, encoding="utf-8")
        put("contract", path)
        body = {
            "format": FORMAT,
            "name": contract.name,
            "digest": self.digest,
            "rows": self.rows,
            "contract": contract.digest,
            "schema": contract.schema_digest,
            "counts": self.counts,
            "columns": contract.schema_section["columns"],
            "warnings": self.findings.warnings,
            "files": files,
            "created": _now(),
        }
        # Another writer of the same version may have been first: then its manifest is the version's.
        store.create(manifest, json.dumps(body, indent=1, sort_keys=True).encode())
        version = _load(store, contract.name, self.digest)
        if (found := damage(store, version)) is not None:
            # Only the manifest's own files can be missing here: the version was whole once and somebody took one.
            store.put(manifest, json.dumps(body, indent=1, sort_keys=True).encode())
            version = _load(store, contract.name, self.digest)
            if damage(store, version):
                raise SlipwayError(f"dataset {version.ref}: {found}")
        return version


def _tag(store: Store, version: Version, tag: str, facts: dict[str, Any]) -> None:
    """Append an entry to the tag, unless the newest says the same."""
    facts = json.loads(json.dumps(facts))
    while True:
        keys = _entries(store, version.name, tag)
        newest = _newest(store, version.name, tag) or {}
        if newest.get("digest") == version.digest and all(newest.get(key) == value for key, value in facts.items()):
            return
        number = int(keys[-1].rpartition("/")[2].removesuffix(".json")) + 1 if keys else 1
        body = {"format": FORMAT, "digest": version.digest, **facts, "time": _now(), "nonce": os.urandom(8).hex()}
        key = f"datasets/{version.name}/refs/{tag}/{number:012d}.json"
        if store.create(key, json.dumps(body, indent=1, sort_keys=True).encode()):
            return


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _address(uri: str | None) -> str | None:
    """A source's address as it means the same from any folder."""
    return None if uri is None else uri if "://" in uri else os.path.abspath(uri)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if os.path.exists(path) else path


def _cache() -> Path:
    return Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}" / "cache"
