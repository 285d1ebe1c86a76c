"""What the gateway keeps: where calls may go, what they cost, the books, and what breakers did."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint

from gateway import inputs
from gateway.relay import catalog

_POOL = catalog.PoolConfig()
_TARGET: dict[str, Any] = {each.name: each.default for each in fields(catalog.Target)}
_ROUTE: dict[str, Any] = {each.name: each.default for each in fields(catalog.Route)}


def _within(name: str) -> list[MinValueValidator | MaxValueValidator]:
    least, most = inputs.RANGES[name]
    return [MinValueValidator(least), MaxValueValidator(most)]


def _all_within(names: Iterable[str]) -> Q:
    """The same for the database, which lets an absent value pass."""
    condition = Q()
    for name in names:
        least, most = inputs.RANGES[name]
        condition &= Q((f"{name}__gte", least), (f"{name}__lte", most))
    return condition


def check_certificates(pem: str) -> None:
    """A field's validator. Raises ValidationError."""
    try:
        inputs.clean_certificates(pem)
    except inputs.Unusable as why:
        raise ValidationError(str(why)) from None


def check_parameters(rules: object) -> None:
    """A field's validator. Raises ValidationError."""
    try:
        inputs.clean_parameters(rules)
    except inputs.Unusable as why:
        raise ValidationError(str(why)) from None


class Provider(models.Model):
    """An account at a vendor."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    base_url = models.CharField(
        max_length=200, help_text="With the version, without the endpoint: https://api.openai.com/v1"
    )
    simulated = models.BooleanField(default=False, help_text="Answers are made up and labelled so.")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ca_pem = models.TextField(
        "certificates",
        blank=True,
        default="",
        validators=[check_certificates],
        help_text="In PEM: who may sign the provider's certificate, beside those that the system trusts.",
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """What we present to a provider: encrypted at rest, or the name of an environment variable."""

    provider = models.OneToOneField(Provider, on_delete=models.CASCADE, related_name="credential")
    encrypted = models.TextField(blank=True, editable=False)
    env_var = models.CharField(max_length=100, blank=True)
    updated_at = models.DateTimeField(auto_now=True)
    refused_at = models.DateTimeField(null=True, editable=False)
    """When the provider last did not take it; None: it takes it, as far as is known."""
    refused_status = models.PositiveSmallIntegerField(null=True, editable=False)
    """The provider's HTTP status then."""

    class Meta:
        constraints = [
            CheckConstraint(
                condition=Q(refused_at=None, refused_status=None)
                | Q(refused_at__isnull=False, refused_status__isnull=False),
                name="credential_was_refused_at_a_moment_with_a_status",
            ),
            CheckConstraint(
                condition=Q(encrypted="") ^ Q(env_var=""), name="credential_is_kept_in_one_place"
            ),
        ]

    def __str__(self) -> str:
        return f"credential of {self.provider_id}"


class Route(models.Model):
    """A model name that clients ask for, and the targets behind it."""

    class Unpriced(models.TextChoices):
        REFUSED = "refused", "Refused"
        ALLOWED = "allowed", "Allowed and flagged"

    class Overflow(models.TextChoices):
        REFUSE = "refuse", "Refuse the call"
        TRIM = "trim", "Leave out the oldest messages"
        REROUTE = "reroute", "Go on with another route"

    model_name = models.CharField(max_length=200, unique=True)
    aliases = models.JSONField(default=list, blank=True, help_text="Other names for the same route.")
    unpriced = models.CharField(max_length=10, choices=Unpriced, default=Unpriced.REFUSED)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    timeout_s = models.FloatField(
        "deadline (s)",
        null=True,
        blank=True,
        default=_ROUTE["timeout_s"],
        validators=_within("timeout_s"),
        help_text="Seconds that a call may take which brings no X-Penstock-Timeout. Empty: CALL_TIMEOUT_S.",
    )
    overflow = models.CharField(
        "when messages are too long",
        max_length=10,
        choices=Overflow,
        default=_ROUTE["overflow"],
        help_text="For the context window of the target. System messages and the last three are always kept.",
    )
    overflow_route = models.CharField(
        "the other route",
        max_length=200,
        blank=True,
        default=_ROUTE["overflow_route"],
        help_text="The model name to go on with.",
    )
    hang_up_drain_s = models.FloatField(
        "read on after a hang-up (s)",
        default=_ROUTE["hang_up_drain_s"],
        validators=_within("hang_up_drain_s"),
        help_text="Seconds that an answer is still read for its usage after its client went away. "
        "0: it is cancelled, and its usage estimated.",
    )
    max_tokens = models.PositiveIntegerField(
        "most output tokens",
        default=_ROUTE["max_tokens"],
        validators=_within("max_tokens"),
        help_text="Of one choice; a call that asks for more is refused.",
    )
    usual_max_tokens = models.PositiveIntegerField(
        "output tokens where none are named",
        default=_ROUTE["usual_max_tokens"],
        validators=_within("usual_max_tokens"),
        help_text="Filled in as a call's bound where it has none and a hard quota must know its worst case.",
    )
    max_choices = models.PositiveIntegerField(
        "most choices",
        default=_ROUTE["max_choices"],
        validators=_within("max_choices"),
        help_text="The largest n that a call may ask for.",
    )

    class Meta:
        ordering = ["model_name"]
        constraints = [
            CheckConstraint(
                condition=_all_within(inputs.ROUTE_RANGES), name="route_settings_are_within_their_ranges"
            ),
            CheckConstraint(
                condition=Q(overflow__in=["refuse", "trim"])
                | (Q(overflow="reroute") & ~Q(overflow_route="") & ~Q(overflow_route=F("model_name"))),
                name="route_goes_on_with_another_route",
            ),
        ]

    def __str__(self) -> str:
        return self.model_name


class Target(models.Model):
    """One provider and upstream model behind a route, and how it is called."""

    class Transport(models.TextChoices):
        AIOHTTP = "aiohttp", "aiohttp"
        HTTPX = "httpx", "httpx"

    class Lever(models.TextChoices):
        AUTOMATIC = "automatic", "Decides by itself"
        OPEN = "open", "Held open"

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="targets")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="targets")
    upstream_model = models.CharField(max_length=200)
    order = models.PositiveSmallIntegerField(
        default=_TARGET["order"], validators=_within("order"), help_text="Lower is tried first."
    )
    enabled = models.BooleanField(default=True)
    weight = models.PositiveIntegerField(
        default=_TARGET["weight"],
        validators=_within("weight"),
        help_text="Share of the calls among targets of the same order. 0: only when the others cannot.",
    )
    transport = models.CharField(
        max_length=10,
        choices=Transport,
        default=_TARGET["transport"],
        help_text="The HTTP client. aiohttp is several times lighter; httpx speaks HTTP/2.",
    )
    http2 = models.BooleanField(
        "HTTP/2", default=_POOL.http2, help_text="Where the provider speaks it. Needs the transport httpx."
    )
    max_connections = models.PositiveIntegerField(
        default=_POOL.max_connections,
        validators=_within("max_connections"),
        help_text="Connections to this target at once, idle ones included.",
    )
    max_keepalive_connections = models.PositiveIntegerField(
        "idle connections kept",
        default=_POOL.max_keepalive_connections,
        validators=_within("max_keepalive_connections"),
        help_text="How many are kept open for the next call.",
    )
    keepalive_expiry_s = models.FloatField(
        "idle connections kept for (s)",
        default=_POOL.keepalive_expiry_s,
        validators=_within("keepalive_expiry_s"),
        help_text="Seconds after which an idle connection is closed.",
    )
    connect_timeout_s = models.FloatField(
        "connect timeout (s)",
        default=_POOL.connect_timeout_s,
        validators=_within("connect_timeout_s"),
        help_text="Seconds for name, connection and TLS together.",
    )
    read_timeout_s = models.FloatField(
        "read timeout (s)",
        default=_POOL.read_timeout_s,
        validators=_within("read_timeout_s"),
        help_text="Longest silence of a stream, in seconds. A whole answer may take until the deadline.",
    )
    write_timeout_s = models.FloatField(
        "write timeout (s)",
        default=_POOL.write_timeout_s,
        validators=_within("write_timeout_s"),
        help_text="Seconds that the provider may leave what was sent to it untaken.",
    )
    pool_timeout_s = models.FloatField(
        "pool timeout (s)",
        default=_POOL.pool_timeout_s,
        validators=_within("pool_timeout_s"),
        help_text="Longest wait for a free connection, in seconds.",
    )
    max_concurrency = models.PositiveIntegerField(
        default=_TARGET["max_concurrency"],
        validators=_within("max_concurrency"),
        help_text="Attempts at once; further calls wait at the gate.",
    )
    max_waiting = models.PositiveIntegerField(
        default=_TARGET["max_waiting"],
        validators=_within("max_waiting"),
        help_text="Calls that may wait at the gate; further ones go to the next target, or are refused.",
    )
    context_window = models.PositiveIntegerField(
        null=True,
        blank=True,
        default=_TARGET["context_window"],
        validators=_within("context_window"),
        help_text="Tokens of prompt and answer together. Empty: not known, so the provider decides.",
    )
    media_tokens = models.PositiveIntegerField(
        "tokens of an image or file",
        null=True,
        blank=True,
        default=_TARGET["media_tokens"],
        validators=_within("media_tokens"),
        help_text="The most that one image, recording or file counts as. "
        "Empty: not known, so a call with one is refused under a hard quota.",
    )
    parameters = models.JSONField(
        default=dict,
        blank=True,
        validators=[check_parameters],
        help_text="What is done with a parameter that this target does not take: refuse, drop or translate.",
    )
    lever = models.CharField(
        max_length=10, choices=Lever, default=_TARGET["lever"], editable=False, verbose_name="breaker"
    )
    closed_at = models.DateTimeField("closed by hand at", null=True, editable=False)

    class Meta:
        ordering = ["order", "id"]
        constraints = [
            UniqueConstraint(fields=["route", "provider", "upstream_model"], name="target_once_in_a_route"),
            CheckConstraint(
                condition=_all_within(inputs.TARGET_RANGES), name="target_settings_are_within_their_ranges"
            ),
            CheckConstraint(
                condition=Q(http2=False) | Q(transport="httpx"), name="target_needs_httpx_for_http2"
            ),
            CheckConstraint(
                condition=Q(transport__in=["aiohttp", "httpx"], lever__in=["automatic", "open"]),
                name="target_has_a_known_transport_and_lever",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider.slug}/{self.upstream_model}"

    def clean(self) -> None:
        if self.http2 and self.transport != self.Transport.HTTPX:
            raise ValidationError({"http2": "HTTP/2 needs the transport httpx."})


class Price(models.Model):
    """A dated price of a target, in whole nano-units of the ledger currency per million tokens."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="prices")
    valid_from = models.DateTimeField()
    input_nanos = models.BigIntegerField()
    cached_input_nanos = models.BigIntegerField()
    output_nanos = models.BigIntegerField()
    source = models.CharField(max_length=100, default="operator")

    class Meta:
        ordering = ["target_id", "valid_from"]
        constraints = [
            UniqueConstraint(fields=["target", "valid_from"], name="price_once_at_a_moment"),
            CheckConstraint(
                condition=Q(input_nanos__gte=0, cached_input_nanos__gte=0, output_nanos__gte=0),
                name="price_is_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"price of {self.target_id} from {self.valid_from:%Y-%m-%d}"


class LedgerCurrency(models.Model):
    """One row: what all prices and costs are in, so that another setting is noticed at start."""

    code = models.CharField(max_length=3)

    def __str__(self) -> str:
        return self.code


class Entry(models.Model):
    """One call on the books. Append only; written by the ledger's writer."""

    call_id = models.UUIDField(primary_key=True)
    team = models.ForeignKey("accounts.Team", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    key = models.ForeignKey("accounts.ApiKey", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    route = models.CharField(max_length=200)
    streamed = models.BooleanField()
    simulated = models.BooleanField()
    outcome = models.CharField(max_length=10)
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=60)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    latency_us = models.BigIntegerField()
    first_token_us = models.BigIntegerField(null=True)
    input_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    usage_basis = models.CharField(max_length=10)
    cost_nanos = models.BigIntegerField()
    unpriced = models.BooleanField()
    tags = models.JSONField(default=dict)
    priority = models.CharField(max_length=10, default="normal")
    skipped = models.JSONField(default=list)
    """Targets that were passed over without an attempt."""

    class Meta:
        ordering = ["-ended_at"]
        verbose_name_plural = "entries"
        indexes = [
            Index(fields=["ended_at"], name="entry_by_end"),
            Index(fields=["team", "ended_at"], name="entry_by_team_and_end"),
            Index(fields=["team", "started_at"], name="entry_by_team_and_start"),
        ]

    def __str__(self) -> str:
        return str(self.call_id)


class Attempt(models.Model):
    """One try at one target. `(call_id, attempt_no)` is its name."""

    entry = models.ForeignKey(
        Entry, on_delete=models.CASCADE, related_name="attempts", db_constraint=False, db_index=False
    )
    attempt_no = models.PositiveSmallIntegerField()
    target_id = models.BigIntegerField()
    provider = models.CharField(max_length=50)
    upstream_model = models.CharField(max_length=200)
    outcome = models.CharField(max_length=10)
    status = models.PositiveSmallIntegerField(null=True)
    started_at = models.DateTimeField()
    latency_us = models.BigIntegerField()
    first_token_us = models.BigIntegerField(null=True)
    input_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    usage_basis = models.CharField(max_length=10)
    price_id = models.BigIntegerField(null=True)
    cost_nanos = models.BigIntegerField()
    code = models.CharField(max_length=60, default="")
    """What went wrong, in a word; empty for an answer."""
    queued_us = models.BigIntegerField(default=0)
    backoff_us = models.BigIntegerField(default=0)
    probe = models.BooleanField(default=False)
    trimmed = models.PositiveIntegerField(default=0)
    """Messages left out because all of them were too long."""

    class Meta:
        ordering = ["entry_id", "attempt_no"]
        constraints = [
            UniqueConstraint(fields=["entry", "attempt_no"], name="attempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} #{self.attempt_no}"


class BreakerChange(models.Model):
    """One line of a target's timeline: its breaker went from one state to another. Append only."""

    class State(models.TextChoices):
        CLOSED = "closed", "Closed"
        OPEN = "open", "Open"
        HALF_OPEN = "half_open", "Half-open"

    target_id = models.BigIntegerField()
    provider = models.CharField(max_length=50)
    upstream_model = models.CharField(max_length=200)
    at = models.DateTimeField()
    before = models.CharField(max_length=10, choices=State)
    after = models.CharField(max_length=10, choices=State)
    cause = models.TextField()
    until = models.DateTimeField(null=True)
    """When it lets a probe through, where it opened by itself."""
    by_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    """Who did it by hand; None: the breaker itself, or somebody whose account is gone."""

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [Index(fields=["target_id", "at"], name="breaker_change_by_target")]

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_model} {self.before} → {self.after}"
