"""Equal values have equal digests, whoever computes them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.digests import canonical, digest, digest_bytes, digest_file

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_the_canonical_form_is_fixed():
    """Digests are stored for good: this golden value may never change."""
    assert canonical({"b": [1, 2.5, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,2.5,null]}'.encode()
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_count(value):
    assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": object()}, b"bytes"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        digest(value)


def test_half_a_surrogate_pair_has_a_digest():
    """Legal in JSON, so it stands in somebody's data."""
    assert digest("\ud800") != digest("\ud801")


def test_a_file_and_its_bytes_have_one_digest(tmp_path):
    (tmp_path / "x").write_bytes(b"\x00" * 1_000_001)
    assert digest_file(tmp_path / "x") == digest_bytes(b"\x00" * 1_000_001)
