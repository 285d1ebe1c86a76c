"""Who may sign in, who owns calls, and the API keys that make them."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.db.models import CheckConstraint, Q, UniqueConstraint
from django.db.models.functions import Lower, Upper
from django.utils.translation import gettext_lazy as _

from accounts.areas import Area


class UserManager(BaseUserManager["User"]):
    """Users are known by their e-mail address, in whichever case it is typed."""

    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        return super().normalize_email(email).lower()

    def get_by_natural_key(self, username: str | None) -> "User":
        return super().get_by_natural_key(self.normalize_email(username))

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person who signs in with an e-mail address. An administrator is a superuser.

    The address is kept in lower case: that is how sign-in looks for it.
    """

    username = None  # type: ignore[assignment]
    email = models.EmailField(
        "e-mail address", unique=True, error_messages={"unique": "Somebody has this address already."}
    )

    language = models.CharField(
        max_length=8,
        blank=True,
        default="",
        db_default="",
        help_text="Of pages and mails, such as `ja`; empty: as the browser asks.",
    )
    zone = models.CharField(
        "time zone",
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="IANA name, such as `Asia/Tokyo`, in which pages tell the time; empty: UTC.",
    )

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta:
        constraints = [CheckConstraint(condition=Q(email=Lower("email")), name="user_email_in_lower_case")]

    def __str__(self) -> str:
        return self.email

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.email = type(self).objects.normalize_email(self.email)
        written = kwargs.get("update_fields")
        with transaction.atomic(savepoint=False):
            super().save(*args, **kwargs)
            if written is None or "email" in written:
                self._vouch_for_address()

    def _vouch_for_address(self) -> None:
        """Make the address the verified one, and the only one, that django-allauth knows of.

        An administrator gave it, so nobody has to verify it.
        Without this row a password reset leaves an unverified one, which bars a second factor for good.
        """
        from allauth.account.models import EmailAddress  # its models need this one first

        EmailAddress.objects.filter(user=self).exclude(email=self.email).delete()
        EmailAddress.objects.update_or_create(
            user=self, email=self.email, defaults={"verified": True, "primary": True}
        )


class Team(models.Model):
    """Owns API keys and pays for their calls."""

    name = models.CharField(max_length=100, unique=True)
    slug = models.SlugField(max_length=100, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, editable=False)
    """Nobody deletes a team: its calls stay on the books. An archived one makes no more of them."""
    members = models.ManyToManyField(User, through="Membership", related_name="teams")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person's place in a team."""

    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")
        MEMBER = "member", _("Member")
        VIEWER = "viewer", _("Viewer")

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.MEMBER)
    joined_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["team_id", "user_id"]
        constraints = [UniqueConstraint(fields=["user", "team"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.team_id} as {self.role}"


class ApiKey(models.Model):
    """A program's right to call. Its id, settings and history stay while secrets come and go."""

    class Kind(models.TextChoices):
        SERVICE = "service", _("Service")
        PERSONAL = "personal", _("Personal")
        PLAYGROUND = "playground", _("Playground")

    class Priority(models.TextChoices):
        URGENT = "urgent", _("Urgent")
        NORMAL = "normal", _("Normal")
        BATCH = "batch", _("Batch")

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    kind = models.CharField(
        max_length=10,
        choices=Kind,
        default=Kind.SERVICE,
        help_text="A personal key is revoked when its maker leaves the team; a service key stays. "
        "One of the playground lives for an hour.",
    )
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    priority_ceiling = models.CharField(
        max_length=10,
        choices=Priority,
        default=Priority.NORMAL,
        help_text="The most urgent that its calls may be, where calls wait for a target.",
    )
    routes = models.JSONField(
        null=True, blank=True, default=None, help_text="The model names it may use; none given: all."
    )
    networks = models.JSONField(
        default=list, blank=True, help_text="Address ranges that its calls may come from; none given: any."
    )
    tags = models.JSONField(
        default=dict,
        blank=True,
        help_text="Stamped on every entry of its calls; they win over the call's own.",
    )

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "API key"
        constraints = [
            CheckConstraint(
                condition=Q(priority_ceiling__in=["urgent", "normal", "batch"]),
                name="api_key_has_a_known_priority_ceiling",
            ),
            CheckConstraint(
                condition=Q(kind__in=["service", "personal", "playground"]), name="api_key_has_a_known_kind"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class KeySecret(models.Model):
    """What a program presents, kept only as an HMAC under a pepper."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="secrets")
    public_id = models.CharField(max_length=16, unique=True)
    digest = models.BinaryField(max_length=32)
    pepper_id = models.CharField(max_length=16)
    created_at = models.DateTimeField(auto_now_add=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    """The end of its overlap with the secret that replaced it; None: it is the key's current one."""
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.CharField(max_length=45, blank=True, default="")
    last_user_agent = models.CharField(max_length=200, blank=True, default="")
    uses = models.BigIntegerField(default=0)
    """Calls that presented it and were let further than the door."""

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            UniqueConstraint(fields=["key"], condition=Q(ends_at=None), name="key_has_one_current_secret"),
        ]

    def __str__(self) -> str:
        return f"pst_{self.public_id}…"


class KeyUse(models.Model):
    """One program that presents a secret: an address and what it calls itself."""

    secret = models.ForeignKey(KeySecret, on_delete=models.CASCADE, related_name="programs")
    address = models.CharField(max_length=45)
    user_agent = models.CharField(max_length=200, blank=True)
    first_used_at = models.DateTimeField()
    last_used_at = models.DateTimeField()
    uses = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-last_used_at"]
        constraints = [
            UniqueConstraint(fields=["secret", "address", "user_agent"], name="key_use_once_a_program"),
        ]

    def __str__(self) -> str:
        return f"{self.user_agent or 'a program'} at {self.address}"


def _one_owner() -> Q:
    return Q(team__isnull=False, key=None) | Q(team=None, key__isnull=False)


class RateLimit(models.Model):
    """So many requests or tokens in any 60 seconds, or calls at once, of a team or of a key."""

    class Kind(models.TextChoices):
        REQUESTS = "requests", _("Requests a minute")
        TOKENS = "tokens", _("Tokens a minute")
        CONCURRENT = "concurrent", _("Calls at once")

    team = models.ForeignKey(
        Team, on_delete=models.CASCADE, null=True, blank=True, related_name="rate_limits"
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="rate_limits"
    )
    kind = models.CharField(max_length=10, choices=Kind)
    amount = models.BigIntegerField()
    model_name = models.CharField(
        max_length=200, blank=True, default="", help_text="The route that it is for; empty: all together."
    )
    by_administrator = models.BooleanField(default=False, editable=False)
    """Set by an administrator, so an owner of the team cannot change it."""

    class Meta:
        ordering = ["id"]
        constraints = [
            CheckConstraint(condition=_one_owner(), name="rate_limit_has_one_owner"),
            CheckConstraint(condition=Q(amount__gte=1), name="rate_limit_lets_something_through"),
            CheckConstraint(
                condition=Q(kind__in=["requests", "tokens", "concurrent"]), name="rate_limit_has_a_known_kind"
            ),
            UniqueConstraint(
                fields=["team", "kind", "model_name"], condition=Q(key=None), name="rate_limit_once_a_team"
            ),
            UniqueConstraint(
                fields=["key", "kind", "model_name"], condition=Q(team=None), name="rate_limit_once_a_key"
            ),
        ]

    def __str__(self) -> str:
        of = f" of {self.model_name}" if self.model_name else ""
        return f"{self.amount} {self.get_kind_display().lower()}{of}"


class Quota(models.Model):
    """So many requests, tokens or nano-units of money in a calendar day or month, of a team or of a key."""

    class Kind(models.TextChoices):
        REQUESTS = "requests", _("Requests")
        TOKENS = "tokens", _("Tokens")
        MONEY = "money", _("Money")

    class Period(models.TextChoices):
        DAY = "day", _("Day")
        MONTH = "month", _("Month")

    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True, related_name="quotas")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="quotas")
    kind = models.CharField(max_length=10, choices=Kind)
    amount = models.BigIntegerField(help_text="Money in whole nano-units of the ledger currency.")
    period = models.CharField(max_length=5, choices=Period, default=Period.MONTH)
    zone = models.CharField(max_length=64, default="UTC", help_text="IANA time zone whose midnight counts.")
    hard = models.BooleanField(
        default=False, help_text="Hold the worst case of every call under way, so that it is never overshot."
    )
    warn_at = models.JSONField(default=list, blank=True, help_text="Shares in percent at which to tell.")
    by_administrator = models.BooleanField(default=False, editable=False)
    """Set by an administrator, so an owner of the team cannot change it."""

    class Meta:
        ordering = ["id"]
        constraints = [
            CheckConstraint(condition=_one_owner(), name="quota_has_one_owner"),
            CheckConstraint(condition=Q(amount__gte=0), name="quota_is_not_negative"),
            CheckConstraint(
                condition=Q(kind__in=["requests", "tokens", "money"], period__in=["day", "month"]),
                name="quota_has_a_known_kind_and_period",
            ),
            UniqueConstraint(
                fields=["team", "kind", "period"], condition=Q(key=None), name="quota_once_a_team"
            ),
            UniqueConstraint(
                fields=["key", "kind", "period"], condition=Q(team=None), name="quota_once_a_key"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.kind} a {self.period}"


class Invitation(models.Model):
    """A place in a team for whoever has the link; only its digest is kept."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(blank=True, default="")
    """Whom it was mailed to; empty: anybody with an account and the link."""
    role = models.CharField(max_length=10, choices=Membership.Role, default=Membership.Role.MEMBER)
    digest = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)
    accepted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.email or 'a link'} as {self.role}"


class AccessToken(models.Model):
    """A person's right to use the management API from a program; kept only as an HMAC under a pepper."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="access_tokens")
    name = models.CharField(max_length=100)
    scopes = models.JSONField(default=list)
    """Of `accounts.tokens.SCOPES`."""
    public_id = models.CharField(max_length=16, unique=True)
    digest = models.BinaryField(max_length=32)
    pepper_id = models.CharField(max_length=16)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.CharField(max_length=45, blank=True, default="")

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "access token"

    def __str__(self) -> str:
        return self.name


class AppendOnly(models.QuerySet["AuditEvent"]):
    """What happened, happened."""

    def update(self, **_: Any) -> int:
        raise TypeError("The audit is append only.")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("The audit is append only.")


class AuditEvent(models.Model):
    """Who did what, when, from where, before and after. Append only: the database refuses updates too.

    Names and ids are copies, so that an event stays true when what it names changes or goes.
    """

    at = models.DateTimeField(auto_now_add=True)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=254)
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)
    action = models.CharField(max_length=50)
    team_id = models.BigIntegerField(null=True)
    subject_kind = models.CharField(max_length=50)
    subject_id = models.CharField(max_length=50)
    subject_name = models.CharField(max_length=200)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["team_id", "-id"], name="audit_event_by_team"),
            models.Index(fields=["subject_id", "subject_kind", "-id"], name="audit_event_by_subject"),
            models.Index(Upper("actor_name"), models.F("id").desc(), name="audit_event_by_actor"),
            models.Index(fields=["action", "-id"], name="audit_event_by_action"),
            models.Index(Area("action"), models.F("id").desc(), name="audit_event_by_area"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name}: {self.action} {self.subject_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("The audit is append only.")
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("The audit is append only.")


class Webhook(models.Model):
    """An address that is told of a team's notices; without a team, of every one."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True, related_name="webhooks")
    url = models.CharField(max_length=500)
    salt = models.CharField(max_length=32)
    """Its signing secret is derived from this and a secret of the house, so none is kept."""
    enabled = models.BooleanField(default=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.url


class Channel(models.Model):
    """Where a team's alerts are sent, or without a team those of the system: mail, a webhook, or Slack."""

    class Kind(models.TextChoices):
        MAIL = "mail", _("E-mail")
        WEBHOOK = "webhook", _("Webhook")
        SLACK = "slack", _("Slack-compatible")

    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True, related_name="channels")
    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=100)
    address = models.TextField()
    """As people are shown it: addresses of mail with commas, a webhook's, a Slack one's without its path."""
    sealed = models.TextField(blank=True, default="")
    """The whole address of a Slack-compatible one, encrypted: whoever knows it may write there."""
    salt = models.CharField(max_length=32)
    """As of a webhook: its signing secret is derived from this."""
    enabled = models.BooleanField(default=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            CheckConstraint(
                condition=Q(kind__in=["mail", "webhook", "slack"]), name="channel_has_a_known_kind"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Outbox(models.Model):
    """Mail and webhook messages on their way: written with what they tell of, delivered by a task."""

    channel = models.CharField(
        max_length=10, choices=[("mail", "Mail"), ("webhook", "Webhook"), ("slack", "Slack")]
    )
    email = models.EmailField(blank=True, default="")
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, null=True, related_name="messages")
    to = models.ForeignKey(Channel, on_delete=models.CASCADE, null=True, related_name="messages")
    """The channel it is for, where it is for one."""
    about = models.CharField(max_length=60, blank=True, default="", db_default="")
    """What it belongs to in another room, such as `alert_event:7`."""
    event = models.CharField(max_length=50)
    """What it tells of, such as `quota.reached`."""
    subject = models.CharField(max_length=200)
    text = models.TextField()
    data = models.JSONField(default=dict)
    dedupe = models.CharField(max_length=200, unique=True)
    """The same news is told once to each address."""
    created_at = models.DateTimeField(auto_now_add=True)
    next_try_at = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=200, blank=True, default="")
    answer = models.CharField(max_length=100, blank=True, default="", db_default="")
    """What the far side said when it took the message."""

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "outbox"
        indexes = [
            models.Index(
                fields=["next_try_at"],
                condition=Q(sent_at=None, given_up_at=None),
                name="outbox_waiting",
            ),
            models.Index(fields=["about"], condition=~Q(about=""), name="outbox_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.email or self.webhook_id}"


class Milestone(models.Model):
    """Something that a person did for the first time, and that no other row tells of."""

    class Name(models.TextChoices):
        COST_SEEN = "cost_seen", _("Looked at costs")
        SAVINGS_SEEN = "savings_seen", _("Opened the savings")
        ALERT_TESTED = "alert_tested", _("Tested an alert")
        CHECKLIST_CLOSED = "checklist_closed", _("Put the checklist away")

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="milestones")
    name = models.CharField(max_length=20, choices=Name)
    reached_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [UniqueConstraint(fields=["user", "name"], name="milestone_once_a_user")]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.name}"


class IdempotentAnswer(models.Model):
    """What was answered to a write with an Idempotency-Key, so that its repetition changes nothing."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    idempotency_key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    """SHA-256 of method, path and body: the same key for another request is refused."""
    status = models.PositiveSmallIntegerField(null=True)
    """None: the first request is still under way."""
    body = models.TextField(blank=True, default="")
    """Encrypted, because it may show a secret."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            UniqueConstraint(fields=["user", "idempotency_key"], name="idempotency_key_once_a_person"),
        ]

    def __str__(self) -> str:
        return self.idempotency_key


class PepperFingerprint(models.Model):
    """Which pepper a secret's digest needs, so that a wrong one is noticed at start."""

    pepper_id = models.CharField(max_length=16, primary_key=True)
    fingerprint = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.pepper_id


class ChangeCounter(models.Model):
    """One row, counted up in the transaction of every change that a serving process must hear of."""

    number = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.number)
