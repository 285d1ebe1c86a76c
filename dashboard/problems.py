"""One shape for what goes wrong under `/api/`: problem details as in RFC 9457.

A sentence in `detail` and, where fields are wrong, a sentence for each in `errors`.
"""

import json
from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any

from django.http import HttpRequest, HttpResponse

from dashboard import outage

MEDIA_TYPE = "application/problem+json"
PREFIX = "/api/"
EXAMPLE = {
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "Nothing was changed: a value cannot be used.",
    "errors": [{"field": "name", "message": "A name is needed, so that others know what this is for."}],
}
SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong, as in RFC 9457.",
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and what to do next."},
        "errors": {
            "type": "array",
            "description": "The fields that are wrong, dotted where one is inside another.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "examples": [EXAMPLE],
}
SENTENCES = {
    404: "There is nothing here.",
    405: "This cannot be done here; the header Allow says what can.",
    500: "Something went wrong in the gateway; its log says what.",
    503: outage.SENTENCE,
}
"""Of what is answered before, or instead of, an operation."""


def problem(status: int, detail: str, errors: Iterable[tuple[str, str]] = ()) -> HttpResponse:
    """`errors` are pairs of a field, dotted where it is inside another, and a sentence."""
    return HttpResponse(body(status, detail, errors), status=status, content_type=MEDIA_TYPE)


def body(status: int, detail: str, errors: Iterable[tuple[str, str]] = ()) -> bytes:
    told: dict[str, Any] = {"title": responses[status], "status": status, "detail": detail}
    if listed := [{"field": field, "message": sentence} for field, sentence in errors]:
        told["errors"] = listed
    return json.dumps(told).encode()


class Problems:
    """Middleware: also what Django answers by itself under `/api/` is told as a problem."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_page = response.get("Content-Type", "").startswith("text/html")
        if response.status_code < 400 or not is_page or not request.path.startswith(PREFIX):
            return response
        return _told(response)


def _told(page: HttpResponse) -> HttpResponse:
    """The same status and headers, without the page."""
    detail = SENTENCES.get(page.status_code, "The request cannot be understood.")
    answer = problem(page.status_code, detail)
    for name, value in page.items():
        if name.lower() not in ("content-type", "content-length"):
            answer[name] = value
    return answer
