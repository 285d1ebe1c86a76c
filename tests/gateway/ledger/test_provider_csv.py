"""A provider's usage as a file: what is read, and what is refused with which sentence."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger import provider_csv
from gateway.ledger.provider_csv import BillLine, Unreadable, read


def lines(text):
    return read(text.encode()).lines


def refused(text):
    with pytest.raises(Unreadable) as caught:
        read(text if isinstance(text, bytes) else text.encode())
    return caught.value.errors


def test_a_plain_file_is_read():
    assert lines(
        "day,model,input_tokens,output_tokens,cost,currency\n2026-10-01,gpt-4o,100,20,0.00045,usd\n"
    ) == (BillLine(2, date(2026, 10, 1), "gpt-4o", 100, 20, 120, 450_000, "USD"),)


@pytest.mark.parametrize(
    "text",
    [
        "day,model,tokens\n2026-10-01,gpt-4o,120",
        "Date,Model Name,Total Tokens\n2026-10-01,gpt-4o,120\n",
        "DATE;MODEL;TOTAL-TOKENS\r\n2026-10-01;gpt-4o;120\r\n",
        "date\tmodel\ttokens\n2026-10-01T00:00:00Z\tgpt-4o\t120.0\n",
        '\ufeffdate,model,tokens\n"2026-10-01 00:00:00","gpt-4o",1.2e2\n',
        " day , model , tokens \n 2026-10-01 , gpt-4o , 120 \n",
    ],
)
def test_headings_delimiters_and_days_vary(text):
    (found,) = lines(text)

    assert found[1:] == (date(2026, 10, 1), "gpt-4o", None, None, 120, None, "")


def test_what_a_line_does_not_say_is_not_nothing():
    (found,) = lines("day,model,input_tokens,output_tokens,cost\n2026-10-01,gpt-4o,100,,\n")

    assert (found.input_tokens, found.output_tokens, found.tokens, found.cost_nanos) == (
        100,
        None,
        None,
        None,
    )


def test_lines_are_numbered_as_an_editor_does():
    found = lines('\nday,model,cost\n\n2026-10-01,"a\nb",1\n2026-10-02,c,2\n')

    assert [(each.number, each.upstream_model) for each in found] == [(5, "a\nb"), (6, "c")]


def test_columns_that_are_not_known_are_named():
    assert read(b"day,model,cost,Project,Region\n2026-10-01,a,1,x,y\n").not_read == ("Project", "Region")


def test_a_cost_is_rounded_half_up_to_the_nano_unit_and_may_be_a_credit():
    found = lines("day,model,cost\n2026-10-01,a,0.0000000015\n2026-10-01,a,-3\n2026-10-01,a,1e-05\n")

    assert [each.cost_nanos for each in found] == [2, -3_000_000_000, 10_000]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (
            '2026-10-01,a,"1,234.50",1',
            "“1,234.50” is no cost that can be read: write plain digits without thousands",
        ),
        ("2026-10-01,a,$5,1", "“$5” is no cost that can be read: write plain digits, such as 1234.56."),
        ('2026-10-01,a,5,"1,234"', "“1,234” is no tokens that can be read"),
        ("2026-10-01,a,5,-1", "“-1” is no number of tokens."),
        ("2026-10-01,a,5,1.5", "“1.5” is no number of tokens."),
        ("2026-10-01,a,nan,1", "“nan” is no cost"),
        ("2026-10-01,a,1e99,1", "“1e99” is too large to be right."),
        ("10/01/2026,a,5,1", "“10/01/2026” is no day: write it as 2026-10-31."),
        ("2026-02-30,a,5,1", "“2026-02-30” is no day"),
        ("2026-10-01,,5,1", "It names no model."),
        ("2026-10-01,a", "It has 2 values, and the line of headings more."),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_with_its_line(cells, sentence):
    ((line, why),) = refused(f"day,model,cost,tokens\n2026-10-01,fine,1,1\n{cells}\n")

    assert line == 3
    assert why.startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The file is empty."),
        ("day,model,cost\n", "The file has a line of headings and nothing below it."),
        ("model,cost\na,1\n", "There is no column with the day: call it day or date."),
        ("day,cost\n2026-10-01,1\n", "There is no column with the model: call it model or model_name."),
        ("day,model\n2026-10-01,a\n", "There is nothing to compare"),
        ("day,date,model,cost\n", "Two columns are the day: day and date."),
        (b"day,model,cost\n2026-10-01,\xff,1\n", "The file is not text in UTF-8"),
        ('day,model,cost\n2026-10-01,"a,1\n', "This is no CSV"),
        ("day,model,cost\n" + "2026-10-01,a,1\n" * 20_001, "The file has more than 20,000 lines"),
        ("x" * 1_000_001, "The file is larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text, sentence):
    assert refused(text)[0][1].startswith(sentence)


def test_all_that_is_wrong_is_told_at_once_but_not_without_end():
    wrong = "x,a,1\n" * 100

    assert [line for line, _ in refused("day,model,cost\n" + wrong)] == list(
        range(2, 2 + provider_csv.MOST_ERRORS)
    )


def test_a_currency_is_three_letters():
    ((line, why),) = refused("day,model,cost,currency\n2026-10-01,a,1,dollars\n")

    assert (line, why) == (2, "“dollars” is no currency: write its three letters, such as USD.")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"day,model,cost\n{text}".encode()))
def test_no_file_breaks_the_reader(raw):
    try:
        told = read(raw).lines
    except Unreadable as why:
        told = why.errors
    assert all(told)
