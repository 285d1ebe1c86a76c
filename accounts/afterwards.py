"""Work whose time would tell something: it is done when the answer has been sent.

Where mail is sent for known addresses only, how long the answer takes would say which are known.
"""

import logging
from collections.abc import Callable
from smtplib import SMTPException

from allauth.core.context import request_context
from django.http import HttpRequest, HttpResponse
from django.utils import translation

from accounts.actor import acting_as, actor

log = logging.getLogger(__name__)

Work = Callable[[], object]


def afterwards(request: HttpRequest, work: Work) -> None:
    """Do it after the answer to this request. Whether it went well nobody learns; what mail met is logged."""
    request.afterwards = [*waiting(request), work]  # type: ignore[attr-defined]


def waiting(request: HttpRequest) -> list[Work]:
    found: list[Work] = getattr(request, "afterwards", [])
    return found


class Afterwards:
    """Does it when the server lets go of the answer: by whom, and in which language, as in the request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if works := waiting(request):
            close, who, language = response.close, actor(), translation.get_language()

            def work_and_close() -> None:
                with request_context(request), acting_as(who), translation.override(language):
                    _do(works)
                close()

            response.close = work_and_close  # type: ignore[method-assign]
        return response


def _do(works: list[Work]) -> None:
    for work in works:
        try:
            work()
        except (OSError, SMTPException) as why:
            log.warning("a mail could not be sent: %s", type(why).__name__)
