"""How often tests may be sent."""

import pytest

from gateway.alerts.trying import A_MINUTE, AN_HOUR, TooManyTests, alone, count

AT_S = 1_800_000_000
"""A full hour."""


def test_a_person_sends_so_many_tests_a_minute():
    for _ in range(A_MINUTE):
        count(1, AT_S + 20)

    with pytest.raises(TooManyTests, match="At most 5 tests a minute") as refused:
        count(1, AT_S + 20)
    assert refused.value.retry_after_s == 40

    count(2, AT_S + 20)
    count(1, AT_S + 60)


def test_a_person_sends_so_many_tests_an_hour():
    for number in range(AN_HOUR):
        count(1, AT_S + 60 * number)

    with pytest.raises(TooManyTests) as refused:
        count(1, AT_S + 60 * AN_HOUR)
    assert refused.value.retry_after_s == 3600 - 60 * AN_HOUR

    count(1, AT_S + 3600)


def test_one_thing_is_tested_once_at_a_time():
    with alone("channel:1"):
        with pytest.raises(TooManyTests, match="under way"), alone("channel:1"):
            pass
        with alone("channel:2"):
            pass
        with pytest.raises(TooManyTests), alone("channel:1"):  # whoever was refused has freed nothing
            pass

    with alone("channel:1"):
        pass
