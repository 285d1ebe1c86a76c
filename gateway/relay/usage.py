"""Tokens of an attempt: as the provider reported them, or estimated where it did not.

The shape is OpenAI's `usage` object, with what other providers write in its place or beside it:
https://platform.openai.com/docs/api-reference/chat/object
`docs/usage.md` has them all, with where each is documented.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.relay.records import Usage

MOST_TOKENS = 10**9
"""More is no usage of one call, but a provider's mistake: it is then estimated."""
BYTES_A_TOKEN = 4
"""English text runs to about four bytes a token; only used where nothing was reported."""

_Count = int | None


class _Details(Struct, frozen=True):
    """Parts of the prompt or of the answer."""

    cached_tokens: _Count = None
    audio_tokens: _Count = None
    reasoning_tokens: _Count = None
    cache_write_tokens: _Count = None
    """OpenRouter's word."""
    cache_creation_input_tokens: _Count = None
    """Qwen's word for the same."""


class _Reported(Struct, frozen=True):
    """What is left out is read as nothing; a null where the prompt or the answer should be is not."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: _Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    cached_tokens: _Count = None
    """Kimi and Together."""
    prompt_cache_hit_tokens: _Count = None
    """DeepSeek."""
    num_cached_tokens: _Count = None
    """Mistral."""
    cache_read_input_tokens: _Count = None
    """Beside `prompt_tokens` it is a part of them."""
    cache_creation_input_tokens: _Count = None
    reasoning_tokens: _Count = None
    """Perplexity and SGLang."""
    citation_tokens: _Count = None
    """Perplexity: what its research read, billed as input."""
    prompt_audio_seconds: float | None = None
    """Mistral: a recording that is billed by time; its tokens are in the total alone."""


_NO_DETAILS = _Details()
_decode = msgspec.json.Decoder(_Reported).decode
_decode_any = msgspec.json.Decoder().decode
_PROMPT = ("prompt_tokens", "input_tokens")
_ANSWER = ("completion_tokens", "output_tokens")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def reported(raw: Raw) -> Usage | None:
    """Usage from a provider's `usage` object; None where it is null or not usable. Zero stays zero."""
    try:
        found = _decode(raw)
    except msgspec.ValidationError:
        return _reported_otherwise(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    return _usage(found)


def _usage(found: _Reported) -> Usage | None:
    """The wholes and their parts, wherever they were said; None for what no call can have used."""
    given = found.prompt_tokens_details or _NO_DETAILS
    made = found.completion_tokens_details or _NO_DETAILS
    prompt, answer, reasoning = _wholes(found, made.reasoning_tokens)
    cached = given.cached_tokens or _cached(found)
    written = given.cache_write_tokens or given.cache_creation_input_tokens or _written(found)
    heard, spoken = given.audio_tokens or 0, made.audio_tokens or 0
    together = prompt | answer | cached | written | reasoning | heard | spoken
    if not 0 <= together <= MOST_TOKENS:  # as low or as high as any of them at least, by their bits
        return _within_reason(prompt, answer, (cached, written, reasoning, heard, spoken))
    return Usage(prompt, answer, cached, "reported", written, reasoning, heard, spoken)


def _within_reason(prompt: int, answer: int, parts: tuple[int, ...]) -> Usage | None:
    """A part below zero is none. A whole below zero, or anything too large, makes the usage unusable."""
    if min(prompt, answer) < 0 or max(prompt, answer, *parts) > MOST_TOKENS:
        return None
    cached, written, reasoning, heard, spoken = (max(0, each) for each in parts)
    return Usage(prompt, answer, cached, "reported", written, reasoning, heard, spoken)


def _wholes(found: _Reported, reasoning: int | None) -> tuple[int, int, int]:
    """Tokens of the prompt, of the answer with its reasoning, and of the reasoning alone.

    OpenAI's reasoning is a part of the completion. That of xAI and Gemini stands beside it,
    which only the total tells, and Gemini's has no name: it is what the total says beyond both.
    Perplexity's research is beside both, and not even in the total.
    """
    prompt, answer = found.prompt_tokens, found.completion_tokens
    if reasoning is None:
        reasoning = found.reasoning_tokens
    if found.citation_tokens is not None:
        reasoning = max(0, reasoning or 0)
        return prompt + max(0, found.citation_tokens), answer + reasoning, reasoning
    beside = 0 if found.total_tokens is None else found.total_tokens - prompt - answer
    if beside > 0 and (reasoning is None or reasoning == beside) and not found.prompt_audio_seconds:
        return prompt, answer + beside, beside
    return prompt, answer, reasoning or 0


def _cached(found: _Reported) -> int:
    return (
        found.cached_tokens
        or found.prompt_cache_hit_tokens
        or found.num_cached_tokens
        or found.cache_read_input_tokens
        or 0
    )


def _written(found: _Reported) -> int:
    return found.cache_creation_input_tokens or 0


def _reported_otherwise(raw: Raw) -> Usage | None:
    """The same from an object in Anthropic's words, or with values that are no whole numbers.

    A part that cannot be read is left out. A whole that cannot be read makes the usage unusable.
    """
    try:
        said = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    fields = _whole_numbers(said)
    if not any(name in fields for name in _PROMPT) or _is_unreadable(said, fields):
        return None
    if "prompt_tokens" not in fields:
        fields = _in_our_words(fields, said)
    for name in _DETAILS:
        fields[name] = _whole_numbers(said.get(name))
    return _usage(msgspec.convert(fields, _Reported))


def _is_unreadable(said: dict[str, Any], fields: dict[str, Any]) -> bool:
    """Whether something is said of the answer that is no number: it would be booked as free."""
    return any(name in said for name in _ANSWER) and not any(name in fields for name in _ANSWER)


def _in_our_words(fields: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Anthropic's `input_tokens` are those that were neither read from the cache nor written to it."""
    read = fields.get("cache_read_input_tokens", 0)
    written = fields.get("cache_creation_input_tokens", 0)
    return {
        **fields,
        "prompt_tokens": fields["input_tokens"] + max(0, read) + max(0, written),
        "completion_tokens": fields.get("output_tokens", 0),
    }


def _whole_numbers(said: Any) -> dict[str, Any]:
    """What of an object is whole numbers; 12.0 is one."""
    if not isinstance(said, dict):
        return {}
    return {name: int(value) for name, value in said.items() if _is_whole(value)}


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def estimated(prompt_tokens: int, output_tokens: int) -> Usage:
    """Usage where the provider said nothing, as it was counted here."""
    return Usage(prompt_tokens, output_tokens, 0, "estimated")


def tokens_of_text(size_bytes: int) -> int:
    """An estimate of how many tokens a text of so many bytes has, where it cannot be read."""
    return -(-size_bytes // BYTES_A_TOKEN)
