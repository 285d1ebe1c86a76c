from pathlib import Path

import pytest

from dashboard.broker import address, encryption, options, transport


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("", "filesystem://localhost"),
        ("redis://cache:6379/3", "redis://cache:6379/3"),
        ("rediss://:secret@cache", "rediss://:secret@cache"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("unix://user:secret@/run/redis.sock", "redis+socket://user:secret@/run/redis.sock?virtual_host=0"),
    ],
)
def test_an_address_in_the_words_of_celery(redis_url, broker):
    assert address(redis_url) == broker


def test_messages_are_files_where_there_is_no_redis():
    found = options("", Path("/var/penstock"))

    assert found["data_folder_in"] == found["data_folder_out"] == "/var/penstock/celery/queue"
    assert found["control_folder"] == "/var/penstock/celery/control"


def test_files_are_carried_by_our_own_transport():
    assert transport("") == "dashboard.files_broker.Transport"
    assert transport("redis://cache") is None


def test_keys_in_redis_have_our_prefix():
    assert options("redis://cache", Path("/var"))["global_keyprefix"].startswith("pst:")


def test_certificates_are_checked():
    assert encryption("redis://cache") is None
    assert encryption("rediss://cache") is not None
