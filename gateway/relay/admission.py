"""A call is let in, and closed on the books however it is left."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from msgspec import Struct

from accounts.caller import Caller
from gateway.relay.call import Call
from gateway.relay.ports import Journal, Listener, Ticket
from gateway.relay.pricing import cost_nanos
from gateway.relay.records import (
    AttemptEnded,
    AttemptOutcome,
    Basis,
    CallOutcome,
    Dispatched,
    Opened,
    Released,
    Settled,
    Skipped,
    Usage,
)
from gateway.relay.routing import Plan, Step
from gateway.relay.tokenizer import tokens_of_prompt
from gateway.relay.usage import estimated

NOTHING = Usage()
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
    spoke: Callable[[], None] | None = None
    """To be called at the first token, where somebody waits for it."""


class Reservation(Struct):
    """One admitted call. Settles exactly once: when told to, or as failed when left without."""

    call: Call
    caller: Caller
    plan: Plan
    journal: Journal
    listener: Listener
    clock: Callable[[], float]
    ticket: Ticket
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

    def dispatch(self, step: Step, queued_us: int = 0, backoff_us: int = 0, *, probe: bool = False) -> Trying:
        """Write down that an attempt is about to be sent. Raises JournalFull."""
        attempt_no = len(self.ended) + 1
        # No token is shorter than a byte, and a message's own JSON is longer than what it adds.
        prompt_bytes = sum(len(memoryview(each)) for each in step.fields.values())
        worst = Usage(prompt_bytes, self.call.max_tokens, 0, "estimated")
        target, price = step.target, step.price
        trying = Trying(step, attempt_no, time.time_ns() // 1000, self.clock(), queued_us, backoff_us, probe)
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
                worst,
                cost_nanos(worst, price),
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
                cost_nanos(usage, price),
                code,
                trying.queued_us,
                trying.backoff_us,
                trying.probe,
                trying.step.trimmed,
            )
        )

    def prompt_usage(self, output_tokens: int = 0) -> Usage:
        """The prompt as it was sent with the attempt under way, counted here, and so many output tokens."""
        assert self.trying is not None
        step = self.trying.step
        prompt = tokens_of_prompt(step.fields, step.target.upstream_model)
        return estimated(prompt, output_tokens)

    def release(self, code: str) -> None:
        """The call is refused after all, before anything was sent: no entry, and it is counted as refused."""
        call, caller = self.call, self.caller
        self.journal.release(self.ticket, Released(call.call_id, time.time_ns() // 1000))
        self.settled = True
        self.listener.refused(caller.team_id, caller.key_id, self.plan.model_name, code)

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
        )
        self.journal.settle(self.ticket, record)
        self.settled = True
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

    def __init__(self, journal: Journal, listener: Listener, clock: Callable[[], float]) -> None:
        self._journal, self._listener, self._clock = journal, listener, clock

    def admit(self, call: Call, caller: Caller, plan: Plan) -> Reservation:
        """Open the call on the books. Raises JournalFull."""
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
            )
        )
        return Reservation(
            call, caller, plan, self._journal, self._listener, self._clock, ticket, simulated=plan.simulated
        )


def _us(seconds: float) -> int:
    return max(0, int(seconds * 1_000_000))


def _sum(attempts: list[AttemptEnded]) -> Usage:
    """Tokens over all attempts; as sure as the least sure of them."""
    known = [each.usage for each in attempts if each.usage.basis != "none"]
    basis: Basis = "reported" if known else "none"
    if any(each.basis == "estimated" for each in known):
        basis = "estimated"
    return Usage(
        sum(each.input_tokens for each in known),
        sum(each.output_tokens for each in known),
        sum(each.cached_tokens for each in known),
        basis,
    )
