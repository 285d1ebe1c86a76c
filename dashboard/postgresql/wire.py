"""A connection that gives up on a server which does not answer.

The server's own `statement_timeout` ends what takes long, where the server is alive.
One that is frozen, or cut off behind a connection that the kernel still holds, says nothing at all:
only whoever waits can end that.
"""

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

BESIDE_S = 2.0
"""Longer than the server's own time limit, so that its answer, which says more, comes first."""


class Wire(psycopg.Connection[Any]):
    """As psycopg's, with an end to every wait. What gave no answer is closed, and is of no more use."""

    longest_wait_s: float | None = None
    """For one statement; None: without end."""
    born_at_s: float = 0.0
    """By the clock of the pool that it is of."""
    _pool: Any = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises OperationalError when it is over, as for a server that has gone away."""
        try:
            return super().wait(gen, interval, self.longest_wait_s if timeout is None else timeout)
        except psycopg.OperationalError as why:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()  # an answer that still came would be taken for the next statement's
            raise psycopg.OperationalError("the database did not answer in time") from why
