"""What providers really do, by name, and the order in which it is to happen."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

FAULT_PREFIX = "fault-"


class Fault(StrEnum):
    """Asked for by the model name `fault-<value>`, or by a step of the script."""

    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    PAYMENT_REQUIRED = "402"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    TIMEOUT = "408"
    TOO_LARGE = "413"
    UNPROCESSABLE = "422"
    THROTTLED = "429"
    THROTTLED_SECONDS = "429-retry-after-seconds"
    THROTTLED_DATE = "429-retry-after-date"
    THROTTLED_MS = "429-retry-after-ms"
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    OVERLOADED = "529"

    SLOW_FIRST_TOKEN = "slow-first-token"  # noqa: S105
    SLOW_DRIP = "slow-drip"
    STALL = "stall-mid-stream"
    SILENCE = "silence-before-headers"

    TRUNCATED = "truncated"
    ERROR_EVENT = "error-mid-stream"
    CLOSE_MID_STREAM = "close-mid-stream"
    RESET_MID_STREAM = "reset-mid-stream"
    RESET_AFTER_HEADERS = "reset-after-headers"
    RESET_BEFORE_HEADERS = "reset-before-headers"

    GARBAGE_HTML = "garbage-html"
    GARBAGE_JSON = "garbage-json"
    GARBAGE_SSE = "garbage-sse"
    HUGE_BODY = "huge-body"
    GZIP = "gzip"
    REDIRECT = "redirect"

    USAGE_BESIDE_CHOICES = "usage-beside-choices"
    USAGE_ON_EVERY_CHUNK = "usage-on-every-chunk"
    USAGE_MISSING = "usage-missing"
    USAGE_ZERO = "usage-zero"

    @property
    def model_name(self) -> str:
        return FAULT_PREFIX + self.value

    @property
    def status(self) -> int | None:
        """The HTTP status of an error answer; None for every other fault."""
        number = self.value[:3]
        return int(number) if number.isdigit() else None


WHAT_HAPPENS: dict[Fault, str] = {
    Fault.BAD_REQUEST: "An error in OpenAI's shape.",
    Fault.UNAUTHORIZED: "An error whose message repeats the credential, as some providers' do.",
    Fault.PAYMENT_REQUIRED: "An error: the account is empty.",
    Fault.FORBIDDEN: "An error: the account may not use this model name.",
    Fault.NOT_FOUND: "An error: no such model name.",
    Fault.TIMEOUT: "An error: the provider's own request timeout.",
    Fault.TOO_LARGE: "An error: the request is too large.",
    Fault.UNPROCESSABLE: "An error: a value is not understood.",
    Fault.THROTTLED: "Rate limited, without a word when to come back.",
    Fault.THROTTLED_SECONDS: "Rate limited, Retry-After in seconds (`retry_after_s`).",
    Fault.THROTTLED_DATE: "Rate limited, Retry-After as an HTTP date.",
    Fault.THROTTLED_MS: "Rate limited, retry-after-ms.",
    Fault.SERVER_ERROR: "An error of the provider.",
    Fault.BAD_GATEWAY: "An error of the provider's front.",
    Fault.UNAVAILABLE: "An error: overloaded.",
    Fault.GATEWAY_TIMEOUT: "An error: the provider's front gave up.",
    Fault.OVERLOADED: "An error: overloaded, with a status of its own.",
    Fault.SLOW_FIRST_TOKEN: "Headers at once, the first byte of the body after `pause_s`.",
    Fault.SLOW_DRIP: "`pause_s` between tokens; a whole answer comes in many small pieces.",
    Fault.STALL: "Headers and `after_tokens` tokens, then nothing until the client goes.",
    Fault.SILENCE: "Not a byte until the client goes.",
    Fault.TRUNCATED: "`after_tokens` tokens, then a clean end of the body: no [DONE], no usage.",
    Fault.ERROR_EVENT: "`after_tokens` tokens, then an error event and a clean end.",
    Fault.CLOSE_MID_STREAM: "`after_tokens` tokens, then the connection is closed inside the body.",
    Fault.RESET_MID_STREAM: "`after_tokens` tokens, then the connection is reset.",
    Fault.RESET_AFTER_HEADERS: "Headers, then the connection is reset.",
    Fault.RESET_BEFORE_HEADERS: "The connection is reset without a byte.",
    Fault.GARBAGE_HTML: "200 with an HTML page.",
    Fault.GARBAGE_JSON: "200 with JSON that breaks off.",
    Fault.GARBAGE_SSE: "200 with an event stream whose events are not JSON.",
    Fault.HUGE_BODY: "An answer of `body_bytes`; streamed, all in one event.",
    Fault.GZIP: "Compressed although nobody asked.",
    Fault.REDIRECT: "307 to another path of this simulator.",
    Fault.USAGE_BESIDE_CHOICES: "Usage on the last chunk that still has choices.",
    Fault.USAGE_ON_EVERY_CHUNK: "Usage so far on every chunk.",
    Fault.USAGE_MISSING: "No usage, asked for or not.",
    Fault.USAGE_ZERO: "A usage of explicit zeros.",
}


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens at the next call, or at the next `count` calls (None: from now on)."""

    fault: Fault | None = None
    """None: a good answer."""
    model_name: str | None = field(default=None, name="model")
    """Only calls that ask for this model name."""
    count: Annotated[int, Meta(ge=1)] | None = 1

    text: str | None = None
    """What is answered; for an error, its message."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """What the usage says, where it is to differ from what was sent."""

    delay_s: float = 0.0
    """Silence before the headers. Like every time of a step it does not depend on `speed`."""
    pause_s: float = 10.0
    """Of the slow faults."""
    after_tokens: int = 3
    """Where the faults of mid-stream strike. A whole answer breaks in its middle."""
    retry_after_s: float = 1.0
    body_bytes: int = 80 * 1024 * 1024
    """More than a gateway will usually take."""


GOOD_ANSWER = Step()


class UnknownFault(LookupError):
    """The model name begins like a fault's and is none."""


def step_for(model_name: str) -> Step:
    """What a call gets where the script has nothing for it. Raises UnknownFault."""
    if not model_name.startswith(FAULT_PREFIX):
        return GOOD_ANSWER
    try:
        return Step(fault=Fault(model_name.removeprefix(FAULT_PREFIX)))
    except ValueError:
        raise UnknownFault(model_name) from None


class Script:
    """Steps in order, each consumed by the calls that it is for."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def __repr__(self) -> str:
        return f"<Script {len(self._steps)} steps, next {self._steps[:1]}>"

    def __len__(self) -> int:
        return len(self._steps)

    def extend(self, steps: Sequence[Step]) -> None:
        self._steps.extend(steps)

    def clear(self) -> None:
        self._steps.clear()

    def take(self, model_name: str) -> Step:
        """The first step for this model name, counted down; else what the name itself asks for."""
        for place, step in enumerate(self._steps):
            if step.model_name in (None, model_name):
                self._count_down(place, step)
                return step
        return step_for(model_name)

    def _count_down(self, place: int, step: Step) -> None:
        if step.count == 1:
            del self._steps[place]
        elif step.count is not None:
            self._steps[place] = msgspec.structs.replace(step, count=step.count - 1)


_decoder = msgspec.json.Decoder(list[Step])


def decode_steps(body: bytes) -> list[Step]:
    """Raises msgspec.DecodeError, whose text says what is wrong and where."""
    return _decoder.decode(body)
