"""The one tree of errors, and how each looks to a client.

    GatewayError
    ├─ Refused          ours, before any upstream work
    │  ├─ InvalidApiKey       401
    │  ├─ NotPermitted        403  address range, priority ceiling
    │  ├─ RouteNotAllowed     404  unknown and forbidden look alike
    │  ├─ Unpriced            400
    │  ├─ ParameterRefused    400  no target takes it
    │  ├─ ContextTooLong      400
    │  ├─ ParameterTooLarge   400  more than the route lets a call ask for
    │  ├─ OverLimit           429
    │  │  ├─ RateLimited           comes free within a minute
    │  │  └─ QuotaExhausted        not before its period ends
    │  ├─ Overloaded          503  gate or pool full, deadline cannot be met, or stopping
    │  └─ Unavailable         503  key cannot be checked
    │     └─ JournalFull      503
    ├─ KeyRevoked       401  while its call was under way
    ├─ InvalidCall      400, 404, 405, 408, 413, 415, 431
    └─ UpstreamFailed   502  theirs, after trying
       ├─ UpstreamRejected    its 400, 404, 413, 422
       ├─ UpstreamRefusesUs   502  its 401, 402, 403
       ├─ UpstreamThrottled   429
       ├─ UpstreamTimedOut    504
       ├─ UpstreamUnreachable 502
       └─ NoTargetAvailable   503  every breaker open

Each leaf knows its status, its OpenAI `type` and `code`, and when to come back.
The shape is OpenAI's, so that official SDKs raise their own right exception:
https://platform.openai.com/docs/guides/error-codes
"""

from typing import TYPE_CHECKING, ClassVar

import msgspec

if TYPE_CHECKING:
    from gateway.relay.records import Seen

LONGEST_WINDOW_S = 61.0
"""After this long a rate limit has forgotten every call; what needs longer never fits."""
LONGEST_SLEEP_S = 5.0
"""An SDK that is told to come back later than this would sleep through it, unseen by its program, so it is
told not to: the program hears of the outage at once, with the time to come back."""


class GatewayError(Exception):
    """Something a client is told. `message` says what happened and what to do next."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    retry_after_s: float | None = None
    should_retry: bool | None = None
    """What an SDK is told about trying again by itself; None: it decides."""
    closes_connection: bool = False
    """The request was not read to its end, so the connection cannot carry another."""
    allow: str | None = None
    """The method that would have been right."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The JSON that a client receives."""
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that only errors have."""
        found = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % max(1, -int(-self.retry_after_s // 1))))
            found.append((b"retry-after-ms", b"%d" % int(self.retry_after_s * 1000)))
        if self.should_retry is not None:
            found.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        if self.allow is not None:
            found.append((b"allow", self.allow.encode()))
        if self.closes_connection:
            found.append((b"connection", b"close"))
        return found


class Refused(GatewayError):
    """Ours, before any upstream work."""

    again: bool = False
    """The same target may have a place a little later."""
    elsewhere: bool = False
    """Another target may take the call."""
    limits: "tuple[Seen, ...]" = ()
    """The rate limit or quota that was exceeded."""


class InvalidApiKey(Refused):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "This API key is not valid here: it is missing, malformed, unknown, expired or revoked. "
            "Send a Penstock key as 'Authorization: Bearer pst_…'."
        )


class NotPermitted(Refused):
    """The API key is good, and may not do this."""

    status, type, code = 403, "invalid_request_error", "not_permitted"


class RouteNotAllowed(Refused):
    status, type, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self, model_name: str) -> None:
        super().__init__(
            f"The model '{model_name[:200]}' does not exist or this API key may not use it. "
            "GET /v1/models lists those it may.",
            param="model",
        )


class Unpriced(Refused):
    status, type, code = 400, "invalid_request_error", "model_unpriced"

    def __init__(self, model_name: str) -> None:
        super().__init__(
            f"The model '{model_name[:200]}' has no price, so its calls are refused. "
            "An administrator can enter one, or let unpriced calls through on its route.",
            param="model",
        )


class ParameterRefused(Refused):
    """No target of the route takes this parameter."""

    status, type, code = 400, "invalid_request_error", "unsupported_parameter"

    def __init__(self, param: str, model_name: str, why: str) -> None:
        super().__init__(f"The model '{model_name[:200]}' does not take this call: {why}", param=param)


class ContextTooLong(Refused):
    """The messages are longer than every target's window, and the route has no other way."""

    status, type, code = 400, "invalid_request_error", "context_length_exceeded"

    def __init__(self, model_name: str) -> None:
        super().__init__(
            f"The messages and the tokens asked for are more than the model '{model_name[:200]}' can hold. "
            "Shorten the messages, ask for fewer tokens, or use a model with a longer context.",
            param="messages",
        )


class ParameterTooLarge(Refused):
    """A call asks for more than its route lets any call ask for, or for what a hard quota cannot bound."""

    status, type, code = 400, "invalid_request_error", "parameter_too_large"


class OverLimit(Refused):
    """A rate limit or a quota would be passed; the message names it, its owner and the figures."""

    status = 429
    elsewhere = True  # another target may cost less

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        if retry_after_s is None or retry_after_s > LONGEST_WINDOW_S:
            self.should_retry = False


class RateLimited(OverLimit):
    type, code = "rate_limit_error", "rate_limit_exceeded"
    standing: tuple[str, int, int] | None = None
    """What the limit counts, how much of it may be, and how much is left."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        found = super().headers()
        if self.standing is not None and self.standing[0] in ("requests", "tokens"):
            kind, amount, remaining = self.standing
            found.append((b"x-ratelimit-limit-%s" % kind.encode(), b"%d" % amount))
            found.append((b"x-ratelimit-remaining-%s" % kind.encode(), b"%d" % remaining))
            found.append((b"x-ratelimit-reset-%s" % kind.encode(), b"1m1s"))
        return found


class QuotaExhausted(OverLimit):
    type, code = "insufficient_quota", "insufficient_quota"
    should_retry = False


class Overloaded(Refused):
    status, type, code = 503, "server_error", "overloaded"
    retry_after_s = 1.0
    cause = "full"
    elsewhere = True


class Unavailable(Refused):
    status, type, code = 503, "server_error", "unavailable"
    retry_after_s = 5.0


class JournalFull(Unavailable):
    """There is no room on the disk, or within the journal's bound: no call is let in unrecorded."""

    code = "journal_full"

    def __init__(self) -> None:
        super().__init__(
            "The gateway cannot write its books at the moment, so no call is let in. Try again shortly."
        )


class KeyRevoked(GatewayError):
    """The API key was revoked, or its secret ended, while this call was under way."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"
    should_retry = False

    def __init__(self) -> None:
        super().__init__("This API key was revoked while the call was under way, so the call was ended.")


class InvalidCall(GatewayError):
    """The request itself cannot be read or makes no sense."""

    type = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        closes_connection: bool = False,
    ) -> None:
        super().__init__(message, param=param)
        self.status, self.code, self.closes_connection = status, code, closes_connection


class UpstreamFailed(GatewayError):
    """Theirs, after trying."""

    status = 502
    type = "server_error"
    code: str | None = "upstream_error"
    should_retry: bool | None = False  # our own retries are spent
    cause: str = "upstream_error"
    """What went wrong, in a word, as the attempt's record keeps it."""
    again: bool = False
    """The same target may be asked once more."""
    elsewhere: bool = True
    """Another target may do better."""
    sick: bool | None = True
    """Whether it speaks against the target's health; None: neither for nor against."""


class UpstreamRejected(UpstreamFailed):
    """The provider found the call itself wrong; its own words are passed on, our credential masked."""

    type = "invalid_request_error"
    should_retry = None
    cause = "rejected"
    elsewhere = False
    sick = False

    def __init__(self, message: str, *, status: int, code: str | None, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status, self.code = status, code


class UpstreamRefusesUs(UpstreamFailed):
    """The provider does not take our credential; what it said stays here."""

    status, code, cause = 502, "upstream_credential", "credential_refused"
    sick = None


class UpstreamThrottled(UpstreamFailed):
    """Its 429. With a Retry-After the provider is well and says so; without, it counts as a failure."""

    status, type, code, cause = 429, "rate_limit_error", "upstream_throttled", "throttled"
    again = True

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.sick = None if retry_after_s is not None else True


class UpstreamTimedOut(UpstreamFailed):
    status, code, cause = 504, "upstream_timeout", "timeout"


class UpstreamUnreachable(UpstreamFailed):
    status, code, cause = 502, "upstream_unreachable", "unreachable"
    again = True


class NoTargetAvailable(UpstreamFailed):
    """Every target's breaker is open: nothing was tried."""

    status, code, cause = 503, "no_target_available", "no_target_available"
    should_retry = None
    sick = None

    def __init__(self, model_name: str, retry_after_s: float) -> None:
        super().__init__(
            f"Every target of the model '{model_name[:200]}' is out of order at the moment. "
            "Try again later, or another model."
        )
        self.retry_after_s = retry_after_s
        if retry_after_s > LONGEST_SLEEP_S:
            self.should_retry = False
