"""How much a call may at most cost at a target, and how much it probably will.

Pure. A hard quota holds the worst case, so nothing may be left open there: a call without a bound
gets its route's, and images, recordings and files count as their target says, or are refused.
"""

from collections.abc import Callable
from functools import lru_cache

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidCall, ParameterTooLarge
from gateway.relay.call import BOUNDS, MOST_TOKENS, Call
from gateway.relay.catalog import Price, Rates, Route, Target
from gateway.relay.limits import Amounts
from gateway.relay.pricing import cost_at, cost_nanos, told_at
from gateway.relay.records import Usage
from gateway.relay.tokenizer import SaidSoFar
from gateway.relay.usage import BYTES_A_TOKEN

MOST_LOGPROBS = 20
"""As OpenAI has it."""
WRITTEN = frozenset({"text", "refusal"})
"""Parts of a message whose tokens are no more than their bytes."""
NOT_BY_BYTES = frozenset({"image_url", "input_image", "input_audio", "audio_url", "video_url", "file"})
"""Parts whose bytes tell nothing of their tokens.

Parts of any other kind count as both: some servers know text by more names.
"""


PRICED_APART = ("models", "plugins", "service_tier", "web_search_options")
"""What may change a call's model or price, by OpenAI's and OpenRouter's references."""
USUAL_TIERS = (b'"auto"', b'"default"', b'"flex"', b"null")


class _Part(Struct):
    type: str = ""
    """Some servers take a part that does not say what it is for whatever it looks like."""


class _Message(Struct):
    content: str | list[Raw] | None = None
    audio: Raw = Raw(b"null")
    """Names a recording that was an answer before, and is heard again."""


_messages = msgspec.json.Decoder(list[_Message]).decode
_part = msgspec.json.Decoder(_Part).decode
_whole = msgspec.json.Decoder(int | None).decode


class Media(Struct, frozen=True):
    """Images, recordings and files of a call, and whatever else may be one."""

    count: int = 0
    size_bytes: int = 0
    """Of the parts of those whose tokens have nothing to do with their bytes."""


NO_MEDIA = Media()


def check(call: Call, route: Route) -> None:
    """Raises ParameterTooLarge where a call asks for more than its route lets any call ask for."""
    if call.bound is not None:
        _check_bounds(call.fields)
    if call.bound is not None and call.bound > route.max_tokens:
        name = next(each for each in BOUNDS if each in call.fields)
        raise ParameterTooLarge(
            f"The model '{route.model_name}' writes at most {route.max_tokens} tokens here, "
            f"and this call asks for {call.bound}. Ask for fewer.",
            param=name,
        )
    if call.choices > route.max_choices:
        raise ParameterTooLarge(
            f"A call to the model '{route.model_name}' has at most {route.max_choices} choices here, "
            f"and this one asks for {call.choices}. Ask for fewer.",
            param="n",
        )
    if "top_logprobs" in call.fields:
        _check_logprobs(call.fields["top_logprobs"])


def _check_bounds(fields: dict[str, Raw]) -> None:
    """Raises InvalidCall for one below 1: some servers take that for none at all."""
    for name in BOUNDS:
        bound = _whole(fields[name]) if name in fields else None
        if bound is not None and bound < 1:
            raise InvalidCall(f"'{name}' must be at least 1.", param=name, code="invalid_value")


def _check_logprobs(raw: Raw) -> None:
    """They cost no tokens, and make an answer many times as large."""
    try:
        wanted = msgspec.json.decode(raw, type=int | None)
    except msgspec.DecodeError:
        raise InvalidCall(
            "'top_logprobs' must be a whole number.", param="top_logprobs", code="invalid_type"
        ) from None
    if wanted is not None and wanted > MOST_LOGPROBS:
        raise ParameterTooLarge(
            f"'top_logprobs' is at most {MOST_LOGPROBS}, and this call asks for {wanted}.",
            param="top_logprobs",
        )


def filled(call: Call, route: Route) -> dict[str, Raw]:
    """The call's fields with a bound: its own, or the route's where it named none."""
    if call.bound is not None:
        return call.fields
    return {**call.fields, "max_tokens": Raw(b"%d" % usual_bound(route))}


def usual_bound(route: Route) -> int:
    """Half of the smallest window at most, so that the bound itself makes no call too long."""
    windows = [each.context_window // 2 for each in route.targets if each.context_window is not None]
    return max(1, min([route.usual_max_tokens, *windows]))


def is_bounded(fields: dict[str, Raw]) -> bool:
    """Whether a target hears of a bound: its rules may drop what it does not take."""
    return any(name in fields and bytes(fields[name]) != b"null" for name in BOUNDS)


def priced_apart(fields: dict[str, Raw]) -> str | None:
    """The first of a call's values that may make it dearer than its target's price says."""
    for name in PRICED_APART:
        if name in fields and not (name == "service_tier" and bytes(fields[name]).strip() in USUAL_TIERS):
            return name
    return None


def media_of(fields: dict[str, Raw]) -> Media:
    """What of the messages is no text. Raises InvalidCall where they cannot be understood."""
    try:
        messages = _messages(fields["messages"])
        parts = [part for each in messages if isinstance(each.content, list) for part in each.content]
        kinds = [(_part(part).type, len(memoryview(part))) for part in parts]
    except (msgspec.DecodeError, RecursionError):
        raise InvalidCall(
            "'messages' must be a list of objects whose content is a text or a list of parts: "
            "under a hard quota the worst case of a call must be known.",
            param="messages",
            code="invalid_type",
        ) from None
    others = [(kind, size) for kind, size in kinds if kind not in WRITTEN]
    heard_again = sum(bytes(each.audio) != b"null" for each in messages)
    return Media(len(others) + heard_again, sum(size for kind, size in others if kind in NOT_BY_BYTES))


def worst(fields: dict[str, Raw], max_tokens: int, target: Target, media: Media) -> Usage:
    """The most that an attempt can use: one token a byte, and the answer's bound.

    No token is shorter than a byte, and a message's own JSON is longer than the 16 tokens it may add.
    """
    size = sum([len(memoryview(each)) for each in fields.values()])
    prompt = size - media.size_bytes + media.count * (target.media_tokens or 0)
    return Usage(min(prompt, MOST_TOKENS), min(max_tokens, MOST_TOKENS), 0, "estimated")


def worst_cost_nanos(usage: Usage, price: Price | None) -> int:
    """As if every token had the dearest price that it can have: of what kind each is is not known before."""
    return 0 if price is None else cost_at(usage, dearest_of(price, usage.input_tokens), price)


def worst_told(usage: Usage, price: Price | None) -> str:
    """How the price applies to the worst case, so that its cost can be worked out again."""
    return "" if price is None else told_at(dearest_of(price, usage.input_tokens), price)


def dearest_of(price: Price, input_tokens: int) -> Rates:
    """The most that a token of input and one of output can cost with at most so many of input."""
    return _dearest(price, sum(each.above_tokens < input_tokens for each in price.tiers))


@lru_cache(maxsize=1024)
def _dearest(price: Price, tiers: int) -> Rates:
    reachable = (price.rates, *price.tiers[:tiers])
    input_nanos = max(map(_dearest_input, reachable))
    return Rates(input_nanos, input_nanos, max(map(_dearest_output, reachable)))


def _dearest_input(rates: Rates) -> int:
    others = (rates.cached_input_nanos, rates.cache_write_nanos, rates.audio_input_nanos)
    return max(rates.input_nanos, *(each for each in others if each is not None))


def _dearest_output(rates: Rates) -> int:
    return max(rates.output_nanos, rates.reasoning_nanos or 0, rates.audio_output_nanos or 0)


def probable(prompt_bytes: int, max_tokens: int, price: Price | None) -> Amounts:
    """What is expected: the prompt at four bytes a token, and the whole of the answer's bound."""
    usage = Usage(-(-prompt_bytes // BYTES_A_TOKEN), max_tokens, 0, "estimated")
    return Amounts(usage.input_tokens + usage.output_tokens, cost_nanos(usage, price))


def spare_tokens(held: Usage, prompt_tokens: int, price: Price | None) -> int:
    """Output tokens that what is held covers beyond the answer's bound, because the prompt was held at worst.

    Tokens of output may cost many times those of the prompt; the least of both ways of counting is told.
    """
    spare = max(0, held.input_tokens - prompt_tokens)
    if price is None:
        return spare
    rates = dearest_of(price, held.input_tokens)
    if rates.output_nanos <= rates.input_nanos:
        return spare
    return spare * rates.input_nanos // rates.output_nanos


class Allowance:
    """Whether a stream has said more than is held for it, counted only when it might have.

    A token is at least one byte, so what was said need not be counted before it has that many bytes,
    nor again before as many more came as were left.
    """

    __slots__ = ("_at", "_model", "_most", "_said", "_spare")

    def __init__(
        self, most_tokens: int, said: SaidSoFar, upstream_model: str, spare: Callable[[], int]
    ) -> None:
        """`spare` is asked once, when the answer has passed its bound."""
        self._most = self._at = most_tokens
        self._said, self._model = said, upstream_model
        self._spare: Callable[[], int] | None = spare

    def is_passed(self) -> bool:
        size = self._said.most_tokens
        if size <= self._at:
            return False
        tokens = self._said.tokens(self._model)
        if tokens > self._most and self._spare is not None:
            self._most += self._spare()
            self._spare = None
        self._at = size + max(0, self._most - tokens)
        return tokens > self._most
