"""Small inputs that once broke something, or that a rule is there for, through the readers that they are for.

`corpus/index.toml` says of each file what must come of it and why it is here. Its folder says who reads it.
A mistake whose trigger is an input gets a file here first, is seen red, and is mended then.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accounts import keys
from gateway import edge, price_csv
from gateway.addresses import client_address, networks
from gateway.errors import GatewayError, InvalidCall, Refused, UpstreamFailed, UpstreamRejected
from gateway.ledger import provider_csv
from gateway.relay import bounds
from gateway.relay.call import Call, understand
from gateway.relay.catalog import Route, Secret, Target
from gateway.relay.records import Usage
from gateway.relay.stream import EventReader
from gateway.relay.transports import addresses
from gateway.relay.transports.http1_reading import NotHttp, Reading
from gateway.relay.upstream import failure, retry_after_s, usage_of_answer

CORPUS = Path(__file__).parent / "corpus"
INDEX: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "index.toml").read_text())
TARGET = Target(1, "openai", "https://api.example/v1", "gpt", Secret("sk-very-secret-credential"))
ROUTE = Route("gpt-4o", (TARGET,))

Outcome = dict[str, Any]


def refusal(why: GatewayError) -> Outcome:
    return {"refused": why.code, "says": why.message, "param": why.param}


def failed(why: UpstreamFailed | None) -> Outcome:
    if why is None:
        return {"failed": "none"}
    kind = "rejected" if isinstance(why, UpstreamRejected) else why.cause
    told = {"says": why.message, "code": why.code, "param": why.param, "status": why.status}
    return {"failed": kind, "again": why.again, "sick": why.sick, **told}


def used(usage: Usage | None) -> Outcome:
    if usage is None:
        return {"usage": "none"}
    return {name: getattr(usage, name) for name in usage.__struct_fields__}


def request(raw: bytes) -> Outcome:
    try:
        call = understand(raw, 0.0)
    except InvalidCall as why:
        return refusal(why)
    return {"model_name": call.model_name, "max_tokens": call.max_tokens, "sent": sent(call, frames=20)}


def sent(call: Call, frames: int) -> str:
    """What goes upstream, written further down the stack, as an attempt does."""
    if frames:
        return sent(call, frames - 1)
    return call.body_for("upstream", call.fields).decode()


def bounded(raw: bytes) -> Outcome:
    """A request as a hard quota needs it known."""
    call = understand(raw, 0.0)
    try:
        bounds.check(call, ROUTE)
        media = bounds.media_of(call.fields)
    except (InvalidCall, Refused) as why:
        return refusal(why)
    apart = bounds.priced_apart(call.fields)
    return {"media": media.count, "media_bytes": media.size_bytes, "priced_apart": apart}


def answer(raw: bytes) -> Outcome:
    try:
        return used(usage_of_answer(raw))
    except UpstreamFailed as why:
        return failed(why)


def error(raw: bytes, status: int) -> Outcome:
    return failed(failure(status, raw, None, TARGET))


def retry_after(raw: bytes) -> Outcome:
    wait_s = retry_after_s(raw.decode(), None, 0.0)
    return {"wait": "none" if wait_s is None else wait_s}


def stream(raw: bytes) -> Outcome:
    """The same in one read and byte by byte."""
    whole, in_bytes = _read([raw]), _read([raw[at : at + 1] for at in range(len(raw))])
    assert whole == in_bytes
    return whole


def _read(parts: list[bytes]) -> Outcome:
    reader, handed_on = EventReader(pass_usage=False, limit=100_000), b""
    why: UpstreamFailed | None = None
    for part in parts:
        try:
            handed_on += reader.feed(part)
        except UpstreamFailed as raised:
            why = raised
            break
    done = reader.ends_here()
    counted = reader.said.tokens("gpt-4o")
    told = {"hands_on": handed_on.decode(errors="backslashreplace"), "done": done, "counted": counted}
    return {**told, **failed(why or reader.failure), **used(reader.usage)}


def answer_head(raw: bytes) -> Outcome:
    """An answer up to the provider's end, in one read and byte by byte."""
    whole, in_bytes = _received([raw]), _received([raw[at : at + 1] for at in range(len(raw))])
    assert whole == in_bytes
    return whole


def _received(parts: list[bytes]) -> Outcome:
    reading = Reading()
    try:
        for part in parts:
            reading.feed(part)
    except NotHttp:
        return {"refused": True}
    reading.end()
    return {"body": reading.take().decode(), "over": reading.over, "followed": reading.can_be_followed}


def client_head(raw: bytes) -> Outcome:
    """Names in lower case and values without blanks around them, as the server hands them on."""
    lines = raw.rstrip(b"\r\n").split(b"\r\n")[1:]
    pairs = [line.partition(b":")[::2] for line in lines]
    try:
        head = edge.read_head([(name.lower(), value.strip()) for name, value in pairs])
    except InvalidCall as why:
        return refusal(why)
    return {"authorization": head.authorization.decode()}


def address(raw: bytes, *, allow_private: bool) -> Outcome:
    try:
        addresses.check("provider.example", raw.decode(), allow_private=allow_private)
    except addresses.ForbiddenAddress:
        return {"refused": True}
    return {"refused": False}


def forwarded(raw: bytes) -> Outcome:
    return {"client": client_address("10.0.0.1", raw.decode(), networks(("10.0.0.0/8",)))}


def prices(raw: bytes) -> Outcome:
    try:
        good, wrong = price_csv.apart(price_csv.read_prices(price_csv.decoded([raw])))
    except price_csv.Unreadable as why:
        return {"unreadable": str(why)}
    route = good[0].route if good else ""
    return {"good": len(good), "wrong": " ".join(map(str, wrong)), "route": route}


def bill(raw: bytes) -> Outcome:
    try:
        lines = provider_csv.read(raw).lines
    except provider_csv.Unreadable as why:
        return {"unreadable_line": why.errors[0][0]}
    return {"lines": len(lines), "tokens": lines[0].tokens}


def key(raw: bytes) -> Outcome:
    return {"known": keys.take_apart(raw.decode()) is not None}


READERS: dict[str, Callable[..., Outcome]] = {
    "requests": request,
    "bounded": bounded,
    "answers": answer,
    "errors": error,
    "retry_after": retry_after,
    "streams": stream,
    "heads": answer_head,
    "client_heads": client_head,
    "addresses": address,
    "forwarded": forwarded,
    "prices": prices,
    "bills": bill,
    "keys": key,
}


def becomes(name: str) -> Outcome:
    return READERS[Path(name).parent.name]((CORPUS / name).read_bytes(), **INDEX[name].get("given", {}))


@pytest.mark.parametrize("name", INDEX)
def test_it_becomes_what_it_must(name):
    expected, found = INDEX[name]["becomes"], becomes(name)

    assert {each: found.get(each) for each in expected} == expected


def test_every_file_says_why_it_is_here_and_what_must_come_of_it():
    files = {str(each.relative_to(CORPUS)) for each in CORPUS.rglob("*") if each.is_file()} - {"index.toml"}

    assert files == set(INDEX)
    assert [name for name, says in INDEX.items() if not says["becomes"]] == []
    assert [name for name, says in INDEX.items() if ("went_wrong" in says) == ("guards" in says)] == []


def test_a_body_just_short_of_too_deep_is_read_or_refused_however_much_stack_is_left():
    """At some depths of the stack its first reading is the last that fits."""
    raw = (CORPUS / "requests/nested-just-short-of-too-deep.json").read_bytes()

    found = {tuple(sorted(from_deeper(raw, steps).keys())) for steps in range(100)}

    assert found == {("max_tokens", "model_name", "sent"), ("param", "refused", "says")}


def from_deeper(raw: bytes, steps: int) -> Outcome:
    return from_deeper(raw, steps - 1) if steps else request(raw)


def test_the_corpus_is_counted(proof):
    once = sum("went_wrong" in says for says in INDEX.values())

    proof(
        "C5",
        figure=f"{once} inputs that went wrong once and {len(INDEX) - once} that a rule is there for; what "
        "share of all mistakes that is was **not counted**: those whose trigger is no input have regression "
        "tests instead",
        n=f"{len(INDEX)} files",
    )
    assert once
