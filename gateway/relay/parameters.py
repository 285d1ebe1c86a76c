"""One program for every model of a route: what a target does not take is refused, dropped or translated.

Pure: a call's top-level values and a target's rules in, values out. What no rule names is not
looked at. Does not say which target is tried instead, nor how a client is told.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct

from gateway.relay.catalog import Rule
from gateway.relay.tokenizer import MOST_MESSAGES, MOST_OBJECTS

OURS = frozenset({"model", "messages", "stream"})
"""What the gateway acts on itself, so that no rule is for it."""
ASKING_USAGE = "stream_options"
"""The gateway writes it into every stream's call, to be told its usage; a target may know no such thing."""
DEVELOPER = "developer"
"""Names no parameter but a role of messages, which newer OpenAI models know beside `system`."""

NULL = Raw(b"null")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)
_SAYS_DEVELOPER = re.compile(rb'"developer"')
_UNREADABLE = (msgspec.DecodeError, RecursionError)
_LONGEST_NO_OP = 64
_NO_OPS: Mapping[str, object] = {
    "frequency_penalty": 0,
    "function_call": "auto",
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "metadata": {},
    "modalities": ["text"],
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "stop": [],
    "store": False,
    "temperature": 1,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
}
"""Values that ask for what happens anyway, by OpenAI's reference of chat completions."""
_FOLLOWERS: Mapping[str, tuple[str, ...]] = {
    "functions": ("function_call",),
    "logprobs": ("top_logprobs",),
    "tools": ("tool_choice", "parallel_tool_calls"),
}
"""What makes no sense without another parameter, and is rejected then."""
_SAME: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_completion_tokens",
}


class ParameterNotTaken(Exception):
    """A target refuses this parameter. Says so in a sentence, and what to do."""

    def __init__(self, param: str, sentence: str) -> None:
        super().__init__(sentence)
        self.param = param


class Adjusted(Struct, frozen=True):
    """A call's values as one target takes them, and what was done for that."""

    fields: dict[str, Raw]
    dropped: tuple[str, ...] = ()
    """Without those that asked for nothing."""
    translated: tuple[str, ...] = ()


def adjusted(fields: dict[str, Raw], rules: Mapping[str, Rule]) -> Adjusted:
    """The values by a target's rules; the very same ones where no rule concerns them.

    A parameter that is null or asks for what happens anyway is left out without further ado.
    Raises ParameterNotTaken.
    """
    concerned = [name for name in rules if _is_there(name, fields)]
    if not concerned:
        return Adjusted(fields)
    new = dict(fields)
    dropped: list[str] = []
    translated: list[str] = []
    for name in concerned:
        if name not in new and name != DEVELOPER:
            continue  # went with what it followed
        if _asks_for_nothing(name, new):
            _drop(name, new)
        elif rules[name] == "refuse":
            _refuse(name, new)
        elif rules[name] == "drop":
            dropped += _drop(name, new)
        elif _TRANSLATIONS[name](new):
            translated.append(name)
        elif name in _SAME:  # both were there; the other one is kept
            dropped.append(name)
    if not translated and len(new) == len(fields):
        return Adjusted(fields)
    return Adjusted(new, tuple(dropped), tuple(translated))


def check_rules(rules: Mapping[Any, Any]) -> None:
    """Raises ValueError with a sentence where a target cannot have these rules."""
    for name, rule in rules.items():
        _check_name(name)
        if rule not in get_args(Rule):
            raise ValueError(f"The rule for '{name}' is one of {', '.join(get_args(Rule))}.")
        if rule == "translate" and name not in TRANSLATABLE:
            raise ValueError(
                f"'{name}' cannot be translated, only refused or dropped. "
                f"Translations exist for {', '.join(sorted(TRANSLATABLE))}."
            )
        if name == ASKING_USAGE and rule != "drop":
            raise ValueError(
                f"'{ASKING_USAGE}' can only be dropped: the gateway sends it itself, to be told the usage."
            )
        if rule == "drop" and name == DEVELOPER:
            raise ValueError("Developer messages cannot be dropped, only refused or translated to system.")
        if rule == "translate" and _SAME.get(name) in rules:
            raise ValueError(f"'{name}' is translated to '{_SAME[name]}', so that one must be taken.")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "A rule is for a parameter of chat completions, such as 'logprobs': a letter, then at most 63 "
            "letters, digits, underscores, dots or hyphens."
        )
    if name in OURS:
        raise ValueError(f"'{name}' is the gateway's own: it needs no rule.")


def _is_there(name: str, fields: dict[str, Raw]) -> bool:
    if name == DEVELOPER:
        return _SAYS_DEVELOPER.search(memoryview(fields["messages"])) is not None
    return name in fields


def _asks_for_nothing(name: str, fields: dict[str, Raw]) -> bool:
    raw = bytes(fields.get(name, b""))
    if raw == b"null":
        return True
    if name not in _NO_OPS or not 0 < len(raw) <= _LONGEST_NO_OP:
        return False
    no_op = _NO_OPS[name]
    try:
        value = msgspec.json.decode(raw)
    except _UNREADABLE:  # a number out of range: 1e999
        return False
    return value == no_op and isinstance(value, bool) is isinstance(no_op, bool)


def _drop(name: str, fields: dict[str, Raw]) -> list[str]:
    """The names that were dropped: this one, and those that make no sense without it."""
    gone = [each for each in (name, *_FOLLOWERS.get(name, ())) if each in fields]
    for each in gone:
        del fields[each]
    return gone


def _refuse(name: str, fields: dict[str, Raw]) -> None:
    if name == DEVELOPER:
        if DEVELOPER in _roles(fields["messages"]):
            raise ParameterNotTaken(
                "messages", "messages of the role 'developer' are not supported. Use the role 'system'."
            )
        return
    instead = f"Use '{_SAME[name]}' instead" if name in _SAME else "Leave it out"
    raise ParameterNotTaken(name, f"'{name}' is not supported. {instead}, or use another model.")


def _rename(old: str) -> Callable[[dict[str, Raw]], bool]:
    """The same bound of output tokens under its other name; one that is there already is kept."""
    new = _SAME[old]

    def translate(fields: dict[str, Raw]) -> bool:
        value = fields.pop(old)
        if bytes(fields.get(new, NULL)) != b"null":
            return False
        fields[new] = value
        return True

    return translate


class _Format(Struct):
    type: str
    json_schema: dict[str, Raw] | None = None


def _state_schema(fields: dict[str, Raw]) -> bool:
    """A JSON schema becomes JSON of any shape, with the schema stated in the system message.

    Whether the answer keeps to the schema is then up to the model.
    """
    try:
        wanted = msgspec.json.decode(fields["response_format"], type=_Format)
    except _UNREADABLE:
        return False  # the provider can say best what is wrong with it
    if wanted.type != "json_schema" or not wanted.json_schema:
        return False
    schema = bytes(wanted.json_schema.get("schema", b"{}")).decode()
    instruction = (
        f"Answer with one JSON object and nothing else. It must be valid by this JSON Schema:\n{schema}"
    )
    fields["messages"] = _list(_with_instruction(_messages(fields, "response_format"), instruction))
    fields["response_format"] = Raw(b'{"type":"json_object"}')
    return True


def _with_instruction(messages: list[Raw], instruction: str) -> list[Raw]:
    """The instruction at the end of a leading system message, because some models take only one;
    without one it goes before all."""
    if messages and _role(messages[0]) in ("system", DEVELOPER):
        first = msgspec.json.decode(messages[0], type=dict[str, Raw])
        try:
            content = msgspec.json.decode(first.get("content", NULL), type=str)
        except msgspec.ValidationError:  # parts, or none: it stays as it is
            pass
        else:
            first["content"] = Raw(msgspec.json.encode(f"{content}\n\n{instruction}"))
            return [Raw(msgspec.json.encode(first)), *messages[1:]]
    return [Raw(msgspec.json.encode({"role": "system", "content": instruction})), *messages]


def _developer_to_system(fields: dict[str, Raw]) -> bool:
    roles = _roles(fields["messages"])
    if DEVELOPER not in roles:
        return False
    messages = _messages(fields, "messages")
    fields["messages"] = _list(
        [_as_system(each) if role == DEVELOPER else each for role, each in zip(roles, messages, strict=True)]
    )
    return True


def _as_system(message: Raw) -> Raw:
    said = msgspec.json.decode(message, type=dict[str, Raw])
    said["role"] = Raw(b'"system"')
    return Raw(msgspec.json.encode(said))


class _Spoken(Struct):
    role: str = ""


_spoken = msgspec.json.Decoder(list[_Spoken]).decode
_one_spoken = msgspec.json.Decoder(_Spoken).decode


def _roles(messages: Raw) -> list[str]:
    """Each message's role; none where one of them is no message: its provider can say best what is wrong."""
    _check_number(messages, "messages")
    try:
        roles = [each.role for each in _spoken(messages)]
    except msgspec.ValidationError:
        return []
    except _UNREADABLE:
        raise _too_deep("messages") from None
    if len(roles) > MOST_MESSAGES:
        raise _too_many("messages")
    return roles


def _role(message: Raw) -> str:
    try:
        return _one_spoken(message).role
    except _UNREADABLE:
        return ""


def _messages(fields: dict[str, Raw], param: str) -> list[Raw]:
    _check_number(fields["messages"], param)
    try:
        found = msgspec.json.decode(fields["messages"], type=list[Raw])
    except _UNREADABLE:  # the body was read whole with the stack a little less deep
        raise _too_deep(param) from None
    if len(found) > MOST_MESSAGES:
        raise _too_many(param)
    return found


def _check_number(messages: Raw, param: str) -> None:
    """Cheap, and bounds what is made of them. Raises ParameterNotTaken."""
    if bytes(messages).count(b"{") > MOST_OBJECTS:
        raise _too_many(param)


def _too_deep(param: str) -> ParameterNotTaken:
    return ParameterNotTaken(param, "the messages are nested too deep to be translated.")


def _too_many(param: str) -> ParameterNotTaken:
    return ParameterNotTaken(
        param,
        f"the messages are more than {MOST_MESSAGES}, or have more than {MOST_OBJECTS} '{{' in them, "
        "which is too many to be translated. Send fewer.",
    )


def _list(messages: list[Raw]) -> Raw:
    return Raw(b"[%b]" % b",".join(bytes(each) for each in messages))


_TRANSLATIONS: Mapping[str, Callable[[dict[str, Raw]], bool]] = {
    "max_tokens": _rename("max_tokens"),
    "max_completion_tokens": _rename("max_completion_tokens"),
    "response_format": _state_schema,
    DEVELOPER: _developer_to_system,
}
"""Each changes the values in place and says whether there was anything to translate."""
TRANSLATABLE = frozenset(_TRANSLATIONS)
