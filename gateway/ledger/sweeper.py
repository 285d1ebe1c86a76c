"""What dead processes left behind: their journals are adopted and their open calls closed.

A process holds its journal's lock for life, so whoever gets the lock knows that it is dead.

A journal is booked once: when its calls are on the books it is marked, here or by its process at a clean
stop, and the mark is asked for before anything else. Books take a call once by its id, but only while they
have it; from a journal that is marked, what they deleted since does not come back.
Killed before the mark, whoever comes next books it all again; after the mark, nothing.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gateway.errors import Unavailable
from gateway.ledger.journal import BOOKED, HEAD, Held, frames, hold, mark_booked
from gateway.relay.records import (
    AttemptEnded,
    Dispatched,
    Opened,
    Record,
    Refusals,
    Released,
    Settled,
    Usage,
    total_of,
)

log = logging.getLogger(__name__)

Book = Callable[[Sequence[Settled], Sequence[Refusals]], object]
Adopted = Callable[[str, list[Settled]], object]
"""Told of a dead process, by its id, and of how its calls ended, once they are on the books.

Raises errors.Unavailable where it cannot act on it now; then it is told again, of the same ends.
"""


def tell_nobody(process: str, found: list[Settled]) -> None:
    """Nothing but the books counts calls."""


def ends(records: Iterable[Record]) -> list[Settled]:
    """Every call of a journal with its end: its own, or `abandoned` where it has none.

    A call that was refused after it was opened is none.

    Pure, and the same for the same records, so that adopting twice books once.
    """
    opened: dict[str, Opened] = {}
    sent: dict[str, list[Dispatched]] = {}
    settled: dict[str, Settled] = {}
    last_us = 0
    for record in records:
        if isinstance(record, Settled):
            settled[record.call_id] = record
            last_us = max(last_us, record.ended_at_us)
        elif isinstance(record, Refusals):
            last_us = max(last_us, record.at_us)
        elif isinstance(record, Released):
            opened.pop(record.call_id, None)
            last_us = max(last_us, record.released_at_us)
        else:
            last_us = max(last_us, record.started_at_us)
            if isinstance(record, Opened):
                opened[record.call_id] = record
            else:
                sent.setdefault(record.call_id, []).append(record)
    lost = (each for call_id, each in opened.items() if call_id not in settled)
    return [*settled.values(), *(abandoned(each, sent.get(each.call_id, []), last_us) for each in lost)]


def abandoned(opened: Opened, sent: list[Dispatched], ended_at_us: int) -> Settled:
    """The entry of a call never settled: nothing if nothing was sent, else the worst case of what was."""
    latency_us = max(0, ended_at_us - opened.started_at_us)
    return Settled(
        opened.call_id,
        opened.started_at_us,
        ended_at_us,
        opened.team_id,
        opened.key_id,
        opened.route,
        opened.streamed,
        opened.simulated,
        opened.tags,
        "abandoned",
        499,
        "abandoned",
        latency_us,
        None,
        _worst(sent),
        sum(each.worst_cost_nanos for each in sent),
        any(each.price_id is None for each in sent),
        tuple(_abandoned_attempt(each, ended_at_us) for each in sent),
    )


def _worst(sent: list[Dispatched]) -> Usage:
    if not sent:
        return Usage()
    return total_of([each.worst for each in sent], "estimated")


def _abandoned_attempt(sent: Dispatched, ended_at_us: int) -> AttemptEnded:
    return AttemptEnded(
        sent.attempt_no,
        sent.target_id,
        sent.provider,
        sent.upstream_model,
        "abandoned",
        None,
        sent.started_at_us,
        max(0, ended_at_us - sent.started_at_us),
        None,
        sent.worst,
        sent.price_id,
        sent.worst_cost_nanos,
        price=sent.price,
    )


def sweep(root: Path, book: Book, adopted: Adopted = tell_nobody) -> int:
    """Adopt every journal whose process is dead; returns how many calls were carried to the books.

    A journal stays until `adopted` took it. It is booked once: what was deleted of it would be new again.
    Raises what `book` raises, with the journal left as it was.
    """
    if not root.is_dir():
        return 0
    folders = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    return sum(_adopt(each, book, adopted) for each in folders)


def _adopt(folder: Path, book: Book, adopted: Adopted) -> int:
    try:
        lock = hold(folder)
    except (Held, FileNotFoundError):
        return 0
    try:
        records = read(folder)
        found = ends(records)
        booked = _book_once(folder, book, records, found)
        adopted(folder.name, found)
        _put_away(folder)
        if found:
            log.info("adopted the journal %s: %d calls are on the books", folder.name, len(found))
    except Unavailable as why:
        log.info("the journal %s is on the books and stays for the next round: %s", folder.name, why)
    finally:
        os.close(lock)
    return booked


def _book_once(folder: Path, book: Book, records: Sequence[Record], found: Sequence[Settled]) -> int:
    """Gives how many calls it carried to the books."""
    if (folder / BOOKED).exists():
        return 0
    book(found, [each for each in records if isinstance(each, Refusals)])
    mark_booked(folder)
    return len(found)


def oldest_us(root: Path) -> int | None:
    """When the oldest was written that may be left to book; None: nothing is.

    Of each segment it reads the first record: a call in it that began earlier did so by its own length.
    Takes no lock, so nobody who adopts a journal meanwhile finds it held.
    """
    found = (_first_us(path) for path in root.glob("[!.]*/*.seg") if not (path.parent / BOOKED).exists())
    return min((each for each in found if each is not None), default=None)


def _first_us(path: Path) -> int | None:
    """None for one that holds nothing, that cannot be read, or that was put away meanwhile."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD.size)
            payload = file.read(HEAD.unpack(head)[0]) if len(head) == HEAD.size else b""
    except FileNotFoundError:
        return None
    return next((_at_us(record) for _, record in frames(head + payload)), None)


def _at_us(record: Record) -> int:
    if isinstance(record, Refusals):
        return record.at_us
    return record.released_at_us if isinstance(record, Released) else record.started_at_us


def read(folder: Path) -> list[Record]:
    """All that can be read of a journal, in the order in which it was written."""
    found: list[Record] = []
    for path in sorted(folder.glob("*.seg")):
        data = path.read_bytes()
        end = 0
        for behind, record in frames(data):
            end = behind
            found.append(record)
        _keep_unreadable(path, data[end:].rstrip(b"\0"), end)
    return found


def _keep_unreadable(path: Path, rest: bytes, end: int) -> None:
    """What a crash tore or a disk damaged is set aside for a person, never thrown away."""
    if rest:
        aside = path.parent.with_name(f".unreadable-{path.parent.name}-{path.stem}-{end}")
        aside.write_bytes(rest)
        log.warning(
            "%s/%s ends in %d unreadable bytes, kept in %s", path.parent.name, path.name, len(rest), aside
        )


def _put_away(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
