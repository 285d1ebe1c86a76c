"""The relay as an ASGI application: what no client can bring about, and when it reads on.

Everything behind it is real but the keys: those come through their port.
"""

import asyncio
import dataclasses
import json
import logging
from ipaddress import ip_network

import pytest

from accounts.caller import KeyCannotBeChecked, Owner, RateLimit
from gateway.endpoints import RelayApplication
from gateway.relay.attempt import Limits
from gateway.relay.catalog import Catalog, Route, Target
from gateway.relay.lifeline import Cut
from gateway.simulator import Fault, Step
from tests.gateway.relay.carried import ALICE, Routes, house
from tests.soon import soon

LARGEST = 1000
GOOD = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}).encode()


PRESSING = dataclasses.replace(ALICE, priority_ceiling="urgent")
PATIENT = dataclasses.replace(ALICE, priority_ceiling="batch")


OFFICE = dataclasses.replace(ALICE, networks=(ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")))
CALLERS = {
    "known": ALICE,
    "pressing": PRESSING,
    "patient": PATIENT,
    "office": OFFICE,
    "elsewhere": dataclasses.replace(ALICE, routes=frozenset({"gpt-5"})),
    "stamped": dataclasses.replace(ALICE, tags={"cost_centre": "4711"}),
    "limited": dataclasses.replace(
        ALICE,
        rate_limits=(
            RateLimit(1, Owner("key", 11, "ci"), "requests", 2),
            RateLimit(2, Owner("team", 1, "Search"), "requests", 100),
            RateLimit(3, Owner("team", 1, "Search"), "tokens", 5000),
        ),
    ),
}


class Keyring:
    """Knows one key by heart and one by asking; the others stand for what can go wrong."""

    def __init__(self):
        self.uses = []

    def used(self, caller, address, user_agent):
        self.uses.append((address, user_agent))

    def remembered(self, presented):
        return CALLERS.get(presented)

    async def look_up(self, presented):
        if presented == "away":
            raise KeyCannotBeChecked
        if presented == "broken":
            raise RuntimeError("sk-secret is what broke")
        return ALICE if presented == "stored" else None


class Client:
    """The far end of one ASGI request: says what it is given, keeps what it is sent, then waits."""

    def __init__(self, *parts, hangs_up=False):
        self.parts = list(parts or [GOOD])
        self.asked = 0
        self.sent = []
        self.gone = asyncio.Event()
        if hangs_up:
            self.gone.set()

    async def receive(self):
        self.asked += 1
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(each.get("body", b"") for each in self.sent[1:])

    @property
    def error(self):
        return json.loads(self.body)["error"]


class Unending(Client):
    """Sends pieces for as long as it is asked."""

    async def receive(self):
        self.asked += 1
        return {"type": "http.request", "body": b" " * 100, "more_body": True}


class Silent(Client):
    """Began a body and does not go on."""

    async def receive(self):
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"{", "more_body": True}


def head(*headers, method="POST", path="/v1/chat/completions", key="known", client=("10.1.2.3", "4711")):
    return {
        "type": "http",
        "client": client,
        "method": method,
        "path": path,
        "headers": [
            (b"host", b"localhost"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-type", b"application/json"),
            *headers,
        ],
    }


@pytest.fixture
async def home(upstream, tmp_path):
    limits = Limits(send_timeout_s=30.0)
    async with house(upstream.base_url, tmp_path / "journal", limits) as made:
        yield made


@pytest.fixture
def routes(upstream):
    target = Target(1, "openai", upstream.base_url, "gpt-4o", None)
    listed = Route("gpt-4o", (target,), created_at_s=1700000000)
    return Routes(Catalog({"gpt-4o": listed, "alias": listed, "nowhere": Route("nowhere", ())}))


@pytest.fixture
def application(home, routes):
    return RelayApplication(
        home.relay, Keyring(), routes, home.lines, Limits(), max_body_bytes=LARGEST, body_timeout_s=30.0
    )


async def ask(application, scope=None, client=None):
    client = client or Client()
    async with asyncio.timeout(10):
        await application(scope or head(), client.receive, client.send)
    return client


async def test_a_call_is_answered_with_its_facts(application, home):
    client = await ask(application)

    assert client.status == 200
    assert client.headers[b"x-request-id"].decode() == home.books.entry.call_id
    assert client.headers[b"x-penstock-target"] == b"openai/gpt-4o"
    assert client.headers[b"x-penstock-attempts"] == b"1"
    assert float(client.headers[b"x-penstock-overhead-ms"]) >= 0
    assert client.headers[b"cache-control"] == b"no-store"
    assert int(client.headers[b"content-length"]) == len(client.body)


async def test_a_key_that_is_not_remembered_is_looked_up(application):
    assert (await ask(application, head(key="stored"))).status == 200
    assert (await ask(application, head(key="unknown"))).status == 401


async def test_a_key_that_cannot_be_checked_is_503_and_never_401(application, home):
    client = await ask(application, head(key="away"))
    assert (client.status, client.error["code"]) == (503, "unavailable")
    assert client.headers[b"retry-after"] == b"5"
    assert home.books.entries == []


async def test_an_accident_is_told_to_the_log_and_not_to_the_client(application, caplog):
    with caplog.at_level(logging.ERROR):
        client = await ask(application, head(key="broken"))
    assert client.status == 500
    assert client.error["type"] == "server_error"
    assert b"sk-secret" not in client.body
    assert "RuntimeError" in caplog.text


async def test_a_gateway_that_stops_takes_no_new_calls(application):
    application.draining = True
    client = await ask(application)
    assert (client.status, client.error["code"]) == (503, "overloaded")
    assert (await ask(application, head(method="GET", path="/v1/models"))).status == 200


async def test_the_key_is_checked_before_the_body_is_read(application):
    client = await ask(application, head(key="unknown"), Unending())
    assert (client.status, client.asked) == (401, 0)


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (head((b"content-length", b"1001")), 413),
        (head((b"content-encoding", b"gzip")), 415),
        (head((b"transfer-encoding", b"gzip")), 400),
        (head(method="PUT"), 405),
        (head(path="/v1/nothing"), 404),
        (head((b"host", b"localhost")), 400),
        (head((b"x-a", b"a" * 40_000)), 431),
    ],
)
async def test_a_head_that_is_refused_leaves_the_body_unread(application, scope, status):
    client = await ask(application, scope, Unending())
    assert (client.status, client.asked) == (status, 0)
    assert client.headers[b"connection"] == b"close"


async def test_reading_stops_at_the_first_byte_too_many(application, home):
    client = await ask(application, client=Unending())
    assert client.status == 413
    assert client.asked == LARGEST // 100 + 1
    assert home.books.entries == []


async def test_a_body_may_come_in_pieces(application, upstream):
    pieces = [GOOD[at : at + 1] for at in range(len(GOOD))]
    assert (await ask(application, client=Client(*pieces))).status == 200
    [received] = upstream.journal.received()
    assert json.loads(received.body) == json.loads(GOOD)


async def test_a_body_that_breaks_off_is_400(application, home):
    class Broken(Client):
        async def receive(self):
            return {"type": "http.disconnect"}

    client = await ask(application, client=Broken())
    assert (client.status, client.error["code"]) == (400, "incomplete_body")
    assert home.books.entries == []


async def test_a_body_that_does_not_come_is_408(home, routes):
    hasty = RelayApplication(
        home.relay, Keyring(), routes, home.lines, Limits(), max_body_bytes=LARGEST, body_timeout_s=0.05
    )
    client = await ask(hasty, client=Silent())
    assert (client.status, client.error["code"]) == (408, "slow_request")
    assert client.headers[b"connection"] == b"close"
    assert home.lines.lines == set()


async def test_a_client_that_hangs_up_ends_its_call(application, home, upstream):
    upstream.script([Step(fault=Fault.SILENCE)])
    client = Client()
    running = asyncio.create_task(application(head(), client.receive, client.send))
    await upstream.journal.until(lambda journal: journal.received())
    client.gone.set()
    async with asyncio.timeout(5):
        await running

    assert client.sent == []
    assert (home.books.entry.outcome, home.books.entry.code) == ("hung_up", "hung_up")
    await upstream.journal.until(lambda journal: journal.ended())
    assert upstream.journal.ended()[0].client_gone
    assert home.lines.lines == set()


async def test_a_stop_that_comes_in_the_middle_is_told(application, home, upstream):
    upstream.script([Step(fault=Fault.SILENCE)])
    client = Client()
    running = asyncio.create_task(application(head(), client.receive, client.send))
    await upstream.journal.until(lambda journal: journal.received())
    home.lines.cut_all(Cut.STOPPING)
    async with asyncio.timeout(5):
        await running
    assert (client.status, client.error["code"]) == (503, "overloaded")
    assert home.books.entry.outcome == "failed"


@pytest.mark.parametrize(
    ("cut", "status", "code"), [(Cut.REVOKED, 401, "invalid_api_key"), (Cut.STOPPING, 503, "overloaded")]
)
async def test_a_call_that_is_cut_before_it_was_let_in_is_told(application, home, cut, status, code):
    client = Silent()
    running = asyncio.create_task(application(head(), client.receive, client.send))
    await soon(lambda: client.asked > 1, "the wait for its body")
    home.lines.cut_all(cut)
    async with asyncio.timeout(5):
        await running
    assert (client.status, client.error["code"]) == (status, code)
    assert home.books.entries == []
    assert home.lines.lines == set()


async def test_model_names_are_those_with_targets_aliases_included(application):
    client = await ask(application, head(method="GET", path="/v1/models"))
    listed = json.loads(client.body)
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ["alias", "gpt-4o"]
    assert {each["created"] for each in listed["data"]} == {1700000000}


@pytest.mark.parametrize(("name", "status"), [("gpt-4o", 200), ("nowhere", 404), ("unknown", 404), ("", 200)])
async def test_one_model_name_may_be_asked_for(application, name, status):
    client = await ask(application, head(method="GET", path=f"/v1/models/{name}"))
    assert client.status == status


async def test_model_names_need_a_key(application):
    assert (await ask(application, head(method="GET", path="/v1/models", key="unknown"))).status == 401


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", b"POST"),
        ("POST", "/v1/models", b"GET"),
        ("PUT", "/v1/models/x", b"GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(application, method, path, allow):
    client = await ask(application, head(method=method, path=path))
    assert (client.status, client.headers[b"allow"]) == (405, allow)


async def test_a_stream_that_fails_after_it_began_ends_with_an_error_and_no_done(application, home, upstream):
    upstream.script([Step(fault=Fault.TRUNCATED)])
    body = json.dumps({**json.loads(GOOD), "stream": True}).encode()
    client = await ask(application, client=Client(body))
    assert client.status == 200
    assert client.headers[b"content-type"].startswith(b"text/event-stream")
    assert b"[DONE]" not in client.body
    assert b'"error"' in client.body.rpartition(b"data: ")[2]
    assert client.sent[-1]["more_body"] is False
    assert home.books.entry.outcome == "truncated"


async def test_every_attempt_is_told(application, home, upstream):
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=2)])
    client = await ask(application)
    assert (client.status, client.headers[b"x-penstock-attempts"]) == (200, b"3")
    assert [each.outcome for each in home.books.entry.attempts] == ["failed", "failed", "answered"]


async def test_when_our_retries_are_spent_an_sdk_need_not_begin_its_own(application, upstream):
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=None)])
    client = await ask(application)
    assert (client.status, client.error["code"]) == (502, "upstream_error")
    assert client.headers[b"x-should-retry"] == b"false"
    assert len(upstream.journal.received()) == 3


async def test_a_target_that_is_out_of_order_is_503_and_says_when_to_come_back(application, home, upstream):
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=None)])
    for _ in range(2):
        await ask(application)
    client = await ask(application)
    assert (client.status, client.error["code"]) == (503, "no_target_available")
    assert 50 <= int(client.headers[b"retry-after"]) <= 60
    assert client.headers[b"x-should-retry"] == b"false"
    assert len(upstream.journal.received()) == 5, "the fifth failure in a row opened the breaker"
    assert home.books.entries[-1].attempts == ()
    assert [each.why for each in home.books.entries[-1].skipped] == ["open"]


async def test_a_call_that_finds_no_place_says_when_to_come_back_and_is_no_entry(upstream, tmp_path, routes):
    upstream.script([Step(fault=Fault.SILENCE)])
    narrow = {"max_concurrency": 1, "max_waiting": 0}
    async with house(upstream.base_url, tmp_path / "narrow", target=narrow) as home:
        application = RelayApplication(
            home.relay, Keyring(), routes, home.lines, Limits(), max_body_bytes=LARGEST, body_timeout_s=30.0
        )
        first = Client()
        running = asyncio.create_task(application(head(), first.receive, first.send))
        await upstream.journal.until(lambda journal: journal.received())
        refused = await ask(application)
        first.gone.set()
        await running

    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert int(refused.headers[b"retry-after"]) >= 1
    assert int(refused.headers[b"retry-after-ms"]) > 0
    assert b"x-should-retry" not in refused.headers
    assert home.books.entry.outcome == "hung_up"
    assert [code for *_, code in home.books.refusals] == ["overloaded"]


async def test_a_call_may_bring_its_own_deadline(application, home, upstream):
    upstream.script([Step(fault=Fault.SILENCE)])
    client = await ask(application, head((b"x-penstock-timeout", b"0.2")))
    assert (client.status, client.error["code"]) == (504, "upstream_timeout")
    assert [each.outcome for each in home.books.entry.attempts] == ["timed_out"]


@pytest.mark.parametrize(
    ("key", "asked", "given"),
    [
        *(("known", None, "normal"), ("known", b"normal", "normal"), ("known", b"batch", "batch")),
        *(("pressing", b"urgent", "urgent"), ("pressing", None, "normal"), ("patient", None, "batch")),
    ],
)
async def test_a_call_has_the_priority_that_it_asks_for(application, home, key, asked, given):
    header = () if asked is None else ((b"x-penstock-priority", asked),)
    assert (await ask(application, head(*header, key=key))).status == 200
    assert home.books.entry.priority == given


@pytest.mark.parametrize(("key", "asked"), [("known", b"urgent"), ("patient", b"normal")])
async def test_a_priority_above_the_keys_ceiling_is_403(application, home, upstream, key, asked):
    client = await ask(application, head((b"x-penstock-priority", asked), key=key))
    assert (client.status, client.error["code"]) == (403, "not_permitted")
    assert home.books.entries == []
    assert upstream.journal.received() == []
    [kept] = home.books.refused_calls
    assert (kept.call_id, kept.code) == (client.headers[b"x-request-id"].decode(), "not_permitted")


# --- What a key may do


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"])
async def test_a_key_works_from_the_addresses_that_its_owner_named(application, address):
    assert (await ask(application, head(key="office", client=(address, "1")))).status == 200


@pytest.mark.parametrize("client", [("10.2.0.1", "1"), ("2001:db9::1", "1"), None, ("", "1")])
async def test_a_key_does_not_work_from_anywhere_else(application, home, client):
    answer = await ask(application, head(key="office", client=client))
    assert (answer.status, answer.error["code"]) == (403, "not_permitted")
    assert home.books.entries == []
    assert [each.code for each in home.books.refused_calls] == ["not_permitted"]


async def test_a_proxys_word_counts_only_where_it_is_a_configured_one(home, routes):
    forwarded = (b"x-forwarded-for", b"203.0.113.9, 10.1.9.9")
    for proxies, status in (((), 403), ((ip_network("192.0.2.0/24"),), 200)):
        application = RelayApplication(
            home.relay,
            Keyring(),
            routes,
            home.lines,
            Limits(),
            max_body_bytes=LARGEST,
            body_timeout_s=30.0,
            trusted_proxies=proxies,
        )
        answer = await ask(application, head(forwarded, key="office", client=("192.0.2.1", "1")))
        assert answer.status == status


async def test_a_keys_scope_bounds_what_it_sees_and_what_it_calls(application):
    listed = await ask(application, head(method="GET", path="/v1/models", key="elsewhere"))
    assert json.loads(listed.body)["data"] == []
    unseen = await ask(application, head(method="GET", path="/v1/models/alias", key="elsewhere"))
    assert (unseen.status, unseen.error["code"]) == (404, "model_not_found")
    assert (await ask(application, head(key="elsewhere"))).status == 404


async def test_a_keys_tags_are_stamped_on_the_entry_and_win_over_the_calls_own(application, home):
    await ask(application, head((b"x-penstock-tags", b"cost_centre=mine,run=7"), key="stamped"))
    assert home.books.entry.tags == {"cost_centre": "4711", "run": "7"}


async def test_where_a_key_is_used_from_and_by_what_is_noted(home, routes):
    keys = Keyring()
    application = RelayApplication(
        home.relay, keys, routes, home.lines, Limits(), max_body_bytes=LARGEST, body_timeout_s=30.0
    )
    await ask(application, head((b"user-agent", b"OpenAI/Python 2.1"), key="stamped"))
    await ask(application, head(key="unknown"))
    await ask(application, head(key="office", client=("10.2.0.1", "1")))
    assert keys.uses == [("10.1.2.3", "OpenAI/Python 2.1")]


async def test_rate_limits_are_told_as_openai_tells_them(application):
    """Of each kind the one that is nearest to its end: 2 of the key's requests, and 8 of the 5,000 tokens
    for the prompt with 1,000 for an answer without a bound."""
    first = await ask(application, head(key="limited"))
    told = {name.decode(): value.decode() for name, value in first.headers.items() if b"ratelimit" in name}
    tokens = -(-len(json.dumps([{"role": "user", "content": "Hello"}])) // 4) + 1000
    assert told == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": str(5000 - tokens),
        "x-ratelimit-reset-tokens": "1m1s",
    }
    second = await ask(application, head(key="limited"))
    assert second.headers[b"x-ratelimit-remaining-requests"] == b"0"

    third = await ask(application, head(key="limited"))
    assert (third.status, third.error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(third.headers[b"retry-after"]) <= 61
    assert int(third.headers[b"retry-after-ms"]) <= 61_000
    assert third.headers[b"x-ratelimit-limit-requests"] == b"2"
    assert third.headers[b"x-ratelimit-remaining-requests"] == b"0"


async def test_a_key_without_limits_is_told_of_none(application):
    assert not [name for name in (await ask(application)).headers if b"ratelimit" in name]
