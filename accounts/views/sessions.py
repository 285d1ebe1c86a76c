"""Signing out elsewhere."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from accounts import sessions
from accounts.views.common import me


@login_required
@require_POST
def end_session(request: HttpRequest, session_id: int) -> HttpResponse:
    """End one of one's own; the own browser's is ended by signing out."""
    if not sessions.end(me(request), session_id):
        raise Http404
    messages.success(request, _("That browser is signed out."))
    return _back()


@login_required
@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all but this one."""
    count = sessions.end_others(me(request), request.session.session_key)
    said = ngettext("One other browser is signed out.", "%(count)s other browsers are signed out.", count)
    messages.success(request, said % {"count": count} if count else _("You were signed in nowhere else."))
    return _back()


def _back() -> HttpResponse:
    return redirect(f"{reverse('account')}#sessions")
