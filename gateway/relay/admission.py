"""A call is let in, and closed on the books however it is left."""

import time
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Literal

from msgspec import Struct

from accounts.caller import Caller, Priority, Quota
from gateway.errors import OverLimit, QuotaExhausted, RateLimited, Refused
from gateway.relay import bounds, limits, pricing, wording
from gateway.relay.call import Call
from gateway.relay.limits import Admitted, Amounts, Ask, Exceeded, Spent, Standing
from gateway.relay.ports import Counters, Journal, Listener, Ticket
from gateway.relay.pricing import cost_nanos
from gateway.relay.records import (
    AttemptEnded,
    AttemptOutcome,
    Basis,
    CallOutcome,
    Dispatched,
    Hold,
    Opened,
    Released,
    Settled,
    Skipped,
    Usage,
    total_of,
)
from gateway.relay.records import Refused as RefusedCall
from gateway.relay.routing import Plan, Step
from gateway.relay.tokenizer import SaidSoFar, tokens_of_prompt
from gateway.relay.usage import BYTES_A_TOKEN, estimated

NOTHING = Usage()
ZERO = Amounts()
LONGEST_NAME = 200
"""Of a model name that is asked for; more of it is not kept."""
MOST_SKIPPED = 4
"""Passed-over targets that an entry names; the journal keeps room for so many."""


class Trying(Struct):
    """An attempt that is under way; `began` and `first_token` in monotonic seconds."""

    step: Step
    attempt_no: int
    started_at_us: int
    began: float
    queued_us: int = 0
    backoff_us: int = 0
    probe: bool = False
    status: int | None = None
    first_token: float | None = None
    pool_wait_us: int = 0
    first_byte_us: int | None = None
    spoke: Callable[[], None] | None = None
    """To be called at the first token, where somebody waits for it."""


class Need(Struct, frozen=True):
    """What an attempt takes of quotas: at worst, which hard ones hold, and probably, which soft ones do."""

    worst: Amounts = ZERO
    probable: Amounts = ZERO

    def plus(self, other: "Need") -> "Need":
        return Need(_plus(self.worst, other.worst), _plus(self.probable, other.probable))

    def beyond(self, held: "Need") -> "Need":
        """What is missing of this where so much is held; nothing where it is all there."""
        return Need(_beyond(self.worst, held.worst), _beyond(self.probable, held.probable))


NO_NEED = Need()


class Weighed(Struct, frozen=True):
    """The most that an attempt can use, and what that would cost."""

    step: Step
    usage: Usage
    cost_nanos: int


def weigh(plan: Plan, step: Step) -> Weighed:
    """The worst case of an attempt at one target."""
    usage = bounds.worst(step.fields, plan.max_tokens, step.target, step.media)
    return Weighed(step, usage, bounds.worst_cost_nanos(usage, step.price))


class Reservation(Struct):
    """One admitted call. Settles exactly once: when told to, or as failed when left without."""

    call: Call
    caller: Caller
    plan: Plan
    house: "Admission"
    journal: Journal
    listener: Listener
    clock: Callable[[], float]
    ticket: Ticket
    counted: bool
    """Rate limits or quotas hold something for this call."""
    lives_s: float
    limits_of: str
    """The route whose own rate limits were asked last."""
    weighed: Weighed
    """The worst case that was worked out last."""
    covers: Step | None = None
    """The step whose need is held, with all that is unknown of earlier ones."""
    held: Need = NO_NEED
    unknown: Need = NO_NEED
    """Of the attempts that ended, what they may have cost."""
    admitted: tuple[Admitted, ...] = ()
    """What was granted: at admission, and where the call was sent on to another route."""
    trying: Trying | None = None
    step: Step | None = None
    """Of the last attempt."""
    ended: list[AttemptEnded] = []
    settled: bool = False
    first_token_us: int | None = None
    unpriced: bool = False
    simulated: bool = False
    skipped: list[Skipped] = []

    def skip(self, step: Step, why: Literal["open", "full"]) -> None:
        """A target is passed over without an attempt."""
        target = step.target
        if len(self.skipped) < MOST_SKIPPED and all(each.target_id != target.id for each in self.skipped):
            self.skipped.append(Skipped(target.id, target.provider, target.upstream_model, why))

    async def cover(self, step: Step) -> None:
        """Hold what this attempt needs beside what earlier ones may have cost. Raises OverLimit, Unavailable.

        The limits of a route that the call was sent on to are asked here too.
        """
        if not self.caller.quotas and not self.caller.rate_limits:
            return
        if step is self.covers and self.plan.route.model_name == self.limits_of:
            return
        need = self.unknown.plus(self._need(step)) if self.caller.quotas else NO_NEED
        more, route = need.beyond(self.held), self.plan.route.model_name
        if more == NO_NEED and route == self.limits_of:
            self.covers = step
            return
        ask = ask_of(self.call, self.caller, self.plan, more, self.lives_s)
        rates = tuple(each for each in ask.rates if each.limit.model_name and route != self.limits_of)
        quotas = tuple(each for each in ask.quotas if each.amount and each.quota.kind != "requests")
        granted = await self.house.take(Ask(ask.call_id, self.lives_s, rates, quotas), self.call)
        if rates:
            self.admitted += (Admitted(granted.standings),)
        self.held, self.counted, self.limits_of = self.held.plus(more), True, route
        self.covers = step

    def dispatch(
        self,
        step: Step,
        queued_us: int = 0,
        backoff_us: int = 0,
        *,
        probe: bool = False,
        pool_wait_us: int = 0,
    ) -> Trying:
        """Write down that an attempt is about to be sent. Raises JournalFull."""
        attempt_no = len(self.ended) + 1
        target, price, weighed = step.target, step.price, self._weigh(step)
        trying = Trying(
            step,
            attempt_no,
            time.time_ns() // 1000,
            self.clock(),
            queued_us,
            backoff_us,
            probe,
            pool_wait_us=pool_wait_us,
        )
        self.journal.dispatch(
            self.ticket,
            Dispatched(
                self.call.call_id,
                attempt_no,
                trying.started_at_us,
                target.id,
                target.provider,
                target.upstream_model,
                None if price is None else price.id,
                weighed.usage,
                weighed.cost_nanos,
                bounds.worst_told(weighed.usage, price),
            ),
        )
        self.unpriced = self.unpriced or price is None
        self.simulated = target.simulated
        self.trying, self.step = trying, step
        return trying

    def attempt_ended(self, outcome: AttemptOutcome, usage: Usage, code: str = "") -> None:
        """The attempt under way is over; `code` says what went wrong, in a word."""
        trying, self.trying = self.trying, None
        assert trying is not None
        target, price = trying.step.target, trying.step.price
        cost = cost_nanos(usage, price)
        if self.caller.quotas:
            used = self._used(trying.step, usage, cost)
            self.unknown = used if self.unknown is NO_NEED else self.unknown.plus(used)
            self.covers = None
        first = trying.first_token
        if first is not None:
            self.first_token_us = _us(first - self.call.began)
        self.ended.append(
            AttemptEnded(
                trying.attempt_no,
                target.id,
                target.provider,
                target.upstream_model,
                outcome,
                trying.status,
                trying.started_at_us,
                _us(self.clock() - trying.began),
                None if first is None else _us(first - trying.began),
                usage,
                None if price is None else price.id,
                cost,
                code,
                trying.queued_us,
                trying.backoff_us,
                trying.probe,
                trying.step.trimmed,
                pricing.told(usage, price),
                trying.pool_wait_us,
                trying.first_byte_us,
            )
        )

    def allowance(self, said: SaidSoFar) -> bounds.Allowance | None:
        """How much the stream under way may say; None where no hard quota counts what is said."""
        if not any(each.hard and each.kind != "requests" for each in self.caller.quotas):
            return None
        assert self.trying is not None
        step, most = self.trying.step, self.plan.max_tokens
        held = self._weigh(step).usage

        def spare() -> int:
            prompt = tokens_of_prompt(step.fields, step.target.upstream_model)
            return bounds.spare_tokens(held, prompt, step.price)

        return bounds.Allowance(most, said, step.target.upstream_model, spare)

    def _weigh(self, step: Step) -> Weighed:
        if self.weighed.step is not step:
            self.weighed = weigh(self.plan, step)
        return self.weighed

    def _need(self, step: Step) -> Need:
        return need_of(self.call, self.plan, self._weigh(step))

    def _used(self, step: Step, usage: Usage, cost: int) -> Need:
        """What an ended attempt took of quotas; where the provider did not say, what it may have taken."""
        if usage.basis == "estimated":
            return self._need(step)
        known = Amounts(usage.input_tokens + usage.output_tokens, cost)
        return Need(known, known)

    def prompt_usage(self, output_tokens: int = 0) -> Usage:
        """The prompt as it was sent with the attempt under way, counted here, and so many output tokens."""
        assert self.trying is not None
        step = self.trying.step
        prompt = tokens_of_prompt(step.fields, step.target.upstream_model)
        return estimated(prompt, output_tokens)

    def release(self, why: Refused) -> None:
        """The call is refused after all, before anything was sent: no entry, and it is counted as refused."""
        call, caller = self.call, self.caller
        self.journal.release(self.ticket, Released(call.call_id, time.time_ns() // 1000))
        self.settled = True
        if self.counted:
            self.house.counters.release(call.call_id)
        self.listener.refused(refused_call(why, caller, call.call_id, self.plan.model_name, call.priority))

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Of the rate limits, when the call was let in."""
        return self.admitted[0].standings if self.admitted else ()

    def settle(self, outcome: CallOutcome, status: int, code: str = "") -> None:
        """Close the books on this call; a second time does nothing."""
        if self.settled:
            return
        call, attempts = self.call, self.ended
        latency_us = _us(self.clock() - call.began)
        record = Settled(
            call.call_id,
            call.started_at_us,
            time.time_ns() // 1000,
            self.caller.team_id,
            self.caller.key_id,
            self.plan.model_name,
            call.streamed,
            self.simulated,
            call.tags,
            outcome,
            status,
            code,
            latency_us,
            self.first_token_us,
            attempts[0].usage if len(attempts) == 1 else _sum(attempts),
            attempts[0].cost_nanos if len(attempts) == 1 else sum(each.cost_nanos for each in attempts),
            self.unpriced,
            tuple(attempts),
            call.priority,
            tuple(self.skipped),
            limits.seen(self.admitted) if self.admitted else (),
            tuple([str(each.target) for each in self.plan.steps]),
        )
        self.journal.settle(self.ticket, record)
        self.settled = True
        if self.counted:
            self.house.counters.settle(call.call_id, spent_by(record))
        self.listener.settled(record)

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.settled:
            if self.trying is not None:  # the provider may have done the work
                self.attempt_ended("failed", self.prompt_usage(), "internal_error")
            self.settle("failed", 500, "internal_error")


class Admission:
    """Lets calls in. Does not decide who may call or where a call goes."""

    def __init__(
        self,
        journal: Journal,
        listener: Listener,
        clock: Callable[[], float],
        counters: Counters,
        currency: str,
    ) -> None:
        self._journal, self._listener, self._clock = journal, listener, clock
        self.counters, self._currency = counters, currency

    async def admit(self, call: Call, caller: Caller, plan: Plan, lives_s: float) -> Reservation:
        """Hold what the call needs of every rate limit and quota, and open it on the books.

        What is held `lives_s` seconds at most, in case nobody settles it.
        Raises RateLimited, QuotaExhausted, Unavailable, JournalFull, with nothing held.
        """
        weighed = weigh(plan, plan.steps[0])
        need = need_of(call, plan, weighed) if caller.quotas else NO_NEED
        ask = ask_of(call, caller, plan, need, lives_s)
        if not ask.rates and not ask.quotas:
            return self._open(call, caller, plan, lives_s, weighed, need, ())
        granted = await self._take(ask, call)
        try:
            holds = tuple([Hold(each.counter, each.amount) for each in ask.quotas])
            return self._open(call, caller, plan, lives_s, weighed, need, holds, (granted,))
        except BaseException:
            self.counters.release(call.call_id)
            raise

    async def take(self, ask: Ask, call: Call) -> Admitted:
        """Hold more for a call that was let in. Raises OverLimit, Unavailable."""
        answer = self.counters.admit_now(ask) or await self.counters.admit(ask)
        if isinstance(answer, Exceeded):
            raise refusal(answer, self._currency, call.started_at_us)
        return answer

    async def _take(self, ask: Ask, call: Call) -> Admitted:
        try:
            return await self.take(ask, call)
        except OverLimit:
            raise
        except BaseException:  # also where the client leaves meanwhile: it may have been granted
            self.counters.release(ask.call_id)
            raise

    def _open(
        self,
        call: Call,
        caller: Caller,
        plan: Plan,
        lives_s: float,
        weighed: Weighed,
        need: Need,
        holds: tuple[Hold, ...],
        admitted: tuple[Admitted, ...] = (),
    ) -> Reservation:
        ticket = self._journal.open(
            Opened(
                call.call_id,
                call.started_at_us,
                caller.team_id,
                caller.key_id,
                plan.model_name,
                call.streamed,
                plan.simulated,
                call.tags,
                holds,
            )
        )
        return Reservation(
            call,
            caller,
            plan,
            self,
            self._journal,
            self._listener,
            self._clock,
            ticket,
            bool(admitted),
            lives_s,
            plan.route.model_name,
            weighed,
            plan.steps[0],
            need,
            admitted=admitted,
            simulated=plan.simulated,
        )


def ask_of(call: Call, caller: Caller, plan: Plan, need: Need, lives_s: float) -> Ask:
    """What a call asks of every rate limit and quota that applies to it."""
    return limits.ask_of(
        call.call_id,
        caller,
        plan.route.model_name,
        call.started_at_us,
        lives_s,
        -(-call.prompt_bytes // BYTES_A_TOKEN),
        plan.max_tokens,
        need.probable,
        need.worst,
    )


def need_of(call: Call, plan: Plan, weighed: Weighed) -> Need:
    """What one attempt takes of quotas."""
    at_worst = Amounts(weighed.usage.input_tokens + weighed.usage.output_tokens, weighed.cost_nanos)
    return Need(at_worst, bounds.probable(call.prompt_bytes, plan.max_tokens, weighed.step.price))


def refusal(exceeded: Exceeded, currency: str, started_at_us: int) -> OverLimit:
    """What the client is told: which limit, whose it is, the figures, and when to come back."""
    bound, wait_s = exceeded.bound, exceeded.retry_after_s
    sentence, after_s = wording.says(exceeded, currency, started_at_us), None if wait_s == inf else wait_s
    if isinstance(bound, Quota):
        exhausted = QuotaExhausted(sentence, retry_after_s=after_s)
        exhausted.limits = (limits.seen_quota(bound, exceeded.asked, exceeded.used + exceeded.held),)
        return exhausted
    why = RateLimited(sentence, retry_after_s=after_s)
    why.limits = (limits.seen_rate(bound, exceeded.asked, exceeded.used),)
    why.standing = bound.kind, bound.amount, max(0, bound.amount - exceeded.used)
    return why


def refused_call(why: Refused, caller: Caller, call_id: str, route: str, priority: Priority) -> RefusedCall:
    """What is kept of a call that is not let in. `route` is the model name as it was asked for."""
    return RefusedCall(
        call_id,
        time.time_ns() // 1000,
        caller.team_id,
        caller.key_id,
        route[:LONGEST_NAME],
        why.status,
        why.code or "",
        priority,
        why.message,
        why.limits,
    )


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one.tokens + other.tokens, one.cost_nanos + other.cost_nanos)


def _beyond(one: Amounts, held: Amounts) -> Amounts:
    return Amounts(max(0, one.tokens - held.tokens), max(0, one.cost_nanos - held.cost_nanos))


def spent_by(call: Settled) -> Spent:
    """What a settled call used, as counters take it."""
    return Spent(call.usage.input_tokens + call.usage.output_tokens, call.cost_nanos)


def _us(seconds: float) -> int:
    return max(0, int(seconds * 1_000_000))


def _sum(attempts: list[AttemptEnded]) -> Usage:
    """Tokens over all attempts; as sure as the least sure of them."""
    known = [each.usage for each in attempts if each.usage.basis != "none"]
    basis: Basis = "reported" if known else "none"
    if any(each.basis == "estimated" for each in known):
        basis = "estimated"
    return total_of(known, basis)
