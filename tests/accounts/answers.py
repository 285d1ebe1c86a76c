"""Answers as a server takes them: first what is sent, then what comes after."""

from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory


class Server:
    def __init__(self) -> None:
        self.requests, self.handler = RequestFactory(), BaseHandler()
        self.handler.load_middleware()

    def form(self, path: str, **fields: str) -> HttpRequest:
        request = self.requests.post(path, fields)
        request._dont_enforce_csrf_checks = True
        return request

    def answer(self, request: HttpRequest) -> HttpResponse:
        return self.handler.get_response(request)

    def let_go(self, answer: HttpResponse) -> None:
        """As Django's own client does, the test's connection stays open."""
        request_finished.disconnect(close_old_connections)
        answer.close()
        request_finished.connect(close_old_connections)
