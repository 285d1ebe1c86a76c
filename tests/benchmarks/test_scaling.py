"""Requests of many callers."""

import json

from benchmarks.growth import AXES
from benchmarks.scaling import _AS, requests


def bodies(said):
    return [json.loads(each.partition(b"\r\n\r\n")[2])["model"] for each in said]


def test_each_key_has_a_request_of_its_own():
    said = requests(8000, ["pst_one", "pst_two"])

    assert [b"Bearer pst_one\r\n" in each for each in said] == [True, False]
    assert bodies(said) == ["gpt-4o-mini"] * 2


def test_keys_are_dealt_the_model_names_in_turns():
    assert bodies(requests(8000, ["pst_any"] * 3, ["one", "two"])) == ["one", "two", "one"]


def test_every_axis_is_measured_in_some_way():
    assert {each.name for each in AXES} == set(_AS)
