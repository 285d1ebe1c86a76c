"""A team's webhooks: set up, switched and removed by its owners."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import services, webhooks
from accounts.forms.teams import NewWebhook, WebhookSwitch
from accounts.models import Webhook
from accounts.views.common import me, refuse, team_to, tell


@login_required
@require_http_methods(["GET", "POST"])
def add_webhook(request: HttpRequest, slug: str) -> HttpResponse:
    """Have an address told of the team's notices."""
    team = team_to(request, slug, "manage_members")
    form = NewWebhook(request.POST or None)
    if form.is_valid():
        try:
            webhooks.add_webhook(team, form.cleaned_data["url"], me(request))
        except services.NotPossible as why:
            refuse(form, why, "url")
        else:
            messages.success(request, _("The address is told of the team's notices from now on."))
            return redirect("team", slug=slug)
    context = {"team": team, "form": form}
    return render(request, "accounts/add_webhook.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def switch_webhook(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """On, or off."""
    webhook = _webhook(request, slug, webhook_id)
    form = WebhookSwitch(request.POST)
    if form.is_valid():
        enabled = form.cleaned_data["enabled"] == "on"
        done = _("The webhook is switched on.") if enabled else _("The webhook is switched off.")
        tell(request, lambda: webhooks.change_webhook(webhook, {"enabled": enabled}), done)
    else:
        messages.error(request, _("A webhook is switched on or off."))
    return redirect("team", slug=slug)


@login_required
@require_POST
def remove_webhook(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Tell an address of nothing any more."""
    webhook = _webhook(request, slug, webhook_id)
    tell(request, lambda: webhooks.remove_webhook(webhook), _("The webhook is removed."))
    return redirect("team", slug=slug)


def _webhook(request: HttpRequest, slug: str, webhook_id: int) -> Webhook:
    team = team_to(request, slug, "manage_members")
    return get_object_or_404(Webhook.objects.select_related("team"), pk=webhook_id, team=team)
