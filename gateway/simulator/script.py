"""What providers really do, by name, and the order in which it is to happen."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

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
    THROTTLED_ABSURD = "429-retry-after-absurd"
    CONTEXT_OVERFLOW = "400-context-length-exceeded"
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
    ENDLESS_LINE = "endless-line"
    GZIP = "gzip"
    GZIP_BOMB = "gzip-bomb"
    REDIRECT = "redirect"

    UNASKED_INTERIM = "unasked-1xx"
    ENDLESS_INTERIM = "endless-1xx"
    ENDLESS_HEADERS = "endless-headers"
    HUGE_HEADER = "huge-header"
    CLOSE_IN_HEADERS = "close-in-headers"
    NOT_HTTP = "not-http"
    TRUNCATED_CHUNK = "truncated-chunk"
    LENGTH_TOO_LONG = "content-length-too-long"
    LENGTH_TOO_SHORT = "content-length-too-short"
    HALF_CLOSE = "half-close-mid-stream"
    CLOSE_AFTER_ANSWER = "close-after-answer"
    SECOND_ANSWER = "second-answer"
    SECOND_ANSWER_LATER = "second-answer-later"

    TOOL_CALL_CUT = "tool-call-cut"
    TOOL_CALL_BROKEN = "tool-call-broken-json"
    MAX_TOKENS_IGNORED = "max-tokens-ignored"

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
    Fault.THROTTLED_ABSURD: "Rate limited, with a Retry-After that is neither seconds nor a date.",
    Fault.CONTEXT_OVERFLOW: "An error: the messages are longer than the context, in OpenAI's words.",
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
    Fault.ENDLESS_LINE: "`after_tokens` tokens, then `body_bytes` of one line that never ends.",
    Fault.GZIP: "Compressed although nobody asked; a stream event by event.",
    Fault.GZIP_BOMB: "A small compressed answer that unpacks to `body_bytes`.",
    Fault.REDIRECT: "307 to another path of this simulator.",
    Fault.UNASKED_INTERIM: "100, 102 and 103 before a good answer.",
    Fault.ENDLESS_INTERIM: "102 again and again, and never an answer.",
    Fault.ENDLESS_HEADERS: "200, and header lines until the client goes.",
    Fault.HUGE_HEADER: "A good answer with one header of a mebibyte.",
    Fault.CLOSE_IN_HEADERS: "The connection is closed in the middle of a header line.",
    Fault.NOT_HTTP: "One line of another protocol (`text`), then the connection is closed.",
    Fault.TRUNCATED_CHUNK: "`after_tokens` tokens, then the connection is closed inside a chunk.",
    Fault.LENGTH_TOO_LONG: "Content-Length says more than comes before the connection is closed.",
    Fault.LENGTH_TOO_SHORT: "Content-Length says half of what comes; the connection stays open.",
    Fault.HALF_CLOSE: "`after_tokens` tokens, then the sending side alone is closed.",
    Fault.CLOSE_AFTER_ANSWER: "A good answer; then the connection is closed, though none said so.",
    Fault.SECOND_ANSWER: "A good answer, and at once another that nobody asked for.",
    Fault.SECOND_ANSWER_LATER: "A good answer, and another once the connection lies idle.",
    Fault.TOOL_CALL_CUT: "A tool call, asked for or not, whose stream ends after `after_tokens` tokens.",
    Fault.TOOL_CALL_BROKEN: "A tool call, asked for or not, whose arguments are not JSON.",
    Fault.MAX_TOKENS_IGNORED: "More tokens than `max_tokens` allows.",
    Fault.USAGE_BESIDE_CHOICES: "Usage on the last chunk that still has choices.",
    Fault.USAGE_ON_EVERY_CHUNK: "Usage so far on every chunk.",
    Fault.USAGE_MISSING: "No usage, asked for or not.",
    Fault.USAGE_ZERO: "A usage of explicit zeros.",
}


class ToldUsage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A usage in place of the true one, and where it is said. Raises ValueError for a place that is none."""

    said: Raw
    """Any JSON, which is sent word for word."""
    chunk: int | None = None
    """Of a stream, the one that says it, from 0, or from -1 backwards; None: one more, without choices."""
    place: Literal["chunk", "choice", "x_groq"] = "chunk"
    """Beside the choices, in the first of them as Kimi has it, or in Groq's own object."""

    def __post_init__(self) -> None:
        if self.place == "choice" and self.chunk is None:
            raise ValueError("a usage in a choice needs the number of a chunk that has choices")


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens at the next call, or at the next `count` calls (None: from now on)."""

    fault: Fault | None = None
    """None: a good answer."""
    model_name: str | None = field(default=None, name="model")
    """Only calls that ask for this model name."""
    count: Annotated[int, Meta(ge=1)] | None = 1

    text: str | None = None
    """What is answered; for an error, its message; for a tool call's fault, the arguments."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """What the usage says, where it is to differ from what was sent."""
    usages: tuple[ToldUsage, ...] | None = None
    """All that is said of usage, asked for or not, in place of that; a whole answer says the last."""

    delay_s: float = 0.0
    """Silence before the headers. Like every time of a step it does not depend on `speed`."""
    pause_s: float = 10.0
    """Of the slow faults."""
    after_tokens: int = 3
    """Where the faults of mid-stream strike. A whole answer breaks in its middle."""
    retry_after_s: float = 1.0
    retry_after: str | None = None
    """The Retry-After of an error, word for word, in place of what its fault would say."""
    body_bytes: int | None = None
    """Of the huge faults; None: more than a gateway will usually take (`HUGE_BYTES`)."""


GOOD_ANSWER = Step()

HUGE_BYTES = {
    Fault.HUGE_BODY: 80 * 1024 * 1024,
    Fault.ENDLESS_LINE: 10 * 1024 * 1024,
    Fault.GZIP_BOMB: 200 * 1024 * 1024,
}


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
