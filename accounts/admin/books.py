"""The audit, the outbox and access tokens to look at, and everybody's webhooks."""

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts import tokens, webhooks
from accounts.admin.common import ReadOnly, refused
from accounts.models import AccessToken, AuditEvent, Outbox, User, Webhook
from accounts.services import WrongValue

if TYPE_CHECKING:
    _WebhookForm = forms.ModelForm[Webhook]
else:
    _WebhookForm = forms.ModelForm


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnly):
    """Append only. The page `/audit/` shows the same in words, and has filters that indexes help with."""

    list_display = ["at", "actor_name", "action", "subject_kind", "subject_name", "address"]
    search_fields = ["actor_name", "action", "subject_name"]
    ordering = ["-id"]


@admin.register(Outbox)
class OutboxAdmin(ReadOnly):
    """Mail and webhook messages on their way. Not what a mail says: it may hold a link that lets in."""

    list_display = ["created_at", "event", "channel", "email", "webhook", "tries", "sent_at", "given_up_at"]
    list_filter = ["channel", "event", ("sent_at", admin.EmptyFieldListFilter)]
    list_select_related = ["webhook"]
    search_fields = ["email", "event", "subject"]
    fields = [
        *("created_at", "event", "channel", "email", "webhook", "subject"),
        *("tries", "next_try_at", "sent_at", "given_up_at", "last_error"),
    ]
    ordering = ["-id"]


@admin.register(AccessToken)
class AccessTokenAdmin(ReadOnly):
    """Whose programs may use the management API. Nothing of a secret is shown."""

    list_display = ["name", "user", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["name", "user__email"]
    fields = [*list_display, "last_used_from"]
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.action(description="Revoke the selected access tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> None:
        for token in queryset:
            if not refused(request, partial(tokens.revoke_token, token)):
                self.message_user(request, f"{token.name} of {token.user} is revoked.", messages.SUCCESS)


class WebhookForm(_WebhookForm):
    class Meta:
        model = Webhook
        fields = ["team", "url", "enabled"]

    def clean_url(self) -> str:
        try:
            return webhooks.clean_url(self.cleaned_data["url"])
        except WrongValue as why:
            raise ValidationError(str(why)) from None


@admin.register(Webhook)
class WebhookAdmin(ModelAdmin):  # type: ignore[misc]
    """Of teams, and without a team: told of every team's notices. Set on the page of a team, or here."""

    form = WebhookForm
    list_display = ["url", "team", "enabled", "created_at"]
    list_filter = ["enabled"]
    list_select_related = ["team"]
    fields = ["team", "url", "enabled"]

    def get_fields(self, request: HttpRequest, obj: Webhook | None = None) -> list[str]:
        return ["team", "url", "enabled", "signing_secret"] if obj else ["team", "url"]

    def get_readonly_fields(self, request: HttpRequest, obj: Webhook | None = None) -> list[str]:
        return ["team", "signing_secret"] if obj else []

    @admin.display
    def signing_secret(self, webhook: Webhook) -> str:
        return webhooks.secret_of(webhook)

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        by = request.user
        assert isinstance(by, User)
        if change:
            stored = Webhook.objects.get(pk=obj.pk)
            wish = {"url": obj.url, "enabled": obj.enabled}
            refused(request, partial(webhooks.change_webhook, stored, wish))
        else:
            made = webhooks.add_webhook(obj.team, obj.url, by)
            obj.__dict__.update(made.__dict__)

    def delete_model(self, request: HttpRequest, obj: Webhook) -> None:
        webhooks.remove_webhook(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for each in queryset:
            webhooks.remove_webhook(each)
