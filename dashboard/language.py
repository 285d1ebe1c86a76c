"""Which language a page is in: what its reader chose, else what the browser asks for."""

from collections.abc import Callable, Iterable

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.views.decorators.http import require_POST
from django.views.i18n import JavaScriptCatalog, set_language

from accounts.models import User


class Language:
    """Stands behind the authentication, because a choice is kept with the person, wherever they sign in.

    Who is not signed in may choose as well: a cookie keeps it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        language = language_of(request.user) or translation.get_language_from_request(request)
        with translation.override(language):
            response = self.get_response(request)
        response.setdefault("Content-Language", language)
        return response


def language_of(user: User | AnonymousUser) -> str:
    """Empty: not chosen, or chosen when there were more."""
    chosen = getattr(user, "language", "")
    return chosen if chosen in dict(settings.LANGUAGES) else ""


@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """Take `language` from a form, and go back to where it was sent from, on this site."""
    language = request.POST.get("language", "")
    if request.user.is_authenticated and language in dict(settings.LANGUAGES):
        request.user.language = language
        request.user.save(update_fields=["language"])
    return set_language(request)


class Words(JavaScriptCatalog):
    """What our own scripts say, from LOCALE_PATHS, which Django leaves out where packages are named.

    Without any it would add what the scripts of its operator pages say.
    """

    def get_paths(self, packages: Iterable[str]) -> list[str]:
        return [str(path) for path in settings.LOCALE_PATHS]
