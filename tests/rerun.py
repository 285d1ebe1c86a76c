"""A plugin for mutmut, which runs pytest several times in one process: the run's folder is there again."""

import os
from pathlib import Path


def pytest_configure() -> None:
    Path(os.environ["VAR_DIR"]).mkdir(parents=True, exist_ok=True)
