"""Turns: what is looked up first and written then, where no row could be locked and no constraint tells.

SQLite has one writer at a time, so there everything takes turns. PostgreSQL has many.
"""

from enum import IntEnum

from django.db import connection

ROOM = 0x70656E
"""Tells our locks from others' in the same database."""


class Turn(IntEnum):
    """What is done by one transaction at a time. Never renumbered: older processes may run beside newer ones.

    Whoever takes several takes them in this order, and before `note_change`.
    """

    TEAM_NAMES = 1
    """Alike but for case."""
    ROUTE_NAMES = 2
    """With their aliases, which are in JSON."""
    PEPPERS = 3
    WEBHOOKS = 4
    """How many one owner has."""


def take_turn(turn: Turn) -> None:
    """Inside a transaction: wait for those who are before us, and keep the others waiting until its end."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [ROOM, int(turn)])
