"""Mail where no server is configured: files that only this user may read."""

import os
from typing import Any

from django.core.mail.backends import filebased


class PrivateFiles(filebased.EmailBackend):
    """Django's mail files, with mode 0600 in a folder of mode 0700: they hold links that reset passwords."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        os.chmod(self.file_path, 0o700)

    def open(self) -> bool:
        path = self._get_filename()  # type: ignore[attr-defined]
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        return bool(super().open())
