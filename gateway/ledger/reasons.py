"""Codes in words: what became of a call and of an attempt, and what came next.

In the language of whoever reads. The codes are made in `gateway/relay/` and `gateway/errors.py`.
"""

from collections.abc import Mapping
from http.client import responses
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

OUTCOMES: Final[Mapping[str, Promise]] = {
    "answered": gettext_lazy("The call was answered."),
    "rejected": gettext_lazy("The provider found fault with the call itself."),
    "failed": gettext_lazy("The call failed: no target gave an answer."),
    "truncated": gettext_lazy("The answer broke off after it had begun."),
    "hung_up": gettext_lazy("The client went away before the answer's end."),
    "abandoned": gettext_lazy("The gateway's process ended while the call was under way."),
}
"""Of a call."""
BY_CODE: Final[Mapping[str, Promise]] = {
    "slow_reader": gettext_lazy("The client did not read the answer in time, so it was cut off."),
    "no_target_available": gettext_lazy("The call failed: every breaker was open, so nothing was tried."),
    "overloaded": gettext_lazy("The call failed: the gateway was stopping, or no place came free in time."),
    "invalid_api_key": gettext_lazy("The API key was revoked while the call was under way."),
    "upstream_credential": gettext_lazy(
        "The call failed: the provider does not take the gateway's credential."
    ),
    "internal_error": gettext_lazy("The call failed inside the gateway. Its log has the reason."),
}
"""Of a call that was not answered, where its code says more than its outcome."""
ATTEMPTS: Final[Mapping[str, Promise]] = {
    "broken": gettext_lazy("The connection broke."),
    "cancelled": gettext_lazy("The attempt was cancelled."),
    "cannot_connect": gettext_lazy("The provider could not be reached."),
    "connect_timeout": gettext_lazy("The provider did not take a connection in time."),
    "credential_refused": gettext_lazy("The provider did not take the gateway's credential."),
    "cut_short": gettext_lazy("The stream ended before its end."),
    "deadline": gettext_lazy("The call's deadline passed."),
    "error_event": gettext_lazy("The provider sent an error where an answer should stand."),
    "hung_up": gettext_lazy("The client went away."),
    "internal_error": gettext_lazy("Something broke inside the gateway. Its log has the reason."),
    "not_an_answer": gettext_lazy("What came is no answer to a chat completion."),
    "past_reservation": gettext_lazy(
        "The answer grew past what a hard quota had reserved for it, so it was cut."
    ),
    "rejected": gettext_lazy("The provider found fault with the call itself."),
    "revoked": gettext_lazy("The API key was revoked."),
    "silent": gettext_lazy("The provider was silent for longer than its read timeout."),
    "slow_body": gettext_lazy("The request body did not come in time."),
    "slow_reader": gettext_lazy("The client did not read in time."),
    "stopping": gettext_lazy("The gateway was stopping."),
    "throttled": gettext_lazy("The provider throttled the gateway."),
    "timeout": gettext_lazy("The provider timed out."),
    "too_large": gettext_lazy("The answer was larger than the gateway passes on."),
    "unreachable": gettext_lazy("The provider could not be reached."),
    "upstream_error": gettext_lazy("The provider failed."),
    "write_timeout": gettext_lazy("The provider did not take the call in time."),
}
"""By an attempt's code."""
SKIPPED: Final[Mapping[str, Promise]] = {
    "open": gettext_lazy("Its breaker was open, so it was passed over."),
    "full": gettext_lazy("Every place was taken, so it was passed over."),
}
BASES: Final[Mapping[str, Promise]] = {
    "reported": gettext_lazy("as the provider reported it"),
    "estimated": gettext_lazy("estimated here, because the provider reported none"),
    "none": gettext_lazy("none"),
}
"""Where the figures of a usage come from."""


def of_call(outcome: str, code: str) -> str:
    """What became of a call, in a sentence."""
    known = str(OUTCOMES.get(outcome) or _("The call ended as '%(outcome)s'.") % {"outcome": outcome})
    if outcome in ("answered", "rejected"):  # where the code is the provider's, and may be any word
        return known
    return str(BY_CODE.get(code, known))


def of_attempt(outcome: str, code: str, status: int | None) -> str:
    """What became of an attempt, in a sentence."""
    if outcome == "answered":
        return _("It answered.")
    if outcome == "abandoned":
        return _("The gateway's process ended meanwhile, so the worst case is booked.")
    if code.startswith("status_"):
        said = _status(code.removeprefix("status_"))
        return _("The provider answered with status %(status)s.") % {"status": said}
    known = str(ATTEMPTS.get(code) or _ended(outcome, code))
    if status is None or status == 200:
        return known
    sentence = known.rstrip(".。")
    return _("%(sentence)s (status %(status)s).") % {
        "sentence": sentence,
        "status": _status(str(status)),
    }


def _ended(outcome: str, code: str) -> str:
    if not code:
        return _("It ended as '%(outcome)s'.") % {"outcome": outcome}
    return _("It ended as '%(outcome)s', %(code)s.") % {"outcome": outcome, "code": code}


def after(target: str, next_target: str | None, backoff: str, *, answered: bool) -> str:
    """What was done after an attempt. `next_target` is None after the last, `backoff` a duration in words."""
    if answered:
        return ""
    if next_target is None:
        return _("Nothing further was tried.")
    if next_target == target:
        return _("The same target was asked again after a wait of %(backoff)s.") % {"backoff": backoff}
    return _("So the call fell back to %(target)s.") % {"target": next_target}


def lasting(duration_us: int) -> str:
    """A duration as people read it: `340 ms`, `1.25 s`."""
    if duration_us < 1000:
        return f"{duration_us} µs" if duration_us else "0"
    if duration_us < 100_000:
        return f"{duration_us / 1000:.1f}".removesuffix(".0") + " ms"
    if duration_us < 999_500:
        return f"{duration_us / 1000:.0f} ms"
    return f"{duration_us / 1_000_000:,.2f} s"


def _status(text: str) -> str:
    """With its usual name, where it has one."""
    name = responses.get(int(text)) if text.isdecimal() else None
    return f"{text} {name}" if name else text
