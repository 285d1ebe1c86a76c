import csv
import io
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dashboard.asgi import LARGEST_FORM
from gateway.default_prices import ALWAYS
from gateway.exchange import EPOCH, MICROSECOND, Quoted
from gateway.price_csv import (
    MOST_BYTES,
    MOST_LINES,
    MOST_WRONG,
    PRICE_COLUMNS,
    RATE_COLUMNS,
    PriceLine,
    RateLine,
    Unreadable,
    Wrong,
    apart,
    decoded,
    price_rows,
    rate_row,
    read_prices,
    read_rates,
    written,
)
from gateway.price_inputs import MAX_PRICE_NANOS, MAX_RATE_NANOS, MIN_RATE_NANOS
from gateway.relay.catalog import Price, Rates

HEADINGS = "route,provider,upstream_model,valid_from,currency,above_tokens,input,output\r\n"
OF = "gpt-4o,acme,gpt-4o-2024,2026-01-01"
ALWAYS_US = (ALWAYS - EPOCH) // MICROSECOND


def prices(text):
    return list(read_prices(decoded([text.encode()])))


def rates(text):
    return list(read_rates(decoded([text.encode()])))


def wrong(text):
    [found] = [each for each in prices(HEADINGS + text) if isinstance(each, Wrong)]
    return str(found)


# Round trip

AMOUNTS = some.integers(0, MAX_PRICE_NANOS)
NAMES = (
    some.text(some.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
    | some.sampled_from("=+-@\uff1d").map("{}cf/meta".format)
    | some.text(some.sampled_from("; =-\uff1da"), min_size=1, max_size=12).map(str.strip)
    | some.just('a "b", c; d')
).filter(lambda text: text and text.isprintable())
CURRENCIES = some.text("ABCXYZ", min_size=3, max_size=3)
MOMENTS_US = some.integers(ALWAYS_US, ALWAYS_US + 10**15)


@some.composite
def figures(draw, above_tokens=0):
    optional = {
        name: draw(some.none() | AMOUNTS)
        for name in ("cache_write_nanos", "reasoning_nanos", "audio_input_nanos", "audio_output_nanos")
    }
    return Rates(draw(AMOUNTS), draw(AMOUNTS), draw(AMOUNTS), **optional, above_tokens=above_tokens)


@some.composite
def price_lines(draw):
    bounds = sorted(draw(some.sets(some.integers(1, 10**9), max_size=3)))
    price = Price(
        0,
        draw(MOMENTS_US),
        draw(figures()),
        tuple(draw(figures(each)) for each in bounds),
        draw(AMOUNTS),
        draw(some.just("") | CURRENCIES),
    )
    return PriceLine(0, draw(NAMES), draw(NAMES), draw(NAMES), price, draw(NAMES))


def without_numbers(lines):
    return [(each.name, each.price, each.source) for each in lines]


@given(some.lists(price_lines(), max_size=4, unique_by=lambda line: line.name), some.booleans())
def test_prices_are_read_as_they_were_written(lines, has_mark):
    text = written(PRICE_COLUMNS) + "".join(written(*price_rows(each)) for each in lines)
    raw = text.encode("utf-8-sig" if has_mark else "utf-8")

    good, bad = apart(read_prices(decoded([raw])))

    assert bad == []
    assert without_numbers(good) == without_numbers(lines)


@some.composite
def rate_lines(draw):
    base, quote = draw(some.lists(CURRENCIES, min_size=2, max_size=2, unique=True))
    day = draw(some.dates(date(2001, 1, 1), date(2198, 1, 1)))
    rate_nanos = draw(some.integers(MIN_RATE_NANOS, MAX_RATE_NANOS))
    return RateLine(0, Quoted(base, quote, day, rate_nanos), draw(NAMES))


@given(some.lists(rate_lines(), max_size=5, unique_by=lambda line: line.name))
def test_exchange_rates_are_read_as_they_were_written(lines):
    text = written(RATE_COLUMNS, *map(rate_row, lines))

    good, bad = apart(read_rates(decoded([text.encode()])))

    assert bad == []
    assert [(each.quoted, each.source) for each in good] == [(each.quoted, each.source) for each in lines]


@given(some.binary(max_size=300))
def test_whatever_a_file_holds_it_is_read_or_told_what_is_wrong(raw):
    for read in (read_prices, read_rates):
        try:
            good, bad = apart(read(decoded([raw])))
        except Unreadable:
            continue
        assert all(each.line_no > 1 for each in [*good, *bad])


@given(some.text("gpt4o,\"\r\n;=-Z0.2026-T:'", max_size=200))
def test_whatever_stands_below_the_headings_every_line_is_told_of(text):
    try:
        good, bad = apart(read_prices(decoded([(HEADINGS + text).encode()])))
    except Unreadable:
        return
    assert all(each.line_no > 1 for each in [*good, *bad])


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d", "\t", "\r"])
def test_nothing_that_is_written_begins_like_a_formula(sign):
    line = PriceLine(
        0, f"{sign}1+1", f"{sign}cmd", f"{sign}x", Price(0, ALWAYS_US, Rates(1, 1, 1)), f"{sign}y"
    )

    [cells] = csv.reader(io.StringIO(written(*price_rows(line))))

    assert not any(each.startswith(sign) for each in cells)


def test_a_formula_behind_a_separator_is_kept_text():
    line = PriceLine(0, "b;=1+1", "acme", "x", Price(0, ALWAYS_US, Rates(1, 1, 1)), "y")

    assert written(*price_rows(line)).startswith("b; =1+1,acme,")


def test_lines_end_as_in_rfc_4180_and_cells_with_commas_are_quoted():
    line = PriceLine(0, 'a "b", c', "acme", "x", Price(0, ALWAYS_US, Rates(150_000_000, 1, 10**10)), "y")

    assert written(*price_rows(line)) == (
        '"a ""b"", c",acme,x,2020-01-01T00:00:00Z,,,0.15,0.000000001,10,,,,,,y\r\n'
    )


# Reading


def test_what_is_not_said_is_as_usual():
    [line] = prices(f"{HEADINGS}{OF},,,2.5,10\r\n")

    assert line.price.rates == Rates(2_500_000_000, 2_500_000_000, 10_000_000_000)
    assert (line.price.currency, line.price.tiers, line.price.request_nanos) == ("", (), 0)
    assert (line.line_no, line.source) == (2, "CSV")


def test_columns_stand_in_any_order_and_case():
    text = "Output, INPUT ,valid_from,upstream_model,provider,route\n10,2.5,2026-01-01,m,acme,gpt-4o\n"
    [line] = prices(text)

    assert (line.price.rates.input_nanos, line.route, line.upstream_model) == (2_500_000_000, "gpt-4o", "m")


def test_tiers_are_the_lines_below_their_price():
    text = f"{HEADINGS}{OF},JPY,,2,8\n{OF},,200000,4,12\n{OF},JPY,500000,8,16\n{OF[:-2]}02,,,1,1\n"
    first, second = prices(text)

    assert [(each.above_tokens, each.input_nanos) for each in first.price.tiers] == [
        (200_000, 4 * 10**9),
        (500_000, 8 * 10**9),
    ]
    assert second.price.tiers == ()


def test_empty_lines_are_passed_over_and_counted():
    [line] = prices(f"{HEADINGS}\r\n,,,,,,,\r\n{OF},,,1,1\r\n")

    assert line.line_no == 4


def test_a_cell_over_two_lines_is_counted_as_two():
    found = prices(f'{HEADINGS}"gpt\n4o",acme,m,2026-01-01,,,1,1\n{OF},,,x,1\n')

    assert [each.line_no for each in found] == [2, 4]
    assert "line break" in found[0].why


def test_bytes_may_come_in_any_pieces():
    raw = f"{HEADINGS}gpt-4ö,acme,m,2026-01-01,,,1,1\r\n".encode("utf-8-sig")
    whole = list(read_prices(decoded([raw])))

    assert list(read_prices(decoded(raw[at : at + 1] for at in range(len(raw))))) == whole


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (",acme,m,2026-01-01,,,1,1", "Line 2: The column route is empty."),
        (f"{OF},,,,1", "Line 2: The column input is empty."),
        (f"{OF},,,1,", "Line 2: The column output is empty."),
        ("gpt-4o,acme,m,,,,1,1", "Line 2: The column valid_from is empty."),
        ("gpt-4o,acme,m,1.1.2026,,,1,1", "Line 2: '1.1.2026' is no moment: write 2026-01-31"),
        (f"{OF},yen,,1,1", "Line 2: 'yen' is no currency"),
        (f'{OF},,,"0,15",1', "Line 2: '0,15' is no amount: write it like 0.15"),
        (f"{OF},,,1,-1", "Line 2: '-1' is no amount"),
        (f"{OF},,,1,1000001", "Line 2: A price is at most 1,000,000"),
        (f"{OF},,5,1,1", "Line 2: This is a tier"),
        (f"{OF},,,1,1\n{OF},,many,1,1", "Line 3: 'many' is no number of tokens"),
        (f"{OF},,,1,1\n{OF},,10000000000000,1,1", "Line 3: '10000000000000' is no number of tokens"),
        (f"{OF},,,1,1\n{OF},,9,1,1\n{OF},,5,1,1", "Line 4: Tiers go up"),
        (f"{OF},USD,,1,1\n{OF},JPY,9,1,1", "Line 3: A tier has the currency of its price"),
        (f"{OF},,,1,1\n{OF},,9,1,", "Line 3: The column output is empty."),
        (f"{'x' * 201},acme,m,2026-01-01,,,1,1", "Line 2: route is longer than 200 characters."),
    ],
)
def test_what_is_wrong_is_said_of_its_line(line, why):
    assert wrong(line).startswith(why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Line 1 names the columns"),
        ("route;provider;upstream_model;valid_from;input;output\n", "with commas between them. route, "),
        (HEADINGS.replace("currency", "colour"), "Line 1 has the column 'colour'; known are route"),
        (HEADINGS.replace("currency", "input"), "Line 1 has a column twice."),
        (f"{HEADINGS}{OF},,,1,1,9\n", "Line 2 has more cells than there are headings."),
        (f'{HEADINGS}"gpt-4o"x,acme\n', "Line 2 is no CSV"),
        (f'{HEADINGS}"gpt-4o,acme\n', "is no CSV"),
        (f"{HEADINGS}{'x' * 10_000}\n", "too long for prices"),
    ],
)
def test_a_file_that_is_none_of_ours_is_told_apart(text, why):
    with pytest.raises(Unreadable) as refused:
        prices(text)

    assert why in str(refused.value)


def test_a_file_in_another_encoding_is_told_apart():
    with pytest.raises(Unreadable, match="not in UTF-8"):
        list(read_prices(decoded([HEADINGS.encode(), "gpt-4ö".encode("latin-1"), b",acme"])))


def test_a_file_that_is_too_long_is_not_read_to_its_end():
    taken = []

    def endless():
        yield HEADINGS.encode()
        while True:
            taken.append(1)
            yield b"\r\n" * 50_000

    with pytest.raises(Unreadable, match=r"longer than 1,000,000 bytes|more than 10,000 lines"):
        list(read_prices(decoded(endless())))
    assert len(taken) <= MOST_BYTES // 100_000 + 2


def test_the_largest_file_fits_into_the_largest_form():
    room_for_the_rest_of_the_form = 10_000

    assert MOST_BYTES + room_for_the_rest_of_the_form < LARGEST_FORM


def test_a_file_with_too_many_lines_is_not_read_further():
    text = RATE_COLUMNS[0] + ",quote,valid_from,rate\n" + "USD,JPY,2026-01-01,1\n" * (MOST_LINES + 1)

    with pytest.raises(Unreadable, match="more than 10,000 lines"):
        rates(text)


def test_two_lines_for_the_same_are_wrong():
    _, bad = apart(prices(f"{HEADINGS}{OF},,,1,1\n{OF},,,2,2\n"))
    _, turned = apart(rates("base,quote,valid_from,rate\nUSD,JPY,2026-01-01,1\nJPY,USD,2026-01-01,1\n"))

    assert [str(each) for each in (*bad, *turned)] == [
        "Line 3: Line 2 is for the same from the same time on.",
        "Line 3: Line 2 is for the same from the same time on.",
    ]


def test_after_many_wrong_lines_no_more_are_looked_for():
    _, bad = apart(prices(HEADINGS + f"{OF},,,x,1\n" * 500))

    assert len(bad) == MOST_WRONG


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("USD,USD,2026-01-01,1", "between two currencies"),
        ("USD,JPY,2026-01-01,0", "An exchange rate is from 0.0000001 to 10000000"),
        ("USD,JPY,2026-01-01T00:00:00Z,1", "is no day"),
        ("USD,JPY,,1", "The column valid_from is empty."),
        ("dollar,JPY,2026-01-01,1", "'dollar' is no currency"),
    ],
)
def test_an_exchange_rate_that_cannot_be_is_said_of_its_line(line, why):
    [found] = rates(f"base,quote,valid_from,rate\n{line}\n")

    assert str(found).startswith("Line 2: ")
    assert why in found.why
