from django import template
from django.forms import BoundField
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def without_placeholder(field: BoundField) -> SafeString:
    """The field alone: its label says already what a placeholder would repeat."""
    return field.as_widget(attrs={"placeholder": ""})
