"""What is sent when, and to whom."""

from dashboard.celery import SCHEDULE_S, app
from dashboard.files_broker import Transport


def test_every_scheduled_task_is_there_and_every_task_is_scheduled():
    app.loader.import_default_modules()  # as a worker does

    ours = {name for name in app.tasks if not name.startswith("celery.")}

    assert ours == set(SCHEDULE_S)


def test_a_message_that_nobody_took_is_forgotten_when_the_next_one_comes():
    for each in app.conf.beat_schedule.values():
        assert each["options"]["expires"] == each["schedule"] == SCHEDULE_S[each["task"]]


def test_messages_are_json_and_answers_are_not_kept():
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_ignore_result
    assert not app.conf.worker_enable_remote_control


def test_without_redis_messages_are_files_that_are_whole():
    for connection in (app.connection_for_read(), app.connection_for_write()):
        with connection:
            assert isinstance(connection.transport, Transport)
