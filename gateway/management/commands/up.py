"""`manage.py up`: everything that the gateway needs, in one process and its children.

Whatever keeps it from starting is one sentence on standard error and exit code 1.
"""

import os
import select
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connections

from accounts.authentication import WrongPeppers, check_peppers
from gateway import first_run, services
from gateway.inputs import Unusable
from gateway.models import Provider
from gateway.presets import SIMULATOR
from gateway.queries import example_model_name, model_names
from gateway.server import LET_GO_S, CannotStart, Server, hold, is_free, listen, patiently, raise_file_limit
from gateway.welcome import welcome

LOOPBACK = "127.0.0.1"
SIMULATOR_START_S = 60
SIMULATOR_STOP_S = 5
INTERRUPTED = 130  # as a shell reports Ctrl-C


class Command(BaseCommand):
    help = "Run the gateway: set up what is missing, then serve until stopped."
    requires_system_checks: list[str] = []  # `make check` runs them; a start should be quick

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _up()
        except (CannotStart, first_run.SetUpRefused, services.WrongCurrency, Unusable, WrongPeppers) as why:
            sys.exit(f"penstock: {why}")
        except OSError as why:
            sys.exit(
                f"penstock: cannot use {why.filename or 'a file'} ({why.strerror}). Is VAR_DIR writable?"
            )
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def _up() -> None:
    env = settings.ENV
    os.umask(0o077)  # what is written under VAR_DIR is nobody else's to read
    lock = hold(env.var_dir / "up.lock")
    with lock, listen(env.host, env.port, env.send_timeout_s) as listener:
        done = prepare()
        raise_file_limit()
        simulator = _start_simulator()
        try:
            print(
                welcome(settings.PUBLIC_URL, done, example_model_name(model_names()), env.drain_s), flush=True
            )
            connections.close_all()  # a worker's fork must not share them
            Server(listener, env.drain_s).serve()
        finally:
            if simulator:
                _stop(simulator)


def prepare() -> first_run.SetUp:
    """The database, and what a first run puts into it."""
    try:
        call_command("migrate", interactive=False, verbosity=0)
        check_peppers(settings.KEY_PEPPERS)
        return first_run.set_up(os.environ, settings.LEDGER_CURRENCY, lambda: _simulator_url(_free_port()))
    except DatabaseError as why:
        raise CannotStart(
            f"the database {settings.DATABASES['default']['NAME']} cannot be used ({why}). "
            "Is VAR_DIR writable, and is there room on its disk?"
        ) from why


def _start_simulator() -> subprocess.Popen[str] | None:
    """The stand-in provider, where one is enabled; moved to another port where its own is taken."""
    provider = Provider.objects.filter(slug=SIMULATOR, enabled=True).first()
    if provider is None:
        return None
    port = urlsplit(provider.base_url).port or 80
    if not patiently(LET_GO_S, lambda: is_free((LOOPBACK, port))):
        port = _free_port()
        services.move_provider(provider, _simulator_url(port))
    return _simulate(port)


def _simulate(port: int) -> subprocess.Popen[str]:
    """A simulator that is ready. In a session of its own, so that Ctrl-C reaches it last, by way of us."""
    command = [
        *(sys.executable, str(settings.BASE_DIR / "manage.py"), "simulate_upstream"),
        *("--host", LOOPBACK, "--port", str(port), "--speed", "1"),
        "--with-parent",
    ]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    is_said, _, _ = select.select([process.stdout], [], [], SIMULATOR_START_S)
    if not is_said or not process.stdout.readline():
        _stop(process)
        raise CannotStart("the simulator did not start; its own message is above.")
    return process


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(SIMULATOR_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _simulator_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/v1"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
