"""A real Redis for tests, on a Unix socket of its own; may be killed, frozen and started again."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.served import eventually


def server_binary() -> str:
    """`redis-server` from PATH. Fails the test where there is none."""
    found = shutil.which("redis-server")
    assert found, "redis-server is needed: Debian's package of that name has it"
    return found


@dataclass
class RunningRedis:
    """One server. Its data live in memory only, so a restart forgets everything."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Returns when it answers."""
        self.process = subprocess.Popen(
            [
                *(server_binary(), "--port", "0", "--unixsocket", str(self.socket)),
                *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        eventually(self._answers, what="Redis's start")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)  # not to one that was killed


@contextlib.contextmanager
def running_redis() -> Iterator[RunningRedis]:
    """In a folder with a short name, because a Unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="pst-redis-") as folder:
        server = RunningRedis(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.kill()
