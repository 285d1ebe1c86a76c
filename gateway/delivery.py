"""Delivery of the outbox: mail, and messages to webhooks.

    claim | send | note

A message is claimed by one conditional UPDATE, so that of two deliverers one has it.
One that dies between sending and noting leaves it to be sent again after LEASE:
nothing is lost, and what may come twice carries an id that stays the same.
"""

import asyncio
import hmac
import json
import logging
import smtplib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connection
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from accounts import channels, notices, webhooks
from accounts.models import Channel, Outbox, Webhook
from gateway.outgoing import NotPosted, post

log = logging.getLogger(__name__)

FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)
GIVEN_UP_AFTER = timedelta(days=3)
"""Since it was written: older news is told by the pages."""
LEASE = timedelta(minutes=5)
"""Far longer than one sending takes, so that nobody else sends it meanwhile."""
MOST_TRIES = 1000
"""More than fit into three days: only a message that ends whoever sends it comes so far."""
MOST_AT_ONCE = 8
"""Places, each of which is sent one message at a time."""
ROUND_S = 30.0
"""One task at a time: the others wait for no longer than this and one sending."""
PLACE_S = 5.0
"""One place at a time in each of the threads: what more waits for it goes behind what waits for others."""
MAIL_TIMEOUT_S = 10.0
"""Of each step of the conversation with the mail server."""
LONGEST_ERROR = 200

LONGEST_ANSWER = 100

Sender = Callable[[Outbox], str | None]
"""Gives what the far side said, where that is worth keeping. Raises Unsent."""


class Unsent(Exception):
    """A message was not delivered; says why, in words that name no secret."""

    def __init__(self, why: str, *, alone: bool = False, for_good: bool = False) -> None:
        """`alone`: the next message to the same place may fare better.

        `for_good`: trying again cannot help.
        """
        super().__init__(why)
        self.alone, self.for_good = alone, for_good


class Place(NamedTuple):
    """Where messages go: a webhook, a channel that is posted to, or, where both are None, the mail server."""

    webhook_id: int | None = None
    channel_id: int | None = None

    def __str__(self) -> str:
        if self.webhook_id is not None:
            return f"webhook {self.webhook_id}"
        return "the mail server" if self.channel_id is None else f"channel {self.channel_id}"

    @property
    def messages(self) -> Q:
        if self == Place():
            return Q(channel="mail")
        return ~Q(channel="mail") & Q(webhook=self.webhook_id, to=self.channel_id)


class Delivered(NamedTuple):
    sent: int
    unsent: int


def deliver(
    send: Sender | None = None,
    *,
    now: Callable[[], datetime] = timezone.now,
    round_s: float = ROUND_S,
    place_s: float = PLACE_S,
) -> Delivered:
    """Send what is due, the longest waiting first, until nothing is or the round is over.

    May run in several processes at a time. Raises DatabaseError; then the rest waits for the next round.
    """
    ends_at_s = time.monotonic() + round_s
    rounds = [Round(each, send or send_by_channel, now, ends_at_s, place_s) for each in _places(now())]
    with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="delivery") as threads:
        done = list(threads.map(Round.run, rounds))
    return Delivered(sum(each.sent for each in done), sum(each.unsent for each in done))


def retry_after(tries: int) -> timedelta:
    """How long to wait after so many tries, at least one: a minute, doubled each time, six hours at most."""
    doublings = min(tries - 1, 10)  # 2**10 minutes are more than the longest wait
    return min(FIRST_RETRY * (1 << doublings), LONGEST_RETRY)


def message_id(message: Outbox) -> str:
    """The same whenever it is sent, and no other message's, here or at another installation."""
    named = f"penstock: id of a message\n{message.dedupe}"
    return "msg_" + hmac.digest(settings.SECRET_KEY.encode(), named.encode(), "sha256").hex()[:32]


class Round:
    """One place (the mail server, or a webhook) that is sent what is due, one message after the other.

    A place that fails rests for a minute with all that waits for it, so that it keeps nobody else waiting.
    One that takes long goes to the end of the line after `place_s` seconds, for the same reason.
    """

    def __init__(
        self,
        place: Place,
        send: Sender,
        now: Callable[[], datetime],
        ends_at_s: float,
        place_s: float = PLACE_S,
    ) -> None:
        self._place, self._send, self._now, self._ends_at_s = place, send, now, ends_at_s
        self._place_s = place_s
        self._sent = self._unsent = 0

    def __repr__(self) -> str:
        return f"<Round of {self._place}, {self._sent} sent, {self._unsent} unsent>"

    def run(self) -> Delivered:
        ends_at_s = min(self._ends_at_s, time.monotonic() + self._place_s)
        try:
            while time.monotonic() < ends_at_s:
                if not self._deliver_next():
                    break
            else:
                if self._sent + self._unsent:
                    self._due().order_by().update(next_try_at=self._now())
        finally:
            connection.close()  # this thread's own
        return Delivered(self._sent, self._unsent)

    def _deliver_next(self) -> bool:
        """Whether to go on with this place."""
        message = self._claimed()
        if message is None:
            return False
        try:
            if message.tries > MOST_TRIES:
                raise Unsent("no try came to an end", alone=True, for_good=True)
            answer = self._send(message)
        except Unsent as why:
            self._unsent += 1
            _note_unsent(message, why, self._now())
            if not why.alone:
                self._rest()
            return why.alone
        self._sent += 1
        _note_sent(message, answer, self._now())
        return True

    def _due(self) -> QuerySet[Outbox]:
        return _due(self._now()).filter(self._place.messages).order_by("next_try_at", "pk")

    def _claimed(self) -> Outbox | None:
        """The first that is due and that no other deliverer has taken meanwhile."""
        for message in self._due().select_related("webhook", "to")[:MOST_AT_ONCE]:
            if _claim(message, self._now()):
                return message
        return None

    def _rest(self) -> None:
        self._due().order_by().update(next_try_at=self._now() + FIRST_RETRY)


def deliver_now(messages: Sequence[Outbox], send: Sender | None = None) -> list[Outbox]:
    """Send a few messages in this process, all at once, and say how each went.

    Leaves out what somebody else is sending. What is not sent now is tried again as any other.
    Takes as long as the slowest far side, and holds no connection to the database meanwhile.
    Not for the inside of a transaction, which would hold one.
    """
    wanted = [each.pk for each in messages]
    rows = Outbox.objects.filter(pk__in=wanted).select_related("webhook", "to")
    claimed = [each for each in rows if _claim(each, timezone.now())]
    connection.close()
    for message, outcome in zip(claimed, _sent_at_once(claimed, send or send_by_channel), strict=True):
        if isinstance(outcome, Unsent):
            _note_unsent(message, outcome, timezone.now())
        else:
            _note_sent(message, outcome, timezone.now())
    return list(Outbox.objects.filter(pk__in=wanted).select_related("to").order_by("pk"))


def _sent_at_once(messages: Sequence[Outbox], send: Sender) -> list[str | Unsent | None]:
    """What the far side of each said, or why it was not sent."""

    def outcome(message: Outbox) -> str | Unsent | None:
        try:
            return send(message)
        except Unsent as why:
            return why

    with ThreadPoolExecutor(max(1, len(messages)), thread_name_prefix="delivery") as threads:
        return list(threads.map(outcome, messages))


def _claim(message: Outbox, at: datetime) -> bool:
    """Whether it is ours to send for the time of LEASE."""
    if not _as_it_was(message).update(tries=message.tries + 1, next_try_at=at + LEASE):
        return False
    message.tries += 1
    return True


def send_by_channel(message: Outbox) -> str:
    """What the far side said. Raises Unsent."""
    if message.to is not None and not message.to.enabled:
        raise Unsent("the channel is switched off")
    if message.channel == "mail":
        return send_mail(message)
    if message.channel == "slack":
        return send_to_slack(message)
    return send_to_webhook(message)


def send_mail(message: Outbox) -> str:
    """Raises Unsent."""
    mail = EmailMessage(
        f"Penstock: {message.subject}",
        _text(message),
        to=[message.email],
        headers={"Message-ID": _mail_id(message), "Auto-Submitted": "auto-generated"},  # RFC 3834
        connection=get_connection(timeout=MAIL_TIMEOUT_S),
    )
    try:
        mail.send()
    except (OSError, ValueError) as why:  # ValueError: an address that cannot be written to
        raise _mail_unsent(why) from None
    return "the mail server took it"


def send_to_slack(message: Outbox) -> str:
    """As incoming webhooks of Slack, Mattermost and others take it: one text, not signed. Raises Unsent."""
    channel = message.to
    assert channel is not None
    # Their marks for links and names are made of these three: whatever a name holds is shown as it is.
    text = f"*{message.subject}*\n{_text(message)}"
    for mark, said in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, said)
    return _posted(channel, json.dumps({"text": text}, ensure_ascii=False).encode(), {})


def send_to_webhook(message: Outbox) -> str:
    """Raises Unsent. One that was switched off meanwhile is tried again: it may be switched on in time."""
    webhook = message.webhook or message.to
    assert webhook is not None
    if not webhook.enabled:
        raise Unsent("the webhook is switched off")
    body = payload(message)
    headers = webhooks.signed(webhook, message_id(message), int(time.time()), body)
    return _posted(webhook, body, headers)


def _posted(to: Webhook | Channel, body: bytes, headers: Mapping[str, str]) -> str:
    """Raises Unsent."""
    # A team's owner chooses the address, and is no administrator: it may not be this network's own.
    allow_private = settings.ENV.allow_private_webhooks or to.team_id is None
    try:
        url = channels.url_of(to) if isinstance(to, Channel) else to.url
        status = asyncio.run(post(url, body, headers, allow_private=allow_private))
    except NotPosted as why:
        raise Unsent(str(why)) from None
    except channels.Unreadable as why:
        raise Unsent(str(why), for_good=True) from None
    if not 200 <= status < 300:
        raise Unsent(f"it answered {status}")
    return f"it answered {status}"


def payload(message: Outbox) -> bytes:
    """As the Standard Webhooks specification wants it: type, timestamp of the event, data."""
    data: dict[str, Any] = {**message.data, "subject": message.subject, "text": _text(message)}
    told = {"type": message.event, "timestamp": message.created_at.astimezone(UTC).isoformat(), "data": data}
    return json.dumps(told, ensure_ascii=False).encode()


def _text(message: Outbox) -> str:
    try:
        return notices.text_of(message)
    except notices.Unreadable as why:
        raise Unsent(str(why), alone=True, for_good=True) from None


def _mail_id(message: Outbox) -> str:
    return f"<{message_id(message)}@{urlsplit(settings.PUBLIC_URL).hostname}>"


def _mail_unsent(why: Exception) -> Unsent:
    """What the server says beside its code is left out: some repeat what they were sent."""
    if isinstance(why, smtplib.SMTPRecipientsRefused):
        codes = sorted({str(code) for code, _ in why.recipients.values()})
        return Unsent(f"the mail server refuses the address ({', '.join(codes)})", alone=True)
    if isinstance(why, smtplib.SMTPDataError):
        return Unsent(f"the mail server refuses the message ({why.smtp_code})", alone=True)
    if isinstance(why, smtplib.SMTPResponseException):
        return Unsent(f"the mail server answered {why.smtp_code}")
    if isinstance(why, smtplib.SMTPException):
        return Unsent(f"the mail server ended the conversation ({type(why).__name__})")
    if isinstance(why, OSError):
        return Unsent(f"the mail server cannot be reached ({why.strerror or type(why).__name__})")
    return Unsent("the address cannot be written to", alone=True)


def _due(now: datetime) -> QuerySet[Outbox]:
    return Outbox.objects.filter(sent_at=None, given_up_at=None, next_try_at__lte=now)


def _places(now: datetime) -> Sequence[Place]:
    """Where something is due, the longest waiting first."""
    posted = _due(now).order_by().exclude(channel="mail").values("webhook", "to")
    found = {
        Place(each["webhook"], each["to"]): each["since"]
        for each in posted.annotate(since=Min("next_try_at"))
    }
    mail = _due(now).filter(channel="mail").aggregate(since=Min("next_try_at"))["since"]
    if mail is not None:
        found[Place()] = mail
    return sorted(found, key=lambda place: found[place])


def _as_it_was(message: Outbox) -> QuerySet[Outbox]:
    """Nothing, where somebody else took it since it was read."""
    return Outbox.objects.filter(
        pk=message.pk, tries=message.tries, next_try_at=message.next_try_at, sent_at=None, given_up_at=None
    )


def _note_sent(message: Outbox, answer: str | None, at: datetime) -> None:
    # Unconditional: that it was sent is true whoever claimed it meanwhile.
    Outbox.objects.filter(pk=message.pk).update(
        sent_at=at, last_error="", answer=(answer or "")[:LONGEST_ANSWER], **_forgotten(message)
    )


def _note_unsent(message: Outbox, why: Unsent, at: datetime) -> None:
    """Try again later, or give up. Where somebody claimed it meanwhile, its outcome is theirs to note."""
    own = Outbox.objects.filter(pk=message.pk, tries=message.tries)
    error = str(why)[:LONGEST_ERROR]
    if not why.for_good and at - message.created_at < GIVEN_UP_AFTER:
        own.update(next_try_at=at + retry_after(message.tries), last_error=error)
    elif own.update(given_up_at=at, last_error=error, **_forgotten(message)):
        log.warning(
            "gave up after %d tries on message %d (%s) to %s: %s",
            *(message.tries, message.pk, message.event, _place(message), error),
        )


def _forgotten(message: Outbox) -> dict[str, str]:
    """The text of an invitation holds its link; nobody needs it any more."""
    return {"text": ""} if notices.is_sealed(message) else {}


def _place(message: Outbox) -> str:
    """For the log, without the address: a webhook's may hold a secret."""
    return "somebody by mail" if message.channel == "mail" else str(Place(message.webhook_id, message.to_id))
