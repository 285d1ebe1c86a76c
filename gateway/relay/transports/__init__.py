"""The pooled clients, behind one small protocol (`relay.ports.Transport`).

A client library's own exceptions stop here and become one of these.
"""


class TransportError(Exception):
    """The provider could not be reached or did not speak HTTP. The message names no secret."""

    unseen = False
    """The provider has not had the whole request, or says that it has not acted on it."""
    came = 0
    """Bytes of a whole answer that had come."""


class PoolExhausted(TransportError):
    """No connection of the target's pool came free in time: our own shedding, not the provider's fault."""


class CannotConnect(TransportError):
    """Refused, no such host, TLS failure, or a forbidden address."""

    unseen = True


class ConnectTimedOut(TransportError):
    """The connection was not made in time."""

    unseen = True


class Broken(TransportError):
    """The connection ended, or what came was not HTTP."""

    after_bytes = False
    """Some of the answer's body had come, so that the provider has done its work."""


class TooLarge(TransportError):
    """The answer is larger than we accept; sizes in bytes."""

    def __init__(self, limit: int, came: int) -> None:
        super().__init__(f"the provider's answer is larger than {limit} bytes")
        self.came = came


class WriteTimedOut(TransportError):
    """The provider did not take what was sent to it."""

    unseen = True
