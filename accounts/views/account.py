"""One's own account: profile, sign-in, sessions, teams, access tokens."""

from datetime import datetime

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from accounts import queries, services, sessions, tokens, zones
from accounts.forms.account import NewToken, Profile
from accounts.models import AccessToken, Membership, User
from accounts.services import profile
from accounts.views.common import close_form, me, open_form, refuse, sent_already, tell


@login_required
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """All of one's own settings on one page. A POST is the profile's form."""
    user = me(request)
    if request.method == "GET":
        return _page(request, Profile(initial=_said_by(user)))
    form = Profile(request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    profile.change_profile(user, **form.cleaned_data)
    messages.success(request, _("Your profile is saved."))
    return redirect("account")


def _said_by(user: User) -> dict[str, str]:
    return {"name": user.get_full_name(), "language": user.language, "zone": user.zone or zones.UTC}


def _page(request: HttpRequest, form: Profile, status: int = 200) -> HttpResponse:
    sessions.note(request)
    user, now = me(request), timezone.now()
    context = {
        "form": form,
        "zones": [(name, zones.offset(name, now)) for name in zones.names().values()],
        "factors": queries.factors_of(user),
        "sessions": sessions.signed_in(user, request.session.session_key),
        "memberships": Membership.objects.filter(user=user).select_related("team").order_by("team__name"),
        "tokens": [(each, _state(each, now)) for each in queries.access_tokens_of(user)],
    }
    return render(request, "accounts/account.html", context, status=status)


@require_GET
def not_here(request: HttpRequest) -> HttpResponse:
    """A page of django-allauth that this house does without."""
    raise Http404


@login_required
@require_GET
def on_account_page(request: HttpRequest, section: str) -> HttpResponse:
    """A page of django-allauth whose place is a section of the account's."""
    return redirect(f"{reverse('account')}#{section}")


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
            sent_already(request, _("An access token"))
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
    said = _("The access token %(name)s is revoked.") % {"name": token.name}
    tell(request, lambda: tokens.revoke_token(token), said)
    return redirect("account")


def _state(token: AccessToken, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"
