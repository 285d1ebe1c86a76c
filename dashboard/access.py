"""What stands around every page: security headers, who acts, facts for the base template, log lines."""

import logging
import re
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from accounts.actor import Actor, acting_as
from dashboard.navigation import places
from gateway.addresses import client_address, networks

PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ADMIN = (  # django-unfold's Alpine evaluates expressions and sets styles
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

Handler = Callable[[HttpRequest], HttpResponse]


class ContentSecurityPolicy:
    """One strict policy for our pages, and the admin's own beside it."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response["Content-Security-Policy"] = ADMIN if request.path.startswith("/admin/") else PAGES
        return response


class NoStore:
    """A page shows what its reader may see, so nobody keeps a copy."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.setdefault("Cache-Control", "no-store")
        return response


class Acting:
    """Whatever a request changes is changed on behalf of who is signed in, from where they are."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with acting_as(_actor_of(request)):
            return self.get_response(request)


class Sessions:
    """Notes where somebody is signed in, and renews the session of who may do something else now.

    Stands behind `Acting`, which knows the address.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        from accounts import sessions  # as below: not before the apps are loaded

        if request.user.is_authenticated:
            sessions.renew_if_asked(request)
            sessions.note_sometimes(request)
        return self.get_response(request)


NOT_SIGNED_IN = "somebody not signed in"


def _actor_of(request: HttpRequest) -> Actor:
    address = client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        networks(settings.ENV.trusted_proxies),
    )
    agent = request.META.get("HTTP_USER_AGENT", "")
    name = request.user.get_username() or NOT_SIGNED_IN
    return Actor("person", name, request.user.pk, address, agent)


LINK = re.compile(r"(/invitations/)[\w-]{20,}")
"""Whoever reads it while the invitation is open could join with it."""


class OneLine(logging.Formatter):
    """A record is one line, so that what a client sends cannot forge another.

    The link of an invitation is cut.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = LINK.sub(r"\1…", super().format(record))
        head, *rest = line.split("\n")
        if record.exc_info:
            return "\n".join([_printable(head), *("    " + _printable(each) for each in rest)])
        return _printable(line)


class WithoutTraceback(logging.Filter):
    """For what strangers cause at will: one line each, not a page. From `below` on records are left whole."""

    def __init__(self, below: int = logging.CRITICAL) -> None:
        super().__init__()
        self.below = below

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < self.below:
            record.exc_info = record.exc_text = None
        return True


class WithoutTracebackOfOutages(logging.Filter):
    """While the database is away every page fails for the same reason, which the gateway tells once."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "status_code", None) == 503:
            record.exc_info = record.exc_text = None
        return True


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


def page_facts(request: HttpRequest) -> dict[str, object]:
    """For the templates: whether what is shown may be simulated, and a model name that can be called."""
    if not request.user.is_authenticated:
        return {}
    return {
        "simulated": _is_simulated(request),
        "only_simulated": _kinds_of_providers(request) == {True},
        "example_model_name": _example_model_name,
        "places": places(request.path, is_administrator=request.user.is_superuser),
    }


def admin_label(request: HttpRequest) -> list[str] | None:
    """The band of the operator pages, which have a base template of their own: its text and its colour."""
    return ["Simulated", "warning"] if request.user.is_authenticated and _is_simulated(request) else None


def admin_sidebar(request: HttpRequest) -> list[dict[str, object]]:
    """The way back to the live page, then every table that the operator may see."""
    from django.contrib.admin import site  # as below: not before the apps are loaded

    live = {"title": "Live", "link": "/", "icon": "monitoring", "active": False}
    return [{"items": [live]}, *map(_sidebar_group, site.get_app_list(request))]


def _sidebar_group(app: dict[str, Any]) -> dict[str, object]:
    tables = [each for each in app["models"] if each["admin_url"]]
    return {
        "title": app["name"],
        "items": [{"title": each["name"], "link": each["admin_url"]} for each in tables],
    }


def _is_simulated(request: HttpRequest) -> bool:
    return True in _kinds_of_providers(request)


def _kinds_of_providers(request: HttpRequest) -> frozenset[bool]:
    """Whether those that are called are simulated; asked once a request, however many want to know."""
    from gateway.models import Provider  # the formatter above is needed before the apps are loaded

    if "penstock.providers" not in request.META:
        kinds = (
            Provider.objects.filter(enabled=True).order_by().values_list("simulated", flat=True).distinct()
        )
        request.META["penstock.providers"] = frozenset(kinds)
    found: frozenset[bool] = request.META["penstock.providers"]
    return found


def _example_model_name() -> str:
    """Asked for only where a page shows how to call."""
    from gateway import queries

    return queries.example_model_name(queries.model_names())
