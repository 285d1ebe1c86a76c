"""Invitations: made and withdrawn by owners, opened and accepted by whoever has the link."""

from urllib.parse import quote

from allauth.account.utils import perform_login
from allauth.core.ratelimit import consume_or_429
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import services
from accounts.forms.teams import ChoosePassword, NewInvitation
from accounts.models import Invitation, Team, User
from accounts.views.common import close_form, me, open_form, refuse, sent_already, team_to


@login_required
@require_http_methods(["GET", "POST"])
def invite(request: HttpRequest, slug: str) -> HttpResponse:
    """Invite somebody by mail, or by a link. The answer to the POST is the only page that shows the link."""
    team = team_to(request, slug, "invite")
    if request.method == "GET":
        form = NewInvitation(initial={"once": open_form(request)})
        return render(request, "accounts/invite.html", {"team": team, "form": form})
    form = NewInvitation(request.POST)
    if form.is_valid():
        if not close_form(request, form.cleaned_data["once"]):
            sent_already(request, _("A link"))
            return redirect("team", slug=slug)
        answer = _invited(request, team, form)
        if answer is not None:
            return answer
    return render(request, "accounts/invite.html", {"team": team, "form": form}, status=422)


@login_required
@require_POST
def withdraw_invitation(request: HttpRequest, slug: str, invitation_id: int) -> HttpResponse:
    """Let nobody accept it any more."""
    team = team_to(request, slug, "invite")
    invitation = get_object_or_404(Invitation.objects.select_related("team"), pk=invitation_id, team=team)
    try:
        services.withdraw_invitation(invitation)
    except services.InvitationGone as why:
        messages.info(request, str(why))
    else:
        messages.success(request, _("The invitation is withdrawn; its link opens nothing any more."))
    return redirect("team", slug=slug)


@sensitive_post_parameters("password", "again")
@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Accept an invitation: with one's account, or, where it was mailed to a new address, by making one."""
    too_many: HttpResponse | None = consume_or_429(request, action="invitation", limit_get=True)
    if too_many:
        return too_many
    found = services.open_invitation(token)
    if found is None:
        return _gone(request)
    if isinstance(request.user, User):
        return _join(request, found, token)
    if not found.email or User.objects.filter(email=found.email).exists():
        return redirect_to_login(request.get_full_path(), reverse("account_login"))
    return _join_as_new(request, found, token)


def _invited(request: HttpRequest, team: Team, form: NewInvitation) -> HttpResponse | None:
    """The answer to an invitation that was made; None where the form says why it was not."""
    try:
        made, secret = services.invite(team, me(request), **form.wish())
    except services.NotPossible as why:
        refuse(form, why, "email" if isinstance(why, services.AlreadyMember) else None)
        form.open_again(open_form(request))
        return None
    if made.email:
        messages.success(request, _mailed(made.email))
        return redirect("team", slug=team.slug)
    link = f"{settings.PUBLIC_URL}{reverse('invitation', args=[quote(secret)])}"
    return render(request, "accounts/made_invitation.html", {"team": team, "made": made, "link": link})


def _mailed(email: str) -> str:
    """Where no mail server is set, nobody would look for the file."""
    if settings.ENV.email_url:
        return _("An invitation is on its way to %(email)s.") % {"email": email}
    said = _(
        "No mail server is set: the invitation to %(email)s is written to VAR_DIR/mail within some seconds."
    )
    return said % {"email": email}


def _gone(request: HttpRequest) -> HttpResponse:
    """Used, withdrawn, expired or never made: the same answer."""
    return render(request, "accounts/invitation_gone.html", status=404)


def _join(request: HttpRequest, invitation: Invitation, token: str) -> HttpResponse:
    """One button for somebody who is signed in."""
    is_theirs = not invitation.email or invitation.email == me(request).email
    if request.method == "GET":
        context = {"invitation": invitation, "is_theirs": is_theirs}
        return render(request, "accounts/invitation.html", context)
    try:
        services.accept_invitation(token, me(request))
    except services.InvitationGone:
        return _gone(request)
    except services.AlreadyMember as why:
        messages.info(request, str(why))
        return redirect("team", slug=invitation.team.slug)
    except services.NotPossible as why:
        messages.error(request, str(why))
        return redirect("teams")
    messages.success(request, _("Welcome to %(team)s.") % {"team": invitation.team.name})
    return redirect("team", slug=invitation.team.slug)


def _join_as_new(request: HttpRequest, invitation: Invitation, token: str) -> HttpResponse:
    """The mail proves the address; the person chooses a password and is signed in, in a new session."""
    form = ChoosePassword(request.POST or None)
    if form.is_valid():
        try:
            user = services.accept_as_new(token, form.cleaned_data["password"])
        except services.PasswordTooWeak as why:
            form.add_error("password", str(why))
        except services.AccountExists:
            return redirect_to_login(request.get_full_path(), reverse("account_login"))
        except services.NotPossible:
            return _gone(request)
        else:
            home = reverse("team", args=[invitation.team.slug])
            answer: HttpResponse = perform_login(request, user, redirect_url=home)
            return answer
    context = {"invitation": invitation, "form": form}
    return render(request, "accounts/join_as_new.html", context, status=422 if form.errors else 200)
