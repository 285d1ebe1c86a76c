import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.relay.catalog import Rule
from gateway.relay.parameters import DEVELOPER, TRANSLATABLE, ParameterNotTaken, adjusted, check_rules

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}, "required": ["größe"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "size", "strict": True, "schema": SCHEMA}}


def fields(messages: object = HELLO, **values: object) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in {"messages": messages, **values}.items()}


def plain(found: dict[str, Raw]) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in found.items()}


def messages_of(found: dict[str, Raw]) -> list[dict[str, Any]]:
    return list(json.loads(bytes(found["messages"])))


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {
            "logprobs": "refuse",
            "tools": "drop",
            "max_completion_tokens": "translate",
            "developer": "translate",
        },
    ],
)
def test_a_call_that_no_rule_concerns_is_the_very_same(rules: dict[str, Rule]) -> None:
    given = fields(temperature=0.5, max_tokens=7)

    found = adjusted(given, rules)

    assert found.fields is given
    assert (found.dropped, found.translated) == ((), ())


def test_the_call_itself_is_never_changed() -> None:
    given = fields(max_tokens=7, seed=1)
    before = dict(given)

    adjusted(given, {"max_tokens": "translate", "seed": "drop"})

    assert given == before


def test_a_refused_parameter_is_named_with_what_to_do() -> None:
    with pytest.raises(ParameterNotTaken) as why:
        adjusted(fields(seed=5), {"seed": "refuse"})

    assert why.value.param == "seed"
    assert str(why.value) == "'seed' is not supported. Leave it out, or use another model."


def test_a_refused_name_for_the_bound_says_which_one_is_taken() -> None:
    with pytest.raises(ParameterNotTaken) as why:
        adjusted(fields(max_tokens=5), {"max_tokens": "refuse"})

    assert "Use 'max_completion_tokens' instead" in str(why.value)


def test_a_dropped_parameter_leaves_the_others_in_their_bytes() -> None:
    given = {**fields(seed=5), "temperature": Raw(b" 0.50e0")}

    found = adjusted(given, {"seed": "drop"})

    assert "seed" not in found.fields
    assert found.fields["temperature"] is given["temperature"]
    assert found.dropped == ("seed",)


NO_OPS: list[tuple[str, object]] = [
    ("n", 1),
    ("n", 1.0),
    ("n", None),
    ("seed", None),
    ("logprobs", False),
    ("top_logprobs", 0),
    ("tools", []),
    ("tools", None),
    ("tool_choice", "auto"),
    ("parallel_tool_calls", True),
    ("functions", []),
    ("function_call", "auto"),
    ("response_format", {"type": "text"}),
    ("response_format", None),
    ("max_tokens", None),
    ("temperature", 1),
    ("temperature", 1.0),
    ("top_p", 1),
    ("frequency_penalty", 0.0),
    ("presence_penalty", 0),
    ("logit_bias", {}),
    ("metadata", {}),
    ("modalities", ["text"]),
    ("service_tier", "auto"),
    ("stop", []),
    ("store", False),
]


@pytest.mark.parametrize("rule", ["refuse", "drop", "translate"])
@pytest.mark.parametrize(("name", "value"), NO_OPS)
def test_what_asks_for_nothing_is_left_out_without_further_ado(name: str, value: object, rule: Rule) -> None:
    found = adjusted(fields(**{name: value}), {name: rule})

    assert list(found.fields) == ["messages"]
    assert (found.dropped, found.translated) == ((), ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("n", "1"),
        ("logprobs", True),
        ("logprobs", 0),
        ("tools", TOOLS),
        ("tool_choice", "none"),
        ("parallel_tool_calls", False),
        ("parallel_tool_calls", 1),
        ("response_format", {"type": "json_object"}),
        ("temperature", 0),
        ("modalities", ["text", "audio"]),
        ("seed", 0),
        ("stop", ["x" * 100]),
    ],
)
def test_what_asks_for_something_is_refused(name: str, value: object) -> None:
    with pytest.raises(ParameterNotTaken):
        adjusted(fields(**{name: value}), {name: "refuse"})


@pytest.mark.parametrize(
    ("rules", "given", "left"),
    [
        ({"tools": "drop"}, {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False}, {}),
        ({"functions": "drop"}, {"functions": TOOLS, "function_call": "auto"}, {}),
        ({"logprobs": "drop"}, {"logprobs": True, "top_logprobs": 5, "n": 2}, {"n": 2}),
    ],
)
def test_what_makes_no_sense_without_the_other_goes_with_it(
    rules: dict[str, Rule], given: dict[str, object], left: dict[str, object]
) -> None:
    found = adjusted(fields(**given), rules)

    assert plain(found.fields) == {"messages": HELLO, **left}
    assert found.dropped == tuple(name for name in given if name not in left)


def test_the_choice_of_a_tool_goes_with_tools_that_are_none() -> None:
    found = adjusted(fields(tools=[], tool_choice="none"), {"tools": "refuse"})

    assert list(found.fields) == ["messages"]


def test_a_rule_for_what_is_gone_already_has_nothing_to_say() -> None:
    rules: dict[str, Rule] = {"tools": "drop", "tool_choice": "refuse"}

    found = adjusted(fields(tools=TOOLS, tool_choice="required"), rules)

    assert found.dropped == ("tools", "tool_choice")


@pytest.mark.parametrize(
    ("old", "new"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
def test_the_bound_of_output_tokens_goes_by_the_name_that_is_taken(old: str, new: str) -> None:
    rules: dict[str, Rule] = {old: "translate"}

    alone = adjusted(fields(**{old: 7}), rules)
    both = adjusted(fields(**{old: 7, new: 9}), rules)
    null = adjusted(fields(**{old: 7, new: None}), rules)

    assert plain(alone.fields) == {"messages": HELLO, new: 7}
    assert (alone.dropped, alone.translated) == ((), (old,))
    assert plain(both.fields) == {"messages": HELLO, new: 9}
    assert (both.dropped, both.translated) == ((old,), ())
    assert plain(null.fields) == {"messages": HELLO, new: 7}


def test_a_json_schema_becomes_json_with_the_schema_in_a_system_message() -> None:
    found = adjusted(fields(response_format=FORMAT), {"response_format": "translate"})

    first, *rest = messages_of(found.fields)
    assert plain(found.fields)["response_format"] == {"type": "json_object"}
    assert first["role"] == "system"
    assert "JSON" in first["content"]
    assert json.loads(first["content"].split("\n", 1)[1]) == SCHEMA
    assert rest == HELLO
    assert found.translated == ("response_format",)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_schema_joins_a_system_message_that_is_there(role: str) -> None:
    given = fields([{"role": role, "content": "Be brief.", "name": "x"}, *HELLO], response_format=FORMAT)

    first, *rest = messages_of(adjusted(given, {"response_format": "translate"}).fields)

    assert (first["role"], first["name"]) == (role, "x")
    assert first["content"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert rest == HELLO


@pytest.mark.parametrize("content", [[{"type": "text", "text": "Be brief."}], None])
def test_a_system_message_that_is_no_text_stays_as_it_is(content: object) -> None:
    theirs = [{"role": "system", "content": content}, *HELLO]

    first, *rest = messages_of(
        adjusted(fields(theirs, response_format=FORMAT), {"response_format": "translate"}).fields
    )

    assert first["role"] == "system"
    assert rest == theirs


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object"},
        {"type": "grammar", "grammar": "x"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {}},
        {"type": 5},
        "json",
        [],
    ],
)
def test_a_format_that_is_no_schema_goes_up_as_it_is(wanted: object) -> None:
    given = fields(response_format=wanted)

    assert adjusted(given, {"response_format": "translate"}).fields is given


def test_developer_messages_become_system_messages_and_others_keep_their_bytes() -> None:
    theirs = b'{ "role": "user", "content": "a \\"developer\\" \\u00e9", "name":"developer" }'
    given = {"messages": Raw(b'[{"role":"developer","content":"Be \\u0062rief.","x":1.0e0},' + theirs + b"]")}

    found = adjusted(given, {"developer": "translate"})

    assert bytes(found.fields["messages"]) == (
        b'[{"role":"system","content":"Be \\u0062rief.","x":1.0e0},' + theirs + b"]"
    )
    assert found.translated == ("developer",)


def test_developer_messages_can_be_refused() -> None:
    with pytest.raises(ParameterNotTaken) as why:
        adjusted(fields([{"role": "developer", "content": "x"}]), {"developer": "refuse"})

    assert why.value.param == "messages"
    assert "Use the role 'system'" in str(why.value)


@pytest.mark.parametrize("rule", ["refuse", "translate"])
@pytest.mark.parametrize(
    "messages",
    [HELLO, [{"role": "user", "name": "developer", "content": '"developer"'}], ["developer"], [], [5]],
)
def test_a_developer_who_is_no_role_is_nobody(messages: object, rule: Rule) -> None:
    given = fields(messages)

    assert adjusted(given, {"developer": rule}).fields is given


def test_the_developers_schema_ends_in_a_system_message() -> None:
    given = fields([{"role": "developer", "content": "Be brief."}, *HELLO], response_format=FORMAT)
    rules: dict[str, Rule] = {"developer": "translate", "response_format": "translate"}

    first, *_ = messages_of(adjusted(given, rules).fields)

    assert first["role"] == "system"
    assert "JSON Schema" in first["content"]


FLOODS = [
    b"[" + b"{}," * 3_000 + b'{"role":"developer"}]',
    b"[" + b"{}," * 200_000 + b'{"role":"developer"}]',
    b"[" + b'{"role":"developer"},' * 60_000 + b"{}]",
    b'["developer",' + b"{}," * 200_000 + b"{}]",
]


@pytest.mark.parametrize("rule", ["refuse", "translate"])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_messages_is_refused_instead_of_looked_through(flood: bytes, rule: Rule) -> None:
    with pytest.raises(ParameterNotTaken, match=r"Send fewer\.$") as why:
        adjusted({"messages": Raw(flood)}, {DEVELOPER: rule})

    assert why.value.param == "messages"


def test_a_flood_of_messages_gets_no_schema() -> None:
    given = {"messages": Raw(FLOODS[1]), "response_format": fields(response_format=FORMAT)["response_format"]}

    with pytest.raises(ParameterNotTaken, match="Send fewer") as why:
        adjusted(given, {"response_format": "translate"})

    assert why.value.param == "response_format"


def test_a_flood_of_messages_that_no_rule_concerns_goes_up_as_it_is() -> None:
    given = {"messages": Raw(b"[" + b"{}," * 200_000 + b"{}]")}

    assert adjusted(given, {DEVELOPER: "refuse", "response_format": "translate"}).fields is given


@pytest.mark.parametrize("rule", ["refuse", "translate"])
@pytest.mark.parametrize("odd", [b"5", b'"x"', b"null", b"[]", b'{"role":5}', b'{"role":null}'])
def test_messages_of_which_one_is_none_are_left_to_the_provider(odd: bytes, rule: Rule) -> None:
    given = {"messages": Raw(b'[{"role":"developer","content":"x"},' + odd + b"]")}

    assert adjusted(given, {DEVELOPER: rule}).fields is given


@pytest.mark.parametrize("rule", ["refuse", "drop"])
@pytest.mark.parametrize("value", [b"1e999", b"-1e999", b"1e400", b"9" * 60])
def test_a_number_out_of_all_range_asks_for_something(value: bytes, rule: Rule) -> None:
    given = {**fields(), "temperature": Raw(value)}

    if rule == "refuse":
        with pytest.raises(ParameterNotTaken, match="'temperature' is not supported"):
            adjusted(given, {"temperature": rule})
    else:
        assert adjusted(given, {"temperature": rule}).dropped == ("temperature",)


def test_messages_that_are_nested_too_deep_are_refused_instead_of_translated() -> None:
    deep = {"messages": Raw(b'[{"role":"developer","content":' + b"[" * 50_000 + b"]" * 50_000 + b"}]")}

    with pytest.raises(ParameterNotTaken, match="too deep"):
        adjusted(deep, {"developer": "translate"})


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"max_tokens": "translate"},
        {"max_tokens": "refuse", "max_completion_tokens": "drop"},
        {"developer": "refuse", "chat_template_kwargs": "drop", "top_k": "refuse", "extra.x-y": "drop"},
    ],
)
def test_rules_that_make_sense_pass(rules: dict[str, str]) -> None:
    check_rules(rules)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"model": "drop"}, "gateway's own"),
        ({"messages": "refuse"}, "gateway's own"),
        ({"stream": "drop"}, "gateway's own"),
        ({"stream_options": "refuse"}, "only be dropped"),
        ({"": "drop"}, "a letter"),
        ({"7up": "drop"}, "a letter"),
        ({"größe": "drop"}, "a letter"),
        ({"x" * 65: "drop"}, "a letter"),
        ({5: "drop"}, "a letter"),
        ({"seed": "ignore"}, "refuse, drop, translate"),
        ({"seed": None}, "refuse, drop, translate"),
        ({"seed": ["drop"]}, "refuse, drop, translate"),
        ({"seed": "translate"}, "cannot be translated"),
        ({"developer": "drop"}, "Developer messages"),
        ({"max_tokens": "translate", "max_completion_tokens": "refuse"}, "must be taken"),
        ({"max_tokens": "translate", "max_completion_tokens": "translate"}, "must be taken"),
    ],
)
def test_rules_that_make_no_sense_get_a_sentence(rules: dict[object, object], says: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as why:
        check_rules(rules)

    assert says in str(why.value)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)
NAMES = st.sampled_from(
    ["n", "tools", "tool_choice", "logprobs", "max_tokens", "max_completion_tokens", "seed"]
)


@given(
    st.dictionaries(NAMES, VALUES),
    st.dictionaries(NAMES, st.sampled_from(["drop", "translate"])),
    st.lists(VALUES),
)
def test_whatever_a_client_sends_no_ruled_name_is_left(
    values: dict[str, object], rules: dict[str, Any], messages: list[object]
) -> None:
    rules = {name: rule if name in TRANSLATABLE else "drop" for name, rule in rules.items()}
    assume("translate" not in rules.values() or not {"max_tokens", "max_completion_tokens"} <= set(rules))
    check_rules(rules)

    found = adjusted(fields(messages, **values), {**rules, "developer": "translate"})

    assert not set(rules) & set(found.fields)
    assert "messages" in found.fields
    unruled = {name for name in values if name not in rules and "max_" not in name}
    followers = {"tool_choice"} if "tools" in rules else set()
    assert unruled - followers <= set(found.fields)
