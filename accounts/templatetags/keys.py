"""How long an old secret still works, as `keys.js` goes on writing it."""

from datetime import datetime

from django import template
from django.template import Context
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from accounts.templatetags.moments import written, zone_of

register = template.Library()


@register.simple_tag(takes_context=True)
def countdown(context: Context, ends_at: datetime, now: datetime | None = None) -> SafeString:
    """What is left until a moment, in a `<time>` that a script ticks; the exact moment is its title."""
    left_s = int((ends_at - (now or timezone.now())).total_seconds())
    return format_html(
        '<time class="countdown" datetime="{}" title="{}" data-ends-at>{}</time>',
        ends_at.isoformat(timespec="seconds"),
        written(ends_at.astimezone(zone_of(context)), "seconds"),
        left(left_s),
    )


def left(seconds: int) -> str:
    """Its two largest units: `2 d 3 h`, `3 h 4 min`, `4 min 5 s`, `5 s`; `0 s` when it is over."""
    days, rest = divmod(max(0, seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return _("%(days)s d %(hours)s h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": seconds}
    return _("%(seconds)s s") % {"seconds": seconds}
