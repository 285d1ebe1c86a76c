"""Tokens of an attempt: as the provider reported them, or estimated where it did not.

The shape is OpenAI's `usage` object:
https://platform.openai.com/docs/api-reference/chat/object
"""

import msgspec
from msgspec import Struct

from gateway.relay.records import Usage

MOST_TOKENS = 10**9
"""More is no usage of one call, but a provider's mistake: it is then estimated."""
BYTES_A_TOKEN = 4
"""English text runs to about four bytes a token; only used where nothing was reported."""


class _PromptDetails(Struct, frozen=True):
    cached_tokens: int | None = None


class _Reported(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


_decode = msgspec.json.Decoder(_Reported).decode


def reported(raw: msgspec.Raw) -> Usage | None:
    """Usage from a provider's `usage` object; None where it is null or not usable. Zero stays zero."""
    try:
        found = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    details = found.prompt_tokens_details
    cached = max(0, details.cached_tokens or 0) if details is not None else 0
    if min(found.prompt_tokens, found.completion_tokens) < 0:
        return None
    if max(found.prompt_tokens, found.completion_tokens, cached) > MOST_TOKENS:
        return None
    return Usage(found.prompt_tokens, found.completion_tokens, cached, "reported")


def estimated(prompt_tokens: int, output_tokens: int) -> Usage:
    """Usage where the provider said nothing, as it was counted here."""
    return Usage(prompt_tokens, output_tokens, 0, "estimated")


def tokens_of_text(size_bytes: int) -> int:
    """An estimate of how many tokens a text of so many bytes has, where it cannot be read."""
    return -(-size_bytes // BYTES_A_TOKEN)
