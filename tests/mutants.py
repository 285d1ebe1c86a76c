"""What `make mutants` found: which changes of the code no test noticed, by module.

    python -m tests.mutants MUTMUT

Reads what mutmut left in `mutants/`, and asks its command, MUTMUT, what each survivor changed.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

GOAL = 0.9
SURVIVED = {0: "survived", 5: "without a test", 33: "without a test"}
"""By the exit code of the tests; None: not tried; whatever else ended them noticed the change."""

SAME_SPEED_ONLY = "what was remembered is worked out again, with the same result"
FOR_REPR_ONLY = "kept for __repr__ alone, which does not look at it in this state"
BEFORE_THE_CLOCK = "a moment of the first second of the machine's clock: over whenever anybody asks"
OVERWRITTEN = "written before it is read"
AS_LONG_ALREADY = "there are as many counters as asks"
AS_FALSE = "asked only whether it is true"
EQUIVALENT: dict[str, str] = {
    "return (first + timedelta(days=32)).replace(day=1)": "both are in the next month",
    "if at_us > _begin_us(following, zone):": "at that very moment the date is the following one already",
    "first = datetime.fromtimestamp(at_us / 1_000_000, zone).date()": "the date is the same",
    "last = None": SAME_SPEED_ONLY,
    "last = _last_counters.get(None)": SAME_SPEED_ONLY,
    "if len(_last_counters) > MOST_REMEMBERED:": "one more or less is remembered",
    "_last_counters[quota.id] = None": SAME_SPEED_ONLY,
    "found[2] <= started_at_us < found[2]": SAME_SPEED_ONLY,
    "found[1] < started_at_us < found[2]": SAME_SPEED_ONLY,
    "last = _last_periods.get(None)": SAME_SPEED_ONLY,
    "if last is not None or not last[0] <= at_us < last[1]:": "it fails at a zone's first use, and mutmut's "
    "processes have all zones of the tests from the run before",
    "if last is None or not last[1] <= at_us < last[1]:": SAME_SPEED_ONLY,
    "if last is None or not last[0] < at_us < last[1]:": SAME_SPEED_ONLY,
    "if over > 0:": "with nothing over, the second way gives back nothing too",
    "if over >= 1:": "the same, of whole tokens",
    "for second in range(self.second - BUCKETS + 1, self.second + 2):": "the oldest bucket once more",
    'self._probe: Permit | None = ""': OVERWRITTEN,
    "self._leased_until = None  # when the latest probe's lease is over": OVERWRITTEN,
    "self._leased_until = 1.0  # when the latest probe's lease is over": OVERWRITTEN,
    "self._seen_at = None": FOR_REPR_ONLY,
    "self._seen_at = 1.0": FOR_REPR_ONLY,
    "self._until = None": OVERWRITTEN,
    "self._until = 1.0": OVERWRITTEN,
    "self._asked_until = 1.0": BEFORE_THE_CLOCK,
    "self._until = max(self._until, self._named(now, retry_after_s) or 1.0)": BEFORE_THE_CLOCK,
    "self._asked_until = max(self._asked_until, self._named(now, retry_after_s) or 1.0)": BEFORE_THE_CLOCK,
    "self.give_back(permit, None)": FOR_REPR_ONLY,
    'return self._close(None, "the probe succeeded")': FOR_REPR_ONLY,
    'shift = self._close(None, "the probe\'s answer began")': FOR_REPR_ONLY,
    "self._generation += 2": "generations are compared, and only for being the same",
    "for rate, window in zip(ask.rates, rates, strict=None):": AS_LONG_ALREADY,
    "for each, counter in zip(ask.quotas, quotas, strict=None):": AS_LONG_ALREADY,
    "for rate, counter in zip(ask.rates, rates, strict=None):": AS_LONG_ALREADY,
    "for each, quota in zip(ask.quotas, quotas, strict=None):": AS_LONG_ALREADY,
    "for each, counter in zip(asks, counters, strict=None):": AS_LONG_ALREADY,
    "for rate, window in zip(ask.rates, rates, ):": AS_LONG_ALREADY,
    "for each, counter in zip(ask.quotas, quotas, ):": AS_LONG_ALREADY,
    "for rate, counter in zip(ask.rates, rates, ):": AS_LONG_ALREADY,
    "for each, quota in zip(ask.quotas, quotas, ):": AS_LONG_ALREADY,
    "for each, counter in zip(asks, counters, ):": AS_LONG_ALREADY,
    "for rate, window in zip(ask.rates, rates, strict=False):": AS_LONG_ALREADY,
    "for each, counter in zip(ask.quotas, quotas, strict=False):": AS_LONG_ALREADY,
    "for rate, counter in zip(ask.rates, rates, strict=False):": AS_LONG_ALREADY,
    "for each, quota in zip(ask.quotas, quotas, strict=False):": AS_LONG_ALREADY,
    "for each, counter in zip(asks, counters, strict=False):": AS_LONG_ALREADY,
    "self.known = None": AS_FALSE,
    "self.expired = None": AS_FALSE,
    "return self._decide(ask, waited=None)": AS_FALSE,
    "answer = self._decide(ask, waited=None)": AS_FALSE,
    "found.known = None": AS_FALSE,
    "fits = None": AS_FALSE,
    "reservation.expired = None": AS_FALSE,
    "self.due = None": OVERWRITTEN,
    "self.due = 1": OVERWRITTEN,
    "answer = None": "the same is decided a moment later",
    "if window.used + rate.amount >= amount:": "what just fits has no wait, so another is named",
    "self._leased_until = None": OVERWRITTEN,
    "self._leased_until = 1.0": OVERWRITTEN,
    "permit.generation = None": "no generation is that either",
}
"""Changed lines that change nothing that anybody could see, and why."""


def main(mutmut: str) -> None:
    metas = sorted(Path("mutants").rglob("*.py.meta"))
    for meta in metas:
        codes: Mapping[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        survivors = [name for name, code in codes.items() if code in SURVIVED]
        changed = {name: changed_line(mutmut, name) for name in survivors}
        print(told(str(meta.relative_to("mutants")).removesuffix(".meta"), codes, changed))


def changed_line(mutmut: str, name: str) -> str:
    """The line as the change made it, without its comment."""
    shown = subprocess.run([mutmut, "show", name], capture_output=True, text=True, check=True).stdout
    added = [
        each[1:].partition("  # ")[0].strip()
        for each in shown.splitlines()
        if each[:1] == "+" and each[:3] != "+++"
    ]
    return " ".join(added)


def told(module: str, codes: Mapping[str, int | None], changed: Mapping[str, str]) -> str:
    """A line of figures, and one for each survivor that is not explained."""
    equivalent = [name for name, line in changed.items() if line in EQUIVALENT]
    tried = sum(code is not None for code in codes.values())
    judged = tried - len(equivalent)
    noticed = tried - len(changed)
    share = noticed / judged if judged else 0.0
    verdict = "" if share >= GOAL else f"  below {GOAL:.0%}"
    head = (
        f"{module}: {noticed} of {judged} noticed, {share:.1%}{verdict}; "
        f"{len(equivalent)} more are no change, {len(codes) - tried} were not tried"
    )
    return "\n".join([head, *unexplained(codes, changed)])


def unexplained(codes: Mapping[str, int | None], changed: Mapping[str, str]) -> Iterator[str]:
    """Survivors, those without a test counted by function."""
    bare: Counter[str] = Counter()
    for name, line in changed.items():
        if SURVIVED[codes[name] or 0] == "without a test":
            bare[name.rpartition("__mutmut_")[0]] += 1
        elif line not in EQUIVALENT:
            yield f"    {name}: {line}"
    for function, count in bare.items():
        yield f"    {function}: {count} without a test"


if __name__ == "__main__":
    main(sys.argv[1])
