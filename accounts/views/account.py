"""One's own account: sign-in, teams, access tokens."""

from datetime import datetime

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from accounts import queries, services, tokens
from accounts.forms.account import NewToken
from accounts.models import AccessToken, Membership
from accounts.views.common import close_form, me, open_form, refuse, sent_already, tell


@login_required
@require_GET
def account(request: HttpRequest) -> HttpResponse:
    """Who I am here, and the way to password and two-factor settings."""
    places = Membership.objects.filter(user=me(request)).select_related("team").order_by("team__name")
    now = timezone.now()
    context = {
        "memberships": places,
        "recovery_codes_left": queries.recovery_codes_left(me(request)),
        "tokens": [(each, _state(each, now)) for each in queries.access_tokens_of(me(request))],
    }
    return render(request, "accounts/account.html", context)


@require_GET
def not_here(request: HttpRequest) -> HttpResponse:
    """A page of django-allauth that this house does without."""
    raise Http404


@login_required
@require_http_methods(["GET", "POST"])
def new_token(request: HttpRequest) -> HttpResponse:
    """Make an access token. The answer to the POST is the only page that ever shows it."""
    if request.method == "GET":
        form = NewToken(initial={"once": open_form(request)})
        return render(request, "accounts/new_token.html", {"form": form})
    form = NewToken(request.POST)
    if form.is_valid():
        if not close_form(request, form.cleaned_data["once"]):
            sent_already(request, "An access token")
            return redirect("account")
        try:
            made, text = tokens.make_token(me(request), **form.wish())
        except services.NotPossible as why:
            refuse(form, why, "name")
            form.open_again(open_form(request))
        else:
            return render(request, "accounts/made_token.html", {"token": made, "text": text})
    return render(request, "accounts/new_token.html", {"form": form}, status=422)


@login_required
@require_http_methods(["GET", "POST"])
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """Ask, then revoke one of one's own."""
    token = get_object_or_404(queries.access_tokens_of(me(request)), pk=token_id)
    if request.method == "GET":
        return render(request, "accounts/revoke_token.html", {"token": token})
    tell(request, lambda: tokens.revoke_token(token), f"The access token {token.name} is revoked.")
    return redirect("account")


def _state(token: AccessToken, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"
