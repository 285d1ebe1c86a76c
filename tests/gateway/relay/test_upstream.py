from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from msgspec import Raw

from gateway import errors
from gateway.relay.catalog import Secret, Target
from gateway.relay.records import Usage
from gateway.relay.transports import Broken, TooLarge
from gateway.relay.upstream import (
    error_within,
    failure,
    failure_of,
    masked,
    retry_after_s,
    tokens_of_answer,
    usage_of_answer,
)

TARGET = Target(1, "openai", "https://api.example/v1", "gpt", Secret("sk-very-secret-credential"))


@dataclass
class Answer:
    """An answer that has come whole."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    retry_after: str | None = None
    retry_after_ms: str | None = None

    async def whole(self, limit: int) -> bytes:
        return self.body[:limit]

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    def close(self) -> None:
        """Nothing is open."""


SAID = b'{"error":{"message":"No such tide","code":"no_tide","param":"tide"}}'


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, errors.UpstreamRejected, 400),
        (404, errors.UpstreamRejected, 404),
        (413, errors.UpstreamRejected, 413),
        (422, errors.UpstreamRejected, 422),
        (401, errors.UpstreamRefusesUs, 502),
        (402, errors.UpstreamRefusesUs, 502),
        (403, errors.UpstreamRefusesUs, 502),
        (408, errors.UpstreamTimedOut, 504),
        (504, errors.UpstreamTimedOut, 504),
        (429, errors.UpstreamThrottled, 429),
        (500, errors.UpstreamFailed, 502),
        (503, errors.UpstreamFailed, 502),
        (529, errors.UpstreamFailed, 502),
        (302, errors.UpstreamFailed, 502),
        (204, errors.UpstreamFailed, 502),
    ],
)
async def test_a_provider_status_becomes_our_error(status: int, kind: type, told: int) -> None:
    failure = await failure_of(Answer(status, SAID), TARGET, 0.0)

    assert type(failure) is kind
    assert failure.status == told


async def test_a_rejection_keeps_the_provider_own_words() -> None:
    failure = await failure_of(Answer(400, SAID), TARGET, 0.0)

    assert (failure.message, failure.code, failure.param) == ("No such tide", "no_tide", "tide")


async def test_what_a_provider_says_of_our_credential_stays_here() -> None:
    body = b'{"error":{"message":"Incorrect API key: sk-very-secret-credential"}}'
    failure = await failure_of(Answer(401, body), TARGET, 0.0)
    assert "Incorrect" not in failure.message


async def test_our_credential_is_masked_in_any_message() -> None:
    body = b'{"error":{"message":"key sk-very-secret-credential and sk-other-0123456789 are odd"}}'
    failure = await failure_of(Answer(400, body), TARGET, 0.0)
    assert failure.message == "key *** and *** are odd"
    assert masked("nothing here", TARGET) == "nothing here"


@pytest.mark.parametrize("why", [TooLarge(10, 11), Broken("x")])
async def test_a_status_is_kept_though_its_body_is_too_large_or_breaks_off(why: Exception) -> None:
    class Unreadable(Answer):
        async def whole(self, limit: int) -> bytes:
            raise why

    failure = await failure_of(Unreadable(429, retry_after="7"), TARGET, 0.0)

    assert isinstance(failure, errors.UpstreamThrottled)
    assert failure.retry_after_s == 7


async def test_a_throttled_call_says_when_to_come_back() -> None:
    failure = await failure_of(Answer(429, SAID, retry_after="7"), TARGET, 0.0)
    assert (b"retry-after", b"7") in failure.headers()
    assert (b"retry-after-ms", b"7000") in failure.headers()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'"oh"', b'{"error":"plain words"}', b'{"error":null}', b"[" * 9999]
)
async def test_an_error_body_of_any_shape_is_borne(body: bytes) -> None:
    assert (await failure_of(Answer(500, body), TARGET, 0.0)).status == 502


@pytest.mark.parametrize(
    ("header", "header_ms", "expected"),
    [
        ("5", None, 5.0),
        ("0.5", None, 0.5),
        ("5", "250", 0.25),
        ("Thu, 01 Jan 1970 00:02:00 GMT", None, 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None, 0.0),
        ("soon", None, None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None, None),
        ("-3", None, None),
        ("1e9", None, None),
        ("nan", None, None),
        (None, None, None),
        ("", "x", None),
    ],
)
def test_when_to_come_back_in_every_spelling(
    header: str | None, header_ms: str | None, expected: float | None
) -> None:
    assert retry_after_s(header, header_ms, now_s=100.0) == expected


def test_usage_of_an_answer_is_the_reported_one() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
    assert usage_of_answer(body) == Usage(9, 2, 0, "reported")


def test_an_answer_without_usage_is_counted() -> None:
    body = b'{"choices":[{"message":{"content":"A quiet river, a steady gate."}}]}'
    assert usage_of_answer(body) is None
    assert tokens_of_answer(body, "gpt-4o") == 8


@pytest.mark.parametrize(
    "said",
    [
        b'"reasoning_content":" water"',
        b'"reasoning":" water"',
        b'"reasoning":" water","reasoning_content":" water"',
        b'"refusal":" water"',
    ],
)
def test_what_such_an_answer_says_beside_its_content_is_counted_once(said: bytes) -> None:
    body = b'{"choices":[{"message":{"content":null,%b}}]}' % said
    assert tokens_of_answer(body, "gpt-4o") == 1


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"usage":', b"[1]", b'"x"'])
def test_an_answer_that_is_no_json_object_is_a_failure(body: bytes) -> None:
    with pytest.raises(errors.UpstreamFailed):
        usage_of_answer(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"too long","code":"context","param":null}}',
        b'[{"error":{"message":"too long","code":"context"}}]',
        b'{"object":"error","message":"too long","type":"x","param":null,"code":"context"}',
        b'{"code":"context","error":"too long"}',
    ],
    ids=["OpenAI", "Gemini", "Mistral", "xAI"],
)
def test_an_error_is_understood_in_each_vendors_shape(body: bytes) -> None:
    told = failure(400, body, None, TARGET)
    assert (told.message, told.code) == ("too long", "context")


@pytest.mark.parametrize("body", [b"[]", b"[[]]", b"{}", b'{"error":null}', b'{"message":7}', b"null", b""])
def test_an_error_of_no_known_shape_says_its_status(body: bytes) -> None:
    assert "400" in failure(400, body, None, TARGET).message


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (b'{"message":"bad schema","code":400}', 400),
        (b'{"message":"bad schema","code":"422"}', 422),
        (b'{"message":"bad schema","type":"invalid_request_error","code":null}', 400),
    ],
)
def test_an_error_under_200_that_names_the_calls_own_fault_is_a_rejection(error: bytes, status: int) -> None:
    why = error_within(Raw(error))
    assert isinstance(why, errors.UpstreamRejected)
    assert (why.status, why.sick, why.again) == (status, False, False)
    assert "bad schema" in why.message


@pytest.mark.parametrize(
    "error",
    [
        *(b'{"message":"overloaded","code":503}', b'{"message":"slow down","code":429}', b'"boom"', b"[1]"),
        *(b'{"message":"x","code":"server_error"}', b'{"code":401}', b"{}"),
    ],
)
def test_any_other_error_under_200_may_pass(error: bytes) -> None:
    why = error_within(Raw(error))
    assert not isinstance(why, errors.UpstreamRejected)
    assert (why.sick, why.again, why.cause) == (True, True, "error_event")


def test_a_code_with_control_characters_is_passed_on_without_them() -> None:
    told = failure(
        400, b'{"error":{"message":"m","code":"a\\u0000b\\nc","param":"\\u001b[31m"}}', None, TARGET
    )
    assert (told.code, told.param) == ("abc", "[31m")
