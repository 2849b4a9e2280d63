"""Every drift test found by name: p-values that are honest, effects that know their ends, planted shifts found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_contracts.contract import Contract
from data_contracts.drift import drift_tests, load_test
from data_contracts.pixels import NAMES, brightness, pack, unpack
from infra.errors import WrongInput

Maker = Callable[..., Contract]
Draw = Callable[[np.random.Generator, int, bool], list[Any]]
WORDS = np.array([f"word{index}" for index in range(2000)])


def categories(random: np.random.Generator, rows: int, shifted: bool) -> list[Any]:
    shares = (0.35, 0.3, 0.2, 0.1, 0.05) if shifted else (0.5, 0.3, 0.15, 0.04, 0.01)
    return list(random.choice(list("abcde"), rows, p=shares))


def numbers(random: np.random.Generator, rows: int, shifted: bool) -> list[Any]:
    return (random.normal(0.5 if shifted else 0.0, 1.0, rows) * 1e6).tolist()


def text(random: np.random.Generator, rows: int, shifted: bool) -> list[Any]:
    """Twelve Zipf-distributed words; shifted, a fifth of the texts speaks of something new."""
    words = WORDS[np.minimum(random.zipf(1.4, (rows, 12)), 1999)]
    if shifted:
        words[: rows // 5, :3] = "pandemic"
    return [" ".join(row) for row in words]


def images(random: np.random.Generator, rows: int, shifted: bool) -> list[Any]:
    """Noise in colour; shifted, a little brighter."""
    pixels = random.integers(0, 200, (rows, 12, 10, 3), dtype=np.uint8) + (12 if shifted else 0)
    return [pack(Image.fromarray(one.astype(np.uint8), "RGB")) for one in pixels]


DRAWS: dict[str, Draw] = {"categories": categories, "numbers": numbers, "text": text, "images": images}
"""Example values for each test: a new test wants a new entry."""


def outcome(name: str, before: list[Any], after: list[Any]) -> dict[str, Any]:
    test = load_test(name)
    return test.compare(test.take({}, before), test.take({}, after))


def false_alarms(name: str, seeds: range, rows: int, level: float = 0.05) -> float:
    """Share of pairs of draws of one source whose p-value is below the level."""
    draw = DRAWS[name]
    pairs = [[draw(np.random.default_rng([seed, side]), rows, False) for side in (0, 1)] for seed in seeds]
    return float(np.mean([outcome(name, *pair)["p_value"] < level for pair in pairs]))


@pytest.mark.parametrize("name", drift_tests())
def test_forty_draws_without_change_raise_few_alarms(name: str) -> None:
    # At a true rate of 0.05, 7 or more of 40 come once in 250 times; the seeds are fixed.
    assert false_alarms(name, range(40), 150) <= 6 / 40


@pytest.mark.slow
@pytest.mark.parametrize("rows", [150, 2000])
@pytest.mark.parametrize("name", drift_tests())
def test_200_draws_without_change_raise_as_many_alarms_as_stated(name: str, rows: int) -> None:
    # 0.05 and two standard deviations of a binomial of 200.
    assert false_alarms(name, range(200), rows) <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize("name", drift_tests())
def test_a_planted_shift_is_found_and_said(name: str) -> None:
    draw = DRAWS[name]
    found = outcome(name, *(draw(np.random.default_rng(side), 1500, bool(side)) for side in (0, 1)))
    assert found["p_value"] < 1e-4 and found["effect"] >= 0.1
    assert "->" in found["sentence"]
    assert outcome(name, *(draw(np.random.default_rng(side), 1500, bool(side)) for side in (0, 1))) == found


@pytest.mark.parametrize("name", drift_tests())
def test_every_drift_test_knows_the_ends_of_its_scale(name: str) -> None:
    draw, test = DRAWS[name], load_test(name)
    rows = draw(np.random.default_rng(0), 300, False)
    same = outcome(name, rows, rows)
    assert same["effect"] == pytest.approx(0) and same["p_value"] > 0.4
    assert outcome(name, rows[:3], rows[3:6])["p_value"] > 0.05, "three values prove nothing"
    assert test.take({}, []) is None
    assert test.__doc__ and test.TYPES and test.MEASURE
    with pytest.raises(WrongInput, match="is unknown; "):
        load_test(name + "x")


@pytest.mark.parametrize(("name", "old", "new"), [
    ("categories", "a", "b"),
    ("numbers", 3.0, 4.0),
    ("numbers", 0.0, 1e-9),
    ("text", "all quiet", "much noise"),
    ("images", "00" * len(NAMES), "ff" * len(NAMES)),
])  # fmt: skip
def test_what_has_nothing_in_common_is_at_the_far_end(name: str, old: Any, new: Any) -> None:
    if name in ("text", "images"):  # equal contents share a fold, so they have to differ a little
        before, after = ([_varied(value, index) for index in range(100)] for value in (old, new))
    else:
        before, after = [old] * 100, [new] * 100
    found = outcome(name, before, after)
    assert found["effect"] == pytest.approx(1, abs=1e-6) and found["p_value"] < 1e-9


def _varied(value: str, index: int) -> str:
    return f"{value} {index}" if " " in value else value[:4] + f"{index:02x}" + value[6:]


def test_numbers_find_what_was_constant_and_is_no_more() -> None:
    found = outcome("numbers", [0.4] * 500, np.random.default_rng(0).uniform(0, 1, 500).tolist())
    assert found["p_value"] < 1e-9 and found["effect"] > 0.3


def test_one_absurd_value_does_not_hide_a_shift() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, 1000), random.normal(1, 1, 1000)
    clean = outcome("numbers", before.tolist(), after.tolist())["effect"]
    assert outcome("numbers", [*before, 1e300], [*after, -1e300])["effect"] == pytest.approx(clean, rel=0.05)


def test_numbers_against_scipy() -> None:
    from scipy.stats import ks_2samp

    random = np.random.default_rng(1)
    before, after = random.normal(0, 1, 400).tolist(), random.normal(0.2, 1, 300).tolist()
    found = outcome("numbers", before, after)
    assert found["statistic"] == pytest.approx(ks_2samp(before, after).statistic)
    assert found["p_value"] == pytest.approx(ks_2samp(before, after, method="exact").pvalue, rel=0.1)


def test_a_small_shift_has_the_effect_that_the_text_says() -> None:
    """A fifth of a deviation is about 0.1 by numbers and, of the same numbers cut into categories, by categories."""
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, 40_000), random.normal(0.2, 1, 40_000)
    assert outcome("numbers", before.tolist(), after.tolist())["effect"] == pytest.approx(0.1, abs=0.01)
    cut = [np.digitize(side, np.linspace(-3, 3, 30)).tolist() for side in (before, after)]
    assert outcome("categories", *cut)["effect"] == pytest.approx(0.09, abs=0.015)


def test_texts_shared_by_both_versions_do_not_count_against_them() -> None:
    """A version with some more rows: each old row's twin would teach the classifier the wrong answer."""
    rows = text(np.random.default_rng(0), 903, False)
    grown = [*rows, *text(np.random.default_rng(1), 100, False)]
    found = outcome("text", rows, grown)
    assert 0.4 < found["statistic"] < 0.6 and found["p_value"] > 0.05


def test_text_in_a_script_without_spaces_is_read() -> None:
    before = [f"天气很好第{index}天" for index in range(200)]
    after = [f"股市大跌第{index}天" for index in range(200)]
    assert outcome("text", before, after)["effect"] > 0.9


def test_pixel_statistics_mean_what_their_names_say() -> None:
    black, white = Image.new("L", (5, 9), 0), Image.new("RGBA", (40, 3), "white")
    half = Image.new("RGB", (64, 64), "red")
    half.paste((0, 0, 0), (0, 0, 32, 64))
    facts = [dict(zip(NAMES, row, strict=True)) for row in unpack([pack(one) for one in (black, white, half)])]
    assert brightness([pack(black), None, pack(white)]).tolist() == [0, 255]
    assert facts[2]["mean red"] == pytest.approx(127, abs=1) and facts[2]["mean green"] == 0
    assert facts[2]["grey at row 1, column 1 of 8"] == 0 < facts[2]["grey at row 1, column 8 of 8"]
    assert facts[2]["sharpness"] > facts[0]["sharpness"] == 0
    deep = Image.fromarray(np.full((4, 4), 16384, np.uint16))
    assert brightness([pack(deep)]).tolist() == [127]  # the square root of a quarter
