"""What a user is told is one line with an exit code."""

import pickle

import pytest

from infra.artifacts import Damaged
from infra.errors import Refused, SlipwayError, WrongInput, choices


@pytest.mark.parametrize(("kind", "code"), [(SlipwayError, 1), (Damaged, 1), (WrongInput, 2), (Refused, 3)])
def test_each_kind_has_its_exit_code_and_crosses_processes(kind, code):
    error = pickle.loads(pickle.dumps(kind("a file: a field")))  # noqa: S301 (made here)
    assert (type(error), error.exit_code, str(error)) == (kind, code, "a file: a field")
    assert isinstance(error, SlipwayError)


def test_a_message_is_one_line_whatever_a_library_put_into_it():
    assert str(WrongInput("x.yaml: not YAML\n  in line 3,\r\n\tcolumn 1")) == "x.yaml: not YAML in line 3, column 1"


def test_the_nearest_name_comes_first_and_all_are_listed():
    known = ["text_classifier", "bert_mlm"]
    assert choices("bert-mlm", known) == "did you mean 'bert_mlm'? there is: bert_mlm, text_classifier"
    assert choices("vit", known) == "there is: bert_mlm, text_classifier"
    assert choices("vit", []) == "there is: none yet"
