"""What the provider of the field report does."""

import math
from itertools import islice
from statistics import median

from benchmarks import world
from gateway.simulator import Fault


def drawn(count, name="a"):
    return list(islice(world.answers(name), count))


def test_answers_are_as_long_as_the_world_says():
    delays_s = [step.delay_s for step in drawn(20_000)]
    within_a_sigma = [each for each in delays_s if abs(math.log(each / 0.6)) < world.ANSWER_SIGMA]

    assert abs(median(delays_s) - world.ANSWER_MEDIAN_S) < 0.01
    assert abs(len(within_a_sigma) / len(delays_s) - 0.6827) < 0.01
    assert abs(sum(delays_s) / len(delays_s) - world.mean_answer_s()) < 0.01


def test_one_call_in_fifty_stalls_and_not_always_at_the_same_place():
    steps = drawn(5000)
    blocks = [steps[start : start + 50] for start in range(0, 5000, 50)]
    stalls = [[place for place, step in enumerate(block) if step.fault] for block in blocks]

    assert {len(each) for each in stalls} == {1}
    assert len({each[0] for each in stalls}) > 20
    assert {step.fault for step in steps} == {None, Fault.SILENCE}


def test_every_model_name_meets_the_same_provider():
    ours, theirs = drawn(200, "a"), drawn(200, "b")

    assert [(step.delay_s, step.fault) for step in ours] == [(step.delay_s, step.fault) for step in theirs]
    assert {step.model_name for step in ours} == {"a"}


def test_the_script_has_two_attempts_for_every_call():
    steps = world.script(["a", "b"])

    assert [sum(step.model_name == name for step in steps) for name in "ab"] == [2 * world.CALLS] * 2


def test_a_thousand_calls_cost_what_the_report_came_to():
    usd = (world.PROMPT_TOKENS * world.INPUT_USD + world.COMPLETION_TOKENS * world.OUTPUT_USD) / 1000
    without_timeouts = [row.usd * (1 - row.timeouts) for row in world.PUBLISHED[2:]]

    assert all(abs(usd - each) < 0.01 for each in without_timeouts)
