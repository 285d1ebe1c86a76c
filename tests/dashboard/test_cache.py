"""The cache in a real Redis, and in none."""

import json
from collections.abc import Iterator

import pytest

from dashboard.cache import SharedCache
from tests.redis import RunningRedis, running_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


def cache_at(url: str) -> SharedCache:
    return SharedCache(
        url,
        {
            "KEY_PREFIX": "pst:cache",
            "OPTIONS": {
                "serializer": "dashboard.cache.Json",
                "socket_timeout": 0.25,
                "socket_connect_timeout": 0.25,
            },
        },
    )


@pytest.fixture
def cache(redis: RunningRedis) -> Iterator[SharedCache]:
    SharedCache._away_until = 0.0
    yield cache_at(redis.url)
    with redis.client() as client:
        client.flushall()


@pytest.fixture
def away() -> Iterator[SharedCache]:
    SharedCache._away_until = 0.0
    yield cache_at("unix:///nowhere/redis.sock")
    SharedCache._away_until = 0.0


@pytest.mark.parametrize("value", [[1795.25, 1796.5], {"a": None}, "text", True, 7, 0.5])
def test_a_value_comes_back_as_it_was(cache, value):
    cache.set("key", value)

    assert cache.get("key") == value
    assert type(cache.get("key")) is type(value)


def test_what_is_kept_is_json_under_our_prefix(cache, redis):
    cache.set("key", ["ä"])

    with redis.client() as client:
        [name] = client.keys("*")
        assert name.startswith(b"pst:cache:")
        assert json.loads(client.get(name)) == ["ä"]


def test_redis_counts_and_adds(cache):
    assert cache.add("count", 1)
    assert not cache.add("count", 5)
    assert cache.incr("count", 2) == 3
    with pytest.raises(ValueError):
        cache.incr("nothing")


def test_many_at_once(cache):
    assert cache.set_many({"a": 1, "b": [2]}) == []
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": [2]}
    cache.delete_many(["a"])
    assert not cache.has_key("a")
    assert cache.has_key("b")
    assert cache.touch("b", 60)
    assert cache.delete("b")
    assert not cache.delete("b")


def test_clearing_leaves_what_is_not_ours(cache, redis):
    with redis.client() as client:
        client.set("pst:else", 1)
        cache.set("key", 1)

        cache.clear()

        assert client.keys("*") == [b"pst:else"]


def test_without_redis_it_answers_as_if_it_were_empty(away, caplog):
    assert away.add("lock", True), "or whoever wants the lock would wait for ever"
    away.set("key", 1)
    assert away.get("key") is None
    assert away.get("key", "default") == "default"
    assert away.incr("count", 2) == 2
    assert not away.touch("key")
    assert not away.has_key("key")
    assert not away.delete("key")
    assert away.get_many(["key"]) == {}
    assert away.set_many({"key": 1}) == ["key"]
    away.delete_many(["key"])
    away.clear()
    assert [each.levelname for each in caplog.records] == ["WARNING"], "asked once, not ten times"


def test_a_redis_that_hangs_is_away_too(cache, redis):
    redis.freeze()
    try:
        assert cache.get("key", "default") == "default"
    finally:
        redis.thaw()


def test_it_is_asked_again_when_redis_is_back(cache, redis):
    cache.set("key", 1)
    SharedCache._away_until = float("inf")
    assert cache.get("key") is None

    SharedCache._away_until = 0.0

    assert cache.get("key") == 1
