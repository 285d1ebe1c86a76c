"""`manage.py probe`: how fast each provider answers, and how many times faster the best is."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway import probes, probing
from gateway.models import Probe, Provider
from gateway.probing import Run

MOST_CALLS = 1000

Found = Sequence[tuple[Provider, Run, Probe]]


class Command(BaseCommand):
    help = (
        f"Send {probing.COUNT} calls of “{probing.PROMPT}” to each provider, one after the other, and print "
        f"one line a provider. A call that takes longer than {probing.TIMEOUT_S:g} s has failed. "
        "What the calls cost is kept with the probe, and on no team's books."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", default=probing.MODEL_NAME, help="the model name to call")
        parser.add_argument("--count", type=int, default=probing.COUNT, help="calls to each provider")
        parser.add_argument(
            "--provider", nargs="+", default=[], metavar="SLUG", help="these alone, also switched off ones"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["count"] <= MOST_CALLS:
            raise CommandError(f"--count is from 1 to {MOST_CALLS}.")
        providers = _chosen(options["provider"])
        found = probes.probe(providers, options["model"], options["count"], Probe.Cause.COMMAND)
        runs = [(provider.name, run) for provider, run, _ in found]
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(options["model"], found), indent=2))
        else:
            for name, run in runs:
                self.stdout.write(probing.line(name, run))
            self.stdout.write(probing.verdict(runs))
        if not any(run.latencies_us for _, run in runs):
            raise CommandError("No call was answered.", returncode=1)


def _chosen(slugs: Sequence[str]) -> list[Provider]:
    """Raises CommandError where there are none, or one is not known."""
    if not slugs:
        found = list(probes.usable())
        if not found:
            raise CommandError("No provider is switched on. Add one at /providers/, or name one.")
        return found
    known = {each.slug: each for each in Provider.objects.select_related("credential")}
    if unknown := [each for each in slugs if each not in known]:
        raise CommandError(f"There is no provider {unknown[0]}; there are {', '.join(known) or 'none'}.")
    return [known[each] for each in dict.fromkeys(slugs)]


def _as_json(model_name: str, found: Found) -> dict[str, Any]:
    averages = {provider.slug: run.avg_us for provider, run, _ in found if run.avg_us is not None}
    best = min(averages, key=lambda slug: averages[slug], default=None)
    return {
        "model_name": model_name,
        "timeout_s": probing.TIMEOUT_S,
        "currency": settings.LEDGER_CURRENCY,
        "providers": [_told(*each) for each in found],
        "best": best,
        "times_faster": {
            slug: round(us / averages[best], 2) for slug, us in averages.items() if best and slug != best
        },
    }


def _told(provider: Provider, run: Run, row: Probe) -> dict[str, Any]:
    """Durations in milliseconds; null where no call was answered."""
    figures = {
        f"{name}_ms": None if us is None else us / 1000
        for name, us in (("avg", row.avg_us), ("min", row.min_us), ("max", row.max_us))
    }
    return {
        "slug": provider.slug,
        "name": provider.name,
        "upstream_model": run.upstream_model,
        "calls": row.calls,
        "answered": row.answered,
        **figures,
        "failures": [{"why": why, "times": times} for why, times in probes.failures_of(row)],
        "cost_nanos": row.cost_nanos,
    }
