"""The Celery application: work that nobody waits for.

Tasks take no arguments and find their work in the database, so that it is all one
whether a message is lost, comes twice, or is never sent.
Imported by the process that works, and by nobody else: the relay has no use for it.
"""

import os
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

from celery import Celery
from django.conf import settings

SCHEDULE_S = {
    "gateway.tasks.deliver_outbox": 5,
    "gateway.tasks.remind": 300,
    "gateway.tasks.reprice": 5,
    "gateway.tasks.tidy": 3600,
    "gateway.tasks.make_parts": 3600,
    "gateway.tasks.roll_up": 10,
    "gateway.tasks.verify_rollups": 3600,
    "gateway.tasks.retain": 300,
    "gateway.tasks.probe": 60,
    "gateway.tasks.watch_alerts": 60,
}
"""How often each task is sent, by its name."""


def _schedule() -> dict[str, dict[str, object]]:
    """A message that nobody took by the time of the next one is forgotten, so that none pile up."""
    return {
        name.rpartition(".")[2]: {"task": name, "schedule": every_s, "options": {"expires": every_s}}
        for name, every_s in SCHEDULE_S.items()
    }


def _make_folders() -> None:
    """Those of the filesystem broker, for this user alone; it makes none by itself."""
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    for each in ("data_folder_in", "control_folder"):
        if each in options:
            Path(options[each]).mkdir(parents=True, exist_ok=True, mode=0o700)


app = Celery("penstock")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.beat_schedule = _schedule()
app.autodiscover_tasks()
_make_folders()
