"""Whoever shows quotas asks the relay of this process, if there is one."""

import pytest
from django.db import DatabaseError

from gateway import standing
from gateway.relay.limits import Figures


@pytest.fixture
def install():
    yield standing.install
    standing.install(None)


def test_a_process_without_a_relay_counts_nothing():
    with pytest.raises(standing.NotKnown):
        standing.figures([1])


def test_the_relay_that_is_there_is_asked(install):
    install(lambda quota_ids: dict.fromkeys(quota_ids, Figures(1, 2, 3)))

    assert standing.figures([4, 5]) == {4: Figures(1, 2, 3), 5: Figures(1, 2, 3)}


@pytest.mark.parametrize("why", [TimeoutError("busy"), DatabaseError("away")])
def test_what_cannot_be_had_just_now_is_not_known(install, why):
    def ask(quota_ids):
        raise why

    install(ask)

    with pytest.raises(standing.NotKnown, match=str(why)):
        standing.figures([1])
