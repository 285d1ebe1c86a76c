"""The dashboard's part in a serving process: the live page's fold, hub and ticker."""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from django.db import DatabaseError, connection

from dashboard import live
from dashboard.frames import Fold, Frame
from dashboard.gathering import Alone, Gathering, Shared
from gateway.feed import EVERYBODY
from gateway.glance import Glance
from gateway.peers import Peers
from gateway.relay.records import Refused, Settled

log = logging.getLogger(__name__)

SAME_MOMENT_S = 3
"""A second that ended longer ago, as those of the history did, had other calls under way."""


class Live:
    """Listens to the relay, one call at a time, and keeps the live page's clock running."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._hub: live.Hub | None = None
        self._gathering: Gathering | None = None
        self._glance: Glance | None = None
        self._stop = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._adopted: set[str] = set()
        """The processes of which this has shown all, and this one."""

    @property
    def listener(self) -> "Live":
        return self

    def settled(self, record: Settled, /) -> None:
        self._fold.add(record)

    def refused(self, refused: Refused, /) -> None:
        self._fold.refused(refused.team_id, refused.key_id, refused.route, refused.code)

    async def open(self, peers: Peers | None = None, *, publishes: bool = True) -> None:
        """Fill in what is known of the last minutes, before the first call, then tick.

        `publishes`: calls end in this process, so that the others wait for its frames.
        """
        self._hub = hub = live.Hub()
        gathering: Gathering = Alone(hub)
        if peers is not None and peers.url:
            self._adopted.add(peers.process)
            gathering = Shared(hub, peers, publishes=publishes)
        self._gathering = gathering
        await gathering.open(self._fold, _fill)
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.create_task(live.run(self._fold, self._publish, self._stop))
        live.install(hub)

    def look_through(self, glance: Glance, /) -> None:
        """From now on frames say what is under way, and pages how the targets are."""
        self._glance = glance

    def _publish(self, frame: Frame) -> None:
        """A second of this process is over: with what is under way, at the moment of its end."""
        assert self._gathering is not None
        assert self._hub is not None
        if self._glance is not None and frame.at_s >= int(time.time()) - SAME_MOMENT_S:
            frame.under_way = self._glance.under_way()
            self._hub.see(self._glance.seen() if len(self._hub) else None)
        self._gathering.publish(frame)

    def adopted(self, process: str, found: Iterable[Settled]) -> None:
        """How calls of a dead process ended: those that it told nobody of are shown now, once.

        May be called from any thread.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._adopt, process, tuple(found))

    def _adopt(self, process: str, found: tuple[Settled, ...]) -> None:
        if self._gathering is None or process in self._adopted:
            return
        newest = self._gathering.newest_of(process)
        if not newest:  # its calls are older than anything that is shown, or were read from the books
            return
        self._adopted.add(process)
        for each in found:
            if each.ended_at_us // 1_000_000 > newest:
                self._fold.add(each)

    def database(self, *, away: bool) -> None:
        """Said on the live page from the next frame on."""
        if self._hub is not None:
            self._hub.database_away = away

    def rights_changed(self, user_id: int, /) -> None:
        """A person's, in another process, or EVERYBODY's. May be called from any thread."""
        if user_id == EVERYBODY:
            live.recheck_sockets()
        else:
            live.close_sockets_of(user_id)

    def drain(self) -> None:
        """Pages go elsewhere; what ends until the close is told to the others still."""
        live.install(None)
        if self._hub is not None:
            self._hub.close_all()

    async def close(self) -> None:
        """Tell the others the last of it; a second time does nothing."""
        ticker, self._ticker = self._ticker, None
        if ticker is None or self._gathering is None:
            return
        self.drain()
        self._stop.set()
        await ticker
        *others, last = self._fold.tick(int(time.time()) + 1) or [Frame(int(time.time()))]
        for each in others:
            self._gathering.publish(each)
        await self._gathering.close(last)


def _fill(fold: Fold, before_s: float) -> None:
    try:
        live.load_history(fold, before=datetime.fromtimestamp(before_s, UTC))
    except DatabaseError as why:
        log.warning("the live page starts without its last minutes: %s", why)
    finally:
        connection.close()
