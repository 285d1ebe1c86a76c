"""News that goes up from accounts."""

from django.dispatch import Signal

changed = Signal()
"""Sent with the change's `number` after a committed change that a serving process must hear of
(keys, routes, prices)."""

rights_changed = Signal()
"""Sent with `user_id` after a committed change to what a person may see, so that open sockets close."""
