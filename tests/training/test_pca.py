"""PCA as a codec: what is kept, what is cut, and how many bits that takes; and how evenly codes are used."""

import numpy as np
import pytest

from training.evaluations.reconstruction import KIND
from training.intervals import estimate
from training.pca import RANGES, LinearCodec, best_quantised, fit_pca, linear_codec, values
from training.reconstruction import squared_errors


def pictures(count: int, seed: int) -> np.ndarray:
    """(count, 6, 6, 1) uint8: three patterns, mixed, and a little noise."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).normal(0, 12, (3, 36))
    mixed = 128 + rng.normal(0, 1, (count, 3)) @ patterns + rng.normal(0, 2, (count, 36))
    return mixed.round().clip(0, 255).astype(np.uint8).reshape(count, 6, 6, 1)


def test_as_many_components_as_there_are_leave_nothing_out():
    train = pictures(200, 1)
    error = [
        squared_errors(train, linear_codec(fit_pca(train, count)).reconstruct(train)).mean() for count in (1, 3, 36)
    ]
    assert error[0] > 10 * error[1] and error[2] == 0
    assert error[1] == pytest.approx((2 / 255) ** 2, rel=0.2), "what is left is the noise"


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_a_number_becomes_one_of_as_many_values_as_its_bits_have(bits):
    codec = LinearCodec(np.zeros(1), np.eye(1), np.array([2.0]), bits, 3.0)
    found = codec.cut(np.linspace(-20, 20, 5001)[:, None])
    assert len(np.unique(found)) == 2**bits
    inside = np.linspace(-5.999, 5.999, 999)[:, None]
    step = 12 / 2**bits
    assert np.abs(codec.cut(inside) - inside).max() <= step / 2 + 1e-9
    assert found.max() == pytest.approx(6 - step / 2), "what lies outside falls into the last cell"


def test_a_component_that_does_not_vary_breaks_nothing():
    codec = LinearCodec(np.zeros(2), np.eye(2), np.array([1.0, 0.0]), 4, 3.0)
    assert np.isfinite(codec.cut(np.array([[0.3, 0.0]]))).all()


def test_the_best_quantised_keeps_to_its_bits_and_errs_as_it_was_measured():
    train, held_out = pictures(400, 1), pictures(200, 2)
    codec, tried = best_quantised(fit_pca(train, 24), held_out, 24)
    assert [one["bits a component"] for one in tried] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(one["bits a component"] * one["components"] <= 24 and one["range"] in RANGES for one in tried)
    best = min(tried, key=lambda one: one["error"])
    assert (codec.bits, len(codec.axes), codec.reach) == (best["bits a component"], best["components"], best["range"])
    error = squared_errors(held_out, codec.reconstruct(held_out)).mean()
    assert error == pytest.approx(best["error"] + 1 / (12 * 255**2), rel=0.01), "and whole bytes cost their share"


def test_fewer_bits_than_a_component_takes_are_none_of_it():
    train = pictures(100, 1)
    _, tried = best_quantised(fit_pca(train, 3), train, 3)
    assert [one["bits a component"] for one in tried] == [1, 2, 3]


def test_values_are_from_0_to_1_and_errors_their_mean_square():
    black, white = np.zeros((2, 3, 3, 1), np.uint8), np.full((2, 3, 3, 1), 255, np.uint8)
    assert values(white).max() == 1
    assert squared_errors(black, white).tolist() == [1, 1]


def test_perplexity_is_all_of_the_codebook_when_all_codes_are_used_alike_and_one_code_of_it_when_one_is():
    size = np.full(8, 4)
    even = {"codes": np.tile([0, 1, 2, 3], (8, 2)), "codebook_size": size}
    one = {"codes": np.full((8, 4), 2), "codebook_size": size}
    half = {"codes": np.tile([0, 3], (8, 2)), "codebook_size": size}
    for columns, share in ((even, 1), (one, 1 / 4), (half, 1 / 2)):
        assert estimate("codebook_use", columns).value == pytest.approx(share)


def test_a_resample_counts_each_picture_as_often_as_it_was_drawn():
    columns = {"codes": np.array([[0.0, 0.0], [1.0, 1.0]]), "codebook_size": np.array([2.0, 2.0])}
    perplexity = KIND.metrics["codebook_use"].weighted
    assert perplexity is not None
    drawn = np.array([[1, 1], [2, 0], [3, 1]])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert perplexity(columns, drawn).tolist() == pytest.approx([1, 0.5, np.exp(entropy) / 2])
