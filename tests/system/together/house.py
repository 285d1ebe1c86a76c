"""A served gateway of several processes on one Redis, and quotas whose figures can be asked for."""

import contextlib
import json
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gateway.ledger.journal import frames
from gateway.relay.records import Opened
from tests.redis import RunningRedis
from tests.served import CONFIGURE, KEY, Served, eventually, provider_of, serve
from tests.system.conftest import ENTER_PRICES
from tests.system.together.findings import Figures, Standing, Sums, drifted
from tests.system.upstream_side.house import House
from tests.system.upstream_side.provider import Provider

USUAL, WORDY, WHOLE, IGNORING = "gpt-4o", "gpt-4o-wordy", "gpt-4o-whole", "gpt-4o-ignoring"
SILENT, TALKING = "gpt-4o-silent", "gpt-4o-talking"
"""Model names, by how their provider answers."""
PLENTY = 10**15
ROOMY = {"max_concurrency": 2000, "max_connections": 2000}
"""So that no call of these tests waits at a gate."""

MAKE_TEAM = """
import json
from accounts.models import User
from accounts.services import create_key, create_team, remove_rate_limit, set_quota, set_rate_limit

def bounded(owner, bounds):
    for each in list(owner.rate_limits.all()):
        remove_rate_limit(each)
    quotas = {{}}
    for kind, amount, period in bounds:
        if period == "minute":
            set_rate_limit(owner, kind, amount, by_administrator=True)
        else:
            hard = not period.startswith("soft ")
            period = period.removeprefix("soft ")
            found = set_quota(owner, kind, amount, period, hard=hard, by_administrator=True)
            quotas[kind] = found.pk
    return quotas

team = create_team({name!r}, User.objects.get())
made = {{"id": team.pk, "quotas": bounded(team, {bounds!r}), "keys": {{}}}}
for name, bounds in {keys!r}.items():
    key, text = create_key(team, name, None)
    made["keys"][name] = {{"id": key.pk, "text": text, "quotas": bounded(key, bounds)}}
print("made " + json.dumps(made))
"""
SET_UP = (
    CONFIGURE.format(fields=ROOMY)
    + ENTER_PRICES
    + """
from accounts.models import User
from accounts.tokens import make_token
print("token " + make_token(User.objects.get(), "tests", ["read"])[1])
"""
)

RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d \d\d:)", re.MULTILINE)
ACCIDENTS = ("reason of our own", "never retrieved", "never awaited", "Unclosed", "Traceback")

Bounds = Sequence[tuple[str, int, str]]
"""Kind, amount, and `minute`, `day`, `month`, `soft day` or `soft month`; what is not soft is hard."""


@dataclass(frozen=True)
class Key:
    """An API key, and its quotas' numbers by kind."""

    id: int
    text: str = field(repr=False)
    quotas: Mapping[str, int]


@dataclass(frozen=True)
class Team:
    id: int
    quotas: Mapping[str, int]
    keys: Mapping[str, Key]


@dataclass
class Together:
    """Asks of processes that count together, and of what they wrote down."""

    house: House
    redis: RunningRedis | None
    token: str = field(repr=False)

    @property
    def port(self) -> int:
        return self.house.served.port

    def team(self, name: str, keys: Mapping[str, Bounds], bounds: Bounds = ()) -> Team:
        """A team with just these rate limits and quotas, of its own and of its keys."""
        code = MAKE_TEAM.format(
            name=name, bounds=[*bounds], keys={each: [*own] for each, own in keys.items()}
        )
        printed = self.house.served.manage("shell", "--no-imports", "-c", code)
        made = json.loads(printed.partition("made ")[2])
        return Team(made["id"], made["quotas"], {name: Key(**key) for name, key in made["keys"].items()})

    def key(self, name: str, *bounds: tuple[str, int, str]) -> Key:
        """A key, alone in its team, with these bounds."""
        return self.team(name, {name: bounds}).keys[name]

    def keys(self, **bounds: Bounds) -> list[Key]:
        """Several keys of one team, by their names."""
        return [*self.team("-".join(bounds), bounds).keys.values()]

    def figures(self, quota_id: int) -> Figures | None:
        """As the management API tells of it; None: no counter is there."""
        told = self._get(f"/api/quotas/{quota_id}")
        if told["spent"] is None:
            return None
        return Figures(told["spent"], told["held"], told["expired"])

    def _get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(
            self.house.served.origin + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def sums(self, owner: Key | Team) -> Sums:
        """What the ledger has of a key's or a team's calls."""
        column = "key_id" if isinstance(owner, Key) else "team_id"
        query = (
            "SELECT COUNT(*), COALESCE(SUM(input_tokens + output_tokens), 0), COALESCE(SUM(cost_nanos), 0)"
            f" FROM gateway_entry WHERE {column} = ?"
        )
        return Sums(*self.house.served.rows(query, owner.id)[0])

    def standing(self, *owners: Key | Team) -> Standing:
        """By quota and its kind: the counter, and the ledger's sum of the same."""
        found = {}
        for owner in owners:
            sums = self.sums(owner)
            for kind, quota_id in owner.quotas.items():
                figures = self.figures(quota_id) or Figures(-1, -1, -1)
                found[quota_id, kind] = figures, sums.of(kind)
        return found

    def at_rest(self, *owners: Key | Team, within_s: float = 20.0) -> Standing:
        """The same when no call is under way and the writers had time to bring all to the ledger.

        Where counters and ledger do not meet, it is what they were at the end of that time.
        """
        self.house.wait_for_rest(within_s)
        deadline = time.monotonic() + within_s
        while list(drifted(found := self.standing(*owners))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def records(self) -> dict[str, list[Any]]:
        """By process, what its journal still has: all of it, where no segment was full."""
        found = defaultdict(list)
        for path in sorted((self.house.served.var_dir / "journal").glob("*/*.seg")):
            found[path.parent.name] += [each for _, each in frames(path.read_bytes())]
        return dict(found)

    def holds(self, key: Key) -> dict[str, set[int]]:
        """By kind of quota, the amounts that calls of a key were opened with."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for records in self.records().values():
            for each in records:
                if isinstance(each, Opened) and each.key_id == key.id:
                    for hold in each.holds:
                        found[hold.counter.split(":")[1]].add(hold.amount)
        return dict(found)

    def dealt(self, count: int) -> list[int]:
        """How many connections each process that serves has, when they are so many in all."""

        def found() -> list[int]:
            return [self._connections(each) for each in self.house.served.workers()]

        eventually(lambda: sum(found()) >= count, what=f"{count} connections")
        return found()

    def _connections(self, worker: psutil.Process) -> int:
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.port
            for each in worker.net_connections("tcp")
        )

    def complaints(self) -> list[str]:
        """Records of the log that tell of an accident of the gateway's own.

        Celery, which also tells of a Redis that is away with tracebacks, may.
        """
        records = RECORD.split(self.house.served.errors())
        ours = [each for each in records if not re.match(r"\S+ \S+ \w+ (celery|kombu)\b", each)]
        return [each for each in ours if any(sign in each for sign in ACCIDENTS)]

    def state(self) -> dict[str, Any]:
        """What `/readyz` says; empty where nobody answers."""
        body = self.house.served.get("/readyz").partition("\r\n\r\n")[2]
        return json.loads(body) if body else {}


@contextlib.contextmanager
def together(
    folder: Path,
    provider: Provider,
    redis: RunningRedis | None,
    processes: int,
    *model_names: str,
    **environ: str,
) -> Iterator[Together]:
    """So many processes that serve, all of them there; every target has a price and room for all calls."""
    shared = {"REDIS_URL": redis.url, "WORKERS": str(processes)} if redis else {}
    environ = {**provider_of(provider.base_url, *model_names), **shared, **environ}
    api_key, token = set_up(Served(folder / "var", environ))
    with serve(folder / "var", **environ) as served:
        served.api_key = api_key
        if redis:
            eventually(lambda: serving(redis) == processes, 60, f"{processes} processes that serve")
        made = Together(House(served, provider), redis, token)
        yield made
        assert made.complaints() == []


def set_up(gateway: Served) -> tuple[str, str]:
    """Room and prices, before there is a process that would have to hear of them; an API key and a token."""
    gateway.var_dir.mkdir(parents=True)
    printed = gateway.manage("shell", "--no-imports", "-c", SET_UP)
    return KEY.search(printed)[0], re.search(r"token (\S+)", printed)[1]


def serving(redis: RunningRedis) -> int:
    """How many processes Redis heard of in the last seconds."""
    with redis.client() as client:
        return int(client.zcard("pst:peers"))
