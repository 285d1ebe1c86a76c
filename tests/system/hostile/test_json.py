"""JSON, valid and not: one reading of it, and the same bytes upstream.

A corpus of our own: what must be taken, what must be refused, and what may be either but never an accident.
"""

import json

import pytest

from tests.served import eventually
from tests.system.hostile.door import chat, error_of

VALID = {
    "zero": b"0",
    "minus zero": b"-0",
    "a fraction": b"0.10",
    "a fraction of zeros": b"1.000",
    "an exponent": b"1.0e0",
    "an exponent with a plus": b"1E+2",
    "an exponent with zeros": b"1e00000000000000000001",
    "a number beyond 64 bits": b"123456789012345678901234567890",
    "a number of 5,000 digits": b"9" * 5000,
    "a number beyond floats": b"1e400",
    "a number below floats": b"-1e-400",
    "digits that floats lose": b"0.12345678901234567890123",
    "true": b"true",
    "false": b"false",
    "null": b"null",
    "an empty string": b'""',
    "every escape": rb'"\"\\\/\b\f\n\r\t"',
    "an escaped letter": rb'"\u0041\u00e9\u20AC"',
    "an escaped pair": rb'"\ud83d\ude00 \uD834\uDD1E"',
    "an escaped NUL": rb'"\u0000"',
    "an escaped line separator": rb'"\u2028\u2029"',
    "an escaped noncharacter": rb'"\uffff\ufffe"',
    "letters beyond ASCII": '"Köln, Ürümqi, 東京, 😀"'.encode(),
    "a line separator": '"\u2028\u2029"'.encode(),
    "a noncharacter": '"\uffff\U0010ffff"'.encode(),
    "a right-to-left override": '"\u202egnp.exe"'.encode(),
    "a byte order mark in a string": '"\ufeff"'.encode(),
    "a delete character": b'"\x7f"',
    "signs of other languages": b'"<script>alert(1)</script> \' OR 1=1-- ${7*7} {{7*7}} %s%n `id` ../.."',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "blanks in a list": b"[ 1 ,\t2\r\n, 3 ]",
    "blanks in an object": b'{ "a" :\n1 , "b"\t: [ ] }',
    "doubled keys further in": b'{"a":1,"a":2}',
    "an empty key": b'{"":{"":0}}',
    "an escaped key": rb'{"\u0061\n":1}',
    "a key of a prototype": b'{"__proto__":{"admin":true},"constructor":1}',
    "nested 500 deep": b"[" * 500 + b"]" * 500,
    "nested objects": b'{"a":' * 300 + b"{}" + b"}" * 300,
    "a long string": b'"' + b"x" * 200_000 + b'"',
    "a long list": b"[" + b"0," * 50_000 + b"0]",
}
INVALID = {
    "nothing": b"",
    "a leading zero": b"01",
    "a leading zero after a minus": b"-01",
    "a bare minus": b"-",
    "a plus": b"+1",
    "a bare point": b".5",
    "a point at the end": b"1.",
    "a point before an exponent": b"1.e1",
    "two points": b"1.2.3",
    "a bare exponent": b"1e",
    "an exponent's bare sign": b"1e+",
    "two exponents": b"1e5e5",
    "hexadecimal": b"0x1F",
    "underscores": b"1_000",
    "two numbers": b"1 2",
    "digits of another script": "١٢".encode(),
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "half of true": b"tru",
    "true in capitals": b"True",
    "null and more": b"nulll",
    "undefined": b"undefined",
    "a comma at a list's end": b"[1,]",
    "a comma at a list's beginning": b"[,1]",
    "two commas": b"[1,,2]",
    "no comma": b"[1 2]",
    "an open list": b"[1",
    "a list closed twice": b"[1]]",
    "a list closed as an object": b"[1}",
    "a colon in a list": b'["a":1]',
    "a comma at an object's end": b'{"a":1,}',
    "a bare key": b"{a:1}",
    "a number as key": b"{1:1}",
    "single quotes": b"{'a':'b'}",
    "no colon": b'{"a" 1}',
    "no value": b'{"a":}',
    "an open object": b'{"a":1',
    "a key alone": b'{"a"}',
    "a comment": b"/* */1",
    "a comment at the end": b"1//\n",
    "a hash comment": b"#\n1",
    "an open string": b'"a',
    "a line feed in a string": b'"a\nb"',
    "a tab in a string": b'"a\tb"',
    "a NUL in a string": b'"a\x00b"',
    "an escape character in a string": b'"\x1b[31m"',
    "a line feed in a key": b'{"\n":1}',
    "an unknown escape": rb'"\x41"',
    "an unknown escape in a key": rb'{"\q":1}',
    "an escaped quote alone": rb'"\"',
    "a short unicode escape": rb'"\u12"',
    "a unicode escape of letters": rb'"\u00zz"',
    "a unicode escape in capitals": rb'"\U0041"',
    "a Latin-1 byte": b'"\xe9"',
    "an overlong byte": b'"\xc0\xaf"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "half a letter": b'"\xe2\x82"',
    "beyond Unicode": b'"\xf5\x80\x80\x80"',
    "a bad byte in a key": b'{"\xff":1}',
    "a NUL": b"\x001",
    "a form feed": b"\x0c1",
    "a vertical tab": b"\x0b1",
    "a no-break space": b"\xc2\xa01",
    "a byte order mark": b"\xef\xbb\xbf1",
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 open lists": b"[" * 100_000,
    "100,000 open objects": b'{"a":[' * 100_000,
}
EITHER = {
    "half a pair": rb'"\ud800"',
    "the other half": rb'"\udc00"',
    "a pair the wrong way round": rb'"\ude00\ud83d"',
    "half a pair and a letter": rb'"\ud83dx"',
    "half a pair in a key": rb'{"\ud800":1}',
}
GOOD = chat()


def beside(value):
    """A good call with one more value, which we do not act on."""
    return GOOD[:-1] + b', "metadata": ' + value + b"}"


@pytest.mark.parametrize("value", VALID.values(), ids=VALID)
def test_a_valid_value_reaches_the_provider_in_its_own_bytes(door, value):
    assert door.ask(beside(value)).status == 200

    [received] = door.caused()
    assert received.body.endswith(b'"metadata":' + value + b"}")


@pytest.mark.parametrize("value", INVALID.values(), ids=INVALID)
def test_an_invalid_value_is_refused_with_its_position(door, value):
    answer = door.ask(beside(value))

    error = error_of(answer)
    assert (answer.status, error["code"], error["type"]) == (400, "invalid_json", "invalid_request_error")
    assert "byte " in error["message"] or "too deep" in error["message"]
    assert door.caused() == []


@pytest.mark.parametrize("value", EITHER.values(), ids=EITHER)
def test_half_a_surrogate_pair_is_refused_or_handed_on_as_it_is(door, value):
    status = door.ask(beside(value)).status
    bodies = [each.body for each in door.caused()]
    assert status in (200, 400)
    assert [body.endswith(value + b"}") for body in bodies] == ([True] if status == 200 else [])


@pytest.mark.parametrize("depth", range(940, 1000, 2))
@pytest.mark.parametrize("name", ["metadata", "stream_options"])
def test_nesting_is_taken_or_refused_at_every_depth(door, name, depth):
    """Where the limit lies is Python's affair; that there is no gap beside it is ours."""
    nested = b"[" * depth + b"]" * depth
    body = b'%b, "stream": true, "%b": {"a":%b}}' % (GOOD[:-1], name.encode(), nested)

    answer = door.ask(body)

    assert answer.status in (200, 400), answer.body
    assert len(door.caused()) == (1 if answer.status == 200 else 0)


DOCUMENTS = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "a good call and a letter": GOOD + b"x",
    "a good call and a NUL": GOOD + b"\x00",
    "a good call and a comma": GOOD + b",",
    "a good call twice": GOOD + GOOD,
    "half a call": GOOD[: len(GOOD) // 2],
    "a call without its last brace": GOOD[:-1],
    "a byte order mark first": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32-be"),
    "a form": b"model=gpt-4o&messages=x",
    "XML": b"<?xml version='1.0'?><model/>",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "single quotes": GOOD.replace(b'"', b"'"),
}
NO_OBJECTS = {
    "a list": b"[]",
    "a list of calls": b"[" + GOOD + b"]",
    "a string": b'"model"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "a string with a call in it": json.dumps(GOOD.decode()).encode(),
}


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS)
def test_what_is_no_json_is_refused_with_its_position(door, body):
    answer = door.ask(body)
    assert (answer.status, error_of(answer)["code"]) == (400, "invalid_json")
    assert "byte " in error_of(answer)["message"]
    assert door.caused() == []


def test_the_position_is_that_of_the_mistake(door):
    assert "(byte 23)" in error_of(door.ask(b'{"model": "gpt-4o", "a"}'))["message"]


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_json_that_is_no_object_is_refused(door, body):
    answer = door.ask(body)
    assert (answer.status, error_of(answer)["code"]) == (400, "invalid_json")
    assert "object" in error_of(answer)["message"]
    assert door.caused() == []


def test_blanks_around_a_call_are_nothing(door):
    assert door.ask(b" \r\n\t" + GOOD + b"\t\n\r ").status == 200


MESSAGES = '"messages": [{"role": "user", "content": "Hello"}]'
MODEL = '"model": "gpt-4o"'
WRONG_FIELDS = {
    "no model name": ([MESSAGES], "model"),
    "model name null": ([MESSAGES, '"model": null'], "model"),
    "model name a number": ([MESSAGES, '"model": 4'], "model"),
    "model name a list": ([MESSAGES, '"model": ["gpt-4o"]'], "model"),
    "model name empty": ([MESSAGES, '"model": ""'], "model"),
    "no messages": ([MODEL], "messages"),
    "messages null": ([MODEL, '"messages": null'], "messages"),
    "messages a string": ([MODEL, '"messages": "Hello"'], "messages"),
    "messages an object": ([MODEL, '"messages": {"role": "user"}'], "messages"),
    "stream a string": ([MODEL, MESSAGES, '"stream": "true"'], "stream"),
    "stream a number": ([MODEL, MESSAGES, '"stream": 1'], "stream"),
    "stream an object": ([MODEL, MESSAGES, '"stream": {}'], "stream"),
    "stream_options a number": (
        [MODEL, MESSAGES, '"stream": true', '"stream_options": 1'],
        "stream_options",
    ),
    "stream_options a list": ([MODEL, MESSAGES, '"stream": true', '"stream_options": []'], "stream_options"),
    "max_tokens a string": ([MODEL, MESSAGES, '"max_tokens": "5"'], "max_tokens"),
    "n a fraction": ([MODEL, MESSAGES, '"n": 1.5'], "n"),
}


@pytest.mark.parametrize(("fields", "param"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_a_missing_or_wrong_typed_field_is_named(door, fields, param):
    answer = door.ask(f"{{{', '.join(fields)}}}".encode())

    error = error_of(answer)
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert f"'{param}'" in error["message"]
    assert door.caused() == []


DOUBLED = {
    "model": (b'"model": "gpt-4o", "model": "gpt-4o-mini"', {"model": "gpt-4o-mini"}),
    "model, once escaped": (b'"model": "gpt-4o", "mod\\u0065l": "gpt-4o-mini"', {"model": "gpt-4o-mini"}),
    "stream": (b'"model": "gpt-4o", "stream": true, "stream": false', {"stream": False}),
    "max_tokens": (b'"model": "gpt-4o", "max_tokens": 900, "max_tokens": 2', {"max_tokens": 2}),
    "what we do not act on": (b'"model": "gpt-4o", "user": "a", "user": "b"', {"user": "b"}),
}


@pytest.mark.parametrize(("doubled", "read"), DOUBLED.values(), ids=DOUBLED)
def test_doubled_keys_go_up_once_as_we_read_them(door, doubled, read):
    answer = door.ask(b"{%b, %b}" % (doubled, MESSAGES.encode()))

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    [received] = door.caused()
    pairs = json.loads(received.body, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    assert {name: value for name, value in pairs if name in read} == read
    if "model" in read:
        assert routes_of(door, answer) == [(read["model"],)]


def routes_of(door, answer):
    call_id = answer.headers["x-request-id"]
    query = "SELECT route FROM gateway_entry WHERE call_id = ?"
    return eventually(lambda: door.served.rows(query, call_id.replace("-", "")), what="the entry")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b'"model": "gpt-4o", "model": "nothing"', 404),
        (b'"model": "gpt-4o", "model": 1', 400),
        (b'"model": "gpt-4o", "stream": false, "stream": "x"', 400),
        (b'"model": "gpt-4o", "messages": "x"', 400),
    ],
)
def test_a_good_value_does_not_hide_a_bad_one_behind_it(door, fields, status):
    answer = door.ask(b"{%b, %b}" % (MESSAGES.encode(), fields))
    assert answer.status == status
    assert door.caused() == []


def test_an_unknown_route_is_named(door):
    answer = door.ask(chat("gpt-5000"))
    error = error_of(answer)
    assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "gpt-5000" in error["message"]
    assert door.caused() == []
