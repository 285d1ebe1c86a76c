import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from gateway import services
from gateway.models import BreakerChange, Credential, Provider
from gateway.news import DatabaseNews, SharedNews
from gateway.relay.catalog import Target
from gateway.relay.ports import Change
from tests.served import eventually

pytestmark = pytest.mark.django_db(transaction=True)

AT_US = 1_790_000_000_123_456
AT = datetime(2026, 9, 21, 14, 13, 20, 123_456, tzinfo=UTC)


@dataclass
class Clock:
    """Unix time, moved by hand."""

    now_s: float = AT.timestamp() + 1

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def started(clock: Clock) -> Iterator[Callable[..., DatabaseNews]]:
    """News whose thread runs; stopped at the end."""
    running: list[DatabaseNews] = []

    def start(**options: Any) -> DatabaseNews:
        news = DatabaseNews(pause_s=0.01, now_s=clock, **options)
        running.append(news)
        news.start()
        return news

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def provider() -> Provider:
    made = services.add_provider("acme", "Acme", "https://acme.example/v1")
    services.keep_credential(made, "sk-kept", settings.CREDENTIAL_KEYS)
    Credential.objects.update(updated_at=AT - timedelta(days=1))
    return made


@pytest.fixture
def target(provider: Provider) -> Target:
    return Target(
        id=7,
        provider="acme",
        base_url="https://acme.example/v1",
        upstream_model="gpt-4o",
        credential=None,
        provider_id=provider.pk,
    )


def opened(cause: str = "5 attempts failed", at_us: int = AT_US, until_us: int | None = None) -> Change:
    return Change(at_us, "closed", "open", cause, until_us)


def causes() -> list[str]:
    return list(BreakerChange.objects.order_by("id").values_list("cause", flat=True))


class Away:
    """The timeline's table is not there: the database answers, and takes nothing."""

    def __enter__(self) -> None:
        self._rename("gateway_breakerchange", "gone")

    def __exit__(self, *_: object) -> None:
        self._rename("gone", "gateway_breakerchange")

    def _rename(self, one: str, other: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {one} RENAME TO {other}")


def test_a_change_becomes_a_line_of_the_timeline(started: Any, target: Target) -> None:
    started().breaker_changed(target, opened(until_us=AT_US + 60_000_000))

    line = eventually(BreakerChange.objects.first, what="the line")
    assert (line.target_id, line.provider, line.upstream_model) == (7, "acme", "gpt-4o")
    assert (line.before, line.after, line.cause) == ("closed", "open", "5 attempts failed")
    assert (line.at, line.until, line.by_user) == (AT, AT + timedelta(seconds=60), None)


def test_changes_are_written_in_the_order_in_which_they_were_told(started: Any, target: Target) -> None:
    news = started()
    told = [f"change {number}" for number in range(50)]
    for cause in told:
        news.breaker_changed(target, opened(cause))

    eventually(lambda: len(causes()) == 50, what="the lines")
    assert causes() == told


def test_telling_does_not_wait_for_a_locked_database(started: Any, target: Target) -> None:
    news = started()
    locker = sqlite3.connect(settings.DATABASES["default"]["NAME"], isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")

    news.breaker_changed(target, opened())  # returns, or the lock below would never go
    assert causes() == []

    locker.execute("ROLLBACK")
    locker.close()
    eventually(lambda: causes() == ["5 attempts failed"], what="the line")


def test_what_the_database_does_not_take_is_kept_and_tried_again(
    started: Any, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    news = started()
    with Away():
        news.breaker_changed(target, opened("first"))
        eventually(lambda: news.behind, what="the failure")
        news.breaker_changed(target, opened("second"))

    eventually(lambda: causes() == ["first", "second"], what="the lines")
    eventually(lambda: not news.behind, what="the recovery")
    assert "the database does not take the news" in caplog.text


def test_the_oldest_is_dropped_when_too_much_waits_and_that_is_said(
    started: Any, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    news = started(most=3)
    with Away():
        for number in range(10):
            news.breaker_changed(target, opened(f"change {number}"))
        eventually(lambda: news.behind, what="the failure")

    eventually(lambda: "change 9" in causes(), what="the lines")
    assert causes()[-3:] == ["change 7", "change 8", "change 9"]
    assert len(causes()) <= 4  # one was in hand, perhaps
    assert "pieces of news were dropped, the oldest: more than 3 waited" in caplog.text


def test_what_can_never_be_written_is_said_and_holds_up_nothing(
    started: Any, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    news = started()
    news.breaker_changed(target, opened("beyond all calendars", at_us=2**80))
    news.breaker_changed(target, opened("good"))

    eventually(lambda: causes() == ["good"], what="the line")
    assert "cannot be written" in caplog.text
    assert "beyond all calendars" in caplog.text


def test_stopping_writes_what_there_is(started: Any, clock: Clock, target: Target) -> None:
    news = DatabaseNews(now_s=clock)
    for number in range(20):
        news.breaker_changed(target, opened(f"change {number}"))
    news.start()

    news.stop()

    assert len(causes()) == 20
    assert "news" not in [each.name for each in threading.enumerate()]


def test_stopping_tries_once_more_what_was_kept(clock: Clock, target: Target) -> None:
    news = DatabaseNews(pause_s=60, now_s=clock)
    news.breaker_changed(target, opened())
    with Away():
        news.start()
        eventually(lambda: news.behind, what="the failure")

    news.stop()

    assert causes() == ["5 attempts failed"]


def test_what_is_lost_at_the_end_is_counted(
    clock: Clock, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    news = DatabaseNews(now_s=clock)
    news.breaker_changed(target, opened())
    news.breaker_changed(target, opened())
    with Away():
        news.start()
        news.stop()

    assert "2 pieces of news are lost" in caplog.text


def test_a_refused_credential_is_flagged_until_it_is_taken_again(started: Any, target: Target) -> None:
    news = started()
    news.credential_refused(target, 401)

    eventually(lambda: Credential.objects.get().refused_status == 401, what="the flag")
    assert Credential.objects.get().refused_at == AT + timedelta(seconds=1)

    news.credential_accepted(target)
    eventually(lambda: Credential.objects.get().refused_at is None, what="the flag's end")
    assert Credential.objects.get().refused_status is None


def test_a_credential_that_was_replaced_meanwhile_is_not_flagged(
    clock: Clock, provider: Provider, target: Target
) -> None:
    news = DatabaseNews(now_s=clock)
    news.credential_refused(target, 401)
    services.keep_credential(provider, "sk-new", settings.CREDENTIAL_KEYS)
    Credential.objects.update(updated_at=AT + timedelta(seconds=2))

    news.start()
    news.stop()

    assert Credential.objects.get().refused_at is None


def test_another_providers_credential_is_left_alone(clock: Clock, target: Target) -> None:
    other = services.add_provider("other", "Other", "https://other.example/v1")
    services.refer_to_credential(other, "OTHER_API_KEY")
    Credential.objects.update(updated_at=AT)
    news = DatabaseNews(now_s=clock)
    news.credential_refused(target, 402)

    news.start()
    news.stop()

    assert Credential.objects.get(provider=other).refused_at is None
    assert Credential.objects.get(provider_id=target.provider_id).refused_status == 402


def test_a_line_leaves_the_timeline_after_ninety_days(clock: Clock, target: Target) -> None:
    day_us = 24 * 3600 * 1_000_000
    news = DatabaseNews(now_s=clock)
    news.breaker_changed(target, opened("too old", at_us=AT_US - 91 * day_us))
    news.breaker_changed(target, opened("young", at_us=AT_US - 80 * day_us))
    news.start()
    eventually(lambda: causes() == ["young"], what="the first clearing")

    news.breaker_changed(target, opened("old, but cleared already today", at_us=AT_US - 91 * day_us))
    eventually(lambda: len(causes()) == 2, what="the line")

    clock.now_s += 24 * 3600
    news.breaker_changed(target, opened("new"))
    eventually(lambda: causes() == ["young", "new"], what="the next day's clearing")
    news.stop()


def test_it_says_how_it_is_doing(clock: Clock, target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    news = DatabaseNews(now_s=clock)
    news.breaker_changed(target, opened())

    assert repr(news) == "<DatabaseNews 1 waiting>"


def test_other_processes_are_told_what_opened_and_closed_and_not_who_tries(
    started: Any, target: Target
) -> None:
    said: list[tuple[int, Change]] = []
    news = SharedNews(started(), lambda target_id, change: said.append((target_id, change)))
    opening = opened(until_us=AT_US + 60_000_000)
    trying = Change(AT_US, "open", "half_open", "its open time is over")
    closing = Change(AT_US, "half_open", "closed", "the probe succeeded")
    for change in (opening, trying, closing):
        news.breaker_changed(target, change)

    assert said == [(7, opening), (7, closing)]
    eventually(lambda: len(causes()) == 3, what="the lines of all three")


def test_a_credentials_news_are_written_as_ever(started: Any, target: Target) -> None:
    news = SharedNews(started(), lambda *_: pytest.fail("no breaker changed"))
    news.credential_refused(target, 401)
    eventually(lambda: Credential.objects.get().refused_status == 401, what="the flag")

    news.credential_accepted(target)
    eventually(lambda: Credential.objects.get().refused_status is None, what="that the flag goes")
