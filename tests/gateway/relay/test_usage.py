import pytest
from msgspec import Raw

from gateway.relay.records import Usage
from gateway.relay.usage import estimated, reported


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"prompt_tokens":9,"completion_tokens":2}', Usage(9, 2, 0, "reported")),
        (b'{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x":{}}', Usage(9, 2, 0, "reported")),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}',
            Usage(9, 2, 4, "reported"),
        ),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":null}',
            Usage(9, 2, 0, "reported"),
        ),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":null}}',
            Usage(9, 2, 0, "reported"),
        ),
        (b'{"prompt_tokens":0,"completion_tokens":0}', Usage(0, 0, 0, "reported")),
        (b'{"prompt_tokens":9}', Usage(9, 0, 0, "reported")),
        (b"null", None),
        (b'{"prompt_tokens":70000000000000000,"completion_tokens":2}', None),
        (b'{"prompt_tokens":2,"completion_tokens":9223372036854775808}', None),
        (b"{}", None),
        (b'{"prompt_tokens":-1,"completion_tokens":2}', None),
        (b'{"prompt_tokens":"nine","completion_tokens":2}', None),
    ],
)
def test_usage_as_providers_write_it(raw: bytes, expected: Usage | None) -> None:
    assert reported(Raw(raw)) == expected


def test_an_estimate_says_that_it_is_one() -> None:
    assert estimated(9, 5) == Usage(9, 5, 0, "estimated")
