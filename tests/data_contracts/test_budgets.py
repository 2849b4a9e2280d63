"""Length is judged of each text, language of a version: both by budgets that a contract gives a column."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.budgets import num_characters, num_words
from data_contracts.contract import Contract
from data_contracts.language import elsewhere, tell
from data_contracts.registry import read_quarantine, register, validate_source
from data_contracts.validation import validate
from infra.errors import Refused, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]

SPOKEN = {
    "en": "The goods that were ordered on Monday are in the depot, and it is with the driver.",
    "de": "Die Waren, die am Montag bestellt wurden, sind nicht mit dem Fahrer und auf dem Hof.",
    "fr": "Les produits commandés lundi sont dans le dépôt et une partie est pour le chauffeur.",
    "es": "Los productos que se pidieron el lunes están en el almacén y con el conductor.",
    "it": "La merce che è stata ordinata non è con il conducente, per la pioggia di lunedì.",
    "nl": "De goederen zijn met het schip en niet op de wagen van maandag voor het depot.",
    "pt": "O pedido que foi feito não está com o motorista, e os produtos são do armazém.",
    "ru": "Товары, заказанные в понедельник, лежат на складе.",
    "ja": "月曜日に注文された商品は倉庫にあります。",
    "zh": "星期一订购的货物在仓库里。",
    "ko": "월요일에 주문한 상품이 창고에 있습니다.",
    "el": "Τα εμπορεύματα είναι στην αποθήκη.",
}


def with_budget(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"text": {"logicalType": "string", "customProperties": [{"property": f"slipway.{name}", "value": value}]}}


@given(st.lists(st.none() | st.text(), max_size=20))
def test_words_and_characters_are_counted_as_python_counts_them(texts: list[str | None]) -> None:
    values = pa.array(texts, pa.string())
    assert num_words(values).to_pylist() == [None if text is None else len(text.split()) for text in texts]
    assert num_characters(values).to_pylist() == [None if text is None else len(text) for text in texts]


@pytest.mark.parametrize(("unit", "over"), [("words", "quarantine"), ("characters", "warn")])
def test_a_text_over_its_length_is_quarantined_or_remarked(
    contract: Maker, write: Writer, tmp_path: Path, sentences: Rows, unit: str, over: str
) -> None:
    rows = [{"text": row["text"]} for row in sentences]
    rows[4]["text"] += " and several words more than the others"
    maximum = 6 if unit == "words" else 40
    made = contract(with_budget("length", {"maximum": maximum, "unit": unit, "over": over}))
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, made, str(write(tmp_path / "rows.csv", rows)))
    found = read_quarantine(store, version).to_pylist()
    if over == "quarantine":
        assert [(row["rules"], row["row"]) for row in found] == [(["text:length-budget"], 5)]
        assert "has more than 6 words" in found[0]["reason"]
    else:
        assert not found and version.counts["quarantined"] == 0
        assert [(one["rule"], one["rows"]) for one in version.manifest["warnings"]] == [("text:length-budget", 1)]


@pytest.mark.parametrize("code", SPOKEN)
def test_a_sentence_is_told_by_its_small_words_or_its_script(code: str) -> None:
    assert tell(SPOKEN[code]) == code


@pytest.mark.parametrize("text", ["", "Slipway", "42 / 17", "de la", "Varorna finns i lagret sedan i går."])
def test_what_cannot_be_told_is_not_guessed(text: str) -> None:
    assert tell(text) is None
    assert elsewhere(pa.chunked_array([[text, None]]), "en").to_pylist() == [None, None]


@pytest.mark.parametrize("over", ["warn", "refuse"])
def test_the_share_of_other_languages_judges_the_version_and_no_row(
    contract: Maker, write: Writer, tmp_path: Path, over: str
) -> None:
    rows = [{"text": f"{SPOKEN['de' if index < 40 else 'en']} {index}"} for index in range(400)]
    rows += [{"text": f"word {index}"} for index in range(100)]  # cannot be told, and are not counted
    path = str(write(tmp_path / "rows.csv", rows))
    fits = validate_source(contract(with_budget("language", {"expected": "en", "limit": 0.1, "over": over})), path)
    assert fits["warnings"] == [] and fits["counts"]["quarantined"] == 0
    strict = contract(with_budget("language", {"expected": "en", "limit": 0.09, "over": over}))
    said = "text:language: 10.0% of the 400 texts that can be told look to be in another language than English"
    if over == "refuse":
        with pytest.raises(Refused, match=said):
            validate_source(strict, path)
    else:
        found = validate_source(strict, path)
        assert said in found["warnings"][0]["reason"] and found["counts"]["quarantined"] == 0


def test_a_language_that_no_text_tells_could_not_be_checked(contract: Maker) -> None:
    made = contract(with_budget("language", {"expected": "en", "over": "refuse"}))
    findings = validate(pa.table({"text": ["word", None]}), made)
    assert findings.refusals == ["text:language: could not be checked (no text is long enough to tell)"]


@pytest.mark.shared_data
@pytest.mark.parametrize(("file", "least"), [("emotion/test.txt", 0.6), ("stsb/stsb-en-test.csv", 0.3)])
def test_english_is_seldom_taken_for_another_language(shared_data: Path, file: str, least: float) -> None:
    texts = (shared_data / file).read_text(encoding="utf-8").splitlines()
    told = [one for one in elsewhere(pa.chunked_array([texts]), "en").to_pylist() if one is not None]
    assert len(told) > least * len(texts) and sum(told) < 0.005 * len(told)


@pytest.mark.parametrize(
    ("budget", "value", "message"),
    [
        ("length", {"maximum": 0}, "slipway.length.maximum: 0 is not a whole number of at least 1"),
        ("length", {"unit": "words"}, "slipway.length.maximum: None is not a whole number"),
        ("length", {"maximum": 5, "unit": "wrods"}, "slipway.length.unit: 'wrods' is unknown; did you mean 'words'"),
        ("length", {"maximum": 5, "over": "drop"}, "slipway.length.over: 'drop' is unknown; there is: filter, quaran"),
        ("length", {"maximun": 5}, "slipway.length: unknown key 'maximun'; did you mean 'maximum'"),
        ("language", {"expected": "english"}, "slipway.language.expected: 'english' is unknown"),
        ("language", {"expected": "en", "limit": 5}, "slipway.language.limit: 5 is not a share"),
        ("language", {"expected": "en", "over": "filter"}, "slipway.language.over: 'filter' is unknown"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_one_line(
    contract: Maker, budget: str, value: dict[str, Any], message: str
) -> None:
    with pytest.raises(WrongInput) as caught:
        contract(with_budget(budget, value))
    assert message in str(caught.value) and "schema.properties.text" in str(caught.value)


def test_a_budget_of_a_column_that_is_no_text_is_refused(contract: Maker) -> None:
    columns = with_budget("length", {"maximum": 5})
    columns["text"]["logicalType"] = "integer"
    with pytest.raises(WrongInput, match="is a budget of text, and the column is integer"):
        contract(columns)
