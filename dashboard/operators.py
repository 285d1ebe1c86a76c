"""Pages for operators: who may see and change the upstream side, as the API has it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.models import User

View = Callable[..., HttpResponse]


def operators(*permissions: str) -> Callable[[View], View]:
    """A view for staff with all of these permissions of `gateway`; others are told that it is not theirs."""

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            user = me(request)
            if not user.is_staff or not user.has_perms([f"gateway.{each}" for each in permissions]):
                raise PermissionDenied(_("Providers, routes and targets are for administrators."))
            return view(request, *args, **kwargs)

        return cast(View, login_required(guarded))

    return guard


def me(request: HttpRequest) -> User:
    return cast(User, request.user)
