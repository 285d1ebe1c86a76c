"""The provider's journal, as tests read it."""

import urllib.request

import msgspec

from gateway.simulator import Ended, Received, Step
from tests.system.upstream_side.provider import running_provider, under_way


def received(number: int) -> Received:
    return Received(
        number=number,
        at_us=0,
        request_id=None,
        method="POST",
        path="/v1/chat/completions",
        model_name="gpt-4o",
        streamed=False,
        headers={},
        body_bytes=0,
        body_sha256="",
        body=None,
    )


def ask(base_url: str) -> bytes:
    body = msgspec.json.encode({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]})
    request = urllib.request.Request(f"{base_url}/chat/completions", body, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def test_a_request_is_under_way_until_it_ends():
    assert under_way([received(1), received(2)]) == {1, 2}
    assert under_way([]) == set()


def test_what_is_read_at_rest_has_an_end_for_every_request(tmp_path):
    with running_provider(tmp_path) as provider:
        provider.script(Step(model_name="gpt-4o", delay_s=0.0, count=None))
        for _ in range(50):
            ask(provider.base_url)
            lines = provider.news_at_rest()
            assert [type(line) for line in lines] == [Received, Ended]
            assert under_way(lines) == set()
            assert under_way(lines[:1]) == {lines[0].number}
