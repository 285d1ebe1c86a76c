"""`{% checklist %}`: the small panel, on pages that greet whoever has not finished."""

from typing import Any

from django import template
from django.template import Context

from accounts.models import User
from dashboard.checklist_views import is_shown_to

register = template.Library()


@register.inclusion_tag("dashboard/checklist_later.html", takes_context=True)
def checklist(context: Context) -> dict[str, Any]:
    """A place that the panel is fetched into, as high as it; nothing where it was put away. One query."""
    user = context.get("user")
    return {"is_shown": isinstance(user, User) and is_shown_to(user)}
