"""The world in which a published field report is made again. Fixed before anything was measured in it.

Every number that could be turned until the figures please is here and nowhere else, with its reason.
None was changed after a measurement.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gateway.simulator import Fault, Step

# The provider.

ROUND_TRIP_S = 0.080
"""Between the programs and the provider: another continent's near coast, or the same one's far coast."""
ANSWER_MEDIAN_S = 0.600
"""From the request's last byte at the provider to the answer's last byte there."""
ANSWER_SIGMA = 0.4
"""Of the log-normal: modelstats.ai published P50 and P95 of a day for ten models of five vendors;
the mean of ln(P95 / P50) / 1.645 over them is 0.41, from 0.16 (DeepSeek V3) to 0.79 (Gemini Flash Lite).
The same table has a P99 of two to eleven times the median, which no log-normal with that P95 has:
that tail is the stalls."""
ONE_STALL_IN = 50
"""Two in a hundred never answer: the request is taken and not a byte comes."""
PROMPT_TOKENS, COMPLETION_TOKENS = 500, 621
INPUT_USD, OUTPUT_USD = 2.50, 10.00
"""Per million tokens, GPT-4o's list price. With it a call of so many tokens costs 0.746 cents, and
a thousand cost $7.46: what the report's own rows come to when their time-outs are taken out
(7.48 less 0.2 %, 7.52 less 0.8 %), so its provider charged for calls that timed out as well.
Ours does too."""

# The program.

CLIENT_TIMEOUT_S = 10.0
"""httpx's `timeout=10`: so long a silence ends the call."""
POOL = 10
CONCURRENT = 50
CALLS_A_MINUTE = 500
CALLS = 400
"""Of each row and program: eight stalls among them. A row then lasts less than a minute."""
LANES = 10
"""Programs that call one after the other, side by side, so that theirs last no longer."""
QUESTION = "What is a penstock, and what is it for?"
WORDS = "A gated pipe."
"""The answer: a few words, since how long it takes is drawn and what it costs is told."""

# The gateway, as an operator would set it up for this provider and these programs.

ROUTE: dict[str, Any] = {"timeout_s": CLIENT_TIMEOUT_S}
"""Nobody waits for an answer longer than its programs do."""
TARGET: dict[str, Any] = {
    "read_timeout_s": 5 * ANSWER_MEDIAN_S,
    "max_keepalive_connections": CONCURRENT,
}
"""A stream that is silent for five medians has stalled: one good answer in 30,000 takes longer, and two more
attempts fit into the program's ten seconds. As many connections are kept as there are calls at once."""

# What was published.


@dataclass(frozen=True, slots=True)
class Published:
    """One row of the report."""

    name: str
    mean_ms: float
    timeouts: float
    """Share of the calls."""
    usd: float
    """Per 1,000 requests."""


PUBLISHED = (
    Published("no pool, one after the other", 2340, 0.123, 8.40),
    Published("pool of 10", 890, 0.031, 7.85),
    Published("pool, 50 concurrent", 340, 0.008, 7.52),
    Published("pool, semaphore, limiter", 380, 0.002, 7.48),
)
AIM_LATENCY, AIM_TIMEOUTS = 0.85, 0.98
"""So much less, in the last row, than in the first."""

SEED = 20_240_229


def answers(model_name: str) -> Iterator[Step]:
    """What the provider does with each call that comes for this model name. Without end.

    Every model name meets the same: so long an answer takes, and in each fifty one stalls, at a random place.
    """
    drawn = random.Random(SEED)
    while True:
        stalled = drawn.randrange(ONE_STALL_IN)
        for place in range(ONE_STALL_IN):
            delay_s = drawn.lognormvariate(math.log(ANSWER_MEDIAN_S), ANSWER_SIGMA)
            yield Step(
                fault=Fault.SILENCE if place == stalled else None,
                model_name=model_name,
                text=WORDS,
                prompt_tokens=PROMPT_TOKENS,
                completion_tokens=COMPLETION_TOKENS,
                delay_s=delay_s,
            )


def script(model_names: list[str]) -> list[Step]:
    """Enough for every call to be tried twice."""
    return [step for name in model_names for step in islice(answers(name), 2 * CALLS)]


def mean_answer_s() -> float:
    """Of the answers that come, stalls left out: the mean of the log-normal."""
    return ANSWER_MEDIAN_S * math.exp(ANSWER_SIGMA**2 / 2)
