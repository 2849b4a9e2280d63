"""Slices of a contract: what may be written, and which rows are meant."""

import pyarrow as pa
import pytest

from data_contracts.contract import parse_contract
from data_contracts.slices import named_slices
from infra.errors import WrongInput

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: animals
version: 1.0.0
status: active
servers: [{server: local, type: local, path: rows.csv, format: csv}]
schema:
  - name: rows
    properties:
      - {name: text, logicalType: string}
      - {name: age, logicalType: integer}
      - {name: place, logicalType: string}
customProperties:
  - {property: slipway.slices, value: SLICES}
"""
OLD = '{name: the old, condition: {type: comparison, column: {name: age}, operator: ">", parameter: 2}}'


def contract(slices: str, text: str = CONTRACT):
    return parse_contract(text.replace("SLICES", slices), "animals")


def table(places):
    return pa.table({"text": ["x"] * len(places), "age": list(range(len(places))), "place": places})


def test_columns_and_conditions_name_rows():
    found = named_slices(contract(f"[place, {OLD}]"), table(["a", "b", "a", "b", None]), 1)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "place = a": [True, False, True, False, False],
        "place = b": [False, True, False, True, False],
        "place = None": [False, False, False, False, True],
        "the old": [False, False, False, True, True],
    }


def test_values_with_few_rows_are_one_slice():
    found = named_slices(contract("[place]"), table(["a", "a", "a", "b", "c"]), 2)
    assert list(found) == ["place = a", "place: rarer values"]
    assert found["place: rarer values"].tolist() == [False, False, False, True, True]


def test_personal_values_are_shown_as_hashes():
    text = CONTRACT.replace("{name: place,", "{name: place, classification: personal,")
    names = list(named_slices(contract("[place]", text), table(["mel", "mel"]), 1))
    assert len(names) == 1 and "mel" not in names[0] and names[0].startswith("place = #")


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ("[plcae]", "slipway.slices[0]: column 'plcae' is not in the schema; did you mean 'place'"),
        ("[place, place]", "slipway.slices[1]: 'place' is named twice"),
        ("[{name: x}]", "slipway.slices[0]: \"{'name': 'x'}\" is no slice"),
        ("[{name: x, condition: age > 2}]", "text that would be run as code"),
        (f"[{OLD.replace('age', 'aeg')}]", "column 'aeg' is not in the schema; did you mean 'age'"),
        ("place", "slipway.slices"),
    ],
)
def test_what_is_no_slice_is_one_line(slices, message):
    with pytest.raises(WrongInput) as error:
        contract(slices)
    assert message in str(error.value) and str(error.value).startswith("contract animals: ")


def test_a_column_of_many_values_asks_for_conditions():
    with pytest.raises(WrongInput, match="column 'place' has 60 values; name its parts with conditions"):
        named_slices(contract("[place]"), table([f"p{i}" for i in range(60)]), 1)
