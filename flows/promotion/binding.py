"""What a decision about a model version is bound to: every digest, taken from what lies there now."""

import json
from typing import Any

from data_contracts import registry
from flows.models import ModelVersion, run_author
from flows.promotion.log import Bound
from infra import artifacts
from infra.artifacts import check_format
from infra.digests import digest, digest_bytes, digest_file
from infra.errors import Refused, SlipwayError
from infra.settings import Settings
from infra.store import NotFound, Store

NOT_PACKAGED = ("MLmodel", "registered_model_meta")
"""Files of a package that MLflow writes and rewrites."""
PACKAGE_DATA = "data/package/"
"""Where MLflow puts what `infra.tracking.log_package` gives it."""


def bind(store: Store, version: ModelVersion, scorecard: str, package_files: str = "") -> tuple[Bound, dict[str, Any]]:
    """What a decision on `version` and that scorecard is bound to, and the scorecard's JSON.

    Raises Refused when the scorecard is damaged or about something else, or the data's manifest or contract is not
    what was registered. package_files: see `package_files`.
    """
    card = _scorecard(store, version, scorecard)
    author, author_key = run_author(store, version)
    bound = Bound(
        name=version.name,
        version=version.version,
        run=version.run,
        run_author=author or version.author,
        run_author_key=author_key,
        model=version.model,
        package=version.package_digest,
        package_files=package_files,
        dataset=version.dataset,
        manifest=manifest_digest(store, version),
        contract=card["candidate"]["contract"],
        experiment=digest(version.experiment),
        scorecard=scorecard,
    )
    return bound, card


def package_files(settings: Settings, version: ModelVersion) -> str:
    """Digest of every file of the version's package, the code it carries included; nothing is loaded.

    Raises Refused when one that Slipway packaged is missing or altered.
    """
    from infra import tracking

    try:
        folder = tracking.package_files(settings, version.package)
    except Exception as error:  # MLflow, a database, a file system or a server: all say that it cannot be had
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refused(
            f"model {version.ref}: its package {version.package} is missing ({reason}); train again"
        ) from error
    listing = {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.name not in NOT_PACKAGED
    }
    data = {name.removeprefix(PACKAGE_DATA): found for name, found in listing.items() if name.startswith(PACKAGE_DATA)}
    if digest(data) != version.package_digest:
        raise Refused(f"model {version.ref}: its package {version.package} was altered; train again (slipway train)")
    return digest(listing)


def manifest_digest(store: Store, version: ModelVersion) -> str:
    """Digest of the manifest of the version's data, after the contract was checked against it. Raises Refused."""
    try:
        data = registry.resolve(store, version.dataset)
        found = registry.contract_of(store, data).digest
        entry = data.manifest["files"]["contract"]
        whole = digest_bytes(store.get(data.key(entry["name"]))) == entry["sha256"]
        body = store.get(data.key("manifest.json"))
    except (NotFound, SlipwayError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"model {version.ref}: the data it was trained on is gone or altered: {error}") from error
    if not whole or found != data.contract_digest:
        raise Refused(f"model {version.ref}: the contract of its data was altered; restore {data.key(entry['name'])}")
    return digest_bytes(body)


def _scorecard(store: Store, version: ModelVersion, scorecard: str) -> dict[str, Any]:
    """The scorecard's JSON, after checking that it is whole and about exactly this version. Raises Refused."""
    from flows.judging.scorecard import FORMAT

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
    for name, wanted in about.items():
        if card["candidate"].get(name) != wanted:
            raise Refused(
                f"model {version.ref}: scorecard {scorecard[:12]} is about another {name} "
                f"({card['candidate'].get(name)}, not {wanted}); gate again (slipway gate {version.ref})"
            )
    try:
        contract = registry.resolve(store, version.dataset).contract_digest
    except (NotFound, SlipwayError) as error:
        raise Refused(f"model {version.ref}: the data it was trained on is gone or altered: {error}") from error
    if card["candidate"]["contract"] != contract:
        raise Refused(
            f"model {version.ref}: scorecard {scorecard[:12]} is about another contract than its data's; gate again "
            f"(slipway gate {version.ref})"
        )
    return card
