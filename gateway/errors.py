"""The one tree of errors, and how each looks to a client.

    GatewayError
    ├─ Refused          ours, before any upstream work
    │  ├─ InvalidApiKey       401
    │  ├─ RouteNotAllowed     404  unknown and forbidden look alike
    │  ├─ Unpriced            400
    │  ├─ Overloaded          503  pool full, or stopping
    │  └─ Unavailable         503  key cannot be checked
    │     └─ JournalFull      503
    ├─ InvalidCall      400, 404, 405, 408, 413, 415, 431
    └─ UpstreamFailed   502  theirs, after trying
       ├─ UpstreamRejected    its 400, 404, 413, 422
       ├─ UpstreamRefusesUs   502  its 401, 402, 403
       ├─ UpstreamThrottled   429
       ├─ UpstreamTimedOut    504
       └─ UpstreamUnreachable 502

Each leaf knows its status, its OpenAI `type` and `code`, and when to come back.
The shape is OpenAI's, so that official SDKs raise their own right exception:
https://platform.openai.com/docs/guides/error-codes
"""

from typing import ClassVar

import msgspec


class GatewayError(Exception):
    """Something a client is told. `message` says what happened and what to do next."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    retry_after_s: float | None = None
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
        if self.allow is not None:
            found.append((b"allow", self.allow.encode()))
        if self.closes_connection:
            found.append((b"connection", b"close"))
        return found


class Refused(GatewayError):
    """Ours, before any upstream work."""


class InvalidApiKey(Refused):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "This API key is not valid here: it is missing, malformed, unknown, expired or revoked. "
            "Send a Penstock key as 'Authorization: Bearer pst_…'."
        )


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


class Overloaded(Refused):
    status, type, code = 503, "server_error", "overloaded"
    retry_after_s = 1.0


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


class UpstreamRejected(UpstreamFailed):
    """The provider found the call itself wrong; its own words are passed on, our credential masked."""

    type = "invalid_request_error"

    def __init__(self, message: str, *, status: int, code: str | None, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status, self.code = status, code


class UpstreamRefusesUs(UpstreamFailed):
    """The provider does not take our credential; what it said stays here."""

    status, code = 502, "upstream_credential"


class UpstreamThrottled(UpstreamFailed):
    status, type, code = 429, "rate_limit_error", "upstream_throttled"

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamTimedOut(UpstreamFailed):
    status, code = 504, "upstream_timeout"


class UpstreamUnreachable(UpstreamFailed):
    status, code = 502, "upstream_unreachable"
