"""How long a provider takes: log-normal, by model name, seeded."""

import math
import random
import re
from dataclasses import dataclass
from functools import lru_cache

FIRST_TOKEN_SIGMA = 0.35
TOKEN_SIGMA = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """Medians of a model name."""

    first_token_s: float
    token_s: float


SMALL = Pace(first_token_s=0.22, token_s=0.007)
USUAL = Pace(first_token_s=0.45, token_s=0.014)
BIG = Pace(first_token_s=1.1, token_s=0.03)

# A part of the model name decides, so that names not yet thought of are paced as well.
_SMALL_PARTS = frozenset(("mini", "nano", "micro", "small", "flash", "lite", "haiku", "instant", "turbo"))
_BIG_PARTS = frozenset(
    ("opus", "pro", "large", "ultra", "max", "thinking", "reasoner", "deepseek", "o1", "o3")
)


@lru_cache(maxsize=1024)
def pace_of(model_name: str) -> Pace:
    parts = frozenset(re.split(r"[^a-z0-9]+", model_name.lower()))
    if parts & _SMALL_PARTS:
        return SMALL
    return BIG if parts & _BIG_PARTS else USUAL


class Tempo:
    """Draws times. `speed` 1 is believable, 10 is ten times faster, 0 means no delays at all."""

    def __init__(self, speed: float, seed: int) -> None:
        if speed < 0:
            raise ValueError(f"speed must be 0 or more, not {speed}")
        self.speed = speed
        self._random = random.Random(seed)  # noqa: S311 - believable, not secret

    def first_token_s(self, model_name: str) -> float:
        return self._draw(pace_of(model_name).first_token_s, FIRST_TOKEN_SIGMA)

    def token_s(self, model_name: str) -> float:
        return self._draw(pace_of(model_name).token_s, TOKEN_SIGMA)

    def _draw(self, median_s: float, sigma: float) -> float:
        if not self.speed:
            return 0.0
        return self._random.lognormvariate(math.log(median_s), sigma) / self.speed
