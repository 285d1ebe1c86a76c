"""The real settings on a VAR_DIR of the test run's own, never the checkout's."""

import os
import tempfile

if "PENSTOCK_TESTS" not in os.environ:  # a server that a test starts has its VAR_DIR from the test
    os.environ["PENSTOCK_TESTS"] = "1"
    os.environ["VAR_DIR"] = tempfile.mkdtemp(prefix="penstock-tests-")
    for each in ("KEY_REQUESTS_PER_MINUTE", "TEAM_REQUESTS_PER_MINUTE", "TEAM_TOKENS_PER_MINUTE"):
        os.environ[each] = "0"  # most tests are of other things; those of limits set their own
    os.environ["ALLOW_PRIVATE_WEBHOOKS"] = "1"  # the receivers of tests are on loopback

from dashboard.settings import *  # noqa: F403
