"""The dashboard's part in a serving process: the live page's fold, hub and ticker."""

import asyncio
import logging
from datetime import UTC, datetime

from django.db import DatabaseError, connection

from dashboard import live
from dashboard.frames import Fold
from gateway.relay.records import Settled

log = logging.getLogger(__name__)


class Live:
    """Listens to the relay, one call at a time, and keeps the live page's clock running."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._stop: asyncio.Event | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def listener(self) -> "Live":
        return self

    def settled(self, record: Settled, /) -> None:
        self._fold.add(record)

    def refused(self, team_id: int, key_id: int, route: str, code: str, /) -> None:
        self._fold.refused(team_id, key_id, route, code)

    def rights_changed(self, user_id: int, /) -> None:
        """Another process changed what a person may see; with 0, anybody's rights may have changed."""
        live.close_sockets_of(user_id or None)

    async def open(self) -> None:
        """Fill in what the books have of the last minutes, before the first call, then tick."""
        hub = live.Hub()
        await asyncio.to_thread(self._fill)
        self._stop = asyncio.Event()
        self._ticker = asyncio.get_running_loop().create_task(live.run(self._fold, hub, self._stop))
        live.install(hub)

    def _fill(self) -> None:
        try:
            live.load_history(self._fold, before=datetime.now(UTC))
        except DatabaseError as why:
            log.warning("the live page starts without its last minutes: %s", why)
        finally:
            connection.close()

    async def close(self) -> None:
        """Close every socket; a second time does nothing."""
        if self._stop is None or self._ticker is None:
            return
        live.install(None)
        self._stop.set()
        await self._ticker
