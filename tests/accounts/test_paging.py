import pytest

from accounts.paging import Pages, page_number


@pytest.mark.parametrize(
    ("number", "beside"),
    [
        (1, (None, None, "2", "9")),
        (2, (None, "1", "3", "9")),
        (5, ("1", "4", "6", "9")),
        (8, ("1", "7", "9", None)),
        (9, ("1", "8", None, None)),
    ],
)
def test_pages_link_to_those_beside_and_to_the_ends(number, beside):
    pages = Pages(number, 9, str)
    assert (pages.first, pages.before, pages.after, pages.last) == beside


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), ("", 1), ("0", 1), ("-1", 1), ("x", 1), ("9" * 50, 999_999_999)]
)
def test_what_is_no_number_is_the_first_page(text, number):
    assert page_number(text) == number
