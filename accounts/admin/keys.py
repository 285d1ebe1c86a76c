"""API keys."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import TabularInline

from accounts.admin.common import Searched
from accounts.admin.limits import QuotaInline, RateLimitInline, save_limits
from accounts.caller import Priority
from accounts.models import ApiKey, User
from accounts.queries import state_of
from accounts.services import AlreadyRevoked, revoke_key, set_priority_ceiling


@admin.register(ApiKey)
class ApiKeyAdmin(Searched):
    """API keys to look at, to limit and to revoke; they are made on the page of keys.

    Nothing of a secret is shown.
    """

    list_display = [
        *("name", "team", "prefix", "state", "priority_ceiling", "created_by", "created_at", "last_used")
    ]
    list_filter = ["team", "priority_ceiling", ("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["team", "created_by"]
    search_fields = ["name", "team__name", "secrets__public_id"]
    fields = readonly_fields = [
        "name",
        "team",
        "kind",
        "prefix",
        "state",
        "priority_ceiling",
        "routes",
        "networks",
        "tags",
        "created_by",
        "created_at",
        "expires_at",
        "last_used",
        "revoked_at",
        "revoked_by",
    ]
    inlines = [RateLimitInline, QuotaInline]
    actions = ["revoke", "up_to_urgent", "up_to_normal", "only_batch"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        keys: QuerySet[ApiKey] = super().get_queryset(request).prefetch_related("secrets")
        return keys

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Of its limits alone: its own fields are to look at."""
        return bool(request.user.is_superuser)

    def get_inlines(self, request: HttpRequest, obj: ApiKey | None) -> list[type[TabularInline]]:
        """Nothing is set of a revoked key or in an archived team."""
        over = obj is None or obj.revoked_at is not None or obj.team.archived_at is not None
        return [] if over else self.inlines

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """None of its own fields can have changed."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        save_limits(request, form.instance, formset)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_raise_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.display(description="key")
    def prefix(self, key: ApiKey) -> str:
        return ", ".join(str(secret) for secret in key.secrets.all())

    @admin.display
    def state(self, key: ApiKey) -> str:
        return state_of(key, timezone.now())

    @admin.display(description="last used", empty_value="never")
    def last_used(self, key: ApiKey) -> Any:
        return max((each.last_used_at for each in key.secrets.all() if each.last_used_at), default=None)

    @admin.action(description="Revoke the selected API keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        revoked = sum(self._revoked(key, request) for key in queryset)
        self.message_user(
            request, f"{revoked} of {len(queryset)} keys revoked; the others were already.", messages.SUCCESS
        )

    @admin.action(description="Let the selected API keys' calls be urgent", permissions=["raise"])
    def up_to_urgent(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._set_ceiling(request, queryset, "urgent")

    @admin.action(description="Let the selected API keys' calls be normal, not urgent", permissions=["raise"])
    def up_to_normal(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._set_ceiling(request, queryset, "normal")

    @admin.action(description="Let the selected API keys' calls be batch alone", permissions=["raise"])
    def only_batch(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._set_ceiling(request, queryset, "batch")

    def _set_ceiling(self, request: HttpRequest, queryset: QuerySet[ApiKey], ceiling: Priority) -> None:
        for key in queryset:
            set_priority_ceiling(key, ceiling)
            self.log_change(request, key, f"Priority ceiling set to {ceiling}.")
        names = ", ".join(key.name for key in queryset)
        self.message_user(request, f"Calls are {ceiling} at most now with: {names}.", messages.SUCCESS)

    def _revoked(self, key: ApiKey, request: HttpRequest) -> bool:
        assert isinstance(request.user, User)
        try:
            revoke_key(key, by=request.user)
        except AlreadyRevoked:
            return False
        return True
