"""The real settings on a VAR_DIR of the test run's own, never the checkout's.

With `PENSTOCK_TESTS_ON=postgresql` on a PostgreSQL of the test run's own, too.
"""

import os
import tempfile

from tests import postgres

RUN = os.environ.get("PYTEST_XDIST_WORKER", "alone")
"""Tests run in several processes, each of which is a run of its own."""

if os.environ.get("PENSTOCK_TESTS") != RUN:  # a server that a test starts has its VAR_DIR from the test
    os.environ["PENSTOCK_TESTS"] = RUN
    os.environ["VAR_DIR"] = tempfile.mkdtemp(prefix="penstock-tests-")
    for each in ("KEY_REQUESTS_PER_MINUTE", "TEAM_REQUESTS_PER_MINUTE", "TEAM_TOKENS_PER_MINUTE"):
        os.environ[each] = "0"  # most tests are of other things; those of limits set their own
    os.environ["ALLOW_PRIVATE_WEBHOOKS"] = "1"  # the receivers of tests are on loopback
    os.environ.pop("DATABASE_URL", None)  # not that of whoever runs the tests
    if postgres.is_of_this_run():
        os.environ["DATABASE_URL"] = postgres.of_this_run()

from dashboard.settings import *  # noqa: E402, F403

os.environ.pop("DATABASE_URL", None)  # a server that a test starts has a database of its own
