from django import template
from django.conf import settings

register = template.Library()


@register.simple_tag
def mail_stays_here() -> bool:
    """Whether no mail server is configured, so that mail is written to VAR_DIR/mail."""
    return not settings.ENV.email_url
