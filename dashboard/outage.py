"""What a page or the management API says while the database is away: 503, and to try again."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import defaults

RETRY_AFTER_S = 5
SENTENCE = "The database does not answer, so this cannot be done now: try again in some seconds."


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler of what nobody else caught: a page that needs no database. `problems` retells it."""
    if not is_away(sys.exc_info()[1]):
        return defaults.server_error(request)
    page = render_to_string("503.html")
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_S)})


def is_away(why: BaseException | None) -> bool:
    """It cannot be reached, has too much to do, or two changes were in each other's way: later will do.

    SQLite also calls it an operational error where a table is missing, which later will not mend.
    """
    return isinstance(why, OperationalError | InterfaceError) and "no such" not in str(why)
