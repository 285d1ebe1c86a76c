"""Teams: who is in them, and what they may spend. Archived, never deleted."""

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet, ModelForm
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminSelectWidget

from accounts import services
from accounts.admin.common import Searched, refused
from accounts.admin.limits import QuotaInline, RateLimitInline, save_limits
from accounts.models import Membership, Team, User

if TYPE_CHECKING:
    _FormSet = BaseInlineFormSet[Membership, Team, ModelForm[Membership]]
    _TeamForm = ModelForm[Team]
    _Person = forms.ModelChoiceField[User]
else:
    _FormSet = BaseInlineFormSet
    _TeamForm = ModelForm
    _Person = forms.ModelChoiceField


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


class TeamForm(_TeamForm):
    class Meta:
        model = Team
        fields = ["name"]

    def clean_name(self) -> str:
        name = " ".join(self.cleaned_data["name"].split())
        if Team.objects.filter(name__iexact=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError(f"There is a team called {name} already.")
        return name


class NewTeamForm(TeamForm):
    owner = _Person(queryset=User.objects.filter(is_active=True), widget=UnfoldAdminSelectWidget)


@admin.register(Team)
class TeamAdmin(Searched):
    """Made with an owner and the usual limits; every write goes through the services, which audit it."""

    form = TeamForm
    list_display = ["name", "slug", "created_at", "archived_at"]
    list_filter = [("archived_at", admin.EmptyFieldListFilter)]
    search_fields = ["name", "slug"]
    inlines = [MembershipInline, RateLimitInline, QuotaInline]
    actions = ["archive", "restore"]

    def get_form(self, request: HttpRequest, obj: Team | None = None, **kwargs: Any) -> Any:
        return super().get_form(request, obj, **kwargs, **({} if obj else {"form": NewTeamForm}))

    def get_fields(self, request: HttpRequest, obj: Team | None = None) -> list[str]:
        return ["name", "slug", "created_at", "archived_at"] if obj else ["name", "owner"]

    def get_readonly_fields(self, request: HttpRequest, obj: Team | None = None) -> list[str]:
        fixed = ["slug", "created_at", "archived_at"] if obj else []
        return ["name", *fixed] if obj and obj.archived_at else fixed

    def get_inlines(self, request: HttpRequest, obj: Team | None) -> list[type[TabularInline]]:
        """Nothing is added to a team that is not there yet, or is archived."""
        if obj is None:
            return []
        return [MembershipInline] if obj.archived_at else self.inlines

    def has_delete_permission(self, request: HttpRequest, obj: Team | None = None) -> bool:
        return False

    def has_archive_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        if not change:
            made = services.create_team(obj.name, form.cleaned_data["owner"])
            obj.__dict__.update(made.__dict__)
        elif "name" in form.changed_data:
            refused(request, partial(services.rename_team, Team.objects.get(pk=obj.pk), obj.name))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        if formset.model is Membership:
            _save_members(request, form.instance, formset)
        else:
            save_limits(request, form.instance, formset)

    @admin.action(description="Archive the selected teams: their keys are refused", permissions=["archive"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Team]) -> None:
        by = request.user
        assert isinstance(by, User)
        done = [each for each in queryset if not refused(request, partial(services.archive_team, each, by))]
        self._say(request, done, "archived")

    @admin.action(description="Restore the selected teams", permissions=["archive"])
    def restore(self, request: HttpRequest, queryset: QuerySet[Team]) -> None:
        done = [each for each in queryset if not refused(request, partial(services.restore_team, each))]
        self._say(request, done, "in use again")

    def _say(self, request: HttpRequest, teams: list[Team], what: str) -> None:
        if teams:
            names = ", ".join(team.name for team in teams)
            self.message_user(request, f"Now {what}: {names}.", messages.SUCCESS)


def _save_members(request: HttpRequest, team: Team, formset: Any) -> None:
    """New owners first and leavers last, so that the team is never without an owner."""
    by = request.user
    assert isinstance(by, User)
    formset.save(commit=False)
    changed = [(row, _earlier(row)) for row, _ in formset.changed_objects]
    replaced = [(row, old) for row, old in changed if old.user_id != row.user_id]
    others = [row for row, old in changed if old.user_id == row.user_id]
    for row in [*formset.new_objects, *(row for row, _ in replaced)]:
        refused(request, partial(services.add_member, team, row.user, row.role))
    for row in sorted(others, key=lambda row: row.role != Membership.Role.OWNER):
        refused(request, partial(services.set_role, team, row.user, row.role, by))
    for row in [*(old for _, old in replaced), *formset.deleted_objects]:
        refused(request, partial(services.remove_member, team, row.user))


def _earlier(row: Membership) -> Membership:
    return Membership.objects.select_related("user").get(pk=row.pk)
