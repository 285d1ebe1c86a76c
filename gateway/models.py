"""What the gateway keeps: where calls may go, what they cost, and the books."""

from django.db import models
from django.db.models import CheckConstraint, Index, Q, UniqueConstraint


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

    class Meta:
        constraints = [
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

    model_name = models.CharField(max_length=200, unique=True)
    aliases = models.JSONField(default=list, blank=True, help_text="Other names for the same route.")
    unpriced = models.CharField(max_length=10, choices=Unpriced, default=Unpriced.REFUSED)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["model_name"]

    def __str__(self) -> str:
        return self.model_name


class Target(models.Model):
    """One provider and upstream model behind a route."""

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="targets")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="targets")
    upstream_model = models.CharField(max_length=200)
    order = models.PositiveSmallIntegerField(default=0, help_text="Lower is tried first.")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["order", "id"]
        constraints = [
            UniqueConstraint(fields=["route", "provider", "upstream_model"], name="target_once_in_a_route"),
        ]

    def __str__(self) -> str:
        return f"{self.provider_id}/{self.upstream_model}"


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

    class Meta:
        ordering = ["-ended_at"]
        verbose_name_plural = "entries"
        indexes = [
            Index(fields=["ended_at"], name="entry_by_end"),
            Index(fields=["team", "ended_at"], name="entry_by_team_and_end"),
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

    class Meta:
        ordering = ["entry_id", "attempt_no"]
        constraints = [
            UniqueConstraint(fields=["entry", "attempt_no"], name="attempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} #{self.attempt_no}"
