from datetime import datetime, timedelta

from django import template
from django.utils import timezone
from django.utils.timesince import timesince

register = template.Library()


@register.filter
def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, as in “7 minutes ago”; under a minute it is “just now”."""
    now = now or timezone.now()
    if now - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, now)} ago"


@register.filter
def lasting(left: timedelta) -> str:
    """A length of time in its largest unit but one, as in “23 hours, 59 minutes”."""
    return timesince(timezone.now() - left) if left >= timedelta(minutes=1) else "less than a minute"
