"""What lives as long as the process: opened and closed here, and handed to those who need it."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from django.conf import settings
from django.db import DatabaseError, connection

from accounts.authentication import Authenticator, WrongPeppers, check_peppers
from accounts.changes import change_number
from accounts.signals import changed
from gateway import standing, upstreams
from gateway.addresses import networks
from gateway.endpoints import RelayApplication
from gateway.errors import JournalFull
from gateway.figures import Figures, of_this_process
from gateway.glance import Glance, Seen, UnderWay, under_way
from gateway.ledger.journal import Journal
from gateway.ledger.sweeper import sweep, tell_nobody
from gateway.ledger.writer import Writer, book_left
from gateway.meter import Meter, Taken
from gateway.news import DatabaseNews, SharedNews
from gateway.peers import Peers, Role
from gateway.refusals import RefusalRecorder
from gateway.relay import limits, tokenizer
from gateway.relay.admission import Admission
from gateway.relay.attempt import Attempt, Limits
from gateway.relay.call import new_call_id
from gateway.relay.lifeline import Cut, Lifelines
from gateway.relay.pipeline import Relay
from gateway.relay.ports import Change, Listener, Transport
from gateway.relay.records import Settled
from gateway.relay.targets import Targets, TargetState
from gateway.relay.transports.choice import Transports
from gateway.services import WrongCurrency, check_currency
from gateway.shared import Shared
from gateway.snapshot import Snapshot
from gateway.worker import leaving

log = logging.getLogger(__name__)

POLL_S = 0.5
"""How often the change counter is read, so that another process's change is heard of in time."""
LOOK_S = 2.0
"""A look at the database that takes longer finds it away."""
FLUSH_USES_S = 10.0
SETTLE_S = 3.0
"""How long a call that the drain's end cut may take to settle. The server gives a process five."""
TURN_S = 3600.0
"""The journal goes on in a new segment so often: calls that are booked leave it soon after the last of those
that were opened before them. Retention waits for that: what it deleted would be new to the ledger."""
ASK_S = 5.0
"""How long a page waits for the relay's loop to tell of its targets."""
SWITCH_INTERVAL_S = 0.0002
"""A busy Python thread holds the relay's loop up for this long, not for the usual 5 ms."""


class CannotStart(Exception):
    """The message says why, in a sentence that helps."""


class Companion(Protocol):
    """What the floor above adds to the process: told of every record, opened and closed with the gateway."""

    @property
    def listener(self) -> Listener: ...

    async def open(self, peers: Peers, /, *, publishes: bool) -> None:
        """`publishes`: calls end in this process."""

    def adopted(self, process: str, found: Iterable[Settled], /) -> None:
        """How a dead process's calls ended. In the writer's thread."""

    def drain(self) -> None:
        """Pages go elsewhere; records still come until the close."""

    async def close(self) -> None: ...

    def database(self, *, away: bool) -> None:
        """Whether the database is away, on the relay's loop; said again and again."""

    def rights_changed(self, user_id: int, /) -> None:
        """What a person may see was changed by another process; 0: anybody's may have."""

    def look_through(self, glance: Glance, /) -> None:
        """Where to ask what is under way at this moment; told once, when all is open."""


@dataclass(slots=True, weakref_slot=True)
class Gateway:
    """One process's gateway, between opening and closing."""

    companion: Companion
    role: Role = "all"
    """`pages`: it serves no calls."""
    state: Literal["starting", "ready", "draining", "stopped"] = "starting"
    relay: RelayApplication | None = None
    meter: Meter = field(init=False)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    _journal: Journal | None = None
    _writer: Writer | None = None
    _snapshot: Snapshot = field(default_factory=Snapshot)
    _keys: Authenticator | None = None
    _targets: Targets | None = None
    _transport: Transport | None = None
    _shared: Shared | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: int = -1
    _database_away: bool = False

    async def open(self) -> None:
        """Raises CannotStart. On return calls are served, or pages."""
        env = settings.ENV
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._loop = asyncio.get_running_loop()
        self._hold_the_relay(env.var_dir / "relay.lock", shared=bool(env.redis_url))
        process, root = new_call_id(time.time_ns()), env.var_dir / "journal"
        self._keys = keys = Authenticator(settings.KEY_PEPPERS)
        self._stack.push_async_callback(keys.close)
        threads = ThreadPoolExecutor(1, thread_name_prefix="changes")
        self._stack.callback(threads.shutdown)
        self._shared = shared = self._share(process, root)
        await asyncio.to_thread(self._read_what_is_there, root, shared)
        await shared.peers.open()
        self._stack.push_async_callback(shared.peers.close)
        if self.role != "pages":
            await self._serve_calls(root / process, keys, shared)
        else:
            await self.companion.open(shared.peers, publishes=False)
        await shared.open()
        self._stack.push_async_callback(shared.close)
        changed.connect(self._changed_here)
        leaving.connect(self.retire)
        self._let_figures_be_asked(shared)
        self.companion.look_through(self)
        self._watch(threads)
        gc.collect()
        gc.freeze()  # what was made by now lives as long as the process
        gc.set_threshold(50_000, 20, 20)
        self.state = "ready"

    async def _serve_calls(self, folder: Path, keys: Authenticator, shared: Shared) -> None:
        self._journal = journal = self._open_journal(folder)
        await self.companion.open(shared.peers, publishes=True)
        self._writer = Writer(journal, folder.parent, adopted=self._adopted)
        self._writer.start()
        self.relay = await self._build(journal, keys, shared)

    def _share(self, process: str, root: Path) -> Shared:
        env = settings.ENV
        return Shared(
            env.redis_url,
            process,
            self.role,
            root,
            call_timeout_s=env.call_timeout_s,
            heard=self._heard_of_change,
            rights=self.companion.rights_changed,
            told=self._breaker_told,
            divided=self._divided,
            figures=None if self.role == "pages" else self._own_figures,
        )

    def _adopted(self, process: str, found: list[Settled]) -> None:
        """A dead process's calls are on the books. In the writer's thread. Raises Unavailable."""
        assert self._shared is not None
        self._shared.adopted(process, found)
        self.companion.adopted(process, found)

    def _heard_of_change(self, number: int) -> None:
        """Another process changed something: its keys are asked for again before the rest is read."""
        if number != self._seen and self._keys is not None:
            self._keys.forget()
            self._heard.set()

    def _breaker_told(self, target_id: int, change: Change) -> None:
        if self._targets is not None:
            self._targets.told(target_id, change)

    def _divided(self, rank: int, live: int) -> None:
        if self._targets is not None:
            self._targets.divide(rank, live)

    def _own_figures(self) -> Figures:
        return Figures(
            self.meter.taken(),
            self._own_targets(),
            of_this_process(),
            journal_bytes=0 if self._journal is None else self._journal.written_bytes,
            behind=int("database" in self.degraded()),
        )

    async def figures(self) -> Figures:
        """Of all processes, at this moment; on the relay's loop only."""
        assert self._shared is not None
        return await self._shared.together.figures()

    def __post_init__(self) -> None:
        self.meter = Meter(self.companion.listener)

    def _hold_the_relay(self, path: Path, *, shared: bool) -> None:
        """Alone, or beside others that share a Redis too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise CannotStart(
                f"another gateway already runs on {path.parent}: stop it, give this one its own VAR_DIR, "
                "or give both the same REDIS_URL."
            ) from None
        self._stack.callback(os.close, lock)

    def _read_what_is_there(self, root: Path, shared: Shared) -> None:
        """Adopt dead journals and read the catalog, before the first call."""
        try:
            check_peppers(settings.KEY_PEPPERS)
            check_currency(settings.LEDGER_CURRENCY)
            sweep(root, book_left, shared.adopted)
            self._seen = change_number()
            self._snapshot.refresh()
            tokenizer.ready()
        except (WrongPeppers, WrongCurrency) as why:
            raise CannotStart(str(why)) from None
        except DatabaseError as why:
            raise CannotStart(f"the database cannot be read: {why}. Run 'manage.py migrate' first.") from None
        finally:
            connection.close()

    def _open_journal(self, folder: Path) -> Journal:
        env = settings.ENV
        try:
            journal = Journal(folder, max_bytes=env.journal_max_bytes, strict=env.journal_sync == "strict")
        except (OSError, JournalFull) as why:
            raise CannotStart(f"the journal in {folder.parent} cannot be written: {why}") from why
        self._stack.push_async_callback(self._end_books, journal, folder.parent)
        return journal

    async def _end_books(self, journal: Journal, root: Path) -> None:
        """Sealed on the loop that appends, so that nothing is appended between the look and the mark."""
        journal.seal()
        await asyncio.to_thread(self._close_books, journal, root)

    def _close_books(self, journal: Journal, root: Path) -> None:
        """Everything to the database; what cannot go there stays in the journal for the next start.

        A journal that is all on the books is marked, and is not booked again by who adopts it.
        """
        is_booked = False
        if self._writer is not None:
            self._writer.stop()
            is_booked = self._writer.has_booked_all
        journal.close(is_booked=is_booked)
        adopted = tell_nobody if self._shared is None else self._shared.adopted
        try:
            sweep(root, book_left, adopted)
        except DatabaseError as why:
            log.warning("the journal stays for the next start: %s", why)
        finally:
            connection.close()

    async def _build(self, journal: Journal, keys: Authenticator, shared: Shared) -> RelayApplication:
        env = settings.ENV
        clock = time.monotonic
        bounds = Limits(env.call_timeout_s, env.send_timeout_s, env.max_answer_bytes)
        self._transport = transport = Transports(allow_private=env.allow_private_upstreams)
        self._stack.push_async_callback(transport.close)
        listener = RefusalRecorder(self.meter, journal)
        self._stack.callback(listener.write_down)
        self._start(listener.run())
        self._start(_turn(journal))
        self._targets = targets = Targets(SharedNews(self._open_news(), shared.feed.tell), clock)
        relay = Relay(
            self._snapshot,
            Admission(journal, listener, clock, shared.counters, settings.LEDGER_CURRENCY),
            targets,
            transport,
            Attempt(bounds, clock, time.time),
            journal,
            listener,
            random.random,
        )
        return RelayApplication(
            relay,
            keys,
            self._snapshot,
            Lifelines(clock),
            bounds,
            max_body_bytes=env.max_body_bytes,
            body_timeout_s=env.body_timeout_s,
            trusted_proxies=networks(env.trusted_proxies),
        )

    def _open_news(self) -> DatabaseNews:
        news = DatabaseNews()
        news.start()
        self._stack.push_async_callback(asyncio.to_thread, news.stop)
        return news

    def _own_targets(self) -> list[TargetState]:
        """Every target as it is in this process at this moment; on the relay's loop only."""
        if self._targets is None or self._transport is None:
            return []
        return self._targets.states(self._snapshot.current(), self._transport)

    def under_way(self) -> UnderWay:
        """Calls of this process at this moment; on the relay's loop only."""
        if self.relay is None or self._targets is None:
            return {}
        return under_way(self.relay.lines.by_team().items(), self._targets.waiting())

    def seen(self) -> Seen:
        """Targets, without the figures of calls, which cost more to take; on the relay's loop only."""
        assert self._shared is not None
        own = None if self.role == "pages" else Figures(Taken({}, {}), self._own_targets())
        found = self._shared.together.latest(own)
        return Seen(found.targets, found.missing)

    def _let_figures_be_asked(self, shared: Shared) -> None:
        """By pages and the API, which run in threads of their own."""
        loop = asyncio.get_running_loop()

        async def targets() -> list[TargetState]:
            own = None if self.role == "pages" else self._own_figures()
            return shared.together.latest(own).targets

        def states() -> list[TargetState]:
            return asyncio.run_coroutine_threadsafe(targets(), loop).result(ASK_S)

        def quotas(quota_ids: Sequence[int]) -> Mapping[int, limits.Figures]:
            return asyncio.run_coroutine_threadsafe(shared.quotas(quota_ids), loop).result(ASK_S)

        upstreams.install(states)
        standing.install(quotas)
        self._stack.callback(upstreams.install, None)
        self._stack.callback(standing.install, None)

    def _watch(self, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.drain)
        if self.relay is not None:
            self._start(self.relay.lines.watch())
        self._start(self._poll(threads))
        self._start(self._flush_uses(threads))

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _changed_here(self, **_: object) -> None:
        """At the commit of a change made in this process; called in the thread that made it."""
        if self._keys is not None:
            self._keys.forget()
        try:
            self._snapshot.refresh()
        except DatabaseError as why:
            log.warning("the catalog stays as it was: %s", why)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._heard.set)  # the calls under way may be of a revoked key

    async def _poll(self, threads: ThreadPoolExecutor) -> None:
        """Hear of changes that other processes and commands made: at once, or at the next look."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._heard.wait()
            was_told = self._heard.is_set()
            self._heard.clear()
            before = self._seen
            look = loop.run_in_executor(threads, self._look)
            if not (await asyncio.wait([look], timeout=LOOK_S))[0]:
                self._database_away = True  # it may be frozen: said before the time limit of a statement
                self.companion.database(away=True)
            self._database_away = await look is False
            self.companion.database(away=self._database_away)
            if was_told or before != self._seen:
                await self._end_revoked()

    def _look(self) -> bool:
        """Whether the database answered."""
        try:
            number = change_number()
            if number != self._seen:
                if self._keys is not None:
                    self._keys.forget()
                self._snapshot.refresh()
                self._seen = number
        except DatabaseError:
            connection.close()  # the next look makes a fresh one
            return False
        return True

    async def _end_revoked(self) -> None:
        """End the open calls of keys that were revoked, and of secrets that ended."""
        if self.relay is None or self._keys is None or not (open_with := self.relay.lines.secrets()):
            return
        try:
            good = await self._keys.still_good(open_with, time.time())
        except (DatabaseError, TimeoutError) as why:
            log.warning("whether open calls may go on is asked again later: %s", why)
            asyncio.get_running_loop().call_later(POLL_S, self._heard.set)
            return
        self.relay.lines.cut_revoked(open_with - good)

    async def _flush_uses(self, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(FLUSH_USES_S)
            await loop.run_in_executor(threads, self._write_uses)

    def _write_uses(self) -> None:
        try:
            if self._keys is not None:
                self._keys.flush_uses()
        except DatabaseError as why:
            log.warning("last used at could not be written, it will be with the next: %s", why)
        finally:
            connection.close()

    def drain(self) -> None:
        """Take no new calls; end what is still open when DRAIN_S is over."""
        if self.state == "draining":
            return
        self.state = "draining"
        if self.relay is not None:
            self.relay.draining = True
            self._start(self._end_streams(settings.ENV.drain_s))
        self.companion.drain()

    def retire(self, **_: object) -> None:
        """Others take new connections from now on; what comes on ours is carried until DRAIN_S is over."""
        if self.relay is not None:
            self._start(self._end_streams(settings.ENV.drain_s))
        self.companion.drain()

    async def _end_streams(self, drain_s: float) -> None:
        assert self.relay is not None
        await asyncio.sleep(drain_s)
        self.relay.lines.cut_all(Cut.STOPPING)

    async def _let_calls_end(self) -> None:
        """A server that stops waits for clients. A call whose client hung up still has to settle, and may
        read its answer on.
        """
        if self.relay is None:
            return
        self.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.ENV.drain_s + SETTLE_S):
                while open_calls := [each.task for each in self.relay.lines.lines]:
                    await asyncio.wait(open_calls)

    def refusing(self) -> list[str]:
        """Why no call is let in, though the process lives."""
        return ["journal"] if self._journal is not None and self._journal.broken else []

    def degraded(self) -> list[str]:
        """What does not work as it should while calls are served."""
        found = []
        if self._shared is not None and self._shared.away:
            found.append("redis")
        if self._database_away or (self._writer is not None and self._writer.behind):
            found.append("database")
        return found

    async def close(self) -> None:
        """Everything that was opened, the last first, once no call is open."""
        await self._let_calls_end()
        self.state = "stopped"
        changed.disconnect(self._changed_here)
        leaving.disconnect(self.retire)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.companion.close()
        await asyncio.to_thread(self._write_uses)
        await self._stack.aclose()


async def _turn(journal: Journal) -> None:
    while True:
        await asyncio.sleep(TURN_S)
        journal.turn()


async def lifespan(gateway: Gateway, receive: Any, send: Any) -> None:
    """ASGI lifespan: https://asgi.readthedocs.io/en/latest/specs/lifespan.html"""
    await receive()
    try:
        await gateway.open()
    except Exception as why:  # the outermost edge: the server must hear that there is no start
        if not isinstance(why, CannotStart):
            log.exception("the gateway cannot start")
        await gateway.close()
        await send({"type": "lifespan.startup.failed", "message": f"penstock: {why}"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await gateway.close()
    await send({"type": "lifespan.shutdown.complete"})
