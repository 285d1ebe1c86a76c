"""`manage.py up`: everything that the gateway needs, in one process and its children.

Whatever keeps it from starting is one sentence on standard error and exit code 1.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from accounts.authentication import WrongPeppers, check_peppers
from gateway import first_run, services
from gateway.children import Child
from gateway.inputs import Unusable
from gateway.memory import share_arenas
from gateway.models import Provider
from gateway.patience import alone_in_database, leave_database
from gateway.presets import SIMULATOR
from gateway.queries import example_model_name, model_names
from gateway.server import (
    LET_GO_S,
    LOOK_S,
    CannotStart,
    Server,
    alone,
    hold,
    is_free,
    listen,
    patiently,
    raise_file_limit,
)
from gateway.welcome import welcome

LOOPBACK = "127.0.0.1"
SIMULATOR_START_S = 60
SIMULATOR_STOP_S = 5
INTERRUPTED = 130  # as a shell reports Ctrl-C


ROLES = {"all": "calls and pages", "relay": "calls", "pages": "pages", "worker": ""}
"""What the workers of each role serve; `worker` has none, and does background tasks alone."""
TARGETS = {
    "all": "dashboard.asgi:application",
    "relay": "dashboard.asgi:calls_alone",
    "pages": "dashboard.asgi:pages_alone",
}
TASKS_STOP_S = 10


class Command(BaseCommand):
    help = "Run the gateway: set up what is missing, then serve until stopped."
    requires_system_checks: list[str] = []  # `make check` runs them; a start should be quick

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--role",
            choices=ROLES,
            default="all",
            help="relay: calls alone; pages: pages alone; worker: background tasks alone (default: all)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        share_arenas()
        try:
            _up(options["role"])
        except (CannotStart, first_run.SetUpRefused, services.WrongCurrency, Unusable, WrongPeppers) as why:
            sys.exit(f"penstock: {why}")
        except OSError as why:
            sys.exit(
                f"penstock: cannot use {why.filename or 'a file'} ({why.strerror}). Is VAR_DIR writable?"
            )
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def _up(role: str) -> None:
    env = settings.ENV
    os.umask(0o077)  # what is written under VAR_DIR is nobody else's to read
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a start is as good as a rolling restart
    if role == "worker":
        _work(_tasks())
        return
    _check_workers(env.workers, env.redis_url)
    lock = hold(env.var_dir / "up.lock", shared=bool(env.redis_url))
    with lock, contextlib.ExitStack() as listeners:
        found = listen(env.host, env.port, env.send_timeout_s, env.workers)
        for each in found:
            listeners.enter_context(each)
        with not_deaf_to_ctrl_c():
            done = prepare()
        raise_file_limit()
        _serve(role, found, done)


@contextlib.contextmanager
def not_deaf_to_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end at the latest, if it was meant to be raised meanwhile.

    Python raises it wherever it is, and where that is a callback or a destructor it is lost. Whoever started
    the process with the signal ignored keeps it so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked: list[int] = []

    def heed(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.default_int_handler(number, frame)

    def lost(what: Any) -> None:
        if what.exc_type is not KeyboardInterrupt:  # that one is not lost: it is raised at the end
            tell(what)

    tell, sys.unraisablehook = sys.unraisablehook, lost
    signal.signal(signal.SIGINT, heed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = tell
    if asked:
        raise KeyboardInterrupt


def _check_workers(workers: int, redis_url: str) -> None:
    if workers > 1 and not redis_url:
        raise CannotStart(
            f"WORKERS is {workers} and REDIS_URL is not set: "
            "several processes need Redis to keep to one limit. Set REDIS_URL, or WORKERS=1."
        )


def _serve(role: str, listeners: list[socket.socket], done: first_run.SetUp) -> None:
    env = settings.ENV
    children = _children(role)
    try:
        if "simulator" in children:
            children["simulator"].start_now(time.monotonic())
        runs = f"{_workers(env.workers)} for {ROLES[role]}"
        if "tasks" in children:
            runs += ", one process for background tasks"
        print(
            welcome(settings.PUBLIC_URL, done, example_model_name(model_names()), env.drain_s, runs),
            flush=True,
        )
        leave_database()  # a worker's fork must not share them
        Server(
            listeners,
            env.drain_s,
            TARGETS[role],
            workers=env.workers,
            may_overlap=bool(env.redis_url),
            helpers=list(children.values()),
        ).serve()
    finally:
        for each in children.values():
            each.ask_to_stop()
        for each in children.values():
            each.close()


def _workers(number: int) -> str:
    return "one worker" if number == 1 else f"{number} workers"


def _children(role: str) -> dict[str, Child]:
    """The helpers of a role, by name. Who relays needs somebody to relay to."""
    children = {}
    if role in ("all", "relay") and _is_simulated():
        children["simulator"] = Child(
            "the simulator",
            settings.VAR_DIR / "simulator.lock",
            _start_simulator,
            SIMULATOR_STOP_S,
            is_renewed=False,  # calls are under way in it
        )
    if role == "all":
        children["tasks"] = _tasks()
    return children


def _tasks() -> Child:
    return Child(
        "the process of background tasks", settings.VAR_DIR / "tasks.lock", _start_tasks, TASKS_STOP_S
    )


def _start_tasks() -> subprocess.Popen[str]:
    """In a session of its own, so that Ctrl-C reaches it by way of us."""
    return subprocess.Popen(  # noqa: S603 - our own command
        [
            sys.executable,
            str(settings.BASE_DIR / "manage.py"),
            "run_tasks",
            "--with-parent",
            str(os.getpid()),
        ],
        text=True,
        start_new_session=True,
    )


def _work(tasks: Child) -> None:
    """Background tasks alone, until stopped."""
    prepare()
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda *_: stop.set())
    signal.signal(signal.SIGUSR2, lambda *_: tasks.renew())
    print("\nPenstock's background tasks run here.\n\nCtrl-C stops them.\n", flush=True)
    try:
        while not stop.wait(LOOK_S):
            tasks.look_after(time.monotonic())
    finally:
        tasks.close()


def prepare() -> first_run.SetUp:
    """The database, and what a first run puts into it; one gateway at a time."""
    with alone(settings.VAR_DIR / "setup.lock"):
        try:
            with alone_in_database():
                return _set_up()
        except DatabaseError as why:
            raise _unusable(why) from why


def _set_up() -> first_run.SetUp:
    call_command("migrate", interactive=False, verbosity=0)
    check_peppers(settings.KEY_PEPPERS)
    return first_run.set_up(os.environ, settings.LEDGER_CURRENCY, lambda: _simulator_url(_free_port()))


def _unusable(why: DatabaseError) -> CannotStart:
    name = settings.DATABASES["default"]["NAME"]
    said = f"the database {name} cannot be used ({' '.join(str(why).split())})."
    if settings.ENV.database_url:
        return CannotStart(f"{said} Does DATABASE_URL name a server that runs, and a user who may use it?")
    return CannotStart(f"{said} Is VAR_DIR writable, and is there room on its disk?")


def _is_simulated() -> bool:
    return Provider.objects.filter(slug=SIMULATOR, enabled=True).exists()


def _start_simulator() -> subprocess.Popen[str]:
    """The stand-in provider; moved to another port where its own is taken."""
    try:
        provider = Provider.objects.get(slug=SIMULATOR)
        port = urlsplit(provider.base_url).port or 80
        if not patiently(LET_GO_S, lambda: is_free((LOOPBACK, port))):
            port = _free_port()
            services.move_provider(provider, _simulator_url(port))
    except (DatabaseError, Provider.DoesNotExist) as why:
        raise CannotStart(f"the simulator's address cannot be read ({why}).") from why
    finally:
        leave_database()  # a worker's fork must not share them
    return _simulate(port)


def _simulate(port: int) -> subprocess.Popen[str]:
    """A simulator that is ready. In a session of its own, so that Ctrl-C reaches it last, by way of us."""
    command = [
        *(sys.executable, str(settings.BASE_DIR / "manage.py"), "simulate_upstream"),
        *("--host", LOOPBACK, "--port", str(port), "--speed", "1"),
        *("--with-parent", str(os.getpid())),
    ]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    is_said, _, _ = select.select([process.stdout], [], [], SIMULATOR_START_S)
    if not is_said or not process.stdout.readline():
        process.kill()
        process.wait()
        raise CannotStart("the simulator did not start; its own message is above.")
    return process


def _simulator_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/v1"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
