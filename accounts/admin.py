"""Operator pages for people, teams and API keys. Writes here are noted like all others."""

from typing import TYPE_CHECKING, Any

import allauth.account.admin
import allauth.mfa.admin  # noqa: F401  (both register their models; ours take their place below)
from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet, ModelForm
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.caller import Priority
from accounts.changes import note_change
from accounts.models import ApiKey, Membership, Team, User
from accounts.queries import state_of
from accounts.services import AlreadyRevoked, note_rights, revoke_key, set_priority_ceiling

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
for _model in (EmailAddress, Authenticator, Group):
    admin.site.unregister(_model)


class NotedAdmin(ModelAdmin):  # type: ignore[misc]
    """Every write counts as a change that serving processes hear of."""

    def save_model(
        self, request: HttpRequest, obj: models.Model, form: "ModelForm[Any]", change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        self.note(obj)

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with transaction.atomic():
            self.note(obj)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for each in queryset:
                self.note(each)
            super().delete_queryset(request, queryset)

    def note(self, obj: models.Model) -> None:
        note_change()


@admin.register(User)
class PersonAdmin(NotedAdmin, UserAdmin):  # type: ignore[type-arg]
    """People, known by their e-mail address."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "is_active", "is_superuser", "last_login"]
    list_filter = ["is_active", "is_superuser"]
    search_fields = ["email", "first_name", "last_name"]
    filter_horizontal = ()
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["email", "password", "first_name", "last_name"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Moments", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "password1", "password2"]})]

    def note(self, obj: models.Model) -> None:
        super().note(obj)
        assert isinstance(obj, User)
        note_rights(obj.pk)


if TYPE_CHECKING:
    _FormSet = BaseInlineFormSet[Membership, Team, ModelForm[Membership]]
else:
    _FormSet = BaseInlineFormSet


class AtLeastOneOwner(_FormSet):
    """Refuses a team without an owner."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        rows = [form.cleaned_data for form in self.forms if form.cleaned_data]
        kept = [row for row in rows if not row.get("DELETE")]
        if not any(each.get("role") == Membership.Role.OWNER for each in kept):
            raise ValidationError("A team needs at least one owner.")


class MembershipInline(TabularInline):  # type: ignore[misc]
    model = Membership
    formset = AtLeastOneOwner
    extra = 0
    min_num = 1
    hide_title = True
    autocomplete_fields = ["user"]


@admin.register(Team)
class TeamAdmin(NotedAdmin):
    """Teams and their members."""

    list_display = ["name", "slug", "created_at"]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [MembershipInline]

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        note_change()
        for membership in [
            *formset.new_objects,
            *(each for each, _ in formset.changed_objects),
            *formset.deleted_objects,
        ]:
            note_rights(membership.user_id)

    def note(self, obj: models.Model) -> None:
        super().note(obj)
        for user_id in Membership.objects.filter(team_id=obj.pk).values_list("user_id", flat=True):
            note_rights(user_id)


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):  # type: ignore[misc]
    """API keys to look at and to revoke; they are made on the page of keys. Nothing of a secret is shown."""

    list_display = [
        *("name", "team", "prefix", "state", "priority_ceiling", "created_by", "created_at", "last_used")
    ]
    list_filter = ["team", "priority_ceiling", ("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["team", "created_by"]
    search_fields = ["name", "team__name", "secrets__public_id"]
    fields = [
        "name",
        "team",
        "prefix",
        "state",
        "priority_ceiling",
        "created_by",
        "created_at",
        "expires_at",
        "last_used",
        "revoked_at",
        "revoked_by",
    ]
    actions = ["revoke", "up_to_urgent", "up_to_normal", "only_batch"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        keys: QuerySet[ApiKey] = super().get_queryset(request).prefetch_related("secrets")
        return keys

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

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


@admin.register(Authenticator)
class AuthenticatorAdmin(ModelAdmin):  # type: ignore[misc]
    """Who has a second factor. An administrator may take a lost one away; its secret is never shown."""

    list_display = ["user", "type", "created_at", "last_used_at"]
    list_filter = ["type"]
    search_fields = ["user__email"]
    fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        return False
