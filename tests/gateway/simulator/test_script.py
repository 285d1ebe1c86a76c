"""Which answer or fault comes next."""

import msgspec
import pytest
from msgspec import Raw

from gateway.simulator import Fault, Script, Step
from gateway.simulator.script import WHAT_HAPPENS, ToldUsage, UnknownFault, decode_steps, step_for


@pytest.fixture
def script():
    return Script()


def faults(script, *model_names):
    return [script.take(name).fault for name in model_names]


def test_steps_are_consumed_in_order_and_then_all_is_well(script):
    script.extend([Step(fault=Fault.SERVER_ERROR), Step(), Step(fault=Fault.STALL)])
    assert faults(script, *["gpt-4o"] * 4) == [Fault.SERVER_ERROR, None, Fault.STALL, None]


def test_a_step_lasts_as_many_calls_as_it_counts(script):
    script.extend([Step(fault=Fault.OVERLOADED, count=2)])
    assert faults(script, "a", "a", "a") == [Fault.OVERLOADED, Fault.OVERLOADED, None]


def test_a_step_without_a_count_lasts_for_ever(script):
    script.extend([Step(fault=Fault.OVERLOADED, count=None)])
    assert faults(script, *["a"] * 50) == [Fault.OVERLOADED] * 50


def test_a_step_for_one_model_name_leaves_others_alone(script):
    script.extend([Step(fault=Fault.THROTTLED, model_name="slow"), Step(fault=Fault.GZIP)])
    assert faults(script, "quick", "slow", "quick") == [Fault.GZIP, Fault.THROTTLED, None]


def test_a_forgotten_script_is_empty(script):
    script.extend([Step(fault=Fault.STALL)])
    script.clear()
    assert len(script) == 0
    assert faults(script, "a") == [None]


def test_the_script_is_asked_before_the_model_name(script):
    script.extend([Step()])
    assert faults(script, "fault-500", "fault-500") == [None, Fault.SERVER_ERROR]


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_model_name_and_is_explained(fault):
    assert step_for(fault.model_name).fault is fault
    assert WHAT_HAPPENS[fault]


def test_a_fault_that_does_not_exist_is_an_error():
    with pytest.raises(UnknownFault):
        step_for("fault-of-mine")


def test_steps_are_read_from_json():
    steps = decode_steps(b'[{"fault": "529", "model": "gpt-4o", "count": null, "delay_s": 0.2}]')
    assert steps == [Step(fault=Fault.OVERLOADED, model_name="gpt-4o", count=None, delay_s=0.2)]


def test_usages_are_read_word_for_word():
    [step] = decode_steps(
        b'[{"usages": [{"said": {"prompt_tokens" : 1.0e1}, "chunk": -1, "place": "choice"}, {"said": null}]}]'
    )
    first, second = step.usages
    assert bytes(first.said) == b'{"prompt_tokens" : 1.0e1}'
    assert (first.chunk, first.place) == (-1, "choice")
    assert second == ToldUsage(Raw(b"null"))


@pytest.mark.parametrize(
    "body",
    [
        *(b"{}", b'[{"fault": "no"}]', b'[{"fautl": "529"}]', b'[{"count": 0}]', b"["),
        *(b'[{"usages": [{}]}]', b'[{"usages": [{"said": 1, "place": "there"}]}]'),
        b'[{"usages": [{"said": 1, "place": "choice"}]}]',
    ],
)
def test_steps_that_cannot_be_read_are_refused(body):
    with pytest.raises(msgspec.DecodeError):
        decode_steps(body)
