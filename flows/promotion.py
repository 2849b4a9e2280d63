"""Which version is champion, and why: an append-only log whose entries are chained by hash.

`promotions/<model>/<12 digits>.json`, each entry created if absent and carrying the SHA-256 of the one before it. The
champion is the version of the newest promotion or rollback; MLflow's alias only follows (`mirror`). Who appends first
has the number; the other reads again, and goes on unless what arrived changed the champion it was compared with.

Nothing heavy is imported here: asking who is champion costs a listing and a read.
"""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from data_contracts.registry import resolve
from data_contracts.withdrawal import refuse_withdrawn
from flows.models import ModelVersion, versions
from infra import artifacts
from infra.artifacts import check_format
from infra.digests import digest_bytes
from infra.errors import Refused, SlipwayError, WrongInput, choices
from infra.settings import Settings
from infra.store import NotFound, Store

FORMAT = 1
CROWNING = ("promotion", "rollback")
"""The kinds of entry that say who is champion."""
KINDS = (*CROWNING, "rejection")
POLICIES = ("automatic", "approvals")
ALIAS = "champion"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log. Digests are SHA-256, 64 hex digits."""

    sequence: int
    """1, 2, 3 ... without a gap."""
    previous: str
    """Digest of the bytes of the entry before; "" for the first."""
    time: str
    """ISO 8601, UTC, microseconds; never before the predecessor's."""
    kind: str
    """promotion, rollback or rejection."""
    name: str
    version: int
    run: str
    model: str
    """Digest of the model artifact: weights, configuration, tokenizer."""
    package: str
    """Digest of the packaged files."""
    dataset: str
    """`name@digest` of the dataset version trained on, the digest in full."""
    contract: str
    """Digest of that version's contract."""
    scorecard: str
    """Digest of the scorecard artifact that holds the verdicts."""
    compared_with: int | None
    """Sequence of the promotion or rollback whose champion the gates compared with; None when there was none."""
    policy: str
    author: str
    reason: str
    nonce: str
    """Random: two writers never write the same bytes, so `create` tells the winner."""

    @property
    def key(self) -> str:
        return entry_key(self.name, self.sequence)

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Outcome:
    entry: Entry
    created: bool
    """False when the log already said so and nothing was written."""
    sentence: str


def entry_key(name: str, sequence: int) -> str:
    return f"promotions/{name}/{sequence:012d}.json"


def parse_policy(section: dict[str, Any], where: str) -> str:
    """The policy's name from an experiment's `promotion` section, e.g. `{policy: automatic}`. Raises WrongInput."""
    for key in section:
        if key != "policy":
            raise WrongInput(f"{where}: promotion.{key}: unknown key; {choices(key, ['policy'])}")
    policy = section.get("policy", "automatic")
    if policy not in POLICIES:
        raise WrongInput(f"{where}: promotion.policy: '{policy}' is unknown; {choices(str(policy), POLICIES)}")
    if policy == "approvals":
        raise WrongInput(
            f"{where}: promotion.policy: 'approvals' (a person signs before promotion) is not in this version of "
            "Slipway yet; write 'automatic', or leave the gates to a person by not running promote"
        )
    return policy


def read_log(store: Store, name: str) -> list[Entry]:
    """All entries, oldest first, as they stand (`verify` judges them). Raises WrongInput for one of a newer Slipway."""
    return [_read(store, key)[0] for key in _keys(store, name)]


def head(store: Store, name: str) -> Entry | None:
    """The newest entry of any kind; None for an empty log."""
    keys = _keys(store, name)
    return _read(store, keys[-1])[0] if keys else None


def champion(store: Store, name: str) -> Entry | None:
    """The newest promotion or rollback: its version is in production. None when there has been none."""
    for key in reversed(_keys(store, name)):
        entry = _read(store, key)[0]
        if entry.kind in CROWNING:
            return entry
    return None


def models(store: Store) -> list[str]:
    """Names of the models that have a log."""
    return sorted({key.split("/")[1] for key in store.list("promotions/")})


def promote(
    store: Store, version: ModelVersion, scorecard: str, *, author: str, reason: str = "", policy: str = "automatic"
) -> Outcome:
    """Make `version` champion on the evidence of the scorecard artifact of that digest.

    A compare-and-set: it succeeds only while the champion is the one the scorecard compared with. Promoting the
    champion again on the same scorecard writes nothing. Raises Refused when the scorecard says no, is damaged, is
    about something else, or was overtaken by another champion.
    """
    card = _judge(store, version, scorecard, policy)
    refuse_withdrawn(store, resolve(store, version.dataset))
    if not card["passed"]:
        failed = ", ".join(v["gate"] for v in card["verdicts"] if not v["passed"] and v["severity"] == "block")
        raise Refused(
            f"model {version.ref}: its scorecard {scorecard[:12]} says no ({failed or 'no gate was run'}); "
            "mend what the gates name and train again"
        )
    if not artifacts.is_whole(store, "models", version.model):
        raise Refused(f"model {version.ref}: models/{version.model} is missing or altered; train again (slipway train)")
    while True:
        latest, before = _tail(store, version.name)
        reigning = champion(store, version.name)
        if reigning and reigning.version == version.version and reigning.scorecard == scorecard:
            sentence = f"{version.ref} already is champion on this scorecard (log entry {reigning.sequence})"
            return Outcome(reigning, False, sentence)
        if (reigning.sequence if reigning else None) != card["compared_with"]:
            against = f"entry {card['compared_with']}" if card["compared_with"] else "no champion"
            now = f"entry {reigning.sequence} ({reigning.name}/{reigning.version})" if reigning else "no entry"
            raise Refused(
                f"model {version.ref}: champion changed: gate again (slipway gate {version.ref}); the scorecard "
                f"compared with {against}, the log now says {now}"
            )
        entry = _entry("promotion", version, scorecard, card, latest, before, policy, author, reason)
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{version.ref} is champion (log entry {entry.sequence})")


def reject(
    store: Store, version: ModelVersion, scorecard: str, *, author: str, reason: str, policy: str = "automatic"
) -> Outcome:
    """Record that `version` was turned down on that scorecard; the champion stays. The same rejection twice is one."""
    card = _judge(store, version, scorecard, policy)
    while True:
        for entry in read_log(store, version.name):
            if entry.kind == "rejection" and (entry.version, entry.scorecard) == (version.version, scorecard):
                return Outcome(entry, False, f"{version.ref} was already rejected (log entry {entry.sequence})")
        latest, before = _tail(store, version.name)
        entry = _entry("rejection", version, scorecard, card, latest, before, policy, author, reason)
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{version.ref} is rejected (log entry {entry.sequence})")


def verify(store: Store, name: str) -> list[str]:
    """Walk the chain; what is wrong with it, one sentence each. An empty list means whole.

    The chain vouches for all but its newest entry; for that one the note that `mirror` keeps beside the log does.
    """
    problems: list[str] = []
    digests: dict[int, str] = {}
    time = ""
    reigning: int | None = None
    expected = 1
    for key in _keys(store, name):
        try:
            entry, found = _read(store, key)
        except (SlipwayError, ValueError, TypeError) as error:
            problems.append(f"{key} cannot be read: {error}")
            expected += 1
            continue
        if key != entry_key(name, expected) or entry.sequence != expected or entry.name != name:
            problems.append(f"{key} is entry {entry.sequence} of '{entry.name}' where {expected} of '{name}' belongs")
        if entry.previous != digests.get(entry.sequence - 1, ""):
            problems.append(f"{key} does not carry the hash of the entry before it: one of the two was altered")
        if entry.time < time:
            problems.append(f"{key} is dated {entry.time}, before its predecessor ({time})")
        if entry.kind in CROWNING:
            if entry.kind == "promotion" and entry.compared_with != reigning:
                problems.append(f"{key} was compared with entry {entry.compared_with}, but champion was {reigning}")
            reigning = entry.sequence
        if not artifacts.is_whole(store, "scorecards", entry.scorecard):
            problems.append(f"{key}: its scorecard scorecards/{entry.scorecard} is missing or altered")
        digests[entry.sequence], time, expected = found, entry.time, entry.sequence + 1
    note = _mirrored(store, name)
    if note and digests.get(note["sequence"]) != note["entry"]:
        problems.append(f"promotions/{name}: entry {note['sequence']} is not the one the alias was set from")
    return problems


def mirror(store: Store, settings: Settings, name: str) -> bool:
    """Let MLflow's alias `champion` follow the log; True when it was behind. Otherwise MLflow is not even imported."""
    moved = False
    while True:
        reigning = champion(store, name)
        note = _mirrored(store, name)
        if reigning is None or (note and note["sequence"] >= reigning.sequence):
            return moved
        from infra.tracking import set_alias

        version = next((v for v in versions(store, name) if v.version == reigning.version), None)
        if version is None or not version.mlflow_version:
            raise SlipwayError(
                f"model {name}/{reigning.version}: champion by the log, but MLflow was never told of this version; "
                "run slipway train again to register it"
            )
        set_alias(settings, name, version.mlflow_version, ALIAS)
        body = {"format": FORMAT, "sequence": reigning.sequence, "entry": digest_bytes(store.get(reigning.key))}
        store.put(_note_key(name), json.dumps(body, sort_keys=True).encode())
        moved = True  # and look again: a slower process may have set an older alias over a newer one


def _keys(store: Store, name: str) -> list[str]:
    pattern = re.compile(rf"promotions/{re.escape(name)}/\d{{12}}\.json")
    return [key for key in store.list(f"promotions/{name}/") if pattern.fullmatch(key)]


def _read(store: Store, key: str) -> tuple[Entry, str]:
    """The entry at `key` and the digest of its bytes."""
    data = store.get(key)
    try:
        body = json.loads(data)
        known = {field.name for field in fields(Entry)}
        check_format(body, FORMAT, key)
        return Entry(**{name: value for name, value in body.items() if name in known}), digest_bytes(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise SlipwayError(f"{key}: is not a promotion entry ({error}); restore it from a backup") from error


def _tail(store: Store, name: str) -> tuple[Entry | None, str]:
    keys = _keys(store, name)
    return _read(store, keys[-1]) if keys else (None, "")


def _note_key(name: str) -> str:
    return f"promotions/{name}/mirrored.json"


def _mirrored(store: Store, name: str) -> dict[str, Any] | None:
    try:
        note = json.loads(store.get(_note_key(name)))
    except (NotFound, ValueError):
        return None  # a lost or torn note costs one more set_alias
    check_format(note, FORMAT, _note_key(name))
    return note


def _judge(store: Store, version: ModelVersion, scorecard: str, policy: str) -> dict[str, Any]:
    """The scorecard's JSON, after checking that it is whole and about exactly this version. Raises Refused."""
    parse_policy({"policy": policy}, f"model {version.ref}")
    try:
        artifact = artifacts.load(store, "scorecards", scorecard)
        found = artifacts.damage(store, artifact)
        card = None if found else json.loads(store.get(f"{artifact.prefix}/scorecard.json"))
    except (NotFound, ValueError) as error:
        found, card = f"scorecards/{scorecard} is missing or is no scorecard ({error})", None
    if card is None:
        raise Refused(f"model {version.ref}: {found}; gate again (slipway gate {version.ref})")
    check_format(card, FORMAT, f"scorecards/{scorecard}/scorecard.json")
    about = {
        "name": version.name,
        "version": version.version,
        "run": version.run,
        "model": version.model,
        "package_digest": version.package_digest,
        "dataset": version.dataset,
    }
    for field, wanted in about.items():
        if card["candidate"].get(field) != wanted:
            raise Refused(
                f"model {version.ref}: scorecard {scorecard[:12]} is about another {field} "
                f"({card['candidate'].get(field)}, not {wanted}); gate again (slipway gate {version.ref})"
            )
    try:
        contract = resolve(store, version.dataset).contract_digest
    except (NotFound, WrongInput) as error:
        raise Refused(f"model {version.ref}: the data it was trained on is gone: {error}") from error
    if card["candidate"]["contract"] != contract:
        raise Refused(
            f"model {version.ref}: scorecard {scorecard[:12]} is about another contract than its data's; gate again "
            f"(slipway gate {version.ref})"
        )
    return card


def _entry(
    kind: str,
    version: ModelVersion,
    scorecard: str,
    card: dict[str, Any],
    latest: Entry | None,
    before: str,
    policy: str,
    author: str,
    reason: str,
) -> Entry:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return Entry(
        sequence=latest.sequence + 1 if latest else 1,
        previous=before,
        time=max(now, latest.time) if latest else now,
        kind=kind,
        name=version.name,
        version=version.version,
        run=version.run,
        model=version.model,
        package=version.package_digest,
        dataset=version.dataset,
        contract=card["candidate"]["contract"],
        scorecard=scorecard,
        compared_with=card["compared_with"],
        policy=policy,
        author=author,
        reason=reason,
        nonce=secrets.token_hex(16),
    )


def history(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """The log as plain dictionaries, newest first, each with whether it is the champion now."""
    reigning = champion(store, name)
    for entry in reversed(read_log(store, name)):
        yield {**asdict(entry), "champion": reigning is not None and entry.sequence == reigning.sequence}
