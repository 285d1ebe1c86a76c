"""The places of the top bar."""

import pytest

from dashboard.navigation import places


def here(path, *, is_administrator=True):
    return [str(each.title) for each in places(path, is_administrator=is_administrator) if each.is_here]


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/", "Live"),
        ("/usage/", "Usage"),
        ("/calls/refused/", "Calls"),
        ("/prices/file/", "Money"),
        ("/keys/7/rotate/", "Keys"),
        ("/audit/", "Audit"),
    ],
)
def test_a_page_is_at_one_place(path, title):
    assert here(path) == [title]


def test_a_page_outside_of_all_is_at_none():
    assert here("/account/") == []


def test_administrators_see_more():
    everybody = {str(each.title) for each in places("/", is_administrator=False)}
    administrators = {str(each.title) for each in places("/", is_administrator=True)}

    assert administrators - everybody == {"Providers", "Audit", "Admin"}
