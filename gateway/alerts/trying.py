"""How often tests of alerts and channels may be sent: by one person, and of one thing at a time.

A test writes to whoever stands in a channel, asked or not, and takes as long as the far side does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.core.cache import cache
from django.utils.translation import gettext as _

from accounts.services import NotPossible

A_MINUTE: Final = 5
AN_HOUR: Final = 30
WINDOWS: Final = ((60, A_MINUTE), (3600, AN_HOUR))
"""Seconds, each window beginning at a full minute or hour, and how many tests of one person fit into it."""
UNDER_WAY_S: Final = 60
"""A test that has not ended after so long ended with its process."""
SOON_S: Final = 10
"""A test under way is over by then."""


class TooManyTests(NotPossible):
    """Another test may be sent in `retry_after_s` seconds."""

    def __init__(self, why: str, retry_after_s: int) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


@contextmanager
def alone(what: str) -> Iterator[None]:
    """While the test of `what` is under way, there is no other one of it. Raises TooManyTests."""
    key = f"alerts:test-of:{what}"
    if not cache.add(key, 1, UNDER_WAY_S):
        raise TooManyTests(_("A test is under way already: wait until it is over."), SOON_S)
    try:
        yield
    finally:
        cache.delete(key)


def count(user_id: int, now_s: int) -> None:
    """Count one test of a person at a moment in Unix seconds. Raises TooManyTests."""
    for length_s, most in WINDOWS:
        begun_s = now_s - now_s % length_s
        key = f"alerts:tests-by:{user_id}:{length_s}:{begun_s}"
        cache.add(key, 0, length_s)
        if cache.incr(key) > most:
            said = _("At most %(minute)d tests a minute and %(hour)d an hour: wait, then send the next.")
            wait_s = begun_s + length_s - now_s
            raise TooManyTests(said % {"minute": A_MINUTE, "hour": AN_HOUR}, wait_s)
