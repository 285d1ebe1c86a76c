"""The small site and the browser of the dashboard's tests."""

from tests.dashboard.conftest import browser, site

__all__ = ["browser", "site"]
