"""The promotion log: which version is champion, and why. Append-only, its entries chained by hash.

`promotions/<model>/<12 digits>.json`, each entry created if absent and carrying the SHA-256 of the one before it and of
itself. Kinds:

    promotion   a candidate became champion
    rollback    an earlier champion is champion again
    rejection   a candidate was turned down
    approval    a reviewer's signed statement
    policy      another promotion policy is in force from here on

The champion is the version of the newest promotion or rollback. Each entry repeats the policy in force, the first takes
it from the experiment, and only a `policy` entry changes it. Entries of format 1 know two policies by name and no
approvals.

Nothing heavy is imported here: asking who is champion costs a listing and a read.
"""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from flows.promotion.policy import Policy, parse_policy
from infra.artifacts import check_format
from infra.digests import digest, digest_bytes
from infra.errors import Refused, SlipwayError, WrongInput
from infra.store import NotFound, Store

FORMAT = 2
CROWNING = ("promotion", "rollback")
"""The kinds of entry that say who is champion."""
KINDS = (*CROWNING, "rejection", "approval", "policy")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a decision about a version is bound to. Digests are SHA-256, 64 hex digits; "" or 0 where an entry of an
    older format, or of kind policy, has none."""

    name: str
    version: int = 0
    run: str = ""
    run_author: str = ""
    run_author_key: str = ""
    """The public key that the run's first entry names."""
    model: str = ""
    """Digest of the model artifact: weights, configuration, tokenizer."""
    package: str = ""
    """Digest of the packaged files."""
    package_files: str = ""
    """Digest of every file of the package, the code it carries included."""
    dataset: str = ""
    """`name@digest` of the dataset version trained on, the digest in full."""
    manifest: str = ""
    """Digest of that version's manifest file."""
    contract: str = ""
    """Digest of that version's contract."""
    experiment: str = ""
    """Digest of the experiment as it was resolved for the run."""
    scorecard: str = ""
    """Digest of the scorecard artifact that holds the verdicts."""

    @property
    def ref(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True)
class Entry(Bound):
    """One line of the log."""

    sequence: int
    """1, 2, 3 ... without a gap."""
    previous: str
    """Digest of the bytes of the entry before; "" for the first."""
    time: str
    """ISO 8601, UTC, microseconds; never before the predecessor's."""
    kind: str
    compared_with: int | None
    """Sequence of the promotion or rollback that was in force when this was decided; None when there was none. For the
    approval of a policy: of the entry that set the policy before it."""
    policy: dict[str, Any]
    """The policy in force, as an experiment writes it; in an entry of kind policy the new one."""
    author: str
    """Who wrote the entry."""
    reason: str
    approvals: list[int] = field(default_factory=list)
    """Sequences of the approvals that this entry rests on."""
    statement: dict[str, Any] = field(default_factory=dict)
    """Of an approval: what was signed."""
    signature: str = ""
    """Of an approval: base64."""
    nonce: str
    """Random: two writers never write the same bytes, so `create` tells the winner."""

    @property
    def key(self) -> str:
        return entry_key(self.name, self.sequence)

    @property
    def bound(self) -> Bound:
        return Bound(**{one.name: getattr(self, one.name) for one in fields(Bound)})

    def to_bytes(self) -> bytes:
        body = {"format": FORMAT, **asdict(self)}
        body["digest"] = digest(body)
        return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")


def entry_key(name: str, sequence: int) -> str:
    return f"promotions/{name}/{sequence:012d}.json"


@dataclass(frozen=True)
class Log:
    """All entries of a model's log at one moment, checked."""

    name: str
    entries: list[Entry]
    digest: str
    """Of the newest entry's bytes."""

    @property
    def champion(self) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.kind in CROWNING), None)

    @property
    def policy(self) -> Policy | None:
        """The policy in force; None for an empty log."""
        return policy_of(self.entries[-1]) if self.entries else None

    @property
    def policy_since(self) -> int | None:
        """Sequence of the entry that set the policy in force."""
        changed = [entry.sequence for entry in self.entries if entry.kind == "policy"]
        return changed[-1] if changed else 1 if self.entries else None

    def next(self, kind: str, about: Bound, **decided: Any) -> Entry:
        """The entry that would come next. `decided`: the fields that say who decided what, and why."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        latest = self.entries[-1] if self.entries else None
        return Entry(
            **asdict(about),
            **decided,
            kind=kind,
            sequence=latest.sequence + 1 if latest else 1,
            previous=self.digest,
            time=max(now, latest.time) if latest else now,
            nonce=secrets.token_hex(16),
        )


def policy_of(entry: Entry) -> Policy:
    return parse_policy(entry.policy, entry.key)


def load_log(store: Store, name: str) -> Log:
    """The whole log. Raises Refused when any of it was altered or is missing: nothing is decided on such a log."""
    entries, last = [], ""
    for entry, found, problems in walk(store, name):
        if problems or entry is None:
            raise Refused(f"model {name}: its promotion log is not whole: {problems[0]}; restore it from a backup")
        entries.append(entry)
        last = found
    return Log(name, entries, last)


def walk(store: Store, name: str) -> Iterator[tuple[Entry | None, str, list[str]]]:
    """Every entry, the digest of its bytes, and what is wrong with it or with the chain, one sentence each.

    An entry that cannot be read is None. An entry's own digest vouches for the newest one, which nothing follows.
    """
    before: Entry | None = None
    last = ""
    reigning: int | None = None
    for expected, key in enumerate(keys(store, name), start=1):
        problems: list[str] = []
        try:
            entry, found = read_entry(store, key)
        except (SlipwayError, NotFound) as error:
            yield None, "", [str(error)]
            before, last = None, "?"
            continue
        if key != entry_key(name, expected) or entry.sequence != expected or entry.name != name:
            problems.append(f"{key} is entry {entry.sequence} of '{entry.name}' where {expected} of '{name}' belongs")
        if entry.previous != last:
            problems.append(f"{key} does not carry the hash of the entry before it: one of the two was altered")
        if before and entry.time < before.time:
            problems.append(f"{key} is dated {entry.time}, before its predecessor ({before.time})")
        if before and entry.kind != "policy" and entry.policy != before.policy:
            problems.append(f"{key} is under another policy than the entry before it, and is no policy entry")
        if entry.kind in CROWNING:
            if entry.compared_with != reigning:
                problems.append(f"{key} was compared with entry {entry.compared_with}, but champion was {reigning}")
            reigning = entry.sequence
        yield entry, found, problems
        before, last = entry, found


def read_log(store: Store, name: str) -> list[Entry]:
    """All entries, oldest first, each as it stands; `load_log` looks at the chain too."""
    return [read_entry(store, key)[0] for key in keys(store, name)]


def head(store: Store, name: str) -> Entry | None:
    """The newest entry of any kind; None for an empty log."""
    found = keys(store, name)
    return read_entry(store, found[-1])[0] if found else None


def champion(store: Store, name: str, at: datetime | None = None) -> Entry | None:
    """The newest promotion or rollback, of those not after `at`: its version is, or was then, in production.

    None when there had been none.
    """
    until = at.astimezone(UTC).isoformat(timespec="microseconds") if at else ""
    for key in reversed(keys(store, name)):
        entry = read_entry(store, key)[0]
        if entry.kind in CROWNING and (not until or entry.time <= until):
            return entry
    return None


def models(store: Store) -> list[str]:
    """Names of the models that have a log."""
    return sorted({key.split("/")[1] for key in store.list("promotions/")})


def history(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """The log as plain dictionaries, newest first, each with whether it is the champion now."""
    reigning = champion(store, name)
    for entry in reversed(read_log(store, name)):
        yield {**asdict(entry), "champion": reigning is not None and entry.sequence == reigning.sequence}


def read_entry(store: Store, key: str) -> tuple[Entry, str]:
    """The entry at `key` and the digest of its bytes.

    Raises Refused for one that is not what was written, WrongInput for one of a newer Slipway.
    """
    data = store.get(key)
    try:
        body = json.loads(data)
        if type(body["format"]) is int and body["format"] > FORMAT:
            check_format(body, FORMAT, key)
        written = body.pop("format")
        if (body.pop("digest", None) is None) != (written == 1):
            raise ValueError("format 1 has no digest of its own, and every later one has")
        if isinstance(body["policy"], str):
            body["policy"] = {"policy": body["policy"]}
        entry = Entry(**body)
    except WrongInput:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"{key} was altered: it cannot be read as a promotion entry ({error})") from error
    if written != 1 and entry.to_bytes() != data:
        raise Refused(f"{key} was altered: it is not what its own digest says")
    return entry, digest_bytes(data)


def keys(store: Store, name: str) -> list[str]:
    """Keys of the entries, oldest first."""
    pattern = re.compile(rf"promotions/{re.escape(name)}/\d{{12}}\.json")
    return [key for key in store.list(f"promotions/{name}/") if pattern.fullmatch(key)]
