"""How many tokens a text has, where no provider says so.

Counts with the vocabularies that OpenAI publishes; they ship in the package `rs-bpe`,
so nothing is fetched. Other vendors' models cut text a little differently: `knows` says
whose count is exact. Holds no state but the vocabularies, and never fails on what a client
or a provider may send: what cannot be read is estimated by its length.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Protocol

import msgspec
from msgspec import Raw, Struct
from rs_bpe import openai

from gateway.relay.usage import tokens_of_text

EXACT_BYTES = 64 * 1024
"""As much text is counted to the last token: 1.5 ms of English, 5 ms of random letters, during which
nothing else runs. Of more, as much is counted in pieces spread over all of it, the rest in proportion."""
PIECES = 16
MOST_TEXTS = 2000
"""More texts than these are counted as one, because each costs a microsecond by itself."""
MOST_OBJECTS = 100_000
MOST_MESSAGES = 5_000
"""No conversation has so many (OpenAI takes 2,048); a list of more is only estimated."""
MOST_SAID_BYTES = 256 * 1024
"""As much of a stream's text is kept; more counts in proportion."""

MESSAGE_TOKENS = 3
NAME_TOKENS = 1
REPLY_TOKENS = 3
"""What a chat adds to its texts, as OpenAI's cookbook has it, beside one token for the role:
https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb"""
ROLE_TOKENS = 1
PART_TOKENS = 765
"""Of anything that is not text: what OpenAI counts for an image of 1024 by 1024 pixels in
high detail. A file or a sound may be far more; only its provider knows."""
TOOLS_SHARE = 0.75
"""Tools are put to the model in a shorter form than JSON: of the cookbook's example,
which has 86 tokens as JSON, 68 are billed."""

NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SEAM = re.compile(rb"(?<!\\)(?=\\(?!u[dD][c-fC-F]))|(?<=[^\\]{12})(?=[\x00-\x7f\xc0-\xff])")
"""Between two characters of a JSON string's inside: before an escape that is no second half of a pair,
or a dozen bytes after the last one, where no character of UTF-8 is split."""
_CL100K = re.compile(r"(?:^|[/:])(?:gpt-4(?![o.\d])|gpt-3\.?5|text-embedding-|davinci-002|babbage-002)")
_OPENAI = re.compile(r"(?:^|[/:])(?:(?:chat)?gpt-|o\d|text-embedding-|davinci-002|babbage-002)")


class Vocabulary(Protocol):
    """A byte pair encoding. `count` takes special tokens such as `<|endoftext|>` for plain text."""

    def count(self, text: str, /) -> int: ...


@cache
def _o200k() -> Vocabulary:
    found: Vocabulary = openai.o200k_base()
    return found


@cache
def _cl100k() -> Vocabulary:
    found: Vocabulary = openai.cl100k_base()
    return found


@lru_cache(maxsize=1024)
def _vocabulary_of(upstream_model: str) -> Vocabulary:
    """cl100k_base for GPT-4, GPT-3.5 and the embeddings, o200k_base for all that came later."""
    return _cl100k() if _CL100K.search(upstream_model) else _o200k()


def ready() -> None:
    """Load the usual vocabulary, which takes 50 ms and 70 MB, before a call has to wait for it.

    The older one, 30 ms and 30 MB, follows when it is first needed.
    Safe from any thread, and any number of times.
    """
    _o200k()


def knows(upstream_model: str) -> bool:
    """Whether these vocabularies are this model's own, so that the count of a text is exact."""
    return _OPENAI.search(upstream_model) is not None


def count(text: str, upstream_model: str) -> int:
    """Tokens of a text; an estimate beyond EXACT_BYTES."""
    readable = text.encode(errors="replace").decode()  # half a surrogate pair is no character
    return _count(_encode(readable)[1:-1], _vocabulary_of(upstream_model))


def tokens_of_messages(messages: Raw, upstream_model: str) -> int:
    """Tokens of a prompt's messages with what a chat adds to them, by their length where they are odd."""
    found = tokens_by_message(messages, upstream_model)
    if found is None:
        return tokens_of_text(len(memoryview(messages)))
    return sum(found) + REPLY_TOKENS


def tokens_by_message(messages: Raw, upstream_model: str) -> list[int] | None:
    """Tokens of each message; None where they are no list of messages, or too many.

    Takes a few milliseconds a megabyte beside the counting itself, to find the texts.
    """
    found = _read(messages)
    if found is None:
        return None
    counted = _counter([text for each in found for text in each.texts], _vocabulary_of(upstream_model))
    return [each.tokens + sum(map(counted, each.texts)) for each in found]


def tokens_of_prompt(fields: Mapping[str, Raw], upstream_model: str) -> int:
    """Tokens of all that a model is given to read: the messages, the tools, the shape of the answer."""
    tokens = tokens_of_messages(fields["messages"], upstream_model)
    for name in ("tools", "functions", "response_format"):
        raw = bytes(fields.get(name, NULL))
        if len(raw) > 4:  # not null, [] or {}
            tokens += int(count(raw.decode(errors="replace"), upstream_model) * TOOLS_SHARE)
    return tokens


class SaidSoFar:
    """What an answer has said so far, kept only as long as it may have to be counted.

    Pieces are joined before they are counted: a token may begin in one and end in the next.
    Pieces of several choices are joined as they came, which is only near the truth.
    """

    __slots__ = ("_beyond_bytes", "_text", "_tokens")

    def __init__(self) -> None:
        self._text = bytearray()
        self._beyond_bytes = self._tokens = 0

    def add(self, raw: bytes) -> None:
        """A piece of content as JSON: a string, or whatever else a provider sends there. Never fails."""
        if raw[:1] == b'"' and len(self._text) < MOST_SAID_BYTES:
            self._text += raw[1:-1]
            return
        found = Found()
        found.content(raw)
        self._take(found)

    def add_tool_calls(self, raw: bytes) -> None:
        """The `tool_calls` of a delta or a message, as JSON: their names and arguments. Never fails."""
        found = Found()
        found.tool_calls(raw)
        self._take(found)

    @property
    def kept_bytes(self) -> int:
        """What it holds; bounded, however much was said."""
        return len(self._text)

    def tokens(self, upstream_model: str) -> int:
        """How many tokens that was."""
        tokens = _count(self._text, _vocabulary_of(upstream_model))
        if self._beyond_bytes:
            tokens += tokens * self._beyond_bytes // len(self._text)
        return tokens + self._tokens

    def _take(self, found: "Found") -> None:
        self._tokens += found.tokens
        for text in found.texts:
            if len(self._text) < MOST_SAID_BYTES:
                self._text += text
            else:
                self._beyond_bytes += len(text)


class _Message(Struct):
    role: str
    content: Raw = NULL
    name: Raw = NULL
    tool_calls: Raw = NULL
    function_call: Raw = NULL
    reasoning_content: Raw = NULL
    refusal: Raw = NULL


class _Part(Struct):
    text: Raw = NULL
    thinking: Raw = NULL
    refusal: Raw = NULL

    def said(self) -> tuple[Raw, Raw, Raw]:
        return self.text, self.thinking, self.refusal


class _Function(Struct):
    name: Raw = NULL
    arguments: Raw = NULL
    input: Raw = NULL


class _ToolCall(Struct):
    function: _Function | None = None
    custom: _Function | None = None


_messages = msgspec.json.Decoder(list[_Message]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_tool_calls = msgspec.json.Decoder(list[_ToolCall]).decode
_function = msgspec.json.Decoder(_Function).decode
_encode = msgspec.json.Encoder().encode
_string = msgspec.json.Decoder(str).decode


class Found:
    """The texts of one message, without their quotes, and the tokens of what is no text."""

    __slots__ = ("texts", "tokens")

    def __init__(self, tokens: int = 0) -> None:
        self.texts: list[bytes] = []
        self.tokens = tokens

    def message(self, message: _Message) -> None:
        """All that a model reads of a message."""
        self.content(bytes(message.content))
        if message.name is not NULL:
            self.tokens += NAME_TOKENS
            self._text(bytes(message.name))
        if message.tool_calls is not NULL:
            self.tool_calls(bytes(message.tool_calls))
        if message.function_call is not NULL:
            self._call(bytes(message.function_call))
        self._text(bytes(message.reasoning_content))
        self._text(bytes(message.refusal))

    def content(self, raw: bytes) -> None:
        """A string, or a list of parts of which some are text."""
        if raw[:1] == b"[":
            self._parts(raw)
        else:
            self._text(raw)

    def tool_calls(self, raw: bytes) -> None:
        """The names and arguments of tools that a model calls."""
        if raw in (b"null", b"[]"):
            return
        try:
            found = _tool_calls(raw)
        except _UNREADABLE:
            self.tokens += tokens_of_text(len(raw))
            return
        for each in found:
            self._function(each.function or each.custom or _Function())

    def _parts(self, raw: bytes, inner: bool = False) -> None:
        """Parts may hold parts once more: so Mistral's models send what they think."""
        try:
            found = _parts(raw)
        except _UNREADABLE:
            self.tokens += tokens_of_text(len(raw))
            return
        for part in found:
            said = bytes(next((each for each in part.said() if each is not NULL), b""))
            if not said:
                self.tokens += PART_TOKENS
            elif said[:1] == b"[" and not inner:
                self._parts(said, inner=True)
            else:
                self._text(said)

    def _call(self, raw: bytes) -> None:
        try:
            self._function(_function(raw))
        except _UNREADABLE:
            self.tokens += tokens_of_text(len(raw))

    def _function(self, function: _Function) -> None:
        for each in (function.name, function.arguments, function.input):
            if each is not NULL:
                self._text(bytes(each))

    def _text(self, raw: bytes) -> None:
        if raw[:1] == b'"':
            self.texts.append(raw[1:-1])
        elif raw != b"null":  # no text, though it should be
            self.tokens += tokens_of_text(len(raw))


def _read(messages: Raw) -> list[Found] | None:
    raw = memoryview(messages)
    if bytes(raw).count(b"{") > MOST_OBJECTS:  # cheap, and bounds what is made below
        return None
    try:
        decoded = _messages(raw)
    except _UNREADABLE:
        return None
    if len(decoded) > MOST_MESSAGES:
        return None
    found = []
    for message in decoded:
        one = Found(MESSAGE_TOKENS + ROLE_TOKENS)
        one.message(message)
        found.append(one)
    return found


def _counter(texts: Sequence[bytes], vocabulary: Vocabulary) -> Callable[[bytes], int]:
    """Counts one of the texts: exactly if they are few and short together, else by the tokens
    a byte that they have on average."""
    size = sum(map(len, texts))
    if size <= EXACT_BYTES and len(texts) <= MOST_TEXTS:
        return lambda text: _count(text, vocabulary)
    rate = _count(b"".join(texts), vocabulary) / max(1, size)
    return lambda text: round(len(text) * rate)


def _count(text: bytes | bytearray, vocabulary: Vocabulary) -> int:
    """Tokens of what is inside a JSON string; of a long one in proportion to pieces of it."""
    if len(text) <= EXACT_BYTES:
        return _exactly(text, vocabulary)
    pieces = _sample(text)
    tokens = sum(_exactly(each, vocabulary) for each in pieces)
    return tokens * len(text) // sum(map(len, pieces))


def _exactly(text: bytes | bytearray, vocabulary: Vocabulary) -> int:
    try:
        return vocabulary.count(_string(b'"' + text + b'"'))
    except _UNREADABLE:
        return tokens_of_text(len(text))


def _sample(text: bytes | bytearray) -> list[bytes | bytearray]:
    """Pieces, evenly spread, of about EXACT_BYTES together."""
    length, step = EXACT_BYTES // PIECES, len(text) // PIECES
    starts = range(0, len(text) - length, step)
    return [text[_seam(text, at) : _seam(text, at + length)] for at in starts]


def _seam(text: bytes | bytearray, at: int) -> int:
    """The next place where the text may be cut."""
    found = _SEAM.search(text, at, at + 64)
    return found.start() if found else at
