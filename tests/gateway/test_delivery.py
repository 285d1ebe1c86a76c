import dataclasses
import datetime as dt
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connections
from django.utils import timezone

from accounts import notices, reminders, services, webhooks
from accounts.models import Outbox, Team, User, Webhook
from dashboard.env import BASE_DIR
from gateway import reconcile
from gateway.delivery import (
    FIRST_RETRY,
    GIVEN_UP_AFTER,
    LEASE,
    MOST_AT_ONCE,
    MOST_TRIES,
    Delivered,
    Unsent,
    deliver,
    deliver_now,
    message_id,
    retry_after,
)
from tests.gateway import receivers
from tests.gateway.receivers import status

WEBHOOKS = BASE_DIR / "docs" / "webhooks.md"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice: User) -> Team:
    return services.create_team("Search", alice)


@pytest.fixture
def receiver():
    with receivers.receiver() as made:
        yield made


@pytest.fixture
def webhook(team, alice, receiver):
    return webhooks.add_webhook(team, f"{receiver.url}/T0KEN", alice)


@pytest.fixture
def mail_server(settings):
    with receivers.mail_server() as made:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", made.port
        yield made


def tell(team: Team | None, dedupe: str = "quota:7:50", text: str = "Half of Ümit's quota is used.") -> int:
    return notices.tell(
        "quota.warned",
        team=team,
        key=None,
        subject="Search: 50 %",
        text=text,
        data={"share": 50},
        dedupe=dedupe,
    )


def mail(number: int, email: str = "dora@example.com") -> None:
    notices.mail(email, f"No. {number}", "…", "greeting", f"greeting:{number}")


def later(by: dt.timedelta):
    return lambda: timezone.now() + by


def failing(why: Unsent):
    def send(message: Outbox) -> None:
        raise why

    return send


class Notebook:
    """A sender that writes down what it was given."""

    def __init__(self) -> None:
        self.sent: list[Outbox] = []

    def __call__(self, message: Outbox) -> None:
        self.sent.append(message)


def test_a_notice_goes_to_people_and_programs(team, alice, webhook, receiver, mail_server):
    tell(team)

    assert deliver() == Delivered(sent=2, unsent=0)

    [letter], [heard] = mail_server.took, receiver.heard
    assert letter["To"] == alice.email
    assert letter["Subject"] == "Penstock: Search: 50 %"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "Ümit's quota" in letter.get_content()
    assert heard.is_signed_with(webhooks.secret_of(webhook))
    assert heard.said["type"] == "quota.warned"
    assert heard.said["data"]["share"] == 50
    assert heard.said["data"]["team"] == {"id": team.pk, "name": "Search"}
    assert "Ümit's quota" in heard.said["data"]["text"]
    assert not Outbox.objects.exclude(sent_at__gt=heard.said["timestamp"]).exists()


def test_what_was_sent_is_not_sent_again(team, webhook, receiver, mail_server):
    tell(team)
    deliver()
    assert deliver(now=later(dt.timedelta(days=1))) == Delivered(0, 0)
    assert len(mail_server.took) == len(receiver.heard) == 1


def test_a_message_changed_on_its_way_is_found_out(team, webhook, receiver, mail_server):
    tell(team)
    deliver()
    [heard] = receiver.heard
    secret = webhooks.secret_of(webhook)
    assert heard.is_signed_with(secret)
    forged = receivers.Heard(heard.path, heard.headers, heard.body.replace(b"50", b"51"))
    assert not forged.is_signed_with(secret)


def test_the_documentation_tells_how_to_verify(team, webhook, receiver, mail_server):
    [code] = re.findall(r"```python\n(.*?)```", WEBHOOKS.read_text(), re.DOTALL)
    documented: dict[str, Any] = {}
    exec(code, documented)
    is_ours, secret = documented["is_ours"], webhooks.secret_of(webhook)
    tell(team)
    deliver()

    [heard] = receiver.heard

    assert is_ours(secret, heard.headers, heard.body)
    assert not is_ours(secret, heard.headers, heard.body + b" ")
    assert not is_ours(secret, heard.headers | {"webhook-timestamp": "1700000000"}, heard.body)


def test_the_documentation_names_every_event():
    told = {
        event
        for module in (reconcile, reminders)
        for event in re.findall(r'"((?:key|quota)\.[a-z_]+)"', Path(module.__file__).read_text())
        if event != "quota.corrected"  # of the audit
    }
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)`", WEBHOOKS.read_text(), re.MULTILINE))
    assert documented == told


def test_a_refused_message_is_sent_again_with_the_same_id(team, webhook, receiver, mail_server):
    receiver.will(status(500), status(302, Location="/elsewhere"), status(410))
    tell(team)

    for tries in (1, 2, 3):
        deliver(now=later(dt.timedelta(hours=tries)))
        row = Outbox.objects.get(channel="webhook")
        assert (row.tries, row.sent_at, row.last_error) == (
            tries,
            None,
            f"it answered {(500, 302, 410)[tries - 1]}",
        )
    deliver(now=later(dt.timedelta(hours=4)))

    row = Outbox.objects.get(channel="webhook")
    assert row.sent_at
    assert row.last_error == ""
    assert len(receiver.heard) == 4
    assert {each.headers["webhook-id"] for each in receiver.heard} == {message_id(row)}
    assert {each.path for each in receiver.heard} == {"/T0KEN"}


def test_a_message_waits_before_it_is_tried_again():
    mail(1)
    deliver(failing(Unsent("no")))
    row = Outbox.objects.get()
    assert row.next_try_at > timezone.now() + FIRST_RETRY / 2
    assert deliver(Notebook()) == Delivered(0, 0)
    assert deliver(Notebook(), now=later(FIRST_RETRY)) == Delivered(1, 0)


def test_waits_double_to_six_hours():
    minutes = [retry_after(tries) / dt.timedelta(minutes=1) for tries in range(1, 13)]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]
    assert retry_after(10_000) == dt.timedelta(hours=6)


def test_it_is_given_up_after_three_days(caplog, webhook, receiver, team, mail_server):
    receiver.usually = status(503)
    tell(team)
    deliver(now=later(GIVEN_UP_AFTER - dt.timedelta(minutes=1)))
    assert Outbox.objects.get(channel="webhook").given_up_at is None

    deliver(now=later(GIVEN_UP_AFTER + dt.timedelta(minutes=1)))

    row = Outbox.objects.get(channel="webhook")
    assert row.given_up_at
    assert row.last_error == "it answered 503"
    assert f"gave up after 2 tries on message {row.pk} (quota.warned) to webhook {webhook.pk}" in caplog.text
    assert "T0KEN" not in caplog.text
    assert deliver(now=later(dt.timedelta(days=9))) == Delivered(0, 0)
    assert len(receiver.heard) == 2


def test_what_is_sent_now_is_sent_at_once_and_without_a_connection_to_the_database():
    for number in range(3):
        mail(number)
    of_the_request = connections["default"]
    together, held = threading.Barrier(3), []

    def send(message: Outbox) -> str:
        together.wait(10)  # breaks where one waits for the other
        held.append(of_the_request.connection)
        if message.subject == "No. 1":
            raise Unsent("no")
        return "yes"

    sent = deliver_now(list(Outbox.objects.order_by("pk")), send)

    assert held == [None] * 3, "each sending thread saw what the request's own connection was"
    assert [(each.answer, each.last_error) for each in sent] == [("yes", ""), ("", "no"), ("yes", "")]
    assert [each.sent_at is None for each in sent] == [False, True, False]


def test_what_somebody_else_sends_is_not_sent_now_too():
    mail(1)
    [stale] = Outbox.objects.all()
    own = Outbox.objects.get()
    notebook = Notebook()
    Outbox.objects.update(next_try_at=timezone.now() + LEASE, tries=1, sent_at=timezone.now())

    [shown] = deliver_now([stale, own], notebook)

    assert (notebook.sent, shown.tries) == ([], 1)


def test_a_webhook_where_none_may_be_is_never_connected_to(team, alice, mail_server):
    webhooks.add_webhook(team, "https://169.254.169.254/latest/meta-data", alice)
    tell(team)
    assert deliver() == Delivered(sent=1, unsent=1)
    assert "where no webhook may be" in Outbox.objects.get(channel="webhook").last_error


def test_private_webhooks_are_for_the_operator_to_allow(team, webhook, receiver, mail_server, settings):
    settings.ENV = dataclasses.replace(settings.ENV, allow_private_webhooks=False)
    tell(team)
    assert deliver() == Delivered(sent=1, unsent=1)
    assert receiver.heard == []


def test_a_webhook_that_is_switched_off_in_between_waits(team, webhook, receiver, mail_server):
    tell(team)
    webhooks.change_webhook(webhook, {"enabled": False})
    assert deliver() == Delivered(sent=1, unsent=1)
    assert receiver.heard == []
    webhooks.change_webhook(webhook, {"enabled": True})
    assert deliver(now=later(FIRST_RETRY)) == Delivered(sent=1, unsent=0)


def test_what_waits_for_a_removed_webhook_goes_with_it(team, webhook, receiver, mail_server):
    tell(team)
    webhooks.remove_webhook(webhook)
    assert deliver() == Delivered(sent=1, unsent=0)


def test_a_place_that_fails_rests_and_keeps_nobody_waiting(team, webhook, receiver, mail_server):
    receiver.usually = status(500)
    for number in range(5):
        tell(team, f"quota:{number}")

    assert deliver() == Delivered(sent=5, unsent=1)
    assert deliver() == Delivered(0, 0)

    assert len(receiver.heard) == 1
    receiver.usually = status(200)
    assert deliver(now=later(FIRST_RETRY)) == Delivered(sent=5, unsent=0)


def test_a_refused_address_keeps_no_other_mail_waiting(mail_server):
    mail_server.refused, mail_server.spoken = {"gone@example.com"}, "who is s3cret?"
    mail(1, "gone@example.com")
    mail(2)
    assert deliver() == Delivered(sent=1, unsent=1)
    assert mail_server.addresses == ["dora@example.com"]
    assert Outbox.objects.get(sent_at=None).last_error == "the mail server refuses the address (550)"


def test_mail_waits_for_its_server(mail_server):
    mail_server.away = True
    mail(1)
    mail(2)
    assert deliver() == Delivered(sent=0, unsent=1)
    assert "ended the conversation" in Outbox.objects.get(tries=1).last_error
    mail_server.away = False
    assert deliver(now=later(FIRST_RETRY)) == Delivered(sent=2, unsent=0)


def test_a_mail_keeps_its_id(mail_server):
    mail(1)
    deliver()
    Outbox.objects.update(sent_at=None, next_try_at=timezone.now())  # as if nobody had noted it
    deliver()
    first, second = mail_server.took
    assert first["Message-ID"] == second["Message-ID"]


def test_two_deliverers_send_each_message_once(team, webhook, receiver, mail_server):
    for number in range(20):
        tell(team, f"quota:{number}")
    together = threading.Barrier(2)

    def one() -> Delivered:
        together.wait(10)
        return deliver()

    with ThreadPoolExecutor(2) as threads:
        done = [each.result() for each in (threads.submit(one), threads.submit(one))]

    assert sum(each.sent for each in done) == 40
    assert len({each.headers["webhook-id"] for each in receiver.heard}) == len(receiver.heard) == 20
    assert len({each["Message-ID"] for each in mail_server.took}) == len(mail_server.took) == 20


def test_while_a_message_is_sent_nobody_else_sends_it():
    mail(1)
    others = []

    def send(message: Outbox) -> None:
        with ThreadPoolExecutor(1) as thread:
            others.append(thread.submit(deliver, Notebook()).result())

    assert deliver(send) == Delivered(1, 0)
    assert others == [Delivered(0, 0)]


def test_what_a_killed_deliverer_had_is_sent_after_its_lease():
    class Killed(BaseException):
        pass

    mail(1)
    mail(2)

    def killed(message: Outbox) -> None:
        raise Killed

    with pytest.raises(Killed):
        deliver(killed)

    after = Notebook()
    assert deliver(after) == Delivered(1, 0)
    assert deliver(after, now=later(LEASE)) == Delivered(1, 0)
    assert {each.subject for each in after.sent} == {"No. 1", "No. 2"}
    assert deliver(after, now=later(2 * LEASE)) == Delivered(0, 0)


def test_a_late_failure_does_not_undo_that_another_has_sent_it():
    mail(1)

    def send(message: Outbox) -> None:
        Outbox.objects.update(next_try_at=timezone.now())  # the lease is over
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(deliver, Notebook()).result() == Delivered(1, 0)
        raise Unsent("too late")

    deliver(send)

    row = Outbox.objects.get()
    assert row.sent_at
    assert row.last_error == ""


def test_a_message_that_ends_whoever_sends_it_is_given_up():
    mail(1)
    Outbox.objects.update(tries=MOST_TRIES)
    notebook = Notebook()
    assert deliver(notebook) == Delivered(0, 1)
    assert notebook.sent == []
    assert Outbox.objects.get().given_up_at


def test_a_round_begins_with_no_place_after_its_end(team, alice):
    for number in range(3):
        webhooks.add_webhook(team, f"https://hooks.example/{number}", alice)
    tell(team)
    assert deliver(Notebook(), round_s=0) == Delivered(0, 0)
    assert deliver(Notebook()) == Delivered(4, 0)


@pytest.mark.parametrize(
    ("rounds", "round_s", "place_s"), [(1, 5, 0.05), (2, 1, 60)], ids=["in one round", "in the next"]
)
def test_places_that_are_slow_to_take_much_keep_nobody_else_waiting(team, alice, rounds, round_s, place_s):
    for number in range(MOST_AT_ONCE):
        webhooks.add_webhook(team, f"https://hooks.example/{number}", alice)
    for number in range(100):
        Outbox.objects.bulk_create(row(number, hook) for hook in team.webhooks.all())
    mail(1)
    notebook = Notebook()

    def slow(message: Outbox) -> None:
        notebook(message)
        if message.channel == "webhook":
            time.sleep(0.2)  # as a receiver may take: a hundred take longer than any round

    for _ in range(rounds):
        deliver(slow, round_s=round_s, place_s=place_s)

    assert "No. 1" in {each.subject for each in notebook.sent}


def row(number: int, hook: Webhook) -> Outbox:
    at = timezone.now()
    return Outbox(
        event="greeting",
        subject=str(number),
        text="",
        dedupe=f"{number}:{hook.pk}",
        channel="webhook",
        webhook=hook,
        next_try_at=at,
    )


def test_an_invitation_is_forgotten_once_it_is_sent(team, alice, mail_server):
    _, secret = services.invite(team, alice, "member", email="dora@example.com")
    assert Outbox.objects.get().text
    deliver()
    [letter] = mail_server.took
    assert f"/invitations/{secret}/" in letter.get_content()
    assert Outbox.objects.get().text == ""


def test_an_invitation_is_forgotten_once_it_is_given_up(team, alice):
    services.invite(team, alice, "member", email="dora@example.com")
    deliver(failing(Unsent("no")))
    assert Outbox.objects.get().text
    deliver(failing(Unsent("no")), now=later(GIVEN_UP_AFTER))
    assert Outbox.objects.get().text == ""


def test_an_invitation_that_cannot_be_read_is_given_up_at_once(team, alice, mail_server, settings):
    services.invite(team, alice, "member", email="dora@example.com")
    settings.CREDENTIAL_KEYS = (Fernet.generate_key().decode(),)
    assert deliver() == Delivered(0, 1)
    row = Outbox.objects.get()
    assert row.given_up_at
    assert "CREDENTIAL_KEYS" in row.last_error
