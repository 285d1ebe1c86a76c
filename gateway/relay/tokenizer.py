"""How many tokens a text has, where no provider says so.

Counts with the vocabularies that OpenAI publishes; they ship in the package `rs-bpe`,
so nothing is fetched. Other vendors' models cut text a little differently: `knows` says
whose count is exact. Holds no state but the vocabularies, and never fails on what a client
or a provider may send: what cannot be read is estimated by its length.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct
from rs_bpe import openai

from gateway.relay.usage import tokens_of_text

EXACT_BYTES = 32 * 1024
"""As much text is counted to the last token: 1 ms of English, 6 ms of random letters, during which
nothing else runs. Of more, as much is counted in pieces spread over all of it, the rest in proportion."""
EXACT_TOOLS_BYTES = 8 * 1024
"""The same of tools, whose count is an estimate in any case."""
PIECES = 16
MOST_TEXTS = 2000
"""More texts than these are counted as one, because each costs a microsecond by itself."""
MOST_OBJECTS = 50_000
"""Messages with more are not read at all, only estimated: to make so many takes 2 ms."""
MOST_MESSAGES = 2_500
"""No conversation has so many (OpenAI takes 2,048); a list of more is only estimated."""
MOST_PARTS = 2_000
"""As many parts, calls of tools and values beside the content are looked at, at a microsecond or two each;
what comes after is estimated."""
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

T = TypeVar("T")
NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SLOW_RUNS = ("-" * 128, "=" * 128, "*" * 128, "/" * 128, "#" * 128, "\t" * 32)
"""What takes `rs-bpe` a microsecond a byte and more, ten times what random letters take: a run longer
than a token whose every beginning is a token too. Found by repeating each token of both vocabularies."""
_SEAM = re.compile(rb"(?<!\\)(?=\\(?!u[dD][c-fC-F]))|(?<=[^\\]{12})(?=[\x00-\x7f\xc0-\xff])")
"""Between two characters of a JSON string's inside: before an escape that is no second half of a pair,
or a dozen bytes after the last one, where no character of UTF-8 is split."""
_CL100K = re.compile(r"(?:^|[/:])(?:gpt-4(?![o.\d])|gpt-3\.?5|text-embedding-|davinci-002|babbage-002)")
_OPENAI = re.compile(r"(?:^|[/:])(?:(?:chat)?gpt-|o\d|text-embedding-|davinci-002|babbage-002)")


class Vocabulary(Protocol):
    """A byte pair encoding. `count` takes special tokens such as `<|endoftext|>` for plain text."""

    def count(self, text: str, /) -> int: ...

    def __hash__(self) -> int: ...


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
    return _together(tokens_by_message(messages, upstream_model), messages)


def _together(by_message: list[int] | None, messages: Raw) -> int:
    if by_message is None:
        return tokens_of_text(len(memoryview(messages)))
    return sum(by_message) + REPLY_TOKENS


def tokens_by_message(messages: Raw, upstream_model: str) -> list[int] | None:
    """Tokens of each message; None where they are no list of messages, or too many.

    Takes 1 to 4 ms a megabyte beside the counting itself, to find the texts: as long again
    as the body took to be read, or two or three times that.
    """
    found = _read(messages)
    if found is None:
        return None
    counted = _counter([text for each in found for text in each.texts], _vocabulary_of(upstream_model))
    return [each.tokens + sum(map(counted, each.texts)) for each in found]


def tokens_of_prompt(fields: Mapping[str, Raw], upstream_model: str) -> int:
    """Tokens of all that a model is given to read: the messages, the tools, the shape of the answer."""
    messages = tokens_of_messages(fields["messages"], upstream_model)
    return messages + tokens_of_tools(fields, upstream_model)


def tokens_of_tools(fields: Mapping[str, Raw], upstream_model: str) -> int:
    """Tokens of what a model is given to read beside the messages; an estimate."""
    values = [bytes(each) for each in _tools(fields)]
    text = b"\n".join(each for each in values if len(each) > 4)  # not null, [] or {}
    vocabulary = _vocabulary_of(upstream_model)
    pieces = _pieces(text, EXACT_TOOLS_BYTES)
    tokens = sum(_tokens(each.decode(errors="replace"), vocabulary) for each in pieces)
    return int(_in_proportion(tokens, pieces, text) * TOOLS_SHARE)


class Counts:
    """What was counted of one call, so that targets with the same vocabulary share one count.

    Made for the time of one decision, because it keeps the messages that it counted.
    """

    __slots__ = ("_messages", "_tools")

    def __init__(self) -> None:
        self._messages: list[tuple[Vocabulary, Raw, list[int] | None]] = []
        self._tools: list[tuple[Vocabulary, tuple[Raw, ...], int]] = []

    def by_message(self, messages: Raw, upstream_model: str) -> list[int] | None:
        """As `tokens_by_message`."""
        vocabulary = _vocabulary_of(upstream_model)
        for known, counted, found in self._messages:
            if known is vocabulary and counted == messages:
                return found
        found = tokens_by_message(messages, upstream_model)
        self._messages.append((vocabulary, messages, found))
        return found

    def of_tools(self, fields: Mapping[str, Raw], upstream_model: str) -> int:
        """As `tokens_of_tools`."""
        vocabulary, tools = _vocabulary_of(upstream_model), _tools(fields)
        for known, counted, found in self._tools:
            if known is vocabulary and counted == tools:
                return found
        found = tokens_of_tools(fields, upstream_model)
        self._tools.append((vocabulary, tools, found))
        return found

    def of_prompt(self, fields: Mapping[str, Raw], upstream_model: str) -> int:
        """As `tokens_of_prompt`."""
        found = self.by_message(fields["messages"], upstream_model)
        return _together(found, fields["messages"]) + self.of_tools(fields, upstream_model)


def _tools(fields: Mapping[str, Raw]) -> tuple[Raw, ...]:
    return tuple(fields.get(name, NULL) for name in ("tools", "functions", "response_format"))


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
        if raw.count(b"{") > MOST_OBJECTS:
            found.tokens = tokens_of_text(len(raw))
        else:
            found.content(raw)
        self._take(found)

    def add_tool_calls(self, raw: bytes) -> None:
        """The `tool_calls` of a delta or a message, as JSON: their names and arguments. Never fails."""
        found = Found()
        if raw.count(b"{") > MOST_OBJECTS:
            found.tokens = tokens_of_text(len(raw))
        else:
            found.tool_calls(raw)
        self._take(found)

    @property
    def kept_bytes(self) -> int:
        """What it holds; bounded, however much was said."""
        return len(self._text)

    @property
    def most_tokens(self) -> int:
        """As many as it may be at most, at no cost: a token is at least one byte."""
        return len(self._text) + self._beyond_bytes + self._tokens

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

    def said(self) -> bytes:
        """What of it is text, as JSON; empty where nothing is."""
        for each in (self.text, self.thinking, self.refusal):
            if each is not NULL:
                return bytes(each)
        return b""


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

    __slots__ = ("parts_left", "texts", "tokens")

    def __init__(self, tokens: int = 0, parts_left: int = MOST_PARTS) -> None:
        self.texts: list[bytes] = []
        self.tokens = tokens
        self.parts_left = parts_left
        """As many may still be looked at, of those that MOST_PARTS counts."""

    def message(self, message: _Message) -> None:
        """All that a model reads of a message."""
        self.content(bytes(message.content))
        if message.name is not NULL:
            self.tokens += NAME_TOKENS
            self._beside(self._text, message.name)
        if message.tool_calls is not NULL:
            self._beside(self.tool_calls, message.tool_calls)
        if message.function_call is not NULL:
            self._beside(self._call, message.function_call)
        if message.reasoning_content is not NULL:
            self._beside(self._text, message.reasoning_content)
        if message.refusal is not NULL:
            self._beside(self._text, message.refusal)

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
        for each in self._few(_tool_calls, raw):
            self._function(each.function or each.custom or _Function())

    def _parts(self, raw: bytes, inner: bool = False) -> None:
        """Parts may hold parts once more: so Mistral's models send what they think."""
        for part in self._few(_parts, raw):
            said = part.said()
            if not said:
                self.tokens += PART_TOKENS
            elif said[:1] == b"[" and not inner:
                self._parts(said, inner=True)
            else:
                self._text(said)

    def _few(self, read: Callable[[bytes], list[T]], raw: bytes) -> list[T]:
        """The list; none of it where it is another shape or too long, and then it is estimated."""
        try:
            found = read(raw) if self.parts_left > 0 else None
        except _UNREADABLE:
            found = None
        taken = 1 if found is None else len(found)
        self.parts_left -= taken
        if found is None or self.parts_left < 0:
            self.tokens += tokens_of_text(len(raw))
            return []
        return found

    def _beside(self, look: Callable[[bytes], None], raw: Raw) -> None:
        """Look at a value beside the content, or only estimate it."""
        if self.parts_left > 0:
            self.parts_left -= 1
            look(bytes(raw))
        else:
            self.tokens += tokens_of_text(len(bytes(raw)))

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
    raw = bytes(messages)
    if raw.count(b"{") > MOST_OBJECTS:  # cheap, and bounds what is made below
        return None
    try:
        decoded = _messages(raw)
    except _UNREADABLE:
        return None
    if len(decoded) > MOST_MESSAGES:
        return None
    found = []
    parts_left = MOST_PARTS
    for message in decoded:
        one = Found(MESSAGE_TOKENS + ROLE_TOKENS, parts_left)
        one.message(message)
        found.append(one)
        parts_left = one.parts_left
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
    pieces = _pieces(text, EXACT_BYTES)
    return _in_proportion(sum(_inside(each, vocabulary) for each in pieces), pieces, text)


def _inside(text: bytes | bytearray, vocabulary: Vocabulary) -> int:
    try:
        return _tokens(_string(b'"' + text + b'"'), vocabulary)
    except _UNREADABLE:
        return tokens_of_text(len(text))


def _tokens(text: str, vocabulary: Vocabulary) -> int:
    """Tokens of a text, nearly exact where it has runs of one sign that are longer than any token."""
    tokens = 0
    for run in _SLOW_RUNS:
        if run in text:
            tokens += round(text.count(run) * _tokens_of_run(run, vocabulary))
            text = text.replace(run, " ")
    return tokens + vocabulary.count(text)


@cache
def _tokens_of_run(run: str, vocabulary: Vocabulary) -> float:
    return vocabulary.count(run * 8) / 8


def _pieces(text: bytes | bytearray, exact_bytes: int) -> list[bytes | bytearray]:
    """All of a text that is short enough, else pieces, evenly spread, of about so many bytes together."""
    if len(text) <= exact_bytes:
        return [text]
    length, step = exact_bytes // PIECES, len(text) // PIECES
    starts = range(0, len(text) - length, step)
    return [text[_seam(text, at) : _seam(text, at + length)] for at in starts]


def _in_proportion(tokens: int, pieces: list[bytes | bytearray], text: bytes | bytearray) -> int:
    return tokens * len(text) // max(1, sum(map(len, pieces)))


def _seam(text: bytes | bytearray, at: int) -> int:
    """The next place where the text may be cut."""
    found = _SEAM.search(text, at, at + 64)
    return found.start() if found else at
