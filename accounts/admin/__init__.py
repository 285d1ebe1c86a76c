"""Operator pages for people, teams and API keys. Writes here are audited and noted like all others."""

from accounts.admin import books, keys, people, teams
from accounts.admin.common import Audited, NotedAdmin, facts

__all__ = ["Audited", "NotedAdmin", "books", "facts", "keys", "people", "teams"]
