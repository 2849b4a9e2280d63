"""Key pairs of people and schedulers: elliptic curve P-256, the kind that model-signing takes.

`<folder>/<name>.pem` is the private half, mode 600. `<name>.pub` is the public one as a policy lists it: base64 of its
DER form (SubjectPublicKeyInfo, RFC 5480), what a PEM file has between its two lines. cryptography is imported when
something is made, signed or verified.
"""

import base64
import binascii
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import Refused, WrongInput, choices

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def generate(folder: Path, name: str) -> str:
    """Make the pair `name`; returns the public key. Raises WrongInput for a name that cannot be, Refused for one that
    is taken."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not NAME.fullmatch(name):
        raise WrongInput(f"key '{name}': letters, digits, '.', '_' and '-' make a name; choose another")
    private = generate_private_key(SECP256R1())
    path = folder / f"{name}.pem"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refused(f"key {path}: is there already; what it signed needs it, so choose another name") from None
    except OSError as error:
        raise WrongInput(f"key {path}: cannot be written ({error.strerror}); set SLIPWAY_KEYS to a folder") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = _text(private.public_key())
    (folder / f"{name}.pub").write_text(f"{public}\n", encoding="ascii")
    return public


def names(folder: Path) -> list[str]:
    """Names of the private keys in `folder`."""
    return sorted(path.stem for path in folder.glob("*.pem"))


def public_key(folder: Path, name: str) -> str:
    """The public key of the pair `name`, "" where there is none. Imports nothing."""
    try:
        if not (folder / f"{name}.pem").is_file():
            return ""  # somebody else's public key alone signs nothing
        return (folder / f"{name}.pub").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def private_path(folder: Path, name: str) -> Path:
    """The file of the private key `name`. Raises WrongInput when there is none, Refused when others may read it."""
    path = folder / f"{name}.pem"
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        raise WrongInput(f"key '{name}': is not in {folder}; {choices(name, names(folder))} (slipway keygen)") from None
    if mode & 0o077:
        raise Refused(f"key {path}: others may read or write it (mode {mode:o}); make another one, this may be known")
    return path


def public_half(path: Path) -> str:
    """The public key of a private key's file. Raises WrongInput for a file that holds none."""
    return _text(_private(path).public_key())


def sign(path: Path, data: bytes) -> str:
    """ECDSA over SHA-256 of `data` with the private key in `path`, as base64."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return base64.b64encode(_private(path).sign(data, ECDSA(SHA256()))).decode()


def is_signed(public: str, signature: str, data: bytes) -> bool:
    """Whether `signature` is that of `data` by the private half of `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        parse_public(public).verify(base64.b64decode(signature, validate=True), data, ECDSA(SHA256()))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def parse_public(text: str) -> "EllipticCurvePublicKey":
    """Raises ValueError for what is no public key on P-256."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        found = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("is not a public key as slipway keygen prints it") from error
    if not isinstance(found, EllipticCurvePublicKey) or not isinstance(found.curve, SECP256R1):
        raise ValueError("is a public key of another kind than slipway keygen makes (EC P-256)")
    return found


def _private(path: Path) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
        raise WrongInput(
            f"key {path}: holds no private key without a password; make one with slipway keygen"
        ) from error
    if not isinstance(found, EllipticCurvePrivateKey) or not isinstance(found.curve, SECP256R1):
        raise WrongInput(f"key {path}: is of another kind than slipway keygen makes (EC P-256); make one with it")
    return found


def _text(public: "EllipticCurvePublicKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
