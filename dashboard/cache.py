"""The cache that several processes share: Redis, in JSON, and no reason to fail where it is away.

What the cache is for (how often somebody guessed a password) is worth less than the page that asks.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

T = TypeVar("T")

REST_S = 1.0
"""After a failure nobody asks for this long, so that a page that asks ten times waits once."""


class Json:
    """How values are kept. Whole numbers stay bare, because Redis counts with them."""

    def dumps(self, value: Any) -> int | str:
        return value if type(value) is int else json.dumps(value)

    def loads(self, kept: bytes) -> Any:
        return json.loads(kept)


class SharedCache(RedisCache):
    """Django's own, which answers as an empty cache would while Redis is away."""

    _away_until: float = 0.0

    def _or(self, otherwise: T, ask: Callable[[], T]) -> T:
        if time.monotonic() < self._away_until:
            return otherwise
        try:
            return ask()
        except RedisError as why:
            log.warning("the cache is away, and goes on empty: %s", why)
            # Of the class: Django makes one of these for each thread.
            SharedCache._away_until = time.monotonic() + REST_S
            return otherwise

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Away, it says yes: whoever takes a lock this way would wait for ever."""
        return self._or(True, lambda: bool(super(SharedCache, self).add(key, value, timeout, version)))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self._or(default, lambda: super(SharedCache, self).get(key, default, version))

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self._or(None, lambda: super(SharedCache, self).set(key, value, timeout, version))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self._or(False, lambda: bool(super(SharedCache, self).touch(key, timeout, version)))

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self._or(False, lambda: bool(super(SharedCache, self).delete(key, version)))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._or(False, lambda: bool(super(SharedCache, self).has_key(key, version)))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Raises ValueError where there is no such key. Away, it counts from nothing."""
        return self._or(delta, lambda: int(super(SharedCache, self).incr(key, delta, version)))

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        return self._or({}, lambda: dict(super(SharedCache, self).get_many(keys, version)))

    def set_many(self, data: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> list[Any]:
        """The keys that were not kept, as Django asks for."""
        return self._or(list(data), lambda: super(SharedCache, self).set_many(data, timeout, version))

    def delete_many(self, keys: Any, version: int | None = None) -> None:
        self._or(None, lambda: super(SharedCache, self).delete_many(keys, version))

    def clear(self) -> None:
        """Only our own: others may live in the same Redis. Called by hand, not on any page."""
        self._or(None, self._clear_own)

    def _clear_own(self) -> None:
        client = self._cache.get_client(None, write=True)
        for each in client.scan_iter(match=f"{self.key_prefix}:*", count=1000):
            client.delete(each)
