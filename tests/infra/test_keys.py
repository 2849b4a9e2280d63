"""Key pairs: the private half is for its owner alone, the public half is one line."""

import base64
import stat

import pytest

from infra import keys
from infra.errors import Refused, WrongInput
from infra.settings import Settings


def test_what_one_key_signs_no_other_has_signed(tmp_path):
    ada, bob = (keys.generate(tmp_path, name) for name in ("ada", "bob"))
    signature = keys.sign(tmp_path / "ada.pem", b"yes")
    assert keys.is_signed(ada, signature, b"yes")
    assert not keys.is_signed(bob, signature, b"yes")
    assert not keys.is_signed(ada, signature, b"no")
    assert not keys.is_signed(ada, "nonsense", b"yes") and not keys.is_signed("nonsense", signature, b"yes")
    assert keys.public_half(tmp_path / "ada.pem") == ada == keys.public_key(tmp_path, "ada")


def test_a_private_key_is_readable_by_its_owner_alone_and_refused_otherwise(tmp_path):
    folder = tmp_path / "new" / "keys"
    keys.generate(folder, "ada")
    path = folder / "ada.pem"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)
    assert keys.private_path(folder, "ada") == path
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(Refused, match=f"mode {mode:o}"):
            keys.private_path(folder, "ada")


def test_no_key_is_written_over(tmp_path):
    public = keys.generate(tmp_path, "ada")
    with pytest.raises(Refused, match="is there already"):
        keys.generate(tmp_path, "ada")
    assert keys.public_half(tmp_path / "ada.pem") == public


@pytest.mark.parametrize("name", ["", "../ada", "a b", "-x", "a/b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(WrongInput, match="choose another"):
        keys.generate(tmp_path, name)


def test_an_unknown_key_names_the_nearest(tmp_path):
    keys.generate(tmp_path, "ada")
    with pytest.raises(WrongInput, match="did you mean 'ada'"):
        keys.private_path(tmp_path, "adda")


@pytest.mark.parametrize("text", ["", "nonsense", base64.b64encode(b"nonsense").decode()])
def test_what_is_no_public_key_is_told(text):
    with pytest.raises(ValueError, match="is not a public key"):
        keys.parse_public(text)


def test_a_key_of_another_kind_is_told(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    other = Ed25519PrivateKey.generate()
    der = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="another kind"):
        keys.parse_public(base64.b64encode(der).decode())
    (tmp_path / "ada.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(WrongInput, match="another kind"):
        keys.sign(tmp_path / "ada.pem", b"yes")
    (tmp_path / "ada.pem").write_text("nonsense")
    with pytest.raises(WrongInput, match="holds no private key"):
        keys.sign(tmp_path / "ada.pem", b"yes")


def test_an_authors_key_is_that_of_the_authors_name_and_has_a_private_half(tmp_path):
    settings = Settings(author="ada", keys=str(tmp_path))
    assert settings.author_key == ""
    public = keys.generate(tmp_path, "ada")
    assert settings.author_key == public
    (tmp_path / "ada.pem").unlink()
    assert settings.author_key == ""
