"""What providers said when they were asked for their models, remembered for a while."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from django.core.cache import cache
from django.utils import timezone

from gateway import probes, probing
from gateway.models import Provider
from gateway.probing import Failure, Listed

REMEMBERED_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the provider said when it was asked last."""

    at: datetime
    names: Sequence[str]
    failure: str
    """A sentence; empty where it answered."""


def ask(provider: Provider) -> Listed:
    """Its answer, whichever it is, which is remembered too."""
    listed = probes.ask_models(provider)
    failure = msgspec.structs.asdict(listed.failure) if listed.failure else None
    kept = {"at": timezone.now().isoformat(), "names": list(listed.names), "failure": failure}
    cache.set(_place(provider), kept, REMEMBERED_S)
    return listed


def remembered(provider: Provider) -> Discovered | None:
    """None: it was not asked lately."""
    kept = cache.get(_place(provider))
    if kept is None:
        return None
    failure = probing.said(Failure(**kept["failure"])) if kept["failure"] else ""
    return Discovered(datetime.fromisoformat(kept["at"]), kept["names"], failure)


def _place(provider: Provider) -> str:
    """Another address is another list."""
    address = hashlib.sha256(provider.base_url.encode()).hexdigest()[:16]
    return f"models.{provider.pk}.{address}"
