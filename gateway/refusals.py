"""What was refused goes to the books too: counted exactly, and the last of it explained.

A listener between the relay and the floor above. Refusals may come by the thousand where calls do not,
so they are added up for a second and written down together: a process that is killed loses a second of them.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from accounts.caller import Priority
from gateway.errors import JournalFull
from gateway.relay.call import new_call_id
from gateway.relay.ports import Listener
from gateway.relay.records import Refusals, Refused, RefusedCount, Settled

EVERY_S = 1.0
MOST_EXPLAINED = 200
"""Of one team in one record: the last ones."""
MOST_TEAMS = 20
"""Whose refusals are explained in one record; those of others are counted."""
MOST_COUNTS = 2000
"""In one record, so that a segment of the journal has room for it."""
UNKNOWN = "model_not_found"
"""The code of calls whose model name anybody may have made up, so it is kept with the explained ones only."""
MOST_KINDS = 50_000
"""Kept while the journal is full: what is of another kind is not counted then."""
MINUTE_US = 60_000_000

Kind = tuple[int, int, int, str, str, Priority]
"""Minute, team, key, route, code, priority."""


class Notebook(Protocol):
    """The journal, as far as it is needed here."""

    def note(self, record: Refusals, /) -> None:
        """Raises errors.JournalFull."""


class RefusalRecorder:
    """Told of every record; hands on whatever it is told. Lives on the relay's loop."""

    def __init__(
        self, listener: Listener, notebook: Notebook, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._listener, self._notebook, self._now_ns = listener, notebook, now_ns
        self._counts: Counter[Kind] = Counter()
        self._last: dict[int, deque[Refused]] = {}

    def __repr__(self) -> str:
        return f"<RefusalRecorder, {self._counts.total()} refusals to write down>"

    def settled(self, record: Settled, /) -> None:
        self._listener.settled(record)

    def refused(self, refused: Refused, /) -> None:
        """Count one call that was not let in, and hand it on."""
        route = "" if refused.code == UNKNOWN else refused.route
        minute = refused.at_us // MINUTE_US
        kind = (minute, refused.team_id, refused.key_id, route, refused.code, refused.priority)
        if kind in self._counts or len(self._counts) < MOST_KINDS:
            self._counts[kind] += 1
        last = self._last.get(refused.team_id)
        if last is None and len(self._last) < MOST_TEAMS:
            last = self._last[refused.team_id] = deque(maxlen=MOST_EXPLAINED)
        if last is not None:
            last.append(refused)
        self._listener.refused(refused)

    async def run(self) -> None:
        """Write down what came, once a second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.write_down()

    def write_down(self) -> None:
        """What came since the last time. What a full journal does not take is kept for the next."""
        while self._counts:
            kinds = list(self._counts)[:MOST_COUNTS]
            try:
                self._notebook.note(self._record(kinds))
            except JournalFull:
                return
            for kind in kinds:
                del self._counts[kind]
            self._last.clear()

    def _record(self, kinds: list[Kind]) -> Refusals:
        now_ns = self._now_ns()
        return Refusals(
            new_call_id(now_ns),
            now_ns // 1000,
            tuple(RefusedCount(*kind, self._counts[kind]) for kind in kinds),
            tuple(each for last in self._last.values() for each in last),
        )
