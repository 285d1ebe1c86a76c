"""Settings, read once and typed. A wrong value stops the start with a sentence that helps.

Every setting is a field of `Env` with its default and the reason for it;
`docs/configuration.md` is held to this table by a test.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from dataclasses import field as _field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet

BASE_DIR = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WrongSetting(Exception):
    """A setting cannot be used; the message says which, why, and what would do."""


def _text(raw: str) -> str:
    return raw


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            raise WrongSetting(f"must be a whole number, not {raw!r}") from None
        if not low <= value <= high:
            raise WrongSetting(f"must be from {low} to {high}, not {value}")
        return value

    return read


def _probe_interval(raw: str) -> int:
    """0, or no less than the task's own pace."""
    value = _integer(0, 7 * 86_400)(raw)
    if 0 < value < 60:
        raise WrongSetting(f"must be 0, or from 60 to {7 * 86_400}, not {value}")
    return value


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            raise WrongSetting(f"must be a number of seconds, not {raw!r}") from None
        if not low <= value <= high:
            raise WrongSetting(f"must be from {low:g} to {high:g} seconds, not {raw}")
        return value

    return read


def _flag(raw: str) -> bool:
    if raw.lower() in ("1", "true", "yes", "on"):
        return True
    if raw.lower() in ("0", "false", "no", "off"):
        return False
    raise WrongSetting(f"must be 1 or 0, not {raw!r}")


def _words(raw: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in raw.split(",") if word.strip())


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in choices:
            raise WrongSetting(f"must be one of {', '.join(choices)}, not {raw!r}")
        return raw

    return read


def _currency(raw: str) -> str:
    if not re.fullmatch("[A-Z]{3}", raw):
        raise WrongSetting(f"must be three capital letters, such as USD, not {raw!r}")
    return raw


def _fernet_keys(raw: str) -> tuple[str, ...]:
    """Says nothing of what it was given: most of it is secret. So does `_mail_url`."""
    found = _words(raw)
    if not all(map(_is_fernet_key, found)):
        raise WrongSetting(
            "has one that is no Fernet key: each is 32 random bytes in URL-safe base64, 44 characters"
        )
    return found


def _is_fernet_key(text: str) -> bool:
    try:
        Fernet(text)
    except ValueError:
        return False
    return True


def _mail_url(raw: str) -> str:
    if not _is_mail_url(raw):
        raise WrongSetting(
            "must be smtp:// or smtps:// with a host, such as smtp://user:password@mail.example.com:587, "
            "where a / or # in the password is written %2F or %23"
        )
    return raw


def _is_mail_url(raw: str) -> bool:
    try:
        url = urlsplit(raw)
        return url.scheme in ("smtp", "smtps") and bool(url.hostname) and url.port != 0
    except ValueError:  # a bracket left open, a port that is no number
        return False


def _redis_url(raw: str) -> str:
    """Says nothing of what it was given: it may hold a password."""
    try:
        url = urlsplit(raw)
        whole = bool(url.path.strip("/")) if url.scheme == "unix" else bool(url.hostname) and url.port != 0
    except ValueError:  # a bracket left open, a port that is no number
        whole = False
    if not whole or url.scheme not in ("redis", "rediss", "unix"):
        raise WrongSetting("must be redis:// or rediss:// with a host, or unix:// with the path of a socket")
    return raw


def _database_url(raw: str) -> str:
    """Says nothing of what it was given: it may hold a password."""
    database_params(raw)
    return raw


def database_params(url: str) -> dict[str, str]:
    """What libpq reads out of the address: `dbname`, `host`, `password`, `sslmode` and so on.

    Raises WrongSetting, in words that repeat nothing of it.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise WrongSetting(
            "must begin with postgresql://, such as postgresql://user:password@host:5432/penstock"
        )
    params = _read_conninfo(url)
    ports = params.get("port", "").split(",")
    if not all(each.isascii() and each.isdigit() and 0 < int(each) < 65536 for each in ports if each):
        raise WrongSetting(f"has a port that is no number from 1 to 65535. {_ESCAPE}")
    if not all(_is_host(each) for each in params.get("host", "").split(",")):
        raise WrongSetting(f"has a / or @ in the host. {_ESCAPE}")
    name = params.get("dbname", "")
    if not name:
        raise WrongSetting("names no database: it goes after the host, as in postgresql://host/penstock")
    if set(name) & set("/@"):
        raise WrongSetting(f"has a / or @ in the name of the database. {_ESCAPE}")
    return params


def _is_host(text: str) -> bool:
    """A name, an address or a socket's directory; no end of a password that was not escaped."""
    return "@" not in text and ("/" not in text or text.startswith("/"))


_ESCAPE = "In a user name or password write @ as %40, / as %2F, : as %3A, # as %23, ? as %3F and % as %25"


def _read_conninfo(url: str) -> dict[str, str]:
    from psycopg import ProgrammingError  # only who has such a database needs to load its library
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except (ProgrammingError, ValueError):
        raise WrongSetting(
            "cannot be read: what follows the ? must be parameters that libpq knows, as sslmode=require. "
            f"{_ESCAPE}"
        ) from None


def _networks(raw: str) -> tuple[str, ...]:
    found = _words(raw)
    for each in found:
        try:
            ip_network(each)
        except ValueError:
            raise WrongSetting(f"must be addresses or ranges such as 10.0.0.0/8, not {each!r}") from None
    return found


def _public_url(raw: str) -> str:
    url = raw.rstrip("/")
    if not _is_origin(url):
        raise WrongSetting(
            "must be http:// or https:// and a host, such as https://llm.example.com, with nothing after it"
        )
    return url


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        netloc, _ = parts.netloc, parts.port
    except ValueError:  # a bracket left open, a port that is no number
        return False
    is_bare = url == f"{parts.scheme}://{netloc}" and url.isprintable()
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and is_bare and not set(netloc) & set(" @")
    )


def _path(raw: str) -> Path:
    return Path(raw).expanduser().resolve()


def _setting(default: Any, read: Callable[[str], Any], doc: str, *, shown: bool = True) -> Any:
    """`shown` is False for what must not be printed: Django's debug pages print settings whole."""
    return _field(default=default, repr=shown, metadata={"read": read, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """Every setting of Penstock, by the name of its environment variable in lower case."""

    host: str = _setting("localhost", _text, "Address to listen on.")
    port: int = _setting(8000, _integer(1, 65535), "Port to listen on.")
    public_url: str = _setting(
        "", _public_url, "Address that people open, also from links in mail; where absent, http://HOST:PORT."
    )
    var_dir: Path = _setting(
        BASE_DIR / "var",
        _path,
        "Where the journal, the SQLite database and generated secrets live; a local disk.",
    )
    workers: int = _setting(
        1, _integer(1, 64), "Processes that serve calls and pages; more than one needs REDIS_URL."
    )
    redis_url: str = _setting(
        "",
        _redis_url,
        "What several processes share: redis://host:6379/0, rediss://… or unix:///path; 6.2 or newer.",
        shown=False,
    )
    database_url: str = _setting(
        "",
        _database_url,
        "PostgreSQL instead of SQLite: postgresql://user:password@host:5432/name?sslmode=require.",
        shown=False,
    )
    database_connections: int = _setting(
        12,
        _integer(4, 200),
        "Most connections of one process to PostgreSQL; it has a dozen threads that may ask.",
    )
    database_timeout_s: float = _setting(
        10.0,
        _seconds(1, 300),
        "Longest that one statement may take on PostgreSQL; batches of the books may longer.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), _networks, "Addresses or ranges of proxies whose X-Forwarded-For is believed; others' is ignored."
    )
    drain_s: float = _setting(
        30.0, _seconds(0, 3600), "How long open streams may go on after a stop is asked for."
    )
    debug: bool = _setting(False, _flag, "Django's debug pages; refused unless HOST is loopback.")
    log_level: str = _setting(
        "INFO", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "How much is logged to standard error."
    )
    secret_key: str = _setting(
        "", _text, "Signs sessions; generated into VAR_DIR/secrets where absent.", shown=False
    )
    key_peppers: tuple[str, ...] = _setting(
        (),
        _words,
        "Peppers of API key digests, newest first; generated into VAR_DIR/secrets where absent.",
        shown=False,
    )
    credential_keys: tuple[str, ...] = _setting(
        (),
        _fernet_keys,
        "Fernet keys of provider credentials, newest first; generated into VAR_DIR/secrets where absent.",
        shown=False,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        ("localhost", "127.0.0.1", "[::1]"),
        _words,
        "Host names at which pages and sockets answer, comma-separated; /v1 takes any well-formed one.",
    )
    secure_cookies: bool = _setting(
        False, _flag, "Cookies with the __Host- prefix, for HTTPS only; turn on behind TLS."
    )
    email_url: str = _setting(
        "",
        _mail_url,
        "smtp://user:password@host:587 or smtps://…; where absent, mail is written to VAR_DIR/mail.",
        shown=False,
    )
    email_from: str = _setting("penstock@localhost", _text, "Sender of mail.")
    ledger_currency: str = _setting("USD", _currency, "Currency of the books; fixed at the first start.")
    max_body_bytes: int = _setting(
        10 * 1024 * 1024, _integer(1024, 1 << 30), "Largest request body; more is a 413."
    )
    body_timeout_s: float = _setting(
        30.0, _seconds(0.1, 600), "A request body must have come whole by then, else 408."
    )
    call_timeout_s: float = _setting(
        600.0, _seconds(1, 86400), "Deadline of a call where neither it nor its route has one."
    )
    key_requests_per_minute: int = _setting(
        100, _integer(0, 10**9), "Rate limit that a new API key begins with; 0: none."
    )
    team_requests_per_minute: int = _setting(
        500, _integer(0, 10**9), "Rate limit that a new team begins with; 0: none."
    )
    team_tokens_per_minute: int = _setting(
        100_000, _integer(0, 10**12), "Rate limit of tokens that a new team begins with; 0: none."
    )
    send_timeout_s: float = _setting(
        60.0, _seconds(0.1, 3600), "Longest time a client may leave a chunk unread."
    )
    max_answer_bytes: int = _setting(
        24 * 1024 * 1024,
        _integer(1024, 1 << 31),
        "Largest whole answer of a provider; more is a 502. Of a stream, each event may have 4 MiB.",
    )
    allow_private_upstreams: bool = _setting(
        True, _flag, "Providers may live on private addresses; link-local and metadata ones never."
    )
    allow_private_webhooks: bool = _setting(
        False, _flag, "A team's webhooks may live on private addresses; an administrator's own always may."
    )
    journal_sync: str = _setting(
        "group",
        _one_of("group", "strict"),
        "group: synced every 20 ms, so a power cut takes at most some 50 ms; "
        "strict: an answer's end waits for the disk.",
    )
    metrics_token: str = _setting(
        "",
        _text,
        "Whoever reads /metrics brings it as a bearer token; where absent, only this machine may read them.",
        shown=False,
    )
    journal_max_bytes: int = _setting(
        1 << 30,
        _integer(1 << 20, 1 << 40),
        "Longest journal while the database is away; then calls are refused.",
    )
    keep_entries_days: int = _setting(
        0,
        _integer(0, 36500),
        "Days for which calls stay on the ledger at least; their sums stay for ever. 0: so do the calls.",
    )
    keep_minutes_days: int = _setting(
        35,
        _integer(2, 3650),
        "Days for which sums are kept by the minute; by the quarter-hour they stay for ever.",
    )
    probe_interval_s: int = _setting(
        0,
        _probe_interval,
        "Seconds between probes of every provider, ten small calls each; "
        "0: none, because they cost money that nobody asked to spend.",
    )


def load(environ: Mapping[str, str]) -> Env:
    """Read every setting; raises WrongSetting with the variable's name. A blank variable counts as absent."""
    values: dict[str, Any] = {}
    for each in fields(Env):
        name = each.name.upper()
        raw = environ.get(name, "").strip()
        if not raw:
            continue
        try:
            values[each.name] = each.metadata["read"](raw)
        except WrongSetting as why:
            raise WrongSetting(f"{name} {why}.") from None
    env = Env(**values)
    _check_together(env)
    return env


def _check_together(env: Env) -> None:
    if env.debug and env.host not in LOOPBACK:
        raise WrongSetting(
            f"DEBUG is on and HOST is {env.host}: debug pages show secrets. Unset one of the two."
        )
    if env.secret_key and _is_plain(env.secret_key):
        raise WrongSetting("SECRET_KEY is too short or too plain: use 50 random characters, or unset it.")
    if env.metrics_token and len(env.metrics_token) < 16:
        raise WrongSetting("METRICS_TOKEN is too short: use 16 random characters or more, or unset it.")
    for pepper in env.key_peppers:
        if len(pepper) < 32:
            raise WrongSetting(
                "KEY_PEPPERS has one that is too short: each needs 32 random characters or more."
            )


def _is_plain(secret_key: str) -> bool:
    """Too short, too regular, or the one that Django puts into a new project."""
    return len(secret_key) < 32 or len(set(secret_key)) < 8 or secret_key.startswith("django-insecure-")


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens on `host`."""
    if host in ("0.0.0.0", "::", ""):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_folder(path: Path) -> Path:
    """The folder, made for this user alone where there is none. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def kept_secret(var_dir: Path, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(48)) -> str:
    """The secret in VAR_DIR/secrets, made at first use with mode 0600. Raises OSError."""
    folder = own_folder(own_folder(var_dir) / "secrets")
    path = folder / name
    if not path.exists():
        fresh = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # fails where another process was first; its secret wins
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    value = path.read_text().strip()
    if len(value) < 32:
        raise WrongSetting(
            f"{path} is empty or cut off: restore it from a backup, or delete it to make a new secret."
        )
    return value


def kept_credential_key(var_dir: Path) -> str:
    """The Fernet key in VAR_DIR/secrets, made at first use. Raises WrongSetting, OSError."""
    key = kept_secret(var_dir, "credential_key", lambda: Fernet.generate_key().decode())
    if not _is_fernet_key(key):
        raise WrongSetting(
            f"{var_dir / 'secrets' / 'credential_key'} is no Fernet key: restore it from a backup, "
            "or delete it to make a new one and enter every credential again."
        )
    return key
