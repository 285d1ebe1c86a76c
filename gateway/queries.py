"""What is offered to callers, for pages and for the terminal. Reads only."""

from collections.abc import Sequence

from gateway.models import Route

FIRST_CALL = "gpt-4o-mini"
"""Small, cheap, and known to everybody; the simulator and several providers have it."""


def model_names() -> list[str]:
    """The model name of every route that is switched on, by name."""
    return list(Route.objects.filter(enabled=True).values_list("model_name", flat=True))


def example_model_name(offered: Sequence[str]) -> str:
    """The model name to show how to call with: the usual one, or else the first on offer."""
    return FIRST_CALL if FIRST_CALL in offered or not offered else offered[0]
