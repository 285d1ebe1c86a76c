"""Gate, pool, breaker, retry and fallback: attempts at the targets of a plan until one answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from msgspec import Struct

from gateway import errors
from gateway.relay import overflow, retry
from gateway.relay.admission import Reservation, Trying
from gateway.relay.attempt import NoAnswer, Passage, code_of
from gateway.relay.breaker import Permit, Verdict
from gateway.relay.gate import Full
from gateway.relay.lifeline import Cut
from gateway.relay.ports import Place, Transport
from gateway.relay.routing import Plan, Step, repriced, with_messages
from gateway.relay.targets import LiveTarget, Targets
from gateway.relay.transports import CannotConnect, PoolExhausted

MOST_TRIMS = 6
"""How often messages are shortened on a provider's word that they are too long."""
UNKNOWN_WAIT_S = 1.0
"""What a caller is told who finds no place where nothing is known of how long one is held."""
HELD_WAIT_S = 60.0
"""What a caller is told where a person holds every breaker open, and so no time is known."""

WAITED_OUT = 0.9
"""An attempt that lasted for this share of the configured deadline was given all the time there is."""

T = TypeVar("T")
Try = Callable[[Place, Trying, Passage], Awaitable[T]]
"""How one attempt is made: `Attempt.whole` or `Attempt.streamed`."""


class Visit(Struct, eq=False):
    """One call at one target: the first attempt there, and its retries."""

    passage: Passage
    step: Step
    live: LiveTarget
    attempt_no: int = 1
    backoff_s: float | None = None
    """The wait before the attempt under way, where it is a retry."""

    def may_retry(self, now: float) -> bool:
        """Breaker and budget would let one more attempt through. Takes nothing from either."""
        return self.live.breaker.permits(now) and self.live.budget.allows(now)


class GaveUp(Exception):
    """A target will not answer this call. `why` is what the client is told if no other does."""

    def __init__(self, why: NoAnswer, *, elsewhere: bool) -> None:
        super().__init__(why.message)
        self.why, self.elsewhere = why, elsewhere


class Attempts:
    """Carries a call through its plan. Does not choose the plan, and does not settle the call."""

    def __init__(
        self,
        targets: Targets,
        transport: Transport,
        clock: Callable[[], float],
        draw: Callable[[], float],
        reroute: Callable[[Reservation], Plan],
        policy: retry.RetryPolicy,
    ) -> None:
        self._targets, self._transport = targets, transport
        self._clock, self._draw, self._reroute = clock, draw, reroute
        self._policy = policy

    async def run(self, passage: Passage, attempt: Try[T]) -> T:
        """The first answer that a target of the plan gives. Raises UpstreamFailed, Overloaded."""
        while (step := self._next(passage)) is not None:
            try:
                return await self._visit(step, passage, attempt)
            except GaveUp as gave_up:
                passage.note(gave_up.why)
                if not self._move_on(gave_up, step, passage):
                    break
                passage.steps = [repriced(each, time.time_ns() // 1000) for each in passage.steps]
        raise passage.last_word() or self._all_open(passage)

    def _next(self, passage: Passage) -> Step | None:
        """The first target that would take an attempt now; else the one with the shortest wait."""
        of, now, priority = self._targets.of, self._clock(), passage.priority
        best: Step | None = None
        best_wait_s = 0.0
        for step in passage.steps:
            live = of(step.target)
            if not live.breaker.permits(now):
                passage.reservation.skip(step, "open")
            elif live.gate.has_place(passage.team_id, priority):
                if best is not None:
                    passage.reservation.skip(best, "full")
                return step
            else:
                wait_s = live.gate.expected_wait_s(passage.team_id, priority)
                if best is None or wait_s < best_wait_s:
                    best, best_wait_s = step, wait_s
        return best

    def _all_open(self, passage: Passage) -> errors.NoTargetAvailable:
        now = self._clock()
        plan = passage.reservation.plan
        waits = [self._targets.of(each.target).breaker.ready_in_s(now) for each in plan.steps]
        soonest = min((each for each in waits if each < inf), default=HELD_WAIT_S)
        return errors.NoTargetAvailable(plan.model_name, max(1.0, soonest))

    def _move_on(self, gave_up: GaveUp, step: Step, passage: Passage) -> bool:
        """Take the target off the list, or shorten the messages for it. False: nothing is left to try."""
        if not passage.client_waits:
            return False
        if isinstance(gave_up.why, errors.UpstreamRejected):
            excess = overflow.is_overflow(gave_up.why.status, gave_up.why.code, gave_up.why.message)
            if excess is not None:
                return self._shorten(excess, step, passage)
        passage.steps.remove(step)
        return gave_up.elsewhere

    def _shorten(self, excess: overflow.Excess, step: Step, passage: Passage) -> bool:
        """Do as the route says about messages that the provider finds too long. False: nothing is left."""
        plan = passage.reservation.plan
        if plan.route.overflow == "trim" and passage.trims < MOST_TRIMS:
            passage.trims += 1
            shorter = overflow.trimmed_by(excess, step.fields["messages"], step.target.upstream_model)
            if shorter is not None:
                place = passage.steps.index(step)
                passage.steps[place] = with_messages(step, shorter.messages, shorter.dropped)
                return True
        if plan.route.overflow == "reroute" and not plan.asked:
            try:
                other = self._reroute(passage.reservation)
            except errors.Refused:
                return False  # the provider's own rejection says best what is wrong
            passage.reservation.plan, passage.steps = other, list(other.steps)
            return True
        return False

    async def _visit(self, step: Step, passage: Passage, attempt: Try[T]) -> T:
        """Attempts at one target. Raises GaveUp."""
        visit = Visit(passage, step, self._targets.of(step.target))
        visit.live.budget.called(self._clock())
        while True:
            try:
                return await self._once(visit, attempt)
            except (errors.UpstreamFailed, errors.Overloaded) as why:
                await self._back_off(why, visit)

    async def _back_off(self, why: NoAnswer, visit: Visit) -> None:
        """Wait until the same target may be asked again. Raises GaveUp where it is not to be."""
        decision = self._decide(why, visit)
        if not isinstance(decision, retry.Again):
            raise GaveUp(why, elsewhere=isinstance(decision, retry.FallBack)) from None
        if decision.asked:
            visit.passage.asked_s += decision.wait_s
        await asyncio.sleep(decision.wait_s)
        if not visit.may_retry(self._clock()):  # others may have spent the budget, or opened the breaker
            raise GaveUp(why, elsewhere=why.elsewhere) from None
        visit.attempt_no += 1
        visit.backoff_s = decision.wait_s

    def _decide(self, why: NoAnswer, visit: Visit) -> retry.RetryDecision:
        passage, now = visit.passage, self._clock()
        if not passage.client_waits:
            return retry.GIVE_UP
        return retry.next_step(
            retry.Failed(why.again, why.elsewhere, _asked_wait_s(why)),
            visit.attempt_no,
            time_left_s=passage.line.ends_at - now,
            asked_so_far_s=passage.asked_s,
            other_ready=self._other_is_ready(visit, now),
            budget_allows=visit.may_retry(now),
            jitter=self._draw(),
            policy=self._policy,
        )

    def _other_is_ready(self, visit: Visit, now: float) -> bool:
        """Another target of the plan would take an attempt at once."""
        team_id, priority = visit.passage.team_id, visit.passage.priority
        others = [self._targets.of(each.target) for each in visit.passage.steps if each is not visit.step]
        return any(each.breaker.permits(now) and each.gate.has_place(team_id, priority) for each in others)

    async def _once(self, visit: Visit, attempt: Try[T]) -> T:
        """One attempt with a place at the gate, its worst case held, a connection, and the breaker's permit,
        in this order.

        The permit comes last: who waits holds none, so a single probe goes out however many wait.
        """
        passage, step, live = visit.passage, visit.step, visit.live
        began = self._clock()
        await self._pass_gate(visit)
        entered = self._clock()
        try:
            await self._cover(visit)
            covered = self._clock()
            place = await self._place(step)
            now = self._clock()
            permit = live.breaker.enter(now)
            if permit is None:
                place.release()
                passage.reservation.skip(step, "open")
                raise self._all_open(passage)
            trying = self._dispatch(visit, place, permit, now - began, now - covered)
            return await self._watched(visit, attempt, place, permit, trying)
        finally:
            live.gate.leave(passage.team_id, self._clock() - entered)

    async def _pass_gate(self, visit: Visit) -> None:
        """Raises Overloaded where no place can come in time."""
        passage, gate = visit.passage, visit.live.gate
        team_id, priority = passage.team_id, passage.priority
        if gate.enter_now(team_id, priority):
            return
        try:
            await gate.enter(team_id, priority, passage.line.ends_at - self._clock())
        except Full as why:
            passage.reservation.skip(visit.step, "full")
            raise _full(visit.step, why.retry_after_s or UNKNOWN_WAIT_S) from None

    async def _cover(self, visit: Visit) -> None:
        """Hold what this attempt may cost. Raises GaveUp: another target may cost less."""
        try:
            await visit.passage.reservation.cover(visit.step)
        except (errors.OverLimit, errors.Unavailable) as why:
            raise GaveUp(why, elsewhere=True) from None

    async def _place(self, step: Step) -> Place:
        """A place in the target's pool, before anything is dispatched: shedding is no attempt."""
        try:
            return await self._transport.acquire(step.target)
        except PoolExhausted:
            raise _full(step, UNKNOWN_WAIT_S, again=True) from None
        except CannotConnect as why:  # its base URL is none that may be called
            raise _not_to_be_called(step, why) from None

    def _dispatch(
        self, visit: Visit, place: Place, permit: Permit, queued_s: float, pool_wait_s: float
    ) -> Trying:
        """On the books, and then on its way. Whatever goes wrong, place and permit are given back."""
        live, backoff_s = visit.live, visit.backoff_s
        try:
            trying = visit.passage.reservation.dispatch(
                visit.step,
                int(queued_s * 1e6),
                int((backoff_s or 0.0) * 1e6),
                probe=permit.probe,
                pool_wait_us=int(pool_wait_s * 1e6),
            )
            if permit.shift is not None:
                self._targets.shifted(live, permit.shift)
        except BaseException:
            place.release()
            live.breaker.give_back(permit, self._clock())
            raise
        if backoff_s is not None:
            live.budget.retried(self._clock())
            live.retries += 1
        if permit.probe:
            trying.spoke = lambda: self._probe_spoke(live, permit)
        return trying

    async def _watched(
        self, visit: Visit, attempt: Try[T], place: Place, permit: Permit, trying: Trying
    ) -> T:
        """The attempt itself, and what it says about the target."""
        passage, live = visit.passage, visit.live
        passage.line.drain_s = passage.reservation.plan.route.hang_up_drain_s
        try:
            answer = await attempt(place, trying, passage)
        except BaseException as why:
            self._count(why, visit, permit, trying)
            raise
        finally:
            passage.line.drain_s = 0.0
        shift = live.breaker.ended(permit, "success", self._clock(), "")
        if shift is not None:
            self._targets.shifted(live, shift)
        if live.credential_refused:
            self._targets.credential_accepted(live)
        return answer

    def _probe_spoke(self, live: LiveTarget, permit: Permit) -> None:
        """A stream may last for minutes; its first word is enough to close the breaker."""
        if shift := live.breaker.spoke(permit, self._clock()):
            self._targets.shifted(live, shift)

    def _count(self, why: BaseException, visit: Visit, permit: Permit, trying: Trying) -> None:
        """What a failed attempt means for the breaker; our own endings and the client's mean nothing."""
        live, now = visit.live, self._clock()
        verdict = _verdict(why, now - trying.began, trying.first_token is not None, visit)
        if verdict is None:
            live.breaker.give_back(permit, now)
            return
        cause = code_of(why, visit.passage.line.cut)
        if shift := live.breaker.ended(permit, verdict, now, cause, _asked_wait_s(why)):
            self._targets.shifted(live, shift)
        if isinstance(why, errors.UpstreamRefusesUs):
            self._targets.credential_refused(live, trying.status or 401)


def _verdict(why: BaseException, lasted_s: float, spoke: bool, visit: Visit) -> Verdict | None:
    """None: the attempt says nothing about the target, because it was ended by us or by the client."""
    if isinstance(why, errors.UpstreamFailed):
        return "neutral" if why.sick is None else ("failure" if why.sick else "success")
    line = visit.passage.line
    if isinstance(why, asyncio.CancelledError) and not line.gone:
        if line.cut is Cut.SILENT:
            return "failure"
        # A client may choose a deadline that no provider can meet, and a long answer is no illness:
        # neither must shut out the others. What is left is silence for as long as the operator allows.
        is_silent = lasted_s >= WAITED_OUT * visit.passage.configured_timeout_s and not spoke
        if line.cut is Cut.DEADLINE and is_silent:
            return "failure"
    return None


def _asked_wait_s(why: BaseException) -> float | None:
    """What the provider asked for. What we say of our own full pool is no word of the provider's."""
    return why.retry_after_s if isinstance(why, errors.UpstreamFailed) else None


def _full(step: Step, retry_after_s: float, *, again: bool = False) -> errors.Overloaded:
    why = errors.Overloaded(
        f"Every place at the provider '{step.target.provider}' is taken, and none comes free in time. "
        "Try again in a moment."
    )
    why.retry_after_s, why.again = retry_after_s, again
    return why


def _not_to_be_called(step: Step, reason: CannotConnect) -> errors.UpstreamUnreachable:
    why = errors.UpstreamUnreachable(
        f"The provider '{step.target.provider}' cannot be reached: {reason}. "
        "An administrator must look at it."
    )
    why.cause, why.again = "cannot_connect", False
    return why
