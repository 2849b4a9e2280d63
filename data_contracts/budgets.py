"""Budgets of text columns: how long a text may be, and which language a version's texts are to be in.

    slipway.length    {maximum: 200, unit: words, over: filter}    over: quarantine (default), filter or warn
    slipway.language  {expected: en, limit: 0.05, over: warn}      over: warn (default) or refuse

Length is of each row, in characters or in words between spaces (Chinese and Japanese have none: count characters).
Language is of the version: the share of texts that look to be in another one, of those that can be told, may not
exceed the limit; no row is kept out for it (`language` says why).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from data_contracts.language import LANGUAGES, elsewhere
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Column

UNITS = ("characters", "words")
OVER_LENGTH = {"quarantine": "error", "filter": "", "warn": "warning"}
"""What happens to a text over its budget -> the severity of the rule; a filter is none."""
OVER_LANGUAGE = {"refuse": "error", "warn": "warning"}


def num_characters(values: Any) -> Any:
    import pyarrow.compute as pc

    return pc.utf8_length(values)


def num_words(values: Any) -> Any:
    """As `str.split` counts; by stretches of what is no space, because splitting would hold every word."""
    import pyarrow.compute as pc

    return pc.count_substring_regex(values, r"[^\s\x{0b}\x{85}\p{Z}\x{1c}-\x{1f}]+")


MEASURES: dict[str, Callable[[Any], Any]] = {
    "characters": num_characters,
    "words": num_words,
    **{f"not {code}": partial(elsewhere, expected=code) for code in LANGUAGES},
}
"""What rules of a text column are asked of beside the text, in Great Expectations' frame."""


def check_length(value: dict[str, Any], where: str) -> dict[str, Any]:
    """{"maximum", "unit", "over"}. Raises WrongInput naming the key that is not as it should be."""
    _keys(value, ("maximum", "unit", "over"), where)
    maximum = value.get("maximum")
    if isinstance(maximum, bool) or not isinstance(maximum, int) or maximum < 1:
        raise WrongInput(f"{where}.maximum: {maximum!r} is not a whole number of at least 1")
    found = {"maximum": maximum, "unit": value.get("unit", "characters"), "over": value.get("over", "quarantine")}
    _one_of(found, "unit", UNITS, where)
    _one_of(found, "over", OVER_LENGTH, where)
    return found


def check_language(value: dict[str, Any], where: str) -> dict[str, Any]:
    """{"expected", "limit", "over"}. Raises WrongInput naming the key that is not as it should be."""
    _keys(value, ("expected", "limit", "over"), where)
    limit = value.get("limit", 0.05)
    found = {"expected": value.get("expected"), "limit": limit, "over": value.get("over", "warn")}
    _one_of(found, "expected", LANGUAGES, where)
    _one_of(found, "over", OVER_LANGUAGE, where)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < 1:
        raise WrongInput(f"{where}.limit: {limit!r} is not a share; write a number from 0 to 1")
    return found


def _keys(value: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in known:
            raise WrongInput(f"{where}: unknown key '{key}'; {choices(str(key), known)}")


def _one_of(found: dict[str, Any], key: str, known: Any, where: str) -> None:
    if found[key] not in known:
        raise WrongInput(f"{where}.{key}: '{found[key]}' is unknown; {choices(str(found[key]), known)}")


def too_long(column: "Column", values: Any) -> Any:
    """Which texts of an Arrow column are over its budget: booleans, false for a null."""
    import pyarrow.compute as pc

    assert column.length is not None
    lengths = MEASURES[column.length["unit"]](values)
    return pc.fill_null(pc.greater(lengths, column.length["maximum"]), False)
