"""A client that shows every byte, and what to ask with it."""

import asyncio
import json
from contextlib import asynccontextmanager

DEADLINE_S = 10


@asynccontextmanager
async def connection(base_url):
    """A reader and a writer on a connection of its own to where `base_url` leads, for DEADLINE_S at most."""
    host, _, port = base_url.partition("://")[2].partition("/")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def posted(body):
    """A chat completion's request, as bytes."""
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
    return head % len(data) + data


async def everything(base_url, body, limit=1 << 26):
    """All bytes of the answer until the far side has no more to send."""
    async with connection(base_url) as (reader, writer):
        writer.write(posted(body))
        came = bytearray()
        while len(came) < limit and (data := await reader.read(1 << 16)):
            came += data
        return bytes(came)


async def response(reader):
    """Head and body of one response that is framed as it says."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(size)
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return head, bytes(body)
