"""Whom our own calls go to, what is kept of them, and the command that prints them."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from gateway import probes, services
from gateway.models import Attempt, Credential, Entry, Probe, Provider, Rollup
from gateway.probing import Run, Tried
from tests.gateway.listening import provider_on_a_thread
from tests.upstreams.upstream import whole

pytestmark = pytest.mark.django_db(transaction=True)

REFUSED = whole(b'{"error": {"message": "No such key."}}', 401)
CREDENTIAL = "sk-live-0123456789abcdef"


@pytest.fixture
def upstream():
    with provider_on_a_thread() as listening:
        yield listening


@pytest.fixture
def provider(upstream) -> Provider:
    return services.add_provider("acme", "Acme", upstream.base_url)


@pytest.fixture
def target(provider):
    target = services.add_target(services.add_route("gpt-4o-mini"), provider, "mini-2024")
    prices = {"input_nanos": 10**9, "cached_input_nanos": 10**9, "output_nanos": 2 * 10**9}
    services.add_price(target, timezone.now() - timedelta(days=1), **prices)
    return target


def probed(*providers: Provider, count: int = 2, cause=Probe.Cause.COMMAND) -> list[Probe]:
    asked = Provider.objects.filter(pk__in=[each.pk for each in providers]).select_related("credential")
    return [row for _, _, row in probes.probe(asked, "gpt-4o-mini", count, cause)]


def printed(*args: str) -> str:
    out = StringIO()
    call_command("probe", *args, stdout=out)
    return out.getvalue()


def test_a_probe_calls_what_is_behind_the_route_and_keeps_what_it_cost(upstream, provider, target):
    [row] = probed(provider)

    assert [each.json["model"] for each in upstream.exchanges] == ["mini-2024", "mini-2024"]
    assert (row.calls, row.answered, row.upstream_model) == (2, 2, "mini-2024")
    assert row.min_us <= row.avg_us <= row.max_us
    assert row.cost_nanos == 2 * (9 * 1000 + 2 * 2000)


def test_it_is_nobodys_call(provider, target):
    probed(provider)

    assert not Entry.objects.exists()
    assert not Attempt.objects.exists()
    assert not Rollup.objects.exists()


def test_without_a_target_the_model_name_is_called_as_it_is_and_costs_nobody_knows_what(upstream, provider):
    [row] = probed(provider)

    assert upstream.exchanges[0].json["model"] == "gpt-4o-mini"
    assert row.cost_nanos is None


def test_a_refused_credential_is_flagged_and_cleared_when_it_is_taken_again(upstream, provider):
    services.keep_credential(provider, CREDENTIAL, settings.CREDENTIAL_KEYS)
    upstream.will(REFUSED)

    [row] = probed(provider, count=1)
    assert Credential.objects.get().refused_status == 401
    assert row.answered == 0
    assert CREDENTIAL not in json.dumps(row.failures)

    probed(provider, count=1)
    assert Credential.objects.get().refused_status is None


def test_a_credential_that_cannot_be_read_is_told_and_nothing_is_sent(upstream, provider):
    services.refer_to_credential(provider, "NOWHERE_API_KEY")

    [row] = probed(provider)

    assert probes.failures_of(row) == [
        ("NOWHERE_API_KEY is not set: set it in the environment and start again.", 1)
    ]
    assert upstream.exchanges == []


def test_the_newest_are_kept(provider):
    other = services.add_provider("other", "Other", "https://other.example/v1")
    at = timezone.now() - timedelta(days=1)
    rows = [
        Probe(provider=each, at=at, cause="command", upstream_model="m", calls=1, answered=1, avg_us=number)
        for each in (provider, other)
        for number in range(probes.KEPT)
    ]
    Probe.objects.bulk_create(rows)

    probes.keep(provider, Run("m", [Tried(5)]), Probe.Cause.COMMAND, None)

    kept = Probe.objects.filter(provider=provider)
    assert kept.count() == probes.KEPT
    assert kept.first().avg_us == 5
    assert not kept.filter(avg_us=0).exists()
    assert Probe.objects.filter(provider=other).count() == probes.KEPT


def test_nothing_is_probed_on_a_schedule_unless_it_is_asked_for(provider):
    probes.probe_due(timezone.now(), 0)

    assert not Probe.objects.exists()


def test_a_provider_is_probed_on_schedule_when_its_last_is_old_enough(upstream, provider):
    probed(provider, cause=Probe.Cause.TEST)
    now = timezone.now()

    probes.probe_due(now, 600)
    probes.probe_due(now + timedelta(seconds=300), 600)
    assert Probe.objects.filter(cause="schedule").count() == 1

    probes.probe_due(now + timedelta(seconds=700), 600)
    assert Probe.objects.filter(cause="schedule").count() == 2


def test_one_that_is_switched_off_is_not(upstream, provider):
    services.enable_provider(provider, False)

    probes.probe_due(timezone.now(), 600)

    assert upstream.exchanges == []


def test_the_command_prints_a_line_a_provider_and_who_is_faster(provider, target):
    services.add_provider("better", "Better", provider.base_url)

    lines = printed("--count", "2").splitlines()

    assert len(lines) == 3
    for name, line in zip(("Acme", "Better"), lines, strict=False):
        assert line.startswith(f"{name}: avg=")
        assert "ms, min=" in line
    assert " than " in lines[2] or " as fast as " in lines[2]


def test_the_command_names_what_failed(upstream, provider):
    upstream.will(REFUSED)

    line, _ = printed("--count", "2", "--provider", "acme").splitlines()

    assert line.endswith(
        "(1 of 2 calls failed: It does not accept the credential (401 Unauthorized). No such key)"
    )


def test_the_command_prints_json(provider, target):
    told = json.loads(printed("--json", "--count", "1"))

    [only] = told["providers"]
    assert told["best"] == only["slug"] == "acme"
    assert only["answered"] == 1
    assert only["avg_ms"] == only["min_ms"] == only["max_ms"]
    assert only["cost_nanos"] == 13_000
    assert told["times_faster"] == {}


def test_the_command_fails_where_nobody_answers_or_is_known(upstream, provider):
    upstream.will(REFUSED)

    with pytest.raises(CommandError, match="No call was answered"):
        printed("--count", "1")
    with pytest.raises(CommandError, match="There is no provider nobody; there are acme"):
        printed("--provider", "nobody")
    with pytest.raises(CommandError, match="from 1 to 1000"):
        printed("--count", "0")
