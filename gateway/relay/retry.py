"""Whether a failed attempt is followed by another, at which target, and after which wait.

Pure: durations in seconds, moments in monotonic seconds, all passed in.
Does not wait, does not judge what failed, and does not look for the other target.
"""

from msgspec import Struct

from gateway.relay.window import Window


class RetryPolicy(Struct, frozen=True):
    """Bounds of the retries of one call; durations in seconds."""

    attempts: int = 3
    """At each target, the first included."""
    first_wait_s: float = 1.0
    growth: float = 2.0
    longest_wait_s: float = 10.0
    """Of the waits that we choose."""
    longest_asked_s: float = 60.0
    """Of the waits that providers ask of one call, all together."""
    worth_switching_s: float = 2.0
    """A longer wait is not taken while another target is ready."""


class Failed(Struct, frozen=True):
    """What the decision needs to know of a failed attempt."""

    again: bool
    """The same target may be asked once more."""
    elsewhere: bool
    """Another target may be asked."""
    retry_after_s: float | None = None
    """The wait that the provider asked for."""


class Again(Struct, frozen=True):
    """Try the same target once more, after a wait."""

    wait_s: float
    asked: bool
    """The provider named the wait, so it counts towards `longest_asked_s`."""


class FallBack(Struct, frozen=True):
    """Go on to the next target of the plan, if there is one."""


class GiveUp(Struct, frozen=True):
    """No other target would do better: tell the caller."""


RetryDecision = Again | FallBack | GiveUp

POLICY = RetryPolicy()
FALL_BACK = FallBack()
GIVE_UP = GiveUp()


def next_step(
    failed: Failed,
    attempt_no: int,
    time_left_s: float,
    asked_so_far_s: float,
    other_ready: bool,
    budget_allows: bool,
    jitter: float,
    policy: RetryPolicy = POLICY,
) -> RetryDecision:
    """Try the same target again, fall back to the next, or give up.

    `attempt_no` counts this call's attempts at this target, the failed one included, from 1.
    `time_left_s` is the time to the call's deadline; `asked_so_far_s` what the call has waited
    because providers asked it to; `other_ready` says that another target of the plan
    could be asked at once; `jitter` is drawn evenly from [0, 1).

    A provider is never asked again before the moment it named:
    where that wait is too long, the target is left instead.
    """
    if failed.again and budget_allows and attempt_no < policy.attempts:
        again = _wait(failed.retry_after_s, attempt_no, jitter, policy)
        may_switch = other_ready and failed.elsewhere
        if _is_worth_it(again, time_left_s, asked_so_far_s, may_switch, policy):
            return again
    return FALL_BACK if failed.elsewhere else GIVE_UP


def _wait(retry_after_s: float | None, attempt_no: int, jitter: float, policy: RetryPolicy) -> Again:
    """As long as the provider asks, else exponential backoff with full jitter.

    Full jitter spreads the calls that failed together evenly over the whole wait:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    A provider's own wait is taken as it is: gate and budget spread the calls that come back from it together.
    One that is zero, negative or not a number names no moment, and "at once" would be no backoff at all.
    """
    if retry_after_s is not None and retry_after_s > 0:
        return Again(retry_after_s, asked=True)
    longest_s = min(policy.longest_wait_s, policy.first_wait_s * policy.growth ** (attempt_no - 1))
    return Again(jitter * longest_s, asked=False)


def _is_worth_it(
    again: Again, time_left_s: float, asked_so_far_s: float, may_switch: bool, policy: RetryPolicy
) -> bool:
    if again.wait_s >= time_left_s:
        return False
    if again.asked and asked_so_far_s + again.wait_s > policy.longest_asked_s:
        return False
    return not (may_switch and again.wait_s > policy.worth_switching_s)


class RetryBudget:
    """How many retries one target is spared: a share of its recent calls, and always a few.

    The share keeps retries from multiplying an outage, the few let a quiet target have any at all
    (the idea is Finagle's: https://twitter.github.io/finagle/guide/Clients.html#retry-budgets).
    A retry is counted when it is sent. So ask twice, when the attempt failed and again after the wait:
    all the calls that failed together are told yes before the first of them is sent.
    """

    __slots__ = ("_calls", "_retries", "always_per_s", "share")

    def __init__(self, share: float = 0.4, always_per_s: int = 10, window_s: int = 10) -> None:
        self.share = share
        """Retries to calls, within the last `window_s` seconds."""
        self.always_per_s = always_per_s
        """Retries that are allowed in each second of the clock, whatever the share says."""
        self._calls = Window(window_s)
        self._retries = Window(window_s)

    def called(self, now: float) -> None:
        """A call came to the target; its retries are not told here."""
        self._calls.add(now)

    def allows(self, now: float) -> bool:
        """May one more retry be sent now? Takes nothing."""
        if self._retries.this_second(now) < self.always_per_s:
            return True
        return self._retries.total(now) + 1 <= self.share * self._calls.total(now)

    def retried(self, now: float) -> None:
        """A retry is being sent."""
        self._retries.add(now)
