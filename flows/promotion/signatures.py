"""The author's signature of a model's files, by model-signing (sigstore's bundle format, OpenSSF Model Signing 1.0).

`signatures/<model digest>/<first 16 hex digits of the SHA-256 of the public key>.json`, created if absent.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.models import ModelVersion, run_author
from infra import artifacts, keys
from infra.digests import digest_bytes
from infra.errors import Refused
from infra.store import NotFound, Store

if TYPE_CHECKING:
    from model_signing.hashing import Config


def sign_model(store: Store, model: str, key: Path) -> None:
    """Sign the files of the `models` artifact with a private key's file. Once is enough: the first signature stays."""
    from model_signing.signing import Config

    place = _place(model, keys.public_half(key))
    if store.exists(place):
        return
    folder = artifacts.fetch(store, artifacts.load(store, "models", model))
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        bundle = Path(scratch) / "bundle.json"
        Config().set_hashing_config(_hashing()).use_elliptic_key_signer(private_key=key).sign(folder, bundle)
        store.create(place, bundle.read_bytes())


def check_model(store: Store, model: str, public: str, where: str) -> Path:
    """The local folder of the model's files, which are those that `public` signed. Raises Refused."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from model_signing.verifying import Config

    try:
        folder = artifacts.fetch(store, artifacts.load(store, "models", model))
        bundle = store.get(_place(model, public))
    except (NotFound, artifacts.Damaged) as error:
        raise Refused(f"{where}: its files or their signature are missing or altered ({error}); train again") from error
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        signature, pem = Path(scratch) / "bundle.json", Path(scratch) / "key.pem"
        signature.write_bytes(bundle)
        pem.write_bytes(keys.parse_public(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        try:
            verifier = Config().set_hashing_config(_hashing()).use_elliptic_key_verifier(public_key=pem)
            verifier.verify(folder, signature)
        except (ValueError, KeyError, TypeError, InvalidSignature) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Refused(f"{where}: its files are not those its author signed ({reason}); train again") from error
    return folder


def verified_files(store: Store, version: ModelVersion) -> dict[str, Any]:
    """What is known of the version's files, after all of them were held against their digests and, where the run names
    its author's key, against that author's signature: to be called before any is loaded. Raises Refused."""
    author_key = run_author(store, version)[1]
    if author_key:
        check_model(store, version.model, author_key, f"model {version.ref}")
    try:
        artifact = artifacts.load(store, "models", version.model)
        found = artifacts.damage(store, artifact)
    except (NotFound, artifacts.Damaged) as error:
        artifact, found = None, f"models/{version.model} is missing or altered ({error})"
    if artifact is None or found:
        raise Refused(f"model {version.ref}: {found}; train again (slipway train)")
    return dict(artifact.facts["files"])


def _hashing() -> "Config":
    """The artifact's own manifest is no file of the model, and a folder that shows an S3 store is made of links."""
    from model_signing.hashing import Config

    return Config().set_allow_symlinks(True).set_ignored_paths(paths=["manifest.json"])


def _place(model: str, public: str) -> str:
    return f"signatures/{model}/{digest_bytes(public.encode())[:16]}.json"
