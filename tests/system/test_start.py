"""What a first run refuses and what it leaves behind: no default secret, no debug pages, no open file."""

import os
import re
import stat
import subprocess
import sys

import pytest

from gateway.first_run import SetUpRefused, administrator
from gateway.presets import VARIABLES
from tests.served import ROOT, free_port, serve


def up(var_dir, *, umask=0o022, **environ):
    """Start where it must refuse; returns when it has given up."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    settings = {"DJANGO_SETTINGS_MODULE": "dashboard.settings", "VAR_DIR": str(var_dir)}
    return subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=ROOT,
        env={**clean, **settings, "PORT": str(free_port()), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        umask=umask,
    )


def assert_refused(done, *fragments):
    """One sentence on standard error that says why and what would do, and an exit code that is not 0."""
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("penstock: ")
    assert line.endswith((".", "?"))
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    "secret_key",
    [
        "secret",
        "short-but-random-7Zq1",
        "x" * 64,
        "changeme" * 8,
        "0123456" * 8,
        "django-insecure-4@h$k2!m9zq_w8e7r6t5y4u3i2o1p0",
    ],
)
def test_a_secret_key_that_is_short_or_plain_is_refused(var_dir, secret_key):
    done = up(var_dir, SECRET_KEY=secret_key)

    assert_refused(done, "SECRET_KEY", "50 random characters")
    assert secret_key not in done.stderr


@pytest.mark.parametrize("name", ["secret_key", "key_pepper", "credential_key"])
@pytest.mark.parametrize("kept", ["\n", "cut-off"])
def test_a_kept_secret_that_is_empty_or_cut_off_is_refused(var_dir, name, kept):
    (var_dir / "secrets").mkdir(parents=True)
    (var_dir / "secrets" / name).write_text(kept)

    assert_refused(up(var_dir), f"secrets/{name}", "empty or cut off", "backup")


def test_a_pepper_that_is_short_is_refused(var_dir):
    done = up(var_dir, KEY_PEPPERS="a-pepper-that-is-long-enough-0123456789,short-pepper")

    assert_refused(done, "KEY_PEPPERS", "32 random characters")
    assert "short-pepper" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "penstock.example.com"])
def test_debug_pages_for_others_are_refused(var_dir, host):
    assert_refused(up(var_dir, DEBUG="1", HOST=host), "DEBUG", f"HOST is {host}")


@pytest.mark.parametrize("password", ["admin", "alice@example.com"])
def test_a_start_with_a_default_password_is_refused(var_dir, password):
    done = up(var_dir, PENSTOCK_ADMIN_EMAIL="alice@example.com", PENSTOCK_ADMIN_PASSWORD=password)

    assert_refused(done, "PENSTOCK_ADMIN_PASSWORD")


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "changeme",
        "penstock",
        "Administrator1!",
        "changeme-changeme",
        "penstock_admin_2024",
        "Password12345",
        "1234567890123",
        "letmein-2024",
        "qwertyuiop",
        "iloveyou12",
        "short-1",
    ],
)
def test_a_password_that_everybody_tries_is_refused(password):
    with pytest.raises(SetUpRefused, match="PENSTOCK_ADMIN_PASSWORD"):
        administrator({"PENSTOCK_ADMIN_PASSWORD": password})


def test_a_refused_start_makes_no_administrator(var_dir):
    up(var_dir, PENSTOCK_ADMIN_PASSWORD="admin")

    with serve(var_dir, PENSTOCK_ADMIN_PASSWORD="") as served:
        assert "Password" in served.printed, "generated, and shown in the first run that makes one"


def test_a_blank_setting_is_absent_and_secrets_are_made(var_dir):
    """One start, because each takes seconds; with an umask that would leave everything open."""
    blank = {"SECRET_KEY": " ", "KEY_PEPPERS": "", "CREDENTIAL_KEYS": "", "PENSTOCK_ADMIN_PASSWORD": ""}
    before = os.umask(0)
    try:
        with serve(var_dir, tables_laid=False, **blank) as served:
            folder = var_dir / "secrets"
            made = {each.name: each.read_text() for each in folder.iterdir()}

            assert set(made) == {"secret_key", "key_pepper", "credential_key"}
            assert all(len(each) >= 44 for each in made.values())
            assert len(set(made.values())) == 3
            assert mode_of(folder) == 0o700
            assert {mode_of(each) for each in folder.iterdir()} == {0o600}
            assert open_files(var_dir) == []
            [password] = re.findall(r"Password +(\S+)", served.printed)
            assert len(password) >= 16
    finally:
        os.umask(before)


def test_secrets_of_the_environment_need_no_folder_of_secrets(var_dir):
    given = {"SECRET_KEY": "0123456789abcdef" * 4, "KEY_PEPPERS": "p" * 32, "CREDENTIAL_KEYS": "A" * 43 + "="}
    done = up(var_dir, HOST="192.0.2.1", **given)

    assert_refused(done, "cannot listen on 192.0.2.1")
    assert mode_of(var_dir) == 0o700
    assert [each.name for each in var_dir.iterdir()] == ["up.lock"]


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def open_files(var_dir):
    """Files that others may read, but for those into which the test itself sends what is printed."""
    found = [each for each in var_dir.rglob("*") if each.is_file() and mode_of(each) & 0o077]
    return [each for each in found if each.name not in ("out.txt", "err.txt")]
