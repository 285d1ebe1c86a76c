"""How long it takes."""

from statistics import median

import pytest

from gateway.simulator.pace import BIG, SMALL, USUAL, Tempo, pace_of


@pytest.mark.parametrize(
    ("model_name", "pace"),
    [
        ("gpt-4o-mini", SMALL),
        ("gemini-2.5-flash", SMALL),
        ("gpt-4o", USUAL),
        ("claude-sonnet-4-5", USUAL),
        ("claude-opus-4-1", BIG),
        ("deepseek-v3.2", BIG),
        ("minimal", USUAL),
    ],
)
def test_a_part_of_the_model_name_says_how_fast(model_name, pace):
    assert pace_of(model_name) is pace


def test_small_models_are_quicker_than_big_ones():
    assert SMALL.first_token_s < USUAL.first_token_s < BIG.first_token_s
    assert SMALL.token_s < USUAL.token_s < BIG.token_s


def test_times_are_spread_around_their_median():
    tempo = Tempo(speed=1, seed=1)
    times_s = [tempo.first_token_s("gpt-4o") for _ in range(2000)]
    assert median(times_s) == pytest.approx(USUAL.first_token_s, rel=0.05)
    assert max(times_s) > 2 * USUAL.first_token_s
    assert min(times_s) > 0


def test_the_same_seed_draws_the_same_times():
    first, second, other = Tempo(1, seed=7), Tempo(1, seed=7), Tempo(1, seed=8)
    drawn = [first.token_s("gpt-4o") for _ in range(5)]
    assert drawn == [second.token_s("gpt-4o") for _ in range(5)]
    assert drawn != [other.token_s("gpt-4o") for _ in range(5)]


def test_twice_the_speed_is_half_the_time():
    assert Tempo(2, seed=1).token_s("gpt-4o") == pytest.approx(Tempo(1, seed=1).token_s("gpt-4o") / 2)


def test_at_speed_0_nothing_takes_time():
    tempo = Tempo(0, seed=1)
    assert (tempo.first_token_s("gpt-4o"), tempo.token_s("gpt-4o")) == (0, 0)


def test_a_negative_speed_is_refused():
    with pytest.raises(ValueError, match="speed"):
        Tempo(-1, seed=1)
