"""Walk the promotion log and everything it names: the chain, every digest, every signature, every policy."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from data_contracts import registry
from flows.models import ModelVersion, versions
from flows.promotion import approvals, binding, signatures
from flows.promotion.alias import mirrored
from flows.promotion.log import CROWNING, Entry, policy_of, walk
from flows.promotion.policy import parse_policy, refuse_unsatisfiable
from infra import artifacts
from infra.digests import digest, digest_bytes
from infra.errors import SlipwayError
from infra.settings import Settings
from infra.store import NotFound, Store


def verify(store: Store, name: str, settings: Settings | None = None) -> list[str]:
    """What is wrong with a model's log, one sentence each; an empty list means whole.

    settings: where the packages are; without them the packaged files are left out.
    """
    problems: list[str] = []
    entries: list[Entry] = []
    digests: dict[int, str] = {}
    check = _Once(store, {one.version: one for one in versions(store, name)}, settings)
    for entry, found, wrong in walk(store, name):
        problems += wrong
        if entry is None:
            continue
        digests[entry.sequence] = found
        problems += [f"{entry.key}: {one}" for one in (*check.evidence(entry), *_approved(entries, entry))]
        entries.append(entry)
    note = mirrored(store, name)
    if note and digests.get(note["sequence"]) != note["entry"]:
        problems.append(f"promotions/{name}: entry {note['sequence']} is not the one the alias was set from")
    return problems


class _Once:
    """Checks of what entries name; what several entries name is read once."""

    def __init__(self, store: Store, known: dict[int, ModelVersion], settings: Settings | None):
        self.store, self.known, self.settings = store, known, settings
        self._found: dict[tuple[str, ...], str | None] = {}

    def evidence(self, entry: Entry) -> list[str]:
        if entry.kind == "policy" or not entry.version:
            return []
        version = self.known.get(entry.version)
        checks: list[tuple[tuple[str, ...], Callable[[], str | None]]] = [
            (("scorecards", entry.scorecard), partial(self._artifact, "scorecards", entry.scorecard, "its scorecard")),
            (
                ("data", entry.dataset, entry.manifest, entry.contract, str(entry.kind in CROWNING)),
                partial(self._data, entry),
            ),
        ]
        if entry.kind in CROWNING:
            checks.append((("models", entry.model), partial(self._artifact, "models", entry.model, "its model")))
            if entry.run_author_key:
                checks.append((("signed", entry.model, entry.run_author_key), partial(self._signed, entry)))
            if version is None or (entry.experiment and digest(version.experiment) != entry.experiment):
                checks.append((("version", entry.ref), lambda: f"version {entry.ref} is not registered as it was"))
            elif entry.package_files and self.settings:
                checks.append((("package", entry.package, entry.package_files), partial(self._package, entry, version)))
        for key, check in checks:
            if key not in self._found:
                self._found[key] = check()
        return [found for key, _ in checks if (found := self._found[key])]

    def _artifact(self, kind: str, name: str, what: str) -> str | None:
        if artifacts.is_whole(self.store, kind, name):
            return None
        return f"{what} {kind}/{name} is missing or altered"

    def _data(self, entry: Entry) -> str | None:
        """The dataset version's manifest, contract and, where it trained a champion, all its files by their digests;
        whether the digests are those of the rows is `slipway data audit`'s to check."""
        try:
            data = registry.resolve(self.store, entry.dataset)
            manifest = digest_bytes(self.store.get(data.key("manifest.json")))
            file = data.manifest["files"]["contract"]
            contract = digest_bytes(self.store.get(data.key(file["name"])))
            same = registry.contract_of(self.store, data).digest == data.contract_digest == entry.contract
        except (NotFound, SlipwayError, ValueError, KeyError, TypeError) as error:
            return f"its dataset {entry.dataset} is missing or altered: {error}"
        if entry.manifest and manifest != entry.manifest:
            return f"the manifest of its dataset {entry.dataset} was altered"
        if not same or contract != file["sha256"]:
            return f"the contract of its dataset {entry.dataset} was altered"
        harmed = registry.damage(self.store, data) if entry.kind in CROWNING else None
        return f"its dataset {entry.dataset}: {harmed}" if harmed else None

    def _signed(self, entry: Entry) -> str | None:
        try:
            signatures.check_model(self.store, entry.model, entry.run_author_key, f"model {entry.ref}")
        except SlipwayError as error:
            return str(error)
        return None

    def _package(self, entry: Entry, version: ModelVersion) -> str | None:
        assert self.settings
        try:
            found = binding.package_files(self.settings, version)
        except SlipwayError as error:
            return str(error)
        return None if found == entry.package_files else f"a file of its package {version.package} was altered"


def _approved(before: list[Entry], entry: Entry) -> list[str]:
    """Whether the entry was allowed, when it was made, by the policy before it."""
    in_force = policy_of(before[-1]) if before else parse_policy(entry.policy, entry.key)
    when = datetime.fromisoformat(entry.time)
    try:
        if entry.kind == "approval":
            action = str(entry.statement.get("action"))
            about = approvals.about_version(entry.bound)
            if action == "policy":
                about = approvals.about_policy(entry.name, approvals.wished_policy(entry.statement, entry.key))
            approvals.check(approvals.signed_of(entry), action, about, entry.compared_with, in_force, when)
            return []
        needed = {"promotion": in_force.approvals, "policy": in_force.approvals, "rollback": min(in_force.approvals, 1)}
        if not needed.get(entry.kind):
            return []
        if entry.kind == "promotion":
            refuse_unsatisfiable(in_force, entry.run_author, entry.run_author_key, f"run {entry.run}")
        about = approvals.about_version(entry.bound)
        if entry.kind == "policy":
            about = approvals.about_policy(entry.name, policy_of(entry))
        cited = [one for one in before if one.sequence in entry.approvals or one.kind == "rejection"]
        approvals.gather(cited, entry.kind, about, entry.compared_with, in_force, needed[entry.kind], when)
    except SlipwayError as error:
        return [str(error)]
    return []
