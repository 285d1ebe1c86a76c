"""What the gateway keeps: where calls may go, what they cost, the books, and what breakers did."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint, Value
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

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
        REFUSED = "refused", _("Refused")
        ALLOWED = "allowed", _("Allowed and flagged")

    class Overflow(models.TextChoices):
        REFUSE = "refuse", _("Refuse the call")
        TRIM = "trim", _("Leave out the oldest messages")
        REROUTE = "reroute", _("Go on with another route")

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
        HTTP1 = "http1", "http1"
        AIOHTTP = "aiohttp", "aiohttp"
        HTTPX = "httpx", "httpx"

    class Lever(models.TextChoices):
        AUTOMATIC = "automatic", _("Decides by itself")
        OPEN = "open", _("Held open")

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
        help_text="The HTTP client. http1 is the lightest; httpx speaks HTTP/2.",
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
                condition=Q(transport__in=["http1", "aiohttp", "httpx"], lever__in=["automatic", "open"]),
                name="target_has_a_known_transport_and_lever",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider.slug}/{self.upstream_model}"

    def clean(self) -> None:
        if self.http2 and self.transport != self.Transport.HTTPX:
            raise ValidationError({"http2": "HTTP/2 needs the transport httpx."})


class Price(models.Model):
    """A dated price of a target in a currency of its own, in whole nano-units per million tokens.

    Never changed: calls were booked by it. A later row for the same moment takes its place.
    """

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="prices")
    valid_from = models.DateTimeField()
    currency = models.CharField(max_length=3, default="", db_default="", blank=True)
    """Empty: the ledger's own."""
    input_nanos = models.BigIntegerField()
    cached_input_nanos = models.BigIntegerField()
    output_nanos = models.BigIntegerField()
    cache_write_nanos = models.BigIntegerField(null=True, blank=True)
    """None, here and below: as the kind of tokens that it is a part of, which is input or output."""
    reasoning_nanos = models.BigIntegerField(null=True, blank=True)
    audio_input_nanos = models.BigIntegerField(null=True, blank=True)
    audio_output_nanos = models.BigIntegerField(null=True, blank=True)
    request_nanos = models.BigIntegerField(default=0, db_default=0)
    """Of each attempt with usage, not of a million."""
    tiers = models.JSONField(default=list, db_default=Value([], models.JSONField()), blank=True)
    """Other rates for prompts above so many tokens: objects with `above_tokens` and the names above."""
    source = models.CharField(max_length=100, default="operator")
    created_at = models.DateTimeField(null=True, default=timezone.now)

    class Meta:
        ordering = ["target_id", "valid_from", "id"]
        indexes = [Index(fields=["target", "valid_from"], name="price_by_target")]
        constraints = [
            CheckConstraint(
                condition=Q(input_nanos__gte=0, cached_input_nanos__gte=0, output_nanos__gte=0),
                name="price_is_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"price of {self.target_id} from {self.valid_from:%Y-%m-%d}"


class ExchangeRate(models.Model):
    """From a day on, one unit of `base` is so much of `quote`. Never changed: a later row takes its place."""

    base = models.CharField(max_length=3)
    quote = models.CharField(max_length=3)
    valid_from = models.DateField()
    """A day in UTC."""
    rate_nanos = models.BigIntegerField()
    """Nano-units of `quote` for one unit of `base`."""
    source = models.CharField(max_length=100, default="operator")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["base", "quote", "valid_from", "id"]
        constraints = [
            CheckConstraint(condition=Q(rate_nanos__gt=0), name="exchange_rate_is_positive"),
            CheckConstraint(condition=~Q(base=F("quote")), name="exchange_rate_is_of_two_currencies"),
        ]

    def __str__(self) -> str:
        return f"{self.base} in {self.quote} from {self.valid_from:%Y-%m-%d}"


class Repricing(models.Model):
    """Work to do: what calls to a target cost in a span is worked out again, because a price came late."""

    target_id = models.BigIntegerField()
    from_at = models.DateTimeField()
    until_at = models.DateTimeField()
    cause = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    place = models.DateTimeField(null=True)
    """All attempts before this moment are done."""
    finished_at = models.DateTimeField(null=True)
    corrected = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["id"]
        indexes = [Index(fields=["until_at"], name="repricing_by_end")]

    def __str__(self) -> str:
        return f"repricing of {self.target_id} from {self.from_at:%Y-%m-%d}"


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
    target = models.CharField(max_length=251, default="", db_default="")
    """Provider and upstream model of the last attempt; empty: nothing was sent."""
    attempts_made = models.SmallIntegerField(default=0, db_default=0)
    queued_us = models.BigIntegerField(default=0, db_default=0)
    """At gates and for connections, over all attempts."""
    cache_write_tokens = models.BigIntegerField(default=0, db_default=0)
    reasoning_tokens = models.BigIntegerField(default=0, db_default=0)
    audio_input_tokens = models.BigIntegerField(default=0, db_default=0)
    audio_output_tokens = models.BigIntegerField(default=0, db_default=0)
    facts = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    """What only an explanation needs: the limits with their figures at admission, and the plan."""

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
    cache_write_tokens = models.BigIntegerField(default=0, db_default=0)
    reasoning_tokens = models.BigIntegerField(default=0, db_default=0)
    audio_input_tokens = models.BigIntegerField(default=0, db_default=0)
    audio_output_tokens = models.BigIntegerField(default=0, db_default=0)
    price = models.CharField(max_length=300, default="", db_default="")
    """The price as it was applied: `relay.pricing.Applied` as JSON; empty where there was none."""
    pool_wait_us = models.BigIntegerField(default=0, db_default=0)
    """The part of `queued_us` that was spent on a connection."""
    first_byte_us = models.BigIntegerField(null=True)
    """From the attempt's start to the answer's head."""

    class Meta:
        ordering = ["entry_id", "attempt_no"]
        constraints = [
            UniqueConstraint(fields=["entry", "attempt_no"], name="attempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} #{self.attempt_no}"


class Correction(models.Model):
    """What an attempt costs by a price that was entered late. Append only; the entry keeps its old figure.

    A call's cost is its entry's and the changes of all its corrections.
    """

    call_id = models.UUIDField()
    attempt_no = models.PositiveSmallIntegerField()
    repricing = models.ForeignKey(Repricing, on_delete=models.PROTECT, related_name="corrections")
    team_id = models.BigIntegerField()
    started_at = models.DateTimeField()
    """The call's."""
    before_nanos = models.BigIntegerField()
    after_nanos = models.BigIntegerField()
    prices = models.BooleanField(default=False)
    """The attempt had no price before."""
    price = models.CharField(max_length=300)
    """As `Attempt.price`."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            UniqueConstraint(fields=["repricing", "call_id", "attempt_no"], name="correction_once"),
        ]
        indexes = [
            Index(fields=["team_id", "started_at"], name="correction_by_team_and_start"),
            Index(fields=["call_id"], name="correction_by_call"),
        ]

    def __str__(self) -> str:
        return f"{self.call_id} #{self.attempt_no}"


class Measures(models.Model):
    """What a rollup adds up. Durations in microseconds, money in nano-units of the ledger currency.

    A row is of one team, key, route, target, outcome, code and priority in one bucket.
    A call counts at the target of its last attempt, tokens and cost at the target of theirs.
    `outcome` is `refused`, and `code` the reason, for calls that were not let in: these count calls alone.
    """

    class Size(models.IntegerChoices):
        MINUTE = 1
        QUARTER = 15
        DAY = 1440

    size = models.PositiveSmallIntegerField()
    """Minutes of the bucket."""
    start = models.IntegerField()
    """The bucket's first minute, counted from the Unix epoch in UTC. Calls belong where they started."""
    team_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    route = models.CharField(max_length=200)
    target = models.CharField(max_length=251)
    outcome = models.CharField(max_length=10)
    code = models.CharField(max_length=60)
    priority = models.CharField(max_length=10)
    calls = models.BigIntegerField(default=0)
    simulated = models.BigIntegerField(default=0)
    unpriced = models.BigIntegerField(default=0)
    estimated = models.BigIntegerField(default=0)
    """Calls whose usage was not reported."""
    attempts = models.BigIntegerField(default=0)
    billed_attempts = models.BigIntegerField(default=0, db_default=0)
    """Attempts that a price's fee for a request is taken for: there is usage, reported or estimated."""
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    audio_input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    audio_output_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    queued_us = models.BigIntegerField(default=0)
    latency_us = models.BigIntegerField(default=0)
    latency = models.BinaryField(default=b"")
    """A histogram, as `gateway.histograms` packs it."""
    first_token = models.BinaryField(default=b"")

    class Meta:
        abstract = True


class Rollup(Measures):
    """One bucket of the ledger."""

    class Meta:
        indexes = [
            Index(fields=["team_id", "size", "start"], name="rollup_by_team"),
            Index(fields=["size", "start"], name="rollup_by_start"),
            Index(fields=["size", "start"], condition=Q(unpriced__gt=0), name="rollup_unpriced"),
        ]


class TagRollup(Measures):
    """The same for calls with a value of a tag that their team declared."""

    name = models.CharField(max_length=64)
    value = models.CharField(max_length=256)

    class Meta:
        indexes = [Index(fields=["team_id", "name", "size", "start"], name="tag_rollup_by_team")]


class TagName(models.Model):
    """A tag that a team wants its usage told apart by."""

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="tag_names")
    name = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["team_id", "name"]
        constraints = [UniqueConstraint(fields=["team", "name"], name="tag_name_once_in_a_team")]

    def __str__(self) -> str:
        return self.name


class Stale(models.Model):
    """A bucket that must be worked out again.

    Written in the transaction that changed what it adds up, never looked for first and never updated, so
    that writers wait for nobody. Whoever works it out deletes the rows that it saw, and no others.
    """

    size = models.PositiveSmallIntegerField()
    start = models.IntegerField()
    team_id = models.BigIntegerField()

    class Meta:
        indexes = [Index(fields=["size", "start"], name="stale_by_start")]


class Kept(models.Model):
    """One row, once the first entries were deleted for their age: how far back the ledger goes.

    Changed in the transaction that deletes. Rollups alone tell of what began earlier; what still comes
    to be on the ledger of that time is added to them, because they cannot be worked out from it.
    """

    from_minute = models.IntegerField()
    """Since the Unix epoch in UTC; the start of a quarter-hour."""


class RefusalCount(models.Model):
    """How many calls one process refused within a second or so. Append only; written by the writer."""

    batch_id = models.UUIDField()
    number = models.PositiveIntegerField()
    """`(batch_id, number)` is its name, so that a replay changes nothing."""
    minute = models.IntegerField()
    team_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    route = models.CharField(max_length=200)
    code = models.CharField(max_length=60)
    priority = models.CharField(max_length=10)
    calls = models.PositiveIntegerField()

    class Meta:
        constraints = [UniqueConstraint(fields=["batch_id", "number"], name="refusal_count_once")]
        indexes = [Index(fields=["team_id", "minute"], name="refusal_count_by_team")]


class Refusal(models.Model):
    """One of the last refused calls, with why. The newest 1,000 of a team are kept."""

    call_id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()
    team_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    route = models.CharField(max_length=200)
    """The model name as it was asked for."""
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=60)
    priority = models.CharField(max_length=10)
    message = models.TextField()
    facts = models.JSONField(default=dict)
    """As of an entry."""

    class Meta:
        ordering = ["-at"]
        indexes = [Index(fields=["team_id", "at"], name="refusal_by_team")]


class BreakerChange(models.Model):
    """One line of a target's timeline: its breaker went from one state to another. Append only."""

    class State(models.TextChoices):
        CLOSED = "closed", _("Closed")
        OPEN = "open", _("Open")
        HALF_OPEN = "half_open", _("Half-open")

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


class Probe(models.Model):
    """Calls of our own to one provider, and how long they took. No team's: the ledger does not have them.

    The newest of each provider are kept, `gateway.probes.KEPT` of them.
    """

    class Cause(models.TextChoices):
        TEST = "test", _("Test")
        COMMAND = "command", _("By hand")
        SCHEDULE = "schedule", _("On schedule")

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="probes")
    at = models.DateTimeField()
    cause = models.CharField(max_length=10, choices=Cause)
    upstream_model = models.CharField(max_length=200)
    calls = models.PositiveSmallIntegerField()
    answered = models.PositiveSmallIntegerField()
    avg_us = models.BigIntegerField(null=True)
    """Of the calls that were answered, here and below; None: none was."""
    min_us = models.BigIntegerField(null=True)
    max_us = models.BigIntegerField(null=True)
    failures = models.JSONField(default=list, blank=True)
    """Objects with the fields of `gateway.probing.Failure`, and `times`."""
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(null=True)
    """By the target's price, in the ledger currency; None: there is none, or no usage was reported."""

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            CheckConstraint(condition=Q(answered__lte=F("calls")), name="probe_is_answered_once_a_call"),
        ]
        indexes = [Index(fields=["provider", "at"], name="probe_by_provider")]

    def __str__(self) -> str:
        return f"probe of {self.provider_id} at {self.at:%Y-%m-%d %H:%M}"


class Alert(models.Model):
    """A rule that tells people when a figure is beyond its threshold, and when it is not any more."""

    class Kind(models.TextChoices):
        SPEND = "spend", _("Spend")
        ERROR_RATE = "error_rate", _("Error rate")
        LATENCY = "latency", _("Latency")
        BREAKER = "breaker", _("Breaker open")
        QUOTA = "quota", _("Quota share")

    class State(models.TextChoices):
        WAITING = "waiting", _("Not looked at yet")
        OK = "ok", _("All right")
        RISING = "rising", _("Beyond its threshold, not yet long enough")
        FIRING = "firing", _("Firing")

    team = models.ForeignKey(
        "accounts.Team", on_delete=models.CASCADE, null=True, blank=True, related_name="alerts"
    )
    """None: of the whole system, for administrators."""
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind)
    route = models.CharField(max_length=200, blank=True, default="")
    """Only calls of this model name; empty: of every one."""
    key = models.ForeignKey(
        "accounts.ApiKey", on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    """Only calls with this API key; None: with every one."""
    threshold = models.BigIntegerField()
    """Nano-units of spend, hundredths of a percent of errors, milliseconds, seconds a breaker is open,
    or percent of a quota."""
    window_minutes = models.PositiveIntegerField(default=60)
    least_calls = models.PositiveIntegerField(default=0)
    """Below so many calls in the window, a rate or a percentile says nothing."""
    hold_minutes = models.PositiveIntegerField(default=0)
    """It fires after so long beyond the threshold, and is over after so long within it."""
    pause_minutes = models.PositiveIntegerField(default=60)
    """Between two times that it tells of having fired."""
    tell_owners = models.BooleanField(default=True)
    """Mail the team's owners; of the system, the administrators."""
    channels = models.ManyToManyField("accounts.Channel", blank=True, related_name="alerts")
    enabled = models.BooleanField(default=True)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    since_at = models.DateTimeField(null=True)
    """When the state began."""
    calm_since_at = models.DateTimeField(null=True)
    """While firing: since when the figure is within the threshold."""
    told_at = models.DateTimeField(null=True)
    """When it last told of having fired."""
    figure = models.BigIntegerField(null=True)
    """In the unit of the threshold, when it was last looked at; None: there was none."""
    detail = models.CharField(max_length=200, blank=True, default="")
    """Whose figure it is, such as a target or a quota."""
    figure_until = models.DateTimeField(null=True)
    """What ended before this is in the figure."""
    checked_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            CheckConstraint(
                condition=Q(kind__in=["spend", "error_rate", "latency", "breaker", "quota"]),
                name="alert_has_a_known_kind",
            ),
            CheckConstraint(condition=Q(threshold__gte=0), name="alert_is_not_negative"),
        ]

    def __str__(self) -> str:
        return self.name


class AlertEvent(models.Model):
    """One time that an alert fired, until it was over."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="events")
    fired_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    threshold = models.BigIntegerField()
    """As it was then."""
    figure = models.BigIntegerField()
    """With which it fired."""
    last_figure = models.BigIntegerField(null=True)
    """With which it was over; None: there was none, or it is not over."""
    detail = models.CharField(max_length=200, blank=True, default="")
    told = models.BooleanField(default=True)
    """False: it fired within the pause after an earlier message, so nobody was told."""

    class Meta:
        ordering = ["-fired_at", "-id"]
        constraints = [
            UniqueConstraint(
                fields=["alert"], condition=Q(resolved_at=None), name="alert_fires_once_at_a_time"
            )
        ]
        indexes = [Index(fields=["alert", "fired_at"], name="alert_event_by_alert")]

    def __str__(self) -> str:
        return f"{self.alert_id} at {self.fired_at:%Y-%m-%d %H:%M}"
