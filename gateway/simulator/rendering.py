"""An answer in OpenAI's JSON, whole or as a stream of events. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import Any

import msgspec

from gateway.simulator.answers import Answer, Choice
from gateway.simulator.journal import ReportedUsage
from gateway.simulator.script import ToldUsage

FINGERPRINT = "simulated"
DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class UsageStyle(Enum):
    """Where a stream says its usage."""

    NEVER = "never"
    LAST = "on a last chunk without choices"
    BESIDE_CHOICES = "on the last chunk that has choices"
    EVERY_CHUNK = "so far, on every chunk"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that leave together, how many tokens they carry, and the usage they report."""

    data: bytes
    tokens: int = 0
    usage: ReportedUsage | None = None


def whole_body(answer: Answer, usage: ReportedUsage | ToldUsage | None) -> bytes:
    """A `chat.completion`; without usage where there is none to report."""
    body = _frame(answer, "chat.completion")
    body["choices"] = [
        {"index": index, "message": _message(choice), "logprobs": None, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(answer.choices)
    ]
    if usage is not None:
        body["usage"] = usage.said if isinstance(usage, ToldUsage) else usage_json(usage)
    return _encode(body)


def stream_pieces(answer: Answer, usage: ReportedUsage, style: UsageStyle) -> Iterator[Piece]:
    """Roles, tokens (choices by turns), finish reasons, usage, [DONE]."""
    sent = 0
    for index, choice, delta, finish_reason in _deltas(answer):
        sent += (tokens := 0 if choice is None else 1)
        last = finish_reason is not None and index == len(answer.choices) - 1
        reported = _reported(usage, style, sent, last)
        chunk = _chunk(answer, [_choice_json(index, delta, finish_reason)], reported, style)
        yield Piece(event(chunk), tokens, reported)
    if style is UsageStyle.LAST:
        yield Piece(event(_chunk(answer, [], usage, style)), 0, usage)
    yield Piece(DONE)


def stream_as_told(answer: Answer, usages: Sequence[ToldUsage]) -> Iterator[Piece]:
    """The same with the usages of a script, on the chunks that they name."""
    deltas = list(_deltas(answer))
    for place, (index, choice, delta, finish_reason) in enumerate(deltas):
        chunk = _chunk(answer, [_choice_json(index, delta, finish_reason)], None, UsageStyle.NEVER)
        for each in usages:
            if each.chunk in (place, place - len(deltas)):
                _tell(chunk, each)
        yield Piece(event(chunk), 0 if choice is None else 1)
    for each in usages:
        if each.chunk is None:
            _tell(chunk := _chunk(answer, [], None, UsageStyle.NEVER), each)
            yield Piece(event(chunk))
    yield Piece(DONE)


def _tell(chunk: dict[str, Any], usage: ToldUsage) -> None:
    match usage.place:
        case "chunk":
            chunk["usage"] = usage.said
        case "choice":
            chunk["choices"][0]["usage"] = usage.said
        case "x_groq":
            chunk["x_groq"] = {"id": "req_simulated", "usage": usage.said}


def event(value: Any) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def usage_json(usage: ReportedUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def error_json(message: str, type_: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def _frame(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created_at_s,
        "model": answer.model_name,
        "system_fingerprint": FINGERPRINT,
    }


def _chunk(
    answer: Answer, choices: list[dict[str, Any]], usage: ReportedUsage | None, style: UsageStyle
) -> dict[str, Any]:
    """With usage asked for, chunks before it say `"usage": null`, as OpenAI's do."""
    chunk = _frame(answer, "chat.completion.chunk")
    chunk["choices"] = choices
    if usage is not None or style is UsageStyle.LAST:
        chunk["usage"] = usage_json(usage) if usage is not None else None
    return chunk


def _choice_json(index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _message(choice: Choice) -> dict[str, Any]:
    text = "".join(choice.tokens)
    if choice.tool_name is None:
        return {"role": "assistant", "content": text, "refusal": None}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_tool_call(choice, text)]}


def _tool_call(choice: Choice, arguments: str) -> dict[str, Any]:
    return {
        "id": choice.tool_call_id,
        "type": "function",
        "function": {"name": choice.tool_name, "arguments": arguments},
    }


def _deltas(answer: Answer) -> Iterator[tuple[int, Choice | None, dict[str, Any], str | None]]:
    """Index, the choice where the delta carries a token of it, the delta, and why it finished."""
    for index, choice in enumerate(answer.choices):
        yield index, None, _opening(choice), None
    for turn in zip_longest(*(choice.tokens for choice in answer.choices)):
        for index, token in enumerate(turn):
            if token is not None:
                yield index, answer.choices[index], _token_delta(answer.choices[index], token), None
    for index, choice in enumerate(answer.choices):
        yield index, None, {}, choice.finish_reason


def _opening(choice: Choice) -> dict[str, Any]:
    if choice.tool_name is None:
        return {"role": "assistant", "content": "", "refusal": None}
    return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_tool_call(choice, "")}]}


def _token_delta(choice: Choice, token: str) -> dict[str, Any]:
    if choice.tool_name is None:
        return {"content": token}
    return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


def _reported(usage: ReportedUsage, style: UsageStyle, sent: int, last: bool) -> ReportedUsage | None:
    if style is UsageStyle.EVERY_CHUNK:
        return usage if last else msgspec.structs.replace(usage, completion_tokens=sent)
    return usage if last and style is UsageStyle.BESIDE_CHOICES else None
