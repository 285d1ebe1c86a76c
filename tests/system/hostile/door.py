"""The gateway's front door as a hostile client meets it, and what the provider behind it saw."""

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil

from gateway.simulator import Ended, Received, RunningSimulator
from tests.served import Served
from tests.system.raw import Answer, Wire, request

CALLS = b"POST /v1/chat/completions HTTP/1.1"
HOST = b"Host: localhost"
JSON = b"Content-Type: application/json"
LAST = b"Connection: close"
CREDENTIAL = "sk-upstream-credential-0123456789"
_lines = msgspec.json.Decoder(Received | Ended)


def chat(model_name: str = "gpt-4o", text: str = "Hello", **fields: Any) -> bytes:
    """The body of a good call; short, so that its answer is quick."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model_name, "messages": messages, "max_tokens": 3, **fields}).encode()


@dataclass
class Door:
    """A served gateway and the one provider that its routes lead to."""

    served: Served
    provider: RunningSimulator
    _read_to: int = field(default=0, repr=False)

    @property
    def key(self) -> bytes:
        return b"Authorization: Bearer " + self.served.api_key.encode()

    def post(self, body: bytes, *headers: bytes, line: bytes = CALLS) -> bytes:
        """A well-formed call, with more headers."""
        length = b"Content-Length: %d" % len(body)
        return request(line, HOST, self.key, JSON, length, *headers, body=body)

    def wire(self, patience_s: float = 20.0, receive_buffer: int | None = None) -> Wire:
        return Wire(self.served.port, patience_s, receive_buffer)

    def send(self, data: bytes) -> tuple[Answer, bytes]:
        """Say it on a connection of its own: the answer, and what came after it until the connection's end.

        So it fails where the gateway leaves the connection open.
        """
        with self.wire() as wire:
            wire.say(data)
            return wire.answer(), wire.rest()

    def ask(self, body: bytes, *headers: bytes) -> Answer:
        """A well-formed call on a connection of its own."""
        answer, rest = self.send(self.post(body, *headers, LAST))
        assert rest == b""
        return answer

    def caused(self) -> list[Received]:
        """What reached the provider since last time, as seen after a good call has gone through behind it."""
        answer = self.ask(chat())
        assert answer.status == 200, answer
        call_id = answer.headers["x-request-id"]
        return [line for line in self._news() if isinstance(line, Received) and line.request_id != call_id]

    def forget(self) -> None:
        """`caused` begins from here."""
        self._news()

    def ended(self, call_id: str) -> Ended | None:
        """How it ended at the provider, if it has."""
        for line in self.provider.journal.ended():
            if line.request_id == call_id:
                return line
        return None

    def entries(self, call_id: str) -> list[tuple[Any, ...]]:
        """Outcome, status and code on the books."""
        return self.served.rows(
            "SELECT outcome, status, code FROM gateway_entry WHERE call_id IN (?, ?)",
            call_id,
            call_id.replace("-", ""),
        )

    def attempts(self, call_id: str) -> list[tuple[Any, ...]]:
        return self.served.rows(
            "SELECT outcome, status FROM gateway_attempt WHERE entry_id IN (?, ?) ORDER BY attempt_no",
            call_id,
            call_id.replace("-", ""),
        )

    def processes(self) -> list[psutil.Process]:
        """Those that serve; what they began included."""
        assert self.served.process is not None
        return psutil.Process(self.served.process.pid).children(recursive=True)

    def complaints(self) -> list[str]:
        """Log lines that tell of an accident of the gateway's own."""
        signs = ("reason of our own", "never retrieved", "never awaited", "Unclosed")
        return [line for line in self.served.errors().splitlines() if any(each in line for each in signs)]

    def _news(self) -> list[Received | Ended]:
        path = self.provider.journal.path
        assert path is not None
        with path.open("rb") as file:
            file.seek(self._read_to)
            whole, _, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + 1 if whole else 0
        return [_lines.decode(line) for line in whole.split(b"\n") if line]


def error_of(answer: Answer) -> dict[str, Any]:
    """The error in OpenAI's shape, and nothing beside it."""
    told = json.loads(answer.body)
    assert list(told) == ["error"]
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert isinstance(told["error"]["message"], str)
    found: dict[str, Any] = told["error"]
    return found
