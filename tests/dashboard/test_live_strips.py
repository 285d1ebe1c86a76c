"""What a breaker's strip is made of, as the page's own module works it out."""

import pytest

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

NOW = 10_000
PIECES = """async ({ changes, seen, now }) => {
  const { pieces } = await import("/static/live-strips.js");
  const told = pieces(changes, seen, now);
  return told.map(({ state, from, to, since, timeOver }) => [state, from, to, since, Boolean(timeOver)]);
}"""


def change(at, before, after, until=None):
    until_us = None if until is None else until * 1_000_000
    said = {"at_us": at * 1_000_000, "before": before, "after": after, "until_us": until_us}
    return said | {"cause": "5 failures in a row", "by_hand": False}


def seen(*states):
    return [{"at": at, "state": state} for at, state in states]


OPENED = change(NOW - 300, "closed", "open", NOW + 60)
CLOSED_BEFORE = ["closed", NOW - 900, NOW - 300, None, False]
CASES = {
    "nothing is known": ([], [], []),
    "only seen": ([], seen((NOW - 9, "closed")), [["closed", NOW - 900, NOW, None, False]]),
    "seen to change": (
        [],
        seen((NOW - 9, "closed"), (NOW - 4, "open")),
        [["closed", NOW - 900, NOW - 4, None, False], ["open", NOW - 4, NOW, NOW - 4, False]],
    ),
    "seen as the books tell it": (
        [OPENED],
        seen((NOW - 9, "open")),
        [CLOSED_BEFORE, ["open", NOW - 300, NOW, NOW - 300, False]],
    ),
    "seen as the books tell it, then closed before its time": (
        [OPENED],
        seen((NOW - 9, "open"), (NOW - 4, "closed")),
        [
            CLOSED_BEFORE,
            ["open", NOW - 300, NOW - 4, NOW - 300, False],
            ["closed", NOW - 4, NOW, NOW - 4, False],
        ],
    ),
    "its time is over, as was seen": (
        [change(NOW - 300, "closed", "open", NOW - 200)],
        seen((NOW - 9, "half_open")),
        [
            CLOSED_BEFORE,
            ["open", NOW - 300, NOW - 200, NOW - 300, False],
            ["half_open", NOW - 200, NOW, NOW - 200, True],
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "states", "expected"), CASES.values(), ids=CASES)
async def test_a_strip_is_what_the_books_tell_and_what_was_seen_since(
    site, browser, changes, states, expected
):
    page = await browser.new_page()
    await page.goto(f"{site.origin}/accounts/login/")

    assert await page.evaluate(PIECES, {"changes": changes, "seen": states, "now": NOW}) == expected
