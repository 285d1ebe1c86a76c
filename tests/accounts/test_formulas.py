import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as some

from accounts.formulas import guarded, unguarded

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"


@pytest.mark.parametrize("sign", SIGNS)
def test_what_begins_like_a_formula_has_a_blank_before_it(sign: str) -> None:
    assert guarded(f"{sign}1+1") == f" {sign}1+1"


@pytest.mark.parametrize("break_", ["\t", "\r", "\n"])
def test_what_begins_with_a_break_has_a_blank_before_it(break_: str) -> None:
    assert guarded(f"{break_}x") == f" {break_}x"


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r\n", "; ", ";;"])
@pytest.mark.parametrize("sign", SIGNS)
def test_no_cell_begins_like_a_formula_wherever_the_file_is_cut(separator: str, sign: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerow(["a", guarded(f"b, c{separator}{sign}1+1")])

    for delimiter in ";\t":
        for row in csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter):
            assert not any(each[:1] and each[0] in SIGNS for each in row)


@pytest.mark.parametrize("text", ["", "a = b", "gpt-4o;fast", "a;b=c", "team@acme"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert guarded(text) == unguarded(text) == text


@given(some.text(some.sampled_from(";\t\r\n =-\uff1da"), max_size=12).map(str.strip))
def test_what_was_guarded_is_read_as_it_was(text: str) -> None:
    assert unguarded(guarded(text)) == text
