"""A Unix socket before Redis's own, through which one gateway can be cut off from it while others are not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.redis import RunningRedis


@dataclass
class Channel:
    """Hands bytes on both ways, until it is cut: then nothing passes, and nobody is told."""

    path: Path
    beyond: Path
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def cut(self) -> None:
        """As a dead line would: what is sent is swallowed up, and connections go on to be accepted."""
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self.beyond)
            for pair in ((reader, far_writer), (far_reader, writer)):
                task = asyncio.create_task(self._carry(*pair))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    await self._open.wait()
                    writer.write(data)
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        tasks = [*self._tasks]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def channel_to(redis: RunningRedis) -> AsyncIterator[Channel]:
    """Open at first."""
    channel = Channel(redis.folder / "channel.sock", redis.socket)
    channel.mend()
    server = await asyncio.start_unix_server(channel.met, channel.path)
    try:
        yield channel
    finally:
        server.close()
        await channel.close()
