"""Calls of our own to providers: a test, probes of their latency, and the question which models they have.

They go by the relay's transports, to addresses that are checked as the relay's are, and none takes longer
than TIMEOUT_S. They are nobody's calls: no team pays for them, no limit counts them, and the ledger does not
have them. Whom to ask, and what is kept of it, is left to `gateway.probes`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from http.client import responses
from typing import Any, TypeVar

import aiohttp
import msgspec
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from msgspec import Struct

from gateway import errors
from gateway.inputs import Unusable, clean_name
from gateway.relay import upstream
from gateway.relay.call import new_call_id
from gateway.relay.catalog import Target
from gateway.relay.ports import Answer, Transport
from gateway.relay.records import Usage
from gateway.relay.transports import ConnectTimedOut, TransportError, WriteTimedOut
from gateway.relay.transports.addresses import CheckedResolver
from gateway.relay.transports.connecting import no_connection, trust
from gateway.relay.transports.request import endpoint, headers_to

TIMEOUT_S = 10.0
"""Of one call, from the name's look-up to the answer's last byte."""
COUNT = 10
MODEL_NAME = "gpt-4o-mini"
PROMPT = "Hi"
MOST_TOKENS = 16
"""Of an answer. Fewer are refused by some upstream models that reason."""
LARGEST_ANSWER = 1 << 20
LARGEST_LIST = 8 << 20
"""Routers of many vendors send a list of models of more than a megabyte."""
MOST_MODELS = 5000

T = TypeVar("T")


class Failure(Struct, frozen=True):
    """Why there was no answer; `said` has it as a sentence in the reader's language."""

    code: str
    """timeout, unreachable, status, not_an_answer, or no_credential"""
    status: int | None = None
    words: str = ""
    """The provider's own or the transport's, with no secret in them."""


class Tried(Struct, frozen=True):
    """One call and what came of it."""

    latency_us: int
    usage: Usage | None = None
    """None: not reported, or no answer."""
    failure: Failure | None = None


class Listed(Struct, frozen=True):
    """A provider's answer to the question which models it has."""

    latency_us: int
    names: tuple[str, ...] = ()
    """Sorted, each once."""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Some calls to one provider, one after the other."""

    upstream_model: str
    tries: Sequence[Tried]

    @property
    def latencies_us(self) -> list[int]:
        """Of the calls that were answered; failures have no latency."""
        return [each.latency_us for each in self.tries if each.failure is None]

    @property
    def avg_us(self) -> int | None:
        found = self.latencies_us
        return round(sum(found) / len(found)) if found else None

    @property
    def failures(self) -> Mapping[Failure, int]:
        """How often each came, the most frequent first."""
        return dict(Counter(each.failure for each in self.tries if each.failure).most_common())


# Asking


def run(work: Coroutine[Any, Any, T]) -> T:
    """On a loop of its own, from a thread that has none.

    Unlike `asyncio.run` it does not wait at its end for a name that is still being looked up,
    which no deadline can cut short.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def measure(
    transport: Transport,
    target: Target,
    count: int,
    *,
    for_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Run:
    """So many calls, one after the other; after `for_s` none is begun any more. The first may connect."""
    began = clock()
    tries: list[Tried] = []
    for _no in range(count):
        if tries and for_s is not None and clock() - began >= for_s:
            break
        tries.append(await call_once(transport, target, clock))
    return Run(target.upstream_model, tries)


async def call_once(
    transport: Transport, target: Target, clock: Callable[[], float] = time.monotonic
) -> Tried:
    """One chat completion, whole. Whatever goes wrong is told in what is returned."""
    began = clock()
    usage, failure = None, None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            usage = await _chat(transport, target)
    except TimeoutError:
        failure = Failure("timeout")
    except TransportError as why:
        failure = _unreachable(why, target)
    except _Refused as why:
        failure = why.failure
    except errors.UpstreamFailed as why:
        failure = Failure("not_an_answer", 200, upstream.masked(why.message, target)[:500])
    return Tried(int((clock() - began) * 1e6), usage, failure)


async def models_of(
    target: Target, *, allow_private: bool, clock: Callable[[], float] = time.monotonic
) -> Listed:
    """`GET /models` at the target's provider."""
    began = clock()
    names: tuple[str, ...] = ()
    failure = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            names = _names(await _list(target, allow_private=allow_private))
    except TimeoutError:
        failure = Failure("timeout")
    except TransportError as why:
        failure = _unreachable(why, target)
    except _Refused as why:
        failure = why.failure
    return Listed(int((clock() - began) * 1e6), names, failure)


class _Refused(Exception):
    """The answer is none that can be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


async def _chat(transport: Transport, target: Target) -> Usage | None:
    place = await transport.acquire(target)
    answer = await place.send(new_call_id(time.time_ns()), _body(target))
    try:
        if answer.status != 200:
            raise _Refused(_status(answer.status, await _words(answer), target))
        return upstream.usage_of_answer(await answer.whole(LARGEST_ANSWER))
    finally:
        answer.close()


def _body(target: Target) -> bytes:
    translated = target.parameters.get("max_tokens") == "translate"
    bound = "max_completion_tokens" if translated else "max_tokens"
    messages = [{"role": "user", "content": PROMPT}]
    return msgspec.json.encode({"model": target.upstream_model, "messages": messages, bound: MOST_TOKENS})


async def _words(answer: Answer) -> bytes:
    """Of an error; the status says enough where they cannot be read."""
    try:
        return await answer.whole(upstream.LARGEST_ERROR)
    except TransportError:
        return b""


async def _list(target: Target, *, allow_private: bool) -> bytes:
    """The body of the answer. Raises TransportError, _Refused, TimeoutError."""
    url = endpoint(target, allow_private=allow_private).parent.parent / "models"
    trusted = await trust(target.ca_pem) if target.ca_pem else True
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(allow_private=allow_private), ssl=trusted)
    session = aiohttp.ClientSession(
        connector=connector,
        headers=headers_to(target),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )
    try:
        async with session, session.get(url, allow_redirects=False) as answer:
            body = await _read(answer.content)
    except aiohttp.ClientConnectorError as why:
        raise no_connection(why.os_error) from None
    except aiohttp.ClientError as why:
        words = _("the connection ended without an answer ({what})").format(what=type(why).__name__)
        raise _Refused(Failure("unreachable", None, words)) from None
    if answer.status != 200:
        raise _Refused(_status(answer.status, body, target))
    return body


async def _read(content: aiohttp.StreamReader) -> bytes:
    """All of it. Raises _Refused where it is too large."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > LARGEST_LIST:
            raise _Refused(Failure("not_an_answer", 200, _("The list of models is too large to be read.")))
    return bytes(body)


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models | list[_Model])


def _names(body: bytes) -> tuple[str, ...]:
    """In OpenAI's shape, or the bare list that some send. Raises _Refused."""
    try:
        found = _models.decode(body)
    except upstream.UNREADABLE:
        words = _("What came is not a list of models.")
        raise _Refused(Failure("not_an_answer", 200, words)) from None
    listed = found.data if isinstance(found, _Models) else found
    names = {_usable(each.id.removeprefix("models/")) for each in listed}  # Gemini takes them without, too
    return tuple(sorted(names - {""}))[:MOST_MODELS]


def _usable(name: str) -> str:
    try:
        return clean_name(name, "")
    except Unusable:
        return ""


# Why not


def _unreachable(why: TransportError, target: Target) -> Failure:
    if isinstance(why, ConnectTimedOut | WriteTimedOut):
        return Failure("timeout")
    words = str(why).removeprefix("the provider cannot be reached: ")
    return Failure("unreachable", None, upstream.masked(words, target)[:500])


def _status(status: int, body: bytes, target: Target) -> Failure:
    """With the provider's own words, masked; none where it said nothing that can be read."""
    said, nothing = (upstream.failure(400, each, None, target).message for each in (body, b""))
    return Failure("status", status, "" if said == nothing else said[:500])


def said(failure: Failure) -> str:
    """A sentence or two for a person."""
    head = _head(failure)
    return f"{head} {failure.words}".strip() if failure.code != "unreachable" else head


def _head(failure: Failure) -> str:
    if failure.code == "timeout":
        return _("No whole answer came within {seconds:g} seconds.").format(seconds=TIMEOUT_S)
    if failure.code == "unreachable":
        return _("It cannot be reached: {why}.").format(why=failure.words.rstrip("."))
    if failure.code == "status" and failure.status is not None:
        return _of_status(failure.status)
    return ""


def _of_status(status: int) -> str:
    name = f"{status} {responses.get(status, '')}".strip()
    if status in upstream.CREDENTIAL_REJECTED:
        return _("It does not accept the credential ({status}).").format(status=name)
    if status == 404:
        return _("It does not have this ({status}): the model name or the base URL is wrong.").format(
            status=name
        )
    if status == 429:
        return _("It is throttling this gateway ({status}).").format(status=name)
    return _("It answered with {status}.").format(status=name)


# Telling


def line(name: str, run: Run) -> str:
    """One provider: `HolySheep AI: avg=45ms, min=32ms, max=68ms`, and what failed."""
    found = run.latencies_us
    failed = _failed(run)
    if not found:
        return f"{name}: {failed}"
    figures = ", ".join(
        f"{what}={round(us / 1000)}ms"
        for what, us in (("avg", run.avg_us or 0), ("min", min(found)), ("max", max(found)))
    )
    return f"{name}: {figures}" + (f" ({failed})" if failed else "")


def _failed(run: Run) -> str:
    """How many failed and why; empty where none did."""
    failed = sum(run.failures.values())
    if not run.tries:
        return _("no call was made")
    if not failed:
        return ""
    how_many = ngettext("{failed} of {count} call failed", "{failed} of {count} calls failed", len(run.tries))
    told = how_many.format(failed=failed, count=len(run.tries))
    reasons = "; ".join(
        said(why).rstrip(".") + (f" ({times})" if len(run.failures) > 1 else "")
        for why, times in run.failures.items()
    )
    return f"{told}: {reasons}"


def verdict(runs: Sequence[tuple[str, Run]]) -> str:
    """How many times faster the best is than each of the others, by their averages."""
    answered = sorted((found.avg_us, name) for name, found in runs if found.avg_us is not None)
    if not answered:
        return _("No provider answered.")
    (best_us, best), *others = answered
    if not others:
        return _("Only {best} answered, so there is nothing to compare it with.").format(best=best)
    return f"{best} {_joined([_than(name, avg_us / best_us) for avg_us, name in others])}."


def _than(name: str, times: float) -> str:
    told = f"{times:.1f}"
    if told == "1.0":
        return _("is as fast as {name}").format(name=name)
    return _("is {times} times faster than {name}").format(times=told, name=name)


def _joined(parts: Sequence[str]) -> str:
    *first, last = parts
    return _("{first} and {last}").format(first=", ".join(first), last=last) if first else last
