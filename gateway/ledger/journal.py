"""The journal: what happened, kept by the kernel before anyone is told of it.

Each process appends to a journal of its own, a folder with a lock and numbered segments.
A segment is allocated whole and mapped into memory, so an append is a copy into the page cache:
it needs no system call, cannot meet a full disk, and outlives `kill -9`.
A group fdatasync bounds what a power cut can take.

A frame is 8 bytes of head (length and CRC-32 of the payload, little endian) and the payload, a
MessagePack record. A length of zero is the end. Room for a call's end is kept from its opening on.

Does not know the database; `ledger/writer.py` carries the records there.
"""

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gateway.errors import JournalFull
from gateway.relay.ports import Ticket
from gateway.relay.records import Dispatched, Opened, Record, Refusals, Released, Settled

log = logging.getLogger(__name__)

HEAD = struct.Struct("<II")
SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_EVERY_S = 0.02
"""So that a record is on the disk within 50 ms, the sync's own time included."""
CALL_ROOM = 1024
"""Bytes of a `Settled` beyond what its `Opened` repeats."""
ATTEMPT_ROOM = 448
"""Bytes of an `AttemptEnded` beyond what its `Dispatched` repeats."""
LOCK = "lock"
BOOKED = "booked"
"""A file in a journal whose every call is on the books. What the ledger deleted since would be new to it."""

ToDisk = Callable[[int], None]
"""Returns when what a descriptor's file holds is on the disk; `os.fdatasync`, or one that watches it."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Held(Exception):
    """Another living process holds this journal."""


class Segment:
    """One file of the journal: allocated whole, mapped, appended to by one thread, read by another."""

    def __init__(self, path: Path, size: int, to_disk: ToDisk = os.fdatasync) -> None:
        """Raises OSError where the disk has no room."""
        self.path, self.size, self.end = path, size, 0
        self._to_disk = to_disk
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._file, 0, size)
            self._map = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            path.unlink()
            raise
        self.synced = 0

    def append(self, payload: bytes) -> None:
        """The caller has seen to the room. The payload comes first, so a torn frame has no valid head."""
        start, size = self.end, len(payload)
        body = start + 8
        self._map[body : body + size] = payload
        HEAD.pack_into(self._map, start, size, zlib.crc32(payload))
        self.end = body + size

    def read(self, start: int, end: int) -> Iterator[Record]:
        """The records between two positions that lie between frames."""
        yield from (record for _, record in self.read_on(start, end))

    def read_on(self, start: int, end: int) -> Iterator[tuple[int, Record]]:
        """The same, each with how far behind `start` it ends."""
        yield from frames(self._map[start:end])

    def sync(self) -> None:
        """To the disk, with what was appended until now."""
        end = self.end
        if end > self.synced:
            self._to_disk(self._file)
            if not self.synced:
                _sync_folder(self.path.parent)
            self.synced = end

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def forget(self) -> None:
        self.close()
        self.path.unlink()


def frames(data: bytes) -> Iterator[tuple[int, Record]]:
    """Each whole record and the position behind it; ends at the first frame that is not whole."""
    for behind, payload in payloads(data):
        try:
            record = _decode(payload)
        except msgspec.DecodeError:
            return
        yield behind, record


def payloads(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The same, undecoded."""
    at = 0
    while at + 8 <= len(data):
        size, crc = HEAD.unpack_from(data, at)
        payload = data[at + 8 : at + 8 + size]
        if size == 0 or len(payload) < size or zlib.crc32(payload) != crc:
            return
        at += 8 + size
        yield at, payload


def _sync_folder(folder: Path) -> None:
    """A new file's name is safe from a power cut only once its folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(folder: Path) -> int:
    """Take the journal's lock for life; the descriptor is the hold. Raises Held, OSError."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Held(str(folder)) from None
    return lock


def _make_and_hold(folder: Path) -> int:
    """A sweeper never sees the folder without its lock being held."""
    fresh = folder.with_name(f".{folder.name}")
    fresh.mkdir(parents=True, mode=0o700)
    lock = hold(fresh)
    fresh.rename(folder)
    _sync_folder(folder.parent)
    return lock


def mark_booked(folder: Path) -> None:
    """Once the books are on the disk, and while the journal's lock is held. Raises OSError."""
    (folder / BOOKED).touch(mode=0o600)
    _sync_folder(folder)


class Journal:
    """This process's own journal. Appended to on the relay's loop only."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        strict: bool = False,
        to_disk: ToDisk = os.fdatasync,
    ) -> None:
        """Raises OSError where the folder cannot be made or written to."""
        self._to_disk = to_disk
        self.folder = folder
        self._lock = _make_and_hold(folder)
        self._max_bytes, self._segment_bytes = max_bytes, segment_bytes
        self.segments: list[Segment] = []
        self._kept = 0
        self._number = 0
        self._strict = strict
        self.sealed = False
        """No call is opened any more."""
        self.broken = False
        """A sync failed. What the disk holds is unknown from then on, so this stays true."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._asked = threading.Event()
        self._stopping = False
        self._files = threading.Lock()
        self._rotate(0)
        self._syncer = threading.Thread(target=self._sync_for_ever, name="journal-sync", daemon=True)
        self._syncer.start()

    def __repr__(self) -> str:
        return (
            f"<Journal {self.folder.name}, {len(self.segments)} segments, {self._kept} B kept for open calls>"
        )

    @property
    def written_bytes(self) -> int:
        """What is in it, with what is on the ledger already and shares a segment with what is not."""
        return sum(each.end for each in self.segments)

    def open(self, record: Opened) -> Ticket:
        """Write down a call's admission and keep room for its end. Raises JournalFull."""
        if self.broken or self.sealed:
            raise JournalFull
        payload = _encode(record)
        room = len(payload) + CALL_ROOM
        self._append(payload, room)
        return Ticket(room)

    def dispatch(self, ticket: Ticket, record: Dispatched) -> None:
        """Write down that an attempt is about to be sent. Raises JournalFull."""
        payload = _encode(record)
        room = len(payload) + ATTEMPT_ROOM
        self._append(payload, room)
        ticket.room += room

    def settle(self, ticket: Ticket, record: Settled) -> None:
        """Write down a call's end, in the room kept for it.

        What only explains the call may be too long for that room; then it is left out.
        """
        payload = _encode(record)
        if len(payload) + 8 > ticket.room:
            payload = _encode(msgspec.structs.replace(record, limits=(), plan=()))
        if len(payload) + 8 > ticket.room:
            payload = _encode(msgspec.structs.replace(record, skipped=(), limits=(), plan=()))
        self._end(ticket, payload)

    def release(self, ticket: Ticket, record: Released) -> None:
        """Write down that the call was refused after all, in the room kept for its end."""
        self._end(ticket, _encode(record))

    def note(self, record: Refusals) -> None:
        """Write down what was refused. Raises JournalFull."""
        if self.sealed:
            raise JournalFull
        self._append(_encode(record), 0)

    def _end(self, ticket: Ticket, payload: bytes) -> None:
        self.segments[-1].append(payload)
        self._kept -= ticket.room
        ticket.room = 0

    def _append(self, payload: bytes, room: int) -> None:
        """Append and keep `room` beside it, in a new segment where this one has too little."""
        last = self.segments[-1]
        kept = self._kept + room
        if last.end + len(payload) + 8 + kept > last.size:
            self._rotate(len(payload) + 8 + kept)
            last = self.segments[-1]
        last.append(payload)
        self._kept = kept

    def _rotate(self, needed: int) -> None:
        """Go on in a new segment that has room for every open call's end. Raises JournalFull."""
        size = max(self._segment_bytes, needed)
        if sum(each.size for each in self.segments) + size > self._max_bytes:
            raise JournalFull
        path = self.folder / f"{self._number + 1:08d}.seg"
        try:
            fresh = Segment(path, size, self._to_disk)
        except OSError:
            raise JournalFull from None
        self._number += 1
        self.segments.append(fresh)

    def turn(self) -> None:
        """Go on in a new segment where this one holds anything, so that what is booked can be forgotten.

        Without room for another, this one goes on.
        """
        if self.segments[-1].end:
            with contextlib.suppress(JournalFull):
                self._rotate(self._kept)

    def seal(self) -> None:
        """From here on only calls that are open may be written of: where none is, nothing is."""
        self.sealed = True

    def forget_first(self) -> None:
        """The oldest segment is on the books."""
        with self._files:
            self.segments.pop(0).forget()

    async def on_disk(self) -> None:
        """In the strict setting, wait for the next group sync. Raises JournalFull."""
        if self._strict:
            done = asyncio.get_running_loop().create_future()
            self._waiting.append(done)
            self._asked.set()
            await done

    def sync(self) -> None:
        """One group sync; wakes who waited for it when it began."""
        waiting = len(self._waiting)
        try:
            with self._files:
                for each in list(self.segments):
                    each.sync()
        except OSError as why:
            log.error("the disk does not take the journal, so no call is let in any more: %s", why)
            self.broken = True
        for _ in range(waiting):
            done = self._waiting.popleft()
            done.get_loop().call_soon_threadsafe(_wake, done, self.broken)

    def _sync_for_ever(self) -> None:
        while not self._stopping:
            self._asked.wait(SYNC_EVERY_S)
            self._asked.clear()
            self.sync()

    def close(self, *, is_booked: bool = False) -> None:
        """Sync a last time and let go of the lock; the files stay.

        `is_booked`: nothing in it is left to be booked. It is marked so after its last byte and under its
        lock, so who adopts it never sees the mark of a journal that grows; a kill before the mark leaves
        it to be booked again, each call once.
        """
        self._stopping = True
        self._asked.set()
        self._syncer.join()
        self.sync()
        for each in self.segments:
            each.close()
        if is_booked:
            self._mark_booked()
        os.close(self._lock)

    def _mark_booked(self) -> None:
        try:
            mark_booked(self.folder)
        except OSError as why:
            log.warning("the journal %s is not marked, so it will be booked again: %s", self.folder.name, why)


def _wake(done: asyncio.Future[None], broken: bool) -> None:
    if done.done():
        return
    if broken:
        done.set_exception(JournalFull())
    else:
        done.set_result(None)
