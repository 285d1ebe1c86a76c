"""What an error says in its headers about coming back."""

import json

import pytest

from gateway import errors


def headers(why: errors.GatewayError) -> dict[bytes, bytes]:
    return dict(why.headers())


def test_after_our_own_retries_an_sdk_is_told_not_to_add_its_own() -> None:
    throttled = errors.UpstreamThrottled("busy", retry_after_s=30)
    assert headers(throttled)[b"x-should-retry"] == b"false"
    assert headers(throttled)[b"retry-after"] == b"30"


@pytest.mark.parametrize(
    "why", [errors.Overloaded("full"), errors.JournalFull(), errors.NoTargetAvailable("m", 5.0)]
)
def test_what_is_soon_over_may_be_tried_again(why: errors.GatewayError) -> None:
    assert b"x-should-retry" not in headers(why)
    assert b"retry-after" in headers(why)


def test_an_sdk_does_not_sleep_through_an_outage() -> None:
    told = headers(errors.NoTargetAvailable("m", 41.0))
    assert (told[b"x-should-retry"], told[b"retry-after"]) == (b"false", b"41")


def test_the_time_to_come_back_is_never_rounded_to_too_soon() -> None:
    why = errors.Overloaded("full")
    why.retry_after_s = 0.25
    assert headers(why)[b"retry-after"] == b"1"
    assert headers(why)[b"retry-after-ms"] == b"250"


def test_a_long_model_name_does_not_make_a_long_answer() -> None:
    for why in (errors.RouteNotAllowed("x" * 9999), errors.NoTargetAvailable("x" * 9999, 1.0)):
        assert len(json.loads(why.body())["error"]["message"]) < 500
