"""A served gateway between a provider's stand-in and the test's own clients."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.served import Served, eventually, provider_of, serve
from tests.system.upstream_side.provider import Provider

SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)

CHANGE = """
from gateway.models import Route, Target
from gateway.services import update_route, update_target
for model_name, changes in {targets!r}.items():
    for target in Target.objects.filter(route__model_name=model_name):
        update_target(target, changes)
for model_name, changes in {routes!r}.items():
    update_route(Route.objects.get(model_name=model_name), changes)
"""
ADD_ROUTE = """
from gateway.models import Provider, Route
from gateway.services import add_provider, add_route, add_target
provider = add_provider({slug!r}, {slug!r}, {base_url!r})
Provider.objects.filter(pk=provider.pk).update(ca_pem={ca_pem!r})
for model_name in {model_names!r}:
    add_target(add_route(model_name, unpriced=Route.Unpriced.ALLOWED), provider, model_name)
"""
MAKE_TEAM = """
from accounts.models import User
from accounts.services import create_key, create_team
team = create_team({name!r}, User.objects.get())
print(create_key(team, "key", None, priority_ceiling={ceiling!r})[1])
"""

Settings = Mapping[str, Any]


@dataclass
class House:
    """A served gateway and the provider that its routes lead to."""

    served: Served
    provider: Provider

    def change(
        self, targets: Mapping[str, Settings] | None = None, routes: Mapping[str, Settings] | None = None
    ) -> None:
        """Settings by model name, from another process, as by a command of a person's."""
        self._shell(CHANGE.format(targets=dict(targets or {}), routes=dict(routes or {})))

    def add_provider(self, slug: str, base_url: str, *model_names: str, ca_pem: str = "") -> None:
        """Another provider, with a route for each of these model names; known when this returns."""
        self._shell(ADD_ROUTE.format(slug=slug, base_url=base_url, ca_pem=ca_pem, model_names=model_names))
        mark = f'route="{model_names[-1]}"'
        eventually(lambda: any(mark in labels for _, labels in self.metrics()), what="the new route")

    def make_team(self, name: str, ceiling: str = "normal") -> str:
        """A team of its own; its API key."""
        return self._shell(MAKE_TEAM.format(name=name, ceiling=ceiling)).split()[-1]

    def _shell(self, code: str) -> str:
        return self.served.manage("shell", "--no-imports", "-c", code)

    def request(
        self, model_name: str, *, key: str = "", trial: str = "", priority: str = "normal", **fields: Any
    ) -> bytes:
        """A whole HTTP request; `trial` is the call's own mark, in its prompt and on its entry."""
        messages = [{"role": "user", "content": f"How deep is the water, {trial or 'please'}?"}]
        body = json.dumps({"model": model_name, "messages": messages, **fields}).encode()
        tags = f"X-Penstock-Tags: trial={trial}\r\n" if trial else ""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {key or self.served.api_key}\r\nContent-Type: application/json\r\n"
            f"X-Penstock-Priority: {priority}\r\n{tags}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def worker(self) -> psutil.Process:
        """The process that serves."""
        assert self.served.process is not None
        family = psutil.Process(self.served.process.pid).children(recursive=True)
        lock = self.served.var_dir / "relay.lock"
        [found] = [each for each in family if any(Path(f.path) == lock for f in each.open_files())]
        return found

    def metrics(self) -> dict[tuple[str, str], float]:
        """Samples by name and by labels as they are written."""
        found = SAMPLE.findall(self.served.get("/metrics").replace("\r\n", "\n"))
        return {(name, labels): float(value) for name, labels, value in found}

    def figure(self, name: str, model_name: str) -> float:
        """One figure, summed over the targets and priorities behind a model name; 0: there is none."""
        mark = f'route="{model_name}"'
        return sum(
            value for (each, labels), value in self.metrics().items() if each == name and mark in labels
        )

    def is_at_rest(self) -> bool:
        """No call is under way: nothing at the gates, nothing in the pools."""
        busy = ("penstock_gate_in_use", "penstock_gate_waiting", "penstock_pool_in_use")
        return not any(value for (name, _), value in self.metrics().items() if name in busy)

    def wait_for_rest(self, within_s: float = 15.0) -> None:
        eventually(self.is_at_rest, within_s, "an empty gateway")

    def complaints(self) -> list[str]:
        """Log lines that tell of an accident of the gateway's own."""
        signs = ("reason of our own", "never retrieved", "never awaited", "Unclosed", "Traceback")
        return [line for line in self.served.errors().splitlines() if any(each in line for each in signs)]


@contextlib.contextmanager
def open_house(
    folder: Path, provider: Provider, *model_names: str, targets: dict[str, Any] | None = None, **environ: str
) -> Iterator[House]:
    """Routes with these model names, each with a target at the provider; the log must tell of no accident."""
    routed = provider_of(provider.base_url, *model_names)
    with serve(folder / "var", targets, **routed, **environ) as served:
        made = House(served, provider)
        yield made
        assert made.complaints() == []
