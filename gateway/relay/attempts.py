"""Gate, pool, breaker, retry and fallback: attempts at the targets of a plan until one answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from gateway import errors
from gateway.relay import overflow, retry
from gateway.relay.admission import Reservation, Trying
from gateway.relay.attempt import code_of
from gateway.relay.breaker import Permit, Verdict
from gateway.relay.gate import Full
from gateway.relay.lifeline import Cut, Lifeline
from gateway.relay.ports import Client, Place, Transport
from gateway.relay.routing import Plan, Step, repriced, with_messages
from gateway.relay.targets import LiveTarget, Targets
from gateway.relay.transports import CannotConnect, PoolExhausted

MOST_TRIMS = 6
"""How often messages are shortened on a provider's word that they are too long."""
UNKNOWN_WAIT_S = 1.0
"""What a caller is told who finds no place where nothing is known of how long one is held."""

T = TypeVar("T")
One = Callable[[Place, Trying, Reservation, Lifeline, Client], Awaitable[T]]
"""One attempt: `Attempt.whole` or `Attempt.streamed`."""


class Course(Struct, eq=False):
    """How one call fares on its way through the plan."""

    reservation: Reservation
    line: Lifeline
    client: Client
    configured_timeout_s: float
    steps: list[Step]
    """Targets that have not given up."""
    asked_s: float = 0.0
    """Waits that providers asked for, so far."""
    trims: int = 0
    failure: errors.UpstreamFailed | None = None
    refusal: errors.Overloaded | None = None

    @property
    def team_id(self) -> int:
        return self.reservation.caller.team_id


class GaveUp(Exception):
    """A target will not answer this call. `why` is what the client is told if no other does."""

    def __init__(self, why: errors.GatewayError, *, elsewhere: bool) -> None:
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

    async def run(self, course: Course, one: One[T]) -> T:
        """The first answer that a target of the plan gives. Raises UpstreamFailed, Overloaded."""
        while (step := self._next(course)) is not None:
            try:
                return await self._at(step, course, one)
            except GaveUp as why:
                self._note(why, course)
                if not self._goes_on(why, step, course):
                    break
                course.steps = [repriced(each, time.time_ns() // 1000) for each in course.steps]
        raise course.failure or course.refusal or self._all_open(course)

    def _next(self, course: Course) -> Step | None:
        """The first target that would take an attempt now; else the one with the shortest wait."""
        of, now, priority = self._targets.of, self._clock(), course.reservation.call.priority
        best: Step | None = None
        best_wait_s = 0.0
        for step in course.steps:
            live = of(step.target)
            if not live.breaker.permits(now):
                course.reservation.skip(step, "open")
            elif live.gate.has_place(course.team_id, priority):
                if best is not None:
                    course.reservation.skip(best, "full")
                return step
            else:
                wait_s = live.gate.expected_wait_s(course.team_id, priority)
                if best is None or wait_s < best_wait_s:
                    best, best_wait_s = step, wait_s
        return best

    def _all_open(self, course: Course) -> errors.NoTargetAvailable:
        now = self._clock()
        plan = course.reservation.plan
        waits = [self._targets.of(each.target).breaker.ready_in_s(now) for each in plan.steps]
        # A breaker that is held by hand, or whose probe is out, promises nothing.
        soonest = min((each for each in waits if each < float("inf")), default=60.0)
        return errors.NoTargetAvailable(plan.model_name, max(1.0, soonest))

    def _note(self, gave_up: GaveUp, course: Course) -> None:
        if isinstance(gave_up.why, errors.UpstreamFailed):
            if course.failure is None or not isinstance(gave_up.why, errors.NoTargetAvailable):
                course.failure = gave_up.why
        elif isinstance(gave_up.why, errors.Overloaded):
            course.refusal = gave_up.why
        else:
            raise gave_up.why

    def _goes_on(self, gave_up: GaveUp, step: Step, course: Course) -> bool:
        """Take the target off the list, or shorten the messages for it; whether anything is left to do."""
        if course.client.begun or course.line.gone:
            return False
        if isinstance(gave_up.why, errors.UpstreamRejected):
            excess = overflow.is_overflow(gave_up.why.status, gave_up.why.code, gave_up.why.message)
            if excess is not None:
                return self._shorten(excess, step, course)
        course.steps.remove(step)
        return gave_up.elsewhere

    def _shorten(self, excess: overflow.Excess, step: Step, course: Course) -> bool:
        """The provider says that the messages are too long: what the route says about that."""
        route = course.reservation.plan.route
        if route.overflow == "trim" and course.trims < MOST_TRIMS:
            course.trims += 1
            shorter = overflow.trimmed_by(excess, step.fields["messages"], step.target.upstream_model)
            if shorter is not None:
                place = course.steps.index(step)
                course.steps[place] = with_messages(step, shorter.messages, shorter.dropped)
                return True
        if route.overflow == "reroute" and not course.reservation.plan.asked:
            try:
                plan = self._reroute(course.reservation)
            except errors.Refused:
                return False  # the provider's own rejection says best what is wrong
            course.reservation.plan, course.steps = plan, list(plan.steps)
            return True
        return False

    async def _at(self, step: Step, course: Course, one: One[T]) -> T:
        """Attempts at one target. Raises GaveUp."""
        live = self._targets.of(step.target)
        live.budget.called(self._clock())
        attempt_no = 1
        backoff_s: float | None = None
        while True:
            try:
                return await self._once(live, step, course, one, backoff_s)
            except (errors.UpstreamFailed, errors.Overloaded) as why:
                decision = self._decide(why, attempt_no, live, step, course)
                if not isinstance(decision, retry.Again):
                    raise GaveUp(why, elsewhere=isinstance(decision, retry.FallBack)) from None
                failed = why
            if decision.asked:
                course.asked_s += decision.wait_s
            backoff_s = decision.wait_s
            await asyncio.sleep(backoff_s)
            now = self._clock()
            if not (live.breaker.permits(now) and live.budget.allows(now)):
                raise GaveUp(failed, elsewhere=failed.elsewhere)
            attempt_no += 1

    def _decide(
        self,
        why: errors.UpstreamFailed | errors.Overloaded,
        attempt_no: int,
        live: LiveTarget,
        step: Step,
        course: Course,
    ) -> retry.RetryDecision:
        if course.client.begun or course.line.gone:
            return retry.GIVE_UP
        now = self._clock()
        # What a full pool of our own tells a client is no provider's word.
        asked_s = why.retry_after_s if isinstance(why, errors.UpstreamFailed) else None
        return retry.next_step(
            retry.Failed(why.again, why.elsewhere, asked_s),
            attempt_no,
            course.line.ends_at - now,
            course.asked_s,
            self._other_is_ready(step, course, now),
            live.budget.allows(now) and live.breaker.permits(now),
            self._draw(),
            self._policy,
        )

    def _other_is_ready(self, step: Step, course: Course, now: float) -> bool:
        priority = course.reservation.call.priority
        for other in course.steps:
            if other is not step:
                live = self._targets.of(other.target)
                if live.breaker.permits(now) and live.gate.has_place(course.team_id, priority):
                    return True
        return False

    async def _once(
        self, live: LiveTarget, step: Step, course: Course, one: One[T], backoff_s: float | None
    ) -> T:
        """One attempt with a place at the gate, a connection, and the breaker's permit, in this order.

        The permit comes last: who waits holds none, so a single probe goes out however many wait.
        """
        began = self._clock()
        await self._pass_gate(live, step, course)
        entered = self._clock()
        try:
            place = await self._place(step)
            now = self._clock()
            permit = live.breaker.enter(now)
            if permit is None:
                place.release()
                course.reservation.skip(step, "open")
                raise self._all_open(course)
            trying = self._dispatch(place, permit, live, step, course, now - began, backoff_s)
            return await self._watched(one, place, permit, trying, live, course)
        finally:
            live.gate.leave(course.team_id, self._clock() - entered)

    async def _pass_gate(self, live: LiveTarget, step: Step, course: Course) -> None:
        """Raises Overloaded where no place can come in time."""
        priority = course.reservation.call.priority
        if live.gate.enter_now(course.team_id, priority):
            return
        time_left_s = course.line.ends_at - self._clock()
        try:
            await live.gate.enter(course.team_id, priority, time_left_s)
        except Full as why:
            course.reservation.skip(step, "full")
            raise _full(step, why.retry_after_s or UNKNOWN_WAIT_S) from None

    async def _place(self, step: Step) -> Place:
        """A place in the target's pool, before anything is dispatched: shedding is no attempt."""
        provider = step.target.provider
        try:
            return await self._transport.acquire(step.target)
        except PoolExhausted:
            full = _full(step, UNKNOWN_WAIT_S)
            full.again = True
            raise full from None
        except CannotConnect as why:  # an address where no provider may be, or a broken certificate
            lost = errors.UpstreamUnreachable(
                f"The provider '{provider}' cannot be reached: {why}. An administrator must look at it."
            )
            lost.cause, lost.again = "cannot_connect", False
            raise lost from None

    def _dispatch(
        self,
        place: Place,
        permit: Permit,
        live: LiveTarget,
        step: Step,
        course: Course,
        queued_s: float,
        backoff_s: float | None,
    ) -> Trying:
        """On the books, and then on its way. Whatever goes wrong, place and permit are given back."""
        try:
            trying = course.reservation.dispatch(
                step, int(queued_s * 1e6), int((backoff_s or 0.0) * 1e6), probe=permit.probe
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
        self,
        one: One[T],
        place: Place,
        permit: Permit,
        trying: Trying,
        live: LiveTarget,
        course: Course,
    ) -> T:
        """The attempt itself, and what it says about the target."""
        line, breaker = course.line, live.breaker
        line.drain_s = course.reservation.plan.route.hang_up_drain_s
        try:
            answer = await one(place, trying, course.reservation, line, course.client)
        except BaseException as why:
            self._count(why, permit, trying, live, course)
            raise
        finally:
            line.drain_s = 0.0
        shift = breaker.ended(permit, "success", self._clock(), "")
        if shift is not None:
            self._targets.shifted(live, shift)
        if live.credential_refused:
            self._targets.credential_accepted(live)
        return answer

    def _probe_spoke(self, live: LiveTarget, permit: Permit) -> None:
        """A stream may last for minutes; its first word is enough to close the breaker."""
        if shift := live.breaker.spoke(permit, self._clock()):
            self._targets.shifted(live, shift)

    def _count(
        self, why: BaseException, permit: Permit, trying: Trying, live: LiveTarget, course: Course
    ) -> None:
        """What a failed attempt means for the breaker; our own endings and the client's mean nothing."""
        now = self._clock()
        verdict = _verdict(why, now - trying.began, trying, course)
        if verdict is None:
            live.breaker.give_back(permit, now)
            return
        retry_after_s = why.retry_after_s if isinstance(why, errors.UpstreamFailed) else None
        cause = code_of(why, course.line.cut)
        if shift := live.breaker.ended(permit, verdict, now, cause, retry_after_s):
            self._targets.shifted(live, shift)
        if isinstance(why, errors.UpstreamRefusesUs):
            self._targets.credential_refused(live, trying.status or 401)


def _verdict(why: BaseException, lasted_s: float, trying: Trying, course: Course) -> Verdict | None:
    """None: the attempt says nothing about the target, because it was ended by us or by the client."""
    if isinstance(why, errors.UpstreamFailed):
        return "neutral" if why.sick is None else ("failure" if why.sick else "success")
    cut = course.line.cut
    if isinstance(why, asyncio.CancelledError) and not course.line.gone:
        if cut is Cut.SILENT:
            return "failure"
        # A client may choose a deadline that no provider can meet; that must not shut out the others.
        patience_s = min(trying.step.target.pool.read_timeout_s, course.configured_timeout_s)
        if cut is Cut.DEADLINE and lasted_s >= patience_s:
            return "failure"
    return None


def _full(step: Step, retry_after_s: float) -> errors.Overloaded:
    why = errors.Overloaded(
        f"Every place at the provider '{step.target.provider}' is taken, and none comes free in time. "
        "Try again in a moment."
    )
    why.retry_after_s = retry_after_s
    return why
