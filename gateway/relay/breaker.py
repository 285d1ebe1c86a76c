"""When a target is left alone, and when it is tried again.

A state machine without clock and without I/O: `now` is passed in, in monotonic seconds.

    closed ── too many failures ──▶ open ── its time is over ──▶ half-open
       ▲                              ▲                             │ one probe,
       │                              │                             │ one more each `probe_s`
       └───────── one succeeded ──────┼─────────────────────────────┤
                                      └── the latest failed, or was told to wait

Does not decide what is a failure. Hears of other processes' breakers by `told`, and still each process
lets its own probe through: a few extra attempts at a sick target cost less than a lock on every call.
"""

from math import inf
from typing import Literal

from msgspec import Struct

from gateway.relay.ports import BreakerState
from gateway.relay.window import Window

Verdict = Literal["success", "failure", "neutral"]
"""What an attempt says about its target's health; a neutral one says nothing."""

SPENT = -1
"""The generation of a permit that was given back."""


class BreakerPolicy(Struct, frozen=True):
    """When a breaker opens, and for how long; durations in seconds."""

    consecutive: int = 5
    """Failures in a row that open it, if also the share is reached."""
    share: float = 0.5
    """Of the attempts of the last `window_s` seconds that must have failed.
    Counting alone, 20 % random failures trip it by chance: five in a row are a matter of time."""
    window_s: int = 10
    surely: int = 20
    """Failures in a row that open it whatever the share: when a busy target dies, the good calls of the
    last seconds would hold it closed while its calls are retried. By chance, with one in five failing,
    so many in a row happen once in 10^14 attempts."""
    open_s: float = 60.0
    longest_open_s: float = 3600.0
    """The most that a Retry-After is believed. A date in the wrong year must not take a target away
    for good, and a probe an hour is no burden."""
    probe_s: float = 60.0
    """A probe's lease: if it has not ended by then, one more goes out, and so on.
    A whole answer may legitimately take minutes, and nobody else should wait for it;
    as long as `open_s`, so that a target that never answers is asked as seldom as one that fails."""
    ask_again_s: float = 1.0
    """What callers are told while a probe is out: nobody knows, but it is soon over.
    Less where its lease is over sooner."""


class Shift(Struct, frozen=True):
    """From one state to another. A person who holds open what is open shifts it from open to open."""

    before: BreakerState
    after: BreakerState
    cause: str
    """For a person."""
    open_for_s: float | None
    """Seconds until a probe is let through; None: it is not open, or is held open."""


class Permit(Struct, eq=False):
    """Leave to make one attempt. Ends once, in `Breaker.ended` or `Breaker.give_back`."""

    generation: int
    """Grows whenever the breaker opens or closes: what began before then changes nothing."""
    probe: bool = False
    """An attempt that a half-open breaker lets through: one at first, one more whenever a lease is over."""
    shift: Shift | None = None
    """From open to half-open, where giving this permit made it so."""


POLICY = BreakerPolicy()


class Breaker:
    """One target's breaker, in one process.

    Opens after `consecutive` failures in a row if at least `share` of the recent attempts failed,
    or after `surely` in a row, stays open for `open_s`, then lets exactly one probe through,
    whose end decides. A probe that has not ended after `probe_s` is overdue, and exactly one more may go.
    The older one is still heard: its success closes the breaker, its failure counts unless a newer is out.
    A Retry-After makes any open time longer, never shorter.
    """

    __slots__ = (
        "_asked_until",
        "_attempts",
        "_failures",
        "_generation",
        "_in_a_row",
        "_leased_until",
        "_ordinary",
        "_probe",
        "_seen_at",
        "_state",
        "_until",
        "name",
        "policy",
    )

    def __init__(self, name: str, policy: BreakerPolicy = POLICY) -> None:
        self.name = name
        self.policy = policy
        self._state: BreakerState = "closed"
        self._until = 0.0  # when its open time is over; inf: held open
        self._asked_until = 0.0  # the latest moment named by a Retry-After since the last success
        self._in_a_row = 0
        self._attempts = Window(policy.window_s)
        self._failures = Window(policy.window_s)
        self._generation = 0
        self._ordinary = Permit(0)  # one for all: nothing tells them apart
        self._probe: Permit | None = None  # the latest, while it is out; older ones are known by generation
        self._leased_until = 0.0  # when the latest probe's lease is over
        self._seen_at = 0.0  # for __repr__, which has no clock

    @property
    def held(self) -> bool:
        """A person holds it open."""
        return self._state == "open" and self._until == inf

    def state(self, now: float) -> BreakerState:
        """Half-open from the moment its open time is over, though nobody has asked yet."""
        self._seen_at = now
        if self._state == "open" and now >= self._until:
            return "half_open"
        return self._state

    def permits(self, now: float) -> bool:
        """Would an attempt be let through now? Changes nothing."""
        if self._state == "closed":
            return True
        return self.state(now) == "half_open" and (self._probe is None or now >= self._leased_until)

    def ready_in_s(self, now: float) -> float:
        """0 if an attempt may be made now, else seconds until one may; infinite while it is held open."""
        if self.permits(now):
            return 0.0
        if self._probe is not None:
            return min(self.policy.ask_again_s, self._leased_until - now)
        return self._until - now

    def enter(self, now: float) -> Permit | None:
        """Leave to make an attempt: always while closed, never while open, one a lease while half-open."""
        if self._state == "closed":
            return self._ordinary
        if not self.permits(now):
            return None
        shift = None
        if self._state == "open":
            shift = Shift("open", "half_open", "its open time is over, one attempt goes through", None)
        self._state = "half_open"
        self._leased_until = now + self.policy.probe_s
        self._probe = Permit(self._generation, probe=True, shift=shift)
        return self._probe

    def spoke(self, permit: Permit, now: float) -> Shift | None:
        """The first content of a stream came: if it is a probe's, the target has recovered.

        A stream may last for minutes, and nobody should wait for its end.
        That end counts later, as any attempt's.
        """
        if not self._is_probing(permit):
            return None
        shift = self._close(now, "the probe's answer began")
        permit.generation = self._generation
        return shift

    def ended(
        self, permit: Permit, verdict: Verdict, now: float, cause: str, retry_after_s: float | None = None
    ) -> Shift | None:
        """Count an attempt's end; `cause` says in a few words what happened."""
        if permit.probe and self._is_probing(permit):
            return self._probe_ended(permit, verdict, now, cause, retry_after_s)
        if permit.generation != self._generation:
            self._extend(now, retry_after_s)
            return None
        if verdict == "success":
            self._attempts.add(now)
            self._in_a_row = 0
            self._asked_until = 0.0
            return None
        self._heed(now, retry_after_s)
        return self._failed(now, cause) if verdict == "failure" else None

    def give_back(self, permit: Permit, now: float) -> None:
        """The attempt was cancelled, or never made: it counts for nothing.

        Was it the latest probe, the next caller may probe; an older one has no place to give back.
        """
        if not self._is_probing(permit):
            return
        self._seen_at = now
        permit.generation = SPENT
        if permit is self._probe:
            self._probe = None

    def hold_open(self, now: float, cause: str) -> Shift | None:
        """Let nothing through, no probe either, until `let_go`."""
        if self.held:
            return None
        before = self.state(now)
        self._turn("open")
        self._until = inf
        return Shift(before, "open", cause, None)

    def let_go(self, now: float, cause: str) -> Shift | None:
        """It decides for itself again, beginning closed. Nothing if nobody held it."""
        return self._close(now, cause) if self.held else None

    def close(self, now: float, cause: str) -> Shift | None:
        """A person closes it early. Nothing if it is closed, or held open: that is `let_go`'s."""
        return None if self._state == "closed" or self.held else self._close(now, cause)

    def told(self, theirs: Shift, now: float) -> Shift | None:
        """Another process's breaker of this target changed by itself.

        It opened: so does this one, until the same moment. It closed: this one tries at once, not later.
        What this process is finding out for itself counts more: a probe that is out decides,
        and one probe that failed elsewhere opens nothing that is closed here.
        """
        if self.held:
            return None
        if theirs.after == "open" and theirs.open_for_s is not None:
            return self._open_too(theirs, now, now + min(theirs.open_for_s, self.policy.longest_open_s))
        if theirs.after == "closed" and self.state(now) == "open":
            self._until = now
            return Shift("open", "half_open", f"another process: {theirs.cause}", None)
        return None

    def _open_too(self, theirs: Shift, now: float, until: float) -> Shift | None:
        before = self.state(now)
        if before == "open":
            self._until = max(self._until, until)
            return None
        is_probing = self._probe is not None and now < self._leased_until
        if is_probing or (before == "closed" and theirs.before != "closed"):
            return None
        self._turn("open")
        self._until = until
        return Shift(before, "open", f"another process: {theirs.cause}", theirs.open_for_s)

    def _is_probing(self, permit: Permit) -> bool:
        """It is a probe that may still decide. Every permit of a half-open generation is a probe's."""
        return self._state == "half_open" and permit.generation == self._generation

    def _is_overtaken(self, permit: Permit) -> bool:
        """A newer probe is out, the latest."""
        return self._probe is not None and permit is not self._probe

    def _failed(self, now: float, cause: str) -> Shift | None:
        self._attempts.add(now)
        self._failures.add(now)
        self._in_a_row += 1
        if self._in_a_row < self.policy.consecutive:
            return None
        is_share = self._failures.total(now) >= self.policy.share * self._attempts.total(now)
        if not is_share and self._in_a_row < self.policy.surely:
            return None
        return self._open(now, f"{self._in_a_row} failures in a row, the last: {cause}")

    def _probe_ended(
        self, permit: Permit, verdict: Verdict, now: float, cause: str, retry_after_s: float | None
    ) -> Shift | None:
        """Close, open again, or leave it to the next probe.

        A success closes it whichever probe's it is.
        Anything else of an overtaken one changes nothing: the newer one says how things are now.
        A neutral probe with a Retry-After met a target that is up and wants to be left alone,
        so it opens again, for as long as any opening lasts or longer if asked:
        were it as short as the provider says, one that always says "1" would be probed each second.
        A neutral one without told us nothing, so the next caller probes, one at a time as before:
        were it to open again, one client's hopeless calls could keep a healthy target from all others.
        """
        if verdict == "success":
            return self._close(now, "the probe succeeded")
        told_nothing = verdict == "neutral" and self._named(now, retry_after_s) is None
        if told_nothing or self._is_overtaken(permit):
            self.give_back(permit, now)
            return None
        self._heed(now, retry_after_s)
        if verdict == "neutral":
            return self._open(now, f"the probe was told to come back later: {cause}")
        self._in_a_row += 1
        return self._open(now, f"the probe failed: {cause}")

    def _named(self, now: float, retry_after_s: float | None) -> float | None:
        """The moment a Retry-After names, within what is believed; None for zero, negative, not a number."""
        if retry_after_s is None or not retry_after_s > 0:
            return None
        return now + min(retry_after_s, self.policy.longest_open_s)

    def _heed(self, now: float, retry_after_s: float | None) -> None:
        """Should it open, then for at least as long as was asked."""
        self._asked_until = max(self._asked_until, self._named(now, retry_after_s) or 0.0)

    def _extend(self, now: float, retry_after_s: float | None) -> None:
        """A late end changes no state, but what the provider asks while it is open is heeded."""
        if self.state(now) == "open":
            self._until = max(self._until, self._named(now, retry_after_s) or 0.0)

    def _open(self, now: float, cause: str) -> Shift:
        before = self.state(now)
        open_for_s = max(self.policy.open_s, self._asked_until - now)
        self._turn("open")
        self._until = now + open_for_s
        return Shift(before, "open", cause, open_for_s)

    def _close(self, now: float, cause: str) -> Shift:
        """With fresh counts: what happened before says nothing about a target that has recovered."""
        before = self.state(now)
        self._turn("closed")
        self._in_a_row = 0
        self._asked_until = 0.0
        self._attempts.clear()
        self._failures.clear()
        return Shift(before, "closed", cause, None)

    def _turn(self, state: BreakerState) -> None:
        """A new generation: permits given before, the probes' too, are strangers from now on."""
        self._state = state
        self._generation += 1
        self._ordinary = Permit(self._generation)
        self._probe = None

    def __repr__(self) -> str:
        state = self.state(self._seen_at)
        failures = "1 failure" if self._in_a_row == 1 else f"{self._in_a_row} failures"
        return f"<Breaker {self.name} {state.replace('_', '-')}, {failures}{self._outlook(state)}>"

    def _outlook(self, state: BreakerState) -> str:
        if state == "closed":
            return ""
        if state == "half_open":
            return self._probe_outlook()
        return ", held open" if self.held else f", retries in {self._until - self._seen_at:.1f} s"

    def _probe_outlook(self) -> str:
        if self._probe is None:
            return ", no probe yet"
        return ", the probe is overdue" if self._seen_at >= self._leased_until else ", the probe is out"
