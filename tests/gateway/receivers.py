"""A mail server and a webhook's receiver on real sockets, in threads, reading from a script."""

import base64
import contextlib
import email.message
import email.policy
import hmac
import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class MailServer:
    """Takes mail for everybody but `refused`; while `away`, it hangs up on whoever connects."""

    port: int = 0
    took: list[email.message.Message] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    away: bool = False
    spoken: str = ""
    """What it says after a refusal's code."""

    @property
    def addresses(self) -> list[str]:
        return [each["To"] for each in self.took]


@contextlib.contextmanager
def mail_server() -> Iterator[MailServer]:
    server = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if server.away:
                return
            self.say("220 mail.example")
            while line := self.rfile.readline().decode().strip():
                self.answer(line)
                if line.upper() == "QUIT":
                    return

        def answer(self, line: str) -> None:
            if line.upper().startswith("RCPT") and any(each in line for each in server.refused):
                self.say(f"550 {server.spoken}")
            elif line.upper() == "DATA":
                self.say("354 go on")
                server.took.append(message_from_bytes(self.body(), policy=email.policy.default))
                self.say("250 taken")
            else:
                self.say("250 fine")

        def body(self) -> bytes:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            return b"".join(lines)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        server.port = port
        yield server


@dataclass(frozen=True)
class Heard:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """As a receiver finds out, written from the Standard Webhooks specification alone."""
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        return hmac.compare_digest(wanted, self.headers["webhook-signature"])


Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def drip(until: threading.Event) -> Answer:
    """An answer that never ends, a byte now and then."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not until.wait(0.05):
                handler.wfile.write(b".")

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    """An answer as fast as the line goes, until the reader has gone."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"." * 65536)


@dataclass
class Receiver:
    """Answers 204, unless a script says otherwise."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    usually: Answer = field(default_factory=lambda: status(204))

    def will(self, *answers: Answer) -> None:
        self.script.extend(answers)


@contextlib.contextmanager
def receiver(trusted: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """With a context, over TLS."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.heard.append(Heard(self.path, headers, body))
            (made.script.pop(0) if made.script else made.usually)(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if trusted is not None:
        server.socket = trusted.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with _serving(server) as port:
        made.url = f"{'https' if trusted else 'http'}://127.0.0.1:{port}"
        yield made


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hung up is meant
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
