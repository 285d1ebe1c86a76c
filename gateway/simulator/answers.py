"""What is said, and how many tokens it is. Pure, and the same for the same prompt.

A token here is a short word or a sign; nobody should expect a real tokenizer's count.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from gateway.simulator.documents import document_for
from gateway.simulator.journal import ReportedUsage
from gateway.simulator.script import Fault, Step

_TOKEN = re.compile(r"\s*\w{1,12}|\s*[^\w\s]|\s+")
_WORDS = (
    *("water", "gate", "river", "pressure", "turbine", "flow", "valve", "basin", "stream", "level", "meter"),
    *("wheel", "channel", "weir", "reservoir", "spring", "carries", "opens", "holds", "turns", "measures"),
    *(
        "falls",
        "rises",
        "slows",
        "settles",
        "returns",
        "through",
        "over",
        "under",
        "beside",
        "before",
        "after",
    ),
    *(
        "the",
        "a",
        "its",
        "every",
        "no",
        "quiet",
        "steady",
        "narrow",
        "deep",
        "cold",
        "clear",
        "full",
        "slowly",
    ),
)
_ECHO_CHARS = 48
_UNASKED_TOOL = {
    "name": "open_gate",
    "parameters": {
        "type": "object",
        "properties": {
            "river": {"type": "string"},
            "gate": {"type": "string"},
            "opening": {"type": "number"},
        },
    },
}
_MOST_IGNORED = 10_000
"""A larger `max_tokens` is not exceeded, so that an answer stays one that can be held."""
_TOOL_FAULTS = frozenset((Fault.TOOL_CALL_CUT, Fault.TOOL_CALL_BROKEN))
_CACHE_FROM_TOKENS = 1024
_CACHE_STEP_TOKENS = 128

AtLeastOne = Annotated[int, Meta(ge=1)]


class Message(Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part["text"] for part in self.content if isinstance(part.get("text"), str))
        return self.content or ""


class StreamOptions(Struct):
    include_usage: bool = False


class ChatRequest(Struct):
    """The fields of a chat completion that change what is answered; others are ignored."""

    model_name: str = field(name="model")
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: AtLeastOne | None = None
    max_completion_tokens: AtLeastOne | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: text, or the arguments of a tool call where `tool_name` is set."""

    tokens: Sequence[str]
    finish_reason: str
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    created_at_s: int
    model_name: str
    choices: Sequence[Choice]
    prompt_tokens: int
    usage: ReportedUsage

    @property
    def completion_tokens(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)


_decoder = msgspec.json.Decoder(ChatRequest)


def decode_request(body: bytes) -> ChatRequest:
    """Raises msgspec.DecodeError, whose text says what is wrong and where."""
    request = _decoder.decode(body)
    if request.stream_options is not None and not request.stream:
        raise msgspec.ValidationError("'stream_options' is only allowed when 'stream' is enabled")
    return request


def tokens_of(text: str) -> list[str]:
    """Joined again, they are the text."""
    return _TOKEN.findall(text)


def compose(request: ChatRequest, step: Step, number: int, created_at_s: int) -> Answer:
    """The answer to one request; `number` makes its id, not its words."""
    prompt = "\n".join(message.text() for message in request.messages)
    choices = [_choice(request, step, prompt, index) for index in range(request.n or 1)]
    sent_tokens = sum(len(choice.tokens) for choice in choices)
    prompt_tokens = len(prompt.encode("utf-8", "replace")) // 4 + 4 * len(request.messages)
    usage = _usage(step, prompt_tokens, sent_tokens)
    return Answer(
        f"chatcmpl-sim{number:012d}", created_at_s, request.model_name, choices, prompt_tokens, usage
    )


def _usage(step: Step, prompt_tokens: int, completion_tokens: int) -> ReportedUsage:
    """The truth, unless the step says otherwise."""
    if step.fault is Fault.USAGE_ZERO:
        return ReportedUsage(0, 0, 0)
    return ReportedUsage(
        prompt_tokens=_first(step.prompt_tokens, prompt_tokens),
        completion_tokens=_first(step.completion_tokens, completion_tokens),
        cached_tokens=_first(step.cached_tokens, _cached_tokens(prompt_tokens)),
    )


def _choice(request: ChatRequest, step: Step, prompt: str, index: int) -> Choice:
    seed = _seed(request.model_name, prompt, index)
    tool = _tool_to_call(request, step)
    if tool is not None:
        tokens, cut = _limited(tokens_of(_arguments(tool, step, seed)), request, step)
        return Choice(
            tokens, "length" if cut else "tool_calls", str(tool.get("name", "")), f"call_{seed:020d}"
        )
    text = step.text if step.text is not None else _text(request, prompt, seed)
    tokens, cut = _limited(tokens_of(_stopped(text, request.stop)), request, step)
    return Choice(tokens, "length" if cut else "stop")


def _arguments(tool: dict[str, Any], step: Step, seed: int) -> str:
    """A JSON document for the tool's parameters, without its last sign where it is to be broken."""
    if step.text is not None:
        return step.text
    whole = _json(document_for(tool.get("parameters", {}), _words(seed, 1)))
    return whole[:-1] if step.fault is Fault.TOOL_CALL_BROKEN else whole


def _tool_to_call(request: ChatRequest, step: Step) -> dict[str, Any] | None:
    """The function that is called, if any; a tool call's fault does not wait to be asked."""
    if step.fault in _TOOL_FAULTS:
        return _tool_asked_for(request) or _UNASKED_TOOL
    return _tool_asked_for(request) if step.text is None else None


def _tool_asked_for(request: ChatRequest) -> dict[str, Any] | None:
    """The function that is asked for by name, else the first; none once its result has come back."""
    if not request.tools or request.tool_choice == "none" or request.messages[-1].role == "tool":
        return None
    functions = [tool["function"] for tool in request.tools if isinstance(tool.get("function"), dict)]
    if isinstance(request.tool_choice, dict):
        wanted = request.tool_choice.get("function", {}).get("name")
        functions = [each for each in functions if each.get("name") == wanted]
    return functions[0] if functions else None


def _text(request: ChatRequest, prompt: str, seed: int) -> str:
    match (request.response_format or {}).get("type"):
        case "json_object":
            return _json({"answer": _words(seed, 8), "simulated": True})
        case "json_schema":
            schema = (request.response_format or {}).get("json_schema", {}).get("schema", {})
            return _json(document_for(schema, _words(seed, 2)))
        case _:
            asked = " ".join(request.messages[-1].text()[:_ECHO_CHARS].split())
            return f'Simulated answer to "{asked}": {_words(seed, 16 + seed % 48)}.'


def _words(seed: int, count: int) -> str:
    """A linear congruential walk: a tenth of what a seeded random.Random costs."""
    words = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        words.append(_WORDS[(seed >> 33) % len(_WORDS)])
    return " ".join(words)


def _stopped(text: str, stop: str | list[str] | None) -> str:
    for mark in [stop] if isinstance(stop, str) else stop or []:
        text = text.partition(mark)[0] if mark else text
    return text


def _limited(tokens: list[str], request: ChatRequest, step: Step) -> tuple[list[str], bool]:
    """The tokens that `max_tokens` leaves, and whether it cut any."""
    limit = request.max_completion_tokens or request.max_tokens or len(tokens)
    if step.fault is Fault.MAX_TOKENS_IGNORED:
        return tokens * (2 * min(limit, _MOST_IGNORED) // max(1, len(tokens)) + 1), False
    return tokens[:limit], len(tokens) > limit


def _cached_tokens(prompt_tokens: int) -> int:
    """As if the first half of a long prompt had been seen before."""
    if prompt_tokens < _CACHE_FROM_TOKENS:
        return 0
    return prompt_tokens // 2 // _CACHE_STEP_TOKENS * _CACHE_STEP_TOKENS


def _seed(model_name: str, prompt: str, index: int) -> int:
    digest = hashlib.sha256(f"{model_name}\0{index}\0{prompt}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _first(preferred: int | None, otherwise: int) -> int:
    return otherwise if preferred is None else preferred
