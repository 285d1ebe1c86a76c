"""Django's own backend for PostgreSQL, over our pool and our wires. Django finds it by this module's name."""

import threading
from typing import ClassVar

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base

from dashboard.postgresql.pool import Pool
from dashboard.postgresql.wire import BESIDE_S, Wire

_making = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's. `OPTIONS["pool"]` has `most`, `wait_s` and `statement_s`, the longest for a statement."""

    _pools: ClassVar[dict[str, Pool]] = {}

    @property
    def pool(self) -> Pool | None:
        """The process's, made at first use."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if not options or self.alias == NO_DB_ALIAS:
            return None
        with _making:
            if self.alias not in self._pools:
                self._pools[self.alias] = self._new_pool(**options)
            return self._pools[self.alias]

    def close_pool(self) -> None:
        with _making:
            pool = self._pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    def _new_pool(self, *, most: int, wait_s: float, statement_s: float) -> Pool:
        params = self.get_connection_params()

        def connect() -> Wire:
            wire = Wire.connect(**params, autocommit=True)
            wire.longest_wait_s = statement_s + BESIDE_S
            self._configure_connection(wire)  # type: ignore[attr-defined] # not in the stubs
            return wire

        return Pool(connect, most, wait_s)
