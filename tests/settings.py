"""The real settings on a VAR_DIR of the test run's own, never the checkout's."""

import os
import tempfile

if "PENSTOCK_TESTS" not in os.environ:  # a server that a test starts has its VAR_DIR from the test
    os.environ["PENSTOCK_TESTS"] = "1"
    os.environ["VAR_DIR"] = tempfile.mkdtemp(prefix="penstock-tests-")

from dashboard.settings import *  # noqa: F403
