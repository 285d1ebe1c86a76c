"""What every operator page keeps to: each write is on the audit, and serving processes hear of it."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from django.contrib import messages
from django.db import models, transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts import audit
from accounts.changes import note_change
from accounts.models import Team
from accounts.searching import LONGEST, newest
from accounts.services import NotPossible

UNTOLD = frozenset({"password", "encrypted", "digest", "data", "ca_pem"})
"""Fields of which the audit says only that they are set."""


_NOTHING = object()


def facts(row: models.Model) -> dict[str, Any]:
    """What the audit tells of a row."""
    return {
        field.name: (audit.UNSAID if value else "") if field.name in UNTOLD else value
        for field in row._meta.concrete_fields
        if field.editable and not field.primary_key
        for value in [field.value_from_object(row)]
    }


class Searched(ModelAdmin):  # type: ignore[misc]
    """A search looks at the newest rows, so that none goes through a long table."""

    show_full_result_count = False  # counting a long table costs more than it tells

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if search_term and isinstance(self.opts.pk, models.AutoField):
            queryset = newest(queryset)
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term[:LONGEST]
        )
        return found


class Audited(Searched):
    """Every write is on the audit, with what was before and after."""

    made = "added"

    def team_of(self, obj: models.Model) -> Team | None:
        """Whose audit it is on, beside the administrators'."""
        return None

    def save_model(
        self, request: HttpRequest, obj: models.Model, form: "ModelForm[Any]", change: bool
    ) -> None:
        before = facts(type(obj)._default_manager.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)
        self.tell(obj, "changed" if change else self.made, before, facts(obj))

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with transaction.atomic():
            self.tell(obj, "removed", facts(obj), {})
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for each in queryset:
                self.tell(each, "removed", facts(each), {})
            super().delete_queryset(request, queryset)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Rows that stand on another's page."""
        super().save_formset(request, form, formset, change)
        first = {each.instance.pk: each.initial for each in formset.initial_forms}
        for row in formset.new_objects:
            self.tell(row, "added", {}, facts(row))
        for row, _ in formset.changed_objects:
            self.tell(row, "changed", {**facts(row), **first[row.pk]}, facts(row))
        for row in formset.deleted_objects:
            self.tell(row, "removed", facts(row), {})

    def tell(self, row: models.Model, verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Of a change, what differs; nothing where nothing does."""
        was = {name: value for name, value in before.items() if after.get(name, _NOTHING) != value}
        now = {name: value for name, value in after.items() if before.get(name, _NOTHING) != value}
        if was or now:
            action = f"{row._meta.verbose_name}.{verb}".replace(" ", "_")
            audit.record(action, row, team=self.team_of(row), before=was, after=now)


class NotedAdmin(Audited):
    """Every write counts as a change that serving processes hear of."""

    def save_model(
        self, request: HttpRequest, obj: models.Model, form: "ModelForm[Any]", change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        self.note(obj)

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        gone = copy(obj)  # Django takes its id away
        with transaction.atomic():
            super().delete_model(request, obj)
            self.note(gone)  # last, as everywhere: every change waits for the counter's row

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        gone = list(queryset)
        with transaction.atomic():
            super().delete_queryset(request, queryset)
            for each in gone:
                self.note(each)

    def note(self, obj: models.Model) -> None:
        note_change()


class ReadOnly(Searched):
    """Rows to look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def refused(request: HttpRequest, change: Callable[[], object]) -> bool:
    """Make a change; where the house refuses it, say why above the page."""
    try:
        change()
    except NotPossible as why:
        messages.error(request, str(why))
        return True
    return False
