"""Messages that are longer than a model's context window: seeing it, and leaving out the oldest.

Pure. Does not decide what a route does about it. A window is known from the target's settings,
before anything is sent, or from the provider's error, whose wording each vendor chose for itself.
Whoever asks about several targets of one call passes the same `Counts`, so that nothing is counted twice.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from gateway.relay import tokenizer
from gateway.relay.tokenizer import Counts

KEPT_LAST = 3
"""Messages at the end that are never left out."""
KEPT_ROLES = frozenset({"system", "developer"})
ANSWERING_ROLES = frozenset({"tool", "function"})
"""Of messages that make sense only after the assistant's call of a tool."""
SURE_SHARE = 0.75
"""Another vendor's vocabulary may need this much fewer tokens than ours counts."""
CLOSE_SHARE = 0.97
"""Trimmed on a provider's word, messages are kept a little shorter than it asks:
what each of them takes there is only known in proportion to our own count."""

NULL = Raw(b"null")
_STATUSES = frozenset({400, 413, 422})
_CODES = frozenset({"context_length_exceeded", "model_context_window_exceeded", "exceed_context_size_error"})
_NUMBER = r"(\d[\d,]{0,11})"


class Excess(Struct, frozen=True):
    """By how much the messages are too long, in the provider's tokens; None: it did not say."""

    window: int | None = None
    """What it takes, of prompt and answer together or of the prompt alone."""
    size: int | None = None
    """The prompt's."""
    over: int | None = None
    """How many tokens have to go."""


class Trimmed(Struct, frozen=True):
    """A prompt's messages without the oldest ones."""

    messages: Raw
    dropped: int
    """How many were left out, at least one."""
    fits: bool
    """Whether the rest may fit: by our count, with what another vocabulary may make of it."""


def fits(prompt_bytes: int, max_tokens: int, window: int) -> bool:
    """Surely short enough, at no cost: a token is at least one byte. False says nothing.

    Images by address, and tools where `prompt_bytes` leaves them out, can make it wrong;
    then the provider will say so.
    """
    return prompt_bytes + max_tokens <= window


def answer_tokens(fields: Mapping[str, Raw]) -> int:
    """Tokens that one choice of the answer may have, where the client says so; else 0.

    A window holds the prompt and one choice. Who sets no bound is given what is left of it.
    """
    for name in ("max_completion_tokens", "max_tokens"):
        try:
            return max(0, msgspec.json.decode(fields.get(name, NULL), type=int))
        except msgspec.DecodeError:  # null, or nonsense that the call was refused for
            continue
    return 0


def exceeds(
    fields: Mapping[str, Raw],
    upstream_model: str,
    max_tokens: int,
    window: int,
    counts: Counts | None = None,
) -> bool:
    """Surely too long for the window, counted as by `tokenizer.tokens_of_prompt`.

    In doubt it is sent: the provider's answer costs one round trip, a wrong refusal the call.
    """
    tokens = (counts or Counts()).of_prompt(fields, upstream_model)
    return tokens * _sure_share(upstream_model) + max_tokens > window


def room(
    fields: Mapping[str, Raw],
    upstream_model: str,
    max_tokens: int,
    window: int,
    counts: Counts | None = None,
) -> int:
    """Tokens of the window that are left to the messages, beside the answer and the tools."""
    return window - max_tokens - (counts or Counts()).of_tools(fields, upstream_model)


def is_overflow(status: int, code: str | None, message: str) -> Excess | None:
    """What a provider's error says about messages that are too long; None where it is about something else.

    A rate limit is something else, and so is an answer that alone would fill the window.
    """
    if status not in _STATUSES or _ELSE.search(message):
        return None
    if code not in _CODES and not _SIGNS.search(message):
        return None
    window, answer = _told(_WINDOW, message), _told(_ANSWER, message) or 0
    size, total = _told(_SIZE, message), _told(_TOTAL, message)
    if size is None and total is not None:
        size = total - answer
    if window is not None and answer >= window:
        return None
    over = _told(_OVER, message)
    if over is None and size is not None and window is not None:
        over = size + answer - window
    return Excess(window, size, over if over is None or over > 0 else None)


def trimmed(
    messages: Raw, upstream_model: str, budget_tokens: int, counts: Counts | None = None
) -> Trimmed | None:
    """Leave out as few of the oldest as it takes to keep the budget, but at least one.

    Kept are system and developer messages and the last three. A call of a tool and its results
    stay or go together. Those that stay keep their bytes and their order. None where nothing can go.
    """
    conversation = _read(messages, upstream_model, counts or Counts())
    return None if conversation is None else conversation.shortened(budget_tokens)


def trimmed_by(excess: Excess, messages: Raw, upstream_model: str) -> Trimmed | None:
    """Leave out of the oldest what the provider's error asks for; half of what can go where it does not say.

    May be called again with what it returned, if that is still too long. None where nothing can go.
    """
    conversation = _read(messages, upstream_model, Counts())
    if conversation is None:
        return None
    budget_tokens = _budget(excess, conversation.total())
    if budget_tokens is None:
        return conversation.halved()
    return conversation.shortened(int(budget_tokens * CLOSE_SHARE))


def _budget(excess: Excess, tokens: int) -> float | None:
    """What `tokens`, by our own count, must be brought down to; None where the provider did not say."""
    if excess.over is not None:
        if excess.size is not None:
            return tokens * max(0, excess.size - excess.over) / excess.size
        return max(0, tokens - excess.over)
    if excess.window is not None and excess.window < tokens:
        return excess.window
    return None


def _sure_share(upstream_model: str) -> float:
    return 1.0 if tokenizer.knows(upstream_model) else SURE_SHARE


class _Message(Struct):
    role: str
    tool_calls: Raw = NULL
    function_call: Raw = NULL
    tool_call_id: Raw = NULL


class _ToolCall(Struct):
    id: Raw = NULL


_raws = msgspec.json.Decoder(list[Raw]).decode
_messages = msgspec.json.Decoder(list[_Message]).decode
_tool_calls = msgspec.json.Decoder(list[_ToolCall]).decode
_UNREADABLE = (msgspec.DecodeError, RecursionError)


class _Conversation(Struct):
    """Messages, what each takes, and which of them go together, by their places."""

    raws: list[Raw]
    tokens: list[int]
    groups: list[list[int]]
    """Those that can be left out, the oldest first."""
    sure_share: float

    def total(self) -> int:
        return sum(self.tokens) + tokenizer.REPLY_TOKENS

    def shortened(self, budget_tokens: int) -> Trimmed | None:
        left, gone = self.total(), 0
        for group in self.groups:
            if gone and left <= budget_tokens:
                break
            left -= sum(self.tokens[place] for place in group)
            gone += 1
        return self._without(gone, left * self.sure_share <= budget_tokens)

    def halved(self) -> Trimmed | None:
        return self._without(-(-len(self.groups) // 2), True)

    def _without(self, groups: int, fits: bool) -> Trimmed | None:
        """The messages without so many of the oldest groups."""
        gone = {place for group in self.groups[:groups] for place in group}
        if not gone:
            return None
        kept = [bytes(raw) for place, raw in enumerate(self.raws) if place not in gone]
        return Trimmed(Raw(b"[%b]" % b",".join(kept)), len(gone), fits)


def _read(messages: Raw, upstream_model: str, counts: Counts) -> _Conversation | None:
    """None where these are no messages, or too many to be looked at."""
    tokens = counts.by_message(messages, upstream_model)
    if tokens is None:
        return None
    try:
        raws, read = _raws(messages), _messages(messages)
    except _UNREADABLE:
        return None
    groups = [each for each in _groups(read) if _can_go(each, read)]
    return _Conversation(raws, tokens, groups, _sure_share(upstream_model))


def _can_go(group: list[int], messages: Sequence[_Message]) -> bool:
    first_kept = len(messages) - KEPT_LAST
    return all(place < first_kept and messages[place].role not in KEPT_ROLES for place in group)


def _groups(messages: Sequence[_Message]) -> list[list[int]]:
    """Places of messages that go together, by their first: a tool's result with the call that asked for it,
    by its id or, where that is unknown, with the last call before it."""
    groups: list[list[int]] = []
    by_id: dict[bytes, list[int]] = {}
    last_call: list[int] | None = None
    for place, message in enumerate(messages):
        if message.role in ANSWERING_ROLES:
            call = by_id.get(bytes(message.tool_call_id), last_call)
            if call is not None:
                call.append(place)
                continue
        group = [place]
        groups.append(group)
        if _calls(message):
            last_call = group
            by_id.update(dict.fromkeys(_ids(message), group))
    return groups


def _calls(message: _Message) -> bool:
    return _asks(message.tool_calls) or _asks(message.function_call)


def _asks(raw: Raw) -> bool:
    return raw is not NULL and bytes(raw) not in (b"null", b"[]")


def _ids(message: _Message) -> list[bytes]:
    try:
        return [bytes(each.id) for each in _tool_calls(message.tool_calls) if each.id is not NULL]
    except _UNREADABLE:  # null, or another shape: its results are the ones that follow
        return []


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _told(pattern: re.Pattern[str], message: str) -> int | None:
    """The number in what the pattern finds; of several, the largest. None where it says nothing: 0."""
    found = [
        int(each.replace(",", "")) for match in pattern.finditer(message) for each in match.groups() if each
    ]
    return max(found, default=0) or None


_ELSE = _any_of(r"tokens? per (?:min|day|hour)", r"\bTP[MDH]\b", r"rate.?limit")
_SIGNS = _any_of(
    r"maximum (?:context|prompt|model) length",  # OpenAI, DeepSeek, vLLM, SGLang, Mistral, xAI, OpenRouter
    r"reduce the length of the (?:messages|input|prompt)",  # OpenAI, Groq, Cerebras, vLLM
    r"input tokens exceed the configured limit",  # OpenAI
    r"exceeds? (?:the|this model's|model) context (?:window|length|limit)",  # OpenAI, Ollama
    r"context (?:window|length|limit) (?:exceeded|exceeds)",  # MiniMax
    r"exceed context limit",  # Anthropic
    r"prompt is too long|input is too long for requested model",  # Anthropic, Fireworks, Ollama, Bedrock
    r"input token count.{0,40}exceeds the maximum",  # Gemini
    r"token count of \d+ exceeds the limit",  # GitHub
    r"longer than the model's context length",  # Together, SGLang
    r"`inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)",  # Together, TGI
    r"exceeds the available context size",  # llama.cpp
    r"prompt too long; exceeded (?:max )?context length",  # Ollama
    r"greater than the context length|context length of only",  # LM Studio
    r"too many tokens: (?:size|minimal)",  # Cohere
    r"range of input length should be",  # DashScope
    r"exceeded model token limit",  # Moonshot
    r"prompt exceeds max length",  # Z.ai
    r"max_tokens must be at least 1, got -",  # vLLM, which sets what the prompt leaves of the window
)
_WINDOW = _any_of(
    rf"maximum (?:context|prompt|model) length(?: is| of|:) {_NUMBER}",
    rf"with {_NUMBER} maximum context length",
    rf"limit of {_NUMBER}",
    rf"> {_NUMBER} maximum",
    rf"\d \+ \d+ > {_NUMBER}",
    rf"maximum number of tokens allowed \(?{_NUMBER}",
    rf"context (?:length|size) \({_NUMBER} tokens",
    rf"(?:must be <=|must have less than) {_NUMBER}",
    rf"context length of only {_NUMBER}",
    rf"limit (?:for this model )?is {_NUMBER}",
    rf"input length should be \[\d+, {_NUMBER}\]",
    rf"model token limit: {_NUMBER}",
)
_SIZE = _any_of(
    rf"resulted in {_NUMBER} tokens",
    rf"(?:has|contains|at least) {_NUMBER} (?:input )?tokens",
    rf"too long: {_NUMBER}",
    rf"context limit: {_NUMBER} \+",
    rf"token count (?:of )?\(?{_NUMBER}",
    rf"current length is {_NUMBER}",
    rf"(?:input|request) \({_NUMBER} tokens",
    rf"given: {_NUMBER}",
    rf"\(requested: {_NUMBER}\)",
)
_TOTAL = _any_of(rf"requested (?:about |a total of )?{_NUMBER} tokens")
_ANSWER = _any_of(
    rf"{_NUMBER} (?:tokens )?(?:in|for) the (?:completion|output)",
    rf"requested {_NUMBER} output tokens",
    rf"too large: {_NUMBER}",
    rf"context limit: \d+ \+ {_NUMBER}",
    rf"and {_NUMBER} `max_new_tokens`",
)
_OVER = _any_of(rf"exceeded (?:max context length )?by {_NUMBER}", rf"got -{_NUMBER}")
