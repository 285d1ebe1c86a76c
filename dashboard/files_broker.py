"""Messages to the tasks as files, for a gateway without Redis: Kombu's transport, with whole messages only.

Kombu's own makes a message's file under its name and writes it afterwards. Who looks meanwhile takes an empty
message, deletes it, and ends with an error that Celery cannot go on from.
"""

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Where messages are put and taken."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """A message is there when it is complete. Raises ChannelError."""
        text = dumps(payload)  # type: ignore[no-untyped-call]
        path = Path(self.data_folder_out) / f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        part = path.with_suffix(".part")
        try:
            part.write_text(text)
            part.replace(path)
        except OSError as why:
            raise ChannelError(f"a message cannot be put into {self.data_folder_out}") from why


class Transport(filesystem.Transport):
    """Kombu's, with our channel."""

    Channel = Channel
