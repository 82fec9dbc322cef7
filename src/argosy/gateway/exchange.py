"""The life of one request: asked, routed, sent, answered, metered; or refused, with the reason.

    begin -> route -> attempt -> (first token) -> stream or whole -> settle
               ^          |                          |
               +- retry --+                          |   the client has seen no byte: anything goes
               +- continuation ----------------------+   it has: another replica of the same model
                                                         goes on from the text so far

All of it runs in callbacks of the loop, without a task per request. `settle` runs exactly once
and leaves exactly one usage record. A stream is begun (head sent) with its first token, not
before: until then another replica can take over unseen. After it one can still go on where the
other ended, unless the answer is half a tool call, has a form to keep, or no engine can.
"""

import msgspec

from argosy.fleet.messages import Outcome, Refusal, Usage
from argosy.gateway.admission import Ticket
from argosy.gateway.attempt import Attempt
from argosy.gateway.exchange_port import Client, Floor
from argosy.gateway.explain import failure_words
from argosy.gateway.hedge import Contender, Race
from argosy.gateway.http import (
    Request,
    answer_response,
    retry_after,
    stream_beginning,
    stream_end,
    stream_part,
    whole_response,
)
from argosy.gateway.replicas import LiveReplica
from argosy.gateway.router import Placed, Prompt
from argosy.gateway.surfaces.port import (
    Answer,
    Ask,
    Dialect,
    Meter,
    Prepared,
    RefusedError,
    Surface,
)
from argosy.gateway.surfaces.prepare import rest_of
from argosy.gateway.tries import Tries
from argosy.gateway.upstream_body import body_for
from argosy.observability.metrics import Series
from argosy.policies.failover import (
    FAULTS,
    Again,
    FailoverView,
    Failure,
    FailureKind,
    FallBack,
    GiveUp,
    after_failure,
    failure_of,
)

_NO_METER = Meter()  # of a request that no replica was asked


class Exchange:
    """One request of one client, and its attempts."""

    # What an exchange is before anything has happened; most requests change few of these.
    replica: LiveReplica | None = None
    series: Series  # of its latest attempt; set by the gateway when it routes
    model: str | None = None  # that answers: the one that was asked for, or a fallback
    deadline_s = float("inf")  # of waiting, or of the attempt's first byte
    has_begun = False  # the client has seen a byte
    is_over = False
    gives_up_s: float | None = None  # waiting for the room of a quota; kept by the gateway
    placed: Placed | None = None  # where a replica counts it; kept by the gateway
    prompt: Prompt  # what routing reads of it; set by the gateway when it admits
    tokens_predicted = 0  # for pools with a quota; set by the gateway when it admits
    body_bytes = 0  # as it came; set by the gateway when it admits
    ticket: Ticket | None = None  # what it holds of budgets and slots; kept by the admission
    ttft_s: float | None = None
    _ask: Ask | None = None
    _attempt: Attempt | None = None
    _answer: Answer | None = None  # of the latest attempt; a continuation keeps it
    _fallback: tuple[str, ...] = ()
    _is_paused = False  # the client reads slowly: its replica cannot be blamed for silence
    _rival: Contender | None = None  # the second attempt of a race that is not decided

    def __init__(
        self,
        floor: Floor,
        client: Client,
        request: Request,
        *,
        spoken: tuple[Surface, Dialect],
        at_s: float,
    ) -> None:
        self.request = request
        self.key = request.key
        self.tries = Tries()
        self._floor = floor
        self._client = client
        self._surface, self._dialect = spoken
        self._at_s = at_s

    # From the connection.

    def begin(self) -> None:
        """Read the request; route it."""
        try:
            ask = self._ask = self._surface.ask(self.request.body, self._floor.catalog)
        except RefusedError as error:
            self.refuse(error.refusal)
            return
        body, self.request.body = self.request.body, b""
        self.model = ask.model
        self._fallback = self._floor.catalog[ask.model].fallback
        if self._floor.admit(self, ask, body):
            self.route()

    def cancel(self, reason: str) -> None:
        """The client has left: the replica is told to stop."""
        if not self.is_over:
            self._settle("cancelled", status=200 if self.has_begun else 0, reason=reason)

    def pause(self) -> None:
        """The client reads slowly."""
        self._is_paused = True
        if self._attempt is not None:
            self._attempt.call.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._is_paused = False
        if self.has_begun:
            self.deadline_s = self._floor.now_s() + self._floor.settings.stall_timeout_s
        if self._attempt is not None:
            self._attempt.call.resume()

    # From the gateway.

    def route(self) -> None:
        """Choose a replica and send; wait where there is none."""
        if self.is_over or self._ask is None:
            return
        self._attempt = None
        placed = self._floor.route(self, stream=self._ask.stream)
        if placed is not None:
            self._send(placed.live, self._ask)

    def move(self) -> None:
        """Take an attempt without a first byte to another replica.

        A move is no failure: a replica that is merely slow may miss a probe. But it gives up its
        place, so it is moved a few times at most.
        """
        if self._attempt is None or self.has_begun or self.is_over or not self.tries.may_move():
            return
        self._end_race()
        self._attempt.close(is_whole=False)
        if self.replica is not None:
            self._floor.attempt_failed(self.replica, "suspect", is_its_fault=False)
        name = self.replica.name if self.replica else "its replica"
        text = f"attempt {self.tries.attempts} had no byte yet from {name}, which is in doubt"
        self._floor.happened(self, "moved", text)
        self._again(0.0)

    def expire(self, now_s: float) -> None:
        """The deadline may have passed, or a doubtful replica have been silent for long enough."""
        if self.is_over or now_s < self.deadline_s:
            if not self.is_over and self.replica is not None and self.replica.patience_s:
                self._leave_silent(self.replica, self.replica.patience_s, now_s)
            return
        if self._attempt is None:
            message = f"No replica of {self.model} became ready in time; try again."
            self.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        else:
            self._end_race()
            self._attempt.close(is_whole=False)
            name = self.replica.name if self.replica else "the replica"
            what = "went silent" if self.has_begun else "gave no answer within its time"
            self.attempt_failed(Refusal(kind="upstream_timeout", message=f"{name} {what}."))

    def _leave_silent(self, replica: LiveReplica, patience_s: float, now_s: float) -> None:
        """Go on elsewhere, where that is possible; else wait for what may still come."""
        if self._attempt is None or not self.has_begun or self._is_paused:
            return
        silent_s = now_s - (self.deadline_s - self._floor.settings.stall_timeout_s)
        if silent_s < patience_s or not (self._may_go_on() and self._floor.has_untried(self)):
            return
        self._attempt.close(is_whole=False)
        message = f"{replica.name} has said nothing for {silent_s:.1f} s and is {replica.state}."
        self.attempt_failed(Refusal(kind="upstream_timeout", message=message))

    def refuse(self, refusal: Refusal) -> None:
        """Answer with the API's own error; the request has ended."""
        if self.is_over:
            return
        self._floor.happened(self, "refused", refusal.message)
        if self.has_begun:
            self._break(refusal)
            return
        status, body = self._dialect.refusal(refusal, request=self.request.id)
        extra = retry_after(refusal)
        self.has_begun = True
        self._client.write(whole_response(status, body, request=self.request, extra=extra))
        failed = refusal.kind in ("internal", "upstream_failed", "upstream_timeout")
        self._settle("failed" if failed else "refused", status=status, reason=refusal.message)

    # From its attempt.

    def stream(self, data: bytes, now_s: float) -> None:
        """Bytes of a stream, the head before the first."""
        self.deadline_s = now_s + self._floor.settings.stall_timeout_s
        framed = stream_part(data, self.request) if self.has_begun else self._begun(data)
        self._client.write(framed)

    def _begun(self, data: bytes) -> bytes:
        self.has_begun = True
        name = self.replica.name if self.replica else ""
        return stream_beginning(data, self.request, replica=name)

    def replica_lost(self) -> None:
        """Its connection failed: others should try elsewhere first, until it is probed."""
        if self.replica is not None:
            self.replica.doubt(self._floor.now_s())

    def tokens_came(self, count: int, gap_s: float | None, now_s: float) -> None:
        """For TTFT and ITL."""
        series = self.series
        if gap_s is not None:
            series.itl.observe(gap_s)
        else:
            self._answered()
            self._floor.first_token(self, now_s)
            if self.ttft_s is None:  # else it is a continuation's: neither a TTFT nor a gap
                self.ttft_s = now_s - self.request.received_s
                series.ttft.observe(self.ttft_s)
        if count > 1:  # tokens that arrived together
            series.itl.observe(0.0, count - 1)

    def end_stream(self, data: bytes) -> None:
        """The stream has ended as it should, with these bytes."""
        framed = stream_part(data, self.request) if self.has_begun else self._begun(data)
        self._client.write(framed + stream_end(self.request))
        self._settle("finished", status=200, reason="")

    def finish_whole(self, body: bytes) -> None:
        """The answer is whole."""
        self.has_begun = True
        name = self.replica.name if self.replica else ""
        self._answered()
        self._client.write(answer_response(body, request=self.request, replica=name))
        self._settle("finished", status=200, reason="")

    def attempt_failed(self, refusal: Refusal) -> None:
        """The replica failed this request: another one, an error event, or an error."""
        if self.is_over:
            return
        kind = failure_of(refusal.kind, refusal.code)
        self.tries.read(refusal)
        if self.replica is not None:
            at_fault = kind in FAULTS
            if refusal.kind == "rate_limited" and refusal.retry_after_s is not None:
                self._floor.asked_to_wait(self.replica, refusal.retry_after_s)
            self._floor.attempt_failed(self.replica, refusal.kind, is_its_fault=at_fault)
        if self.has_begun and (kind == "refused" or not self._may_go_on()):
            self._note_failure(kind, refusal, None)
            self._break(refusal)
            return
        self.tries.failed(self.replica.name if self.replica else None, self._floor.now_s())
        self._go_elsewhere(kind, refusal)

    def _go_elsewhere(self, kind: FailureKind, refusal: Refusal) -> None:
        """Or give up, as the failover policy says."""
        failure = Failure(kind=kind, retry_after_s=refusal.retry_after_s)
        then = after_failure(failure, self._failover_view())
        self._note_failure(kind, refusal, then)
        match then:
            case Again(delay_s=delay_s):
                if kind != "unreached":
                    self._floor.retries(self).take()
                self._again(delay_s)
            case FallBack():
                self._attempt = None
                self.fall_back()
            case GiveUp():
                self._attempt = None
                name = self.replica.name if self.replica else "none"
                self.refuse(self.tries.in_the_end(refusal, name))

    def _note_failure(
        self, kind: FailureKind, refusal: Refusal, then: Again | FallBack | GiveUp | None
    ) -> None:
        name, said = self.replica.name if self.replica else "none", refusal.message
        text = failure_words(self.tries.attempts, name, kind=kind, message=said, then=then)
        self._floor.happened(self, "failed", text)

    def fall_back(self) -> None:
        """Let the next model answer."""
        self.model, *rest = self._fallback
        self._fallback = tuple(rest)
        self.tries.begin_anew()
        self.deadline_s = float("inf")
        self._floor.released(self)
        if self._ask is not None and self._floor.move(self, self._ask, self.model):
            self._floor.route_later(self, 0.0)

    @property
    def is_waiting(self) -> bool:
        """True while no replica works on it and the client has seen nothing."""
        return self._attempt is None and not self.has_begun and not self.is_over

    @property
    def next_model(self) -> str | None:
        """The model that it falls back to; None when there is none, or another has begun."""
        return self._fallback[0] if self._fallback and not self.has_begun else None

    # Its own steps.

    def _answered(self) -> None:
        if self.replica is not None:
            self.replica.answered()

    def _send(self, replica: LiveReplica, ask: Ask) -> None:
        self.replica = replica
        try:
            attempt = self._attempt_on(replica, ask)
        except RefusedError as error:
            self.refuse(error.refusal)
            return
        if attempt is None:
            return
        self._attempt, self._answer = attempt, attempt.answer
        attempt.call.begin()
        if self._floor.settings.hedge_after_s is not None and not self.has_begun:
            self._floor.hedge_later(self, self.tries.attempts)

    def _attempt_on(self, replica: LiveReplica, ask: Ask) -> Attempt | None:
        """Made, not begun; None where nothing is left to ask for. Raises `RefusedError`."""
        self.tries.attempts += 1
        asked = ask.model
        if ask.model != replica.model:
            ask = msgspec.structs.replace(ask, model=replica.model)
        prepared = self._surface.prepare(ask, replica.abilities)
        if self.has_begun and self._answer is not None:
            rest = self._rest(prepared, self._answer, replica)
            if rest is None:
                return None
            prepared = rest
        served = self._floor.catalog[replica.model]
        prepared.answer.forgives = self.tries.forgives or not served.continues
        attempt = Attempt(self, replica.engine, prepared.answer, is_stream=prepared.stream,
                           to_stream=ask.stream, now_s=self._floor.now_s)  # fmt: skip
        limit_tokens = self.ticket.limit_tokens if self.ticket is not None else None
        body = body_for(prepared, replica, asked=asked, sampling=served.sampling,
                        limit_tokens=limit_tokens)  # fmt: skip
        attempt.call = replica.link.call(prepared.path, body, attempt, request=self.request.id)
        return attempt

    # Its race, where it is hedged.

    def hedge(self, attempts: int) -> None:
        """Still no token: ask a second replica as well; who speaks first answers."""
        is_silent = self._attempt is not None and not self.has_begun and not self.is_over
        if not is_silent or attempts != self.tries.attempts or self._ask is None:
            return
        first, second = self.placed, self._floor.hedge(self)
        if first is None or second is None or self._attempt is None:
            return
        try:
            attempt = self._attempt_on(second.live, self._ask)
        except RefusedError:
            attempt = None
        if attempt is None:
            self._floor.release(second)
            return
        self._rival = Contender(attempt, second, request=self.request)
        own = Contender(self._attempt, first, request=self.request)
        Race(self, own, self._rival, now_s=self._floor.now_s)
        self._floor.happened(self, "hedged", f"no token yet; {second.live.name} is asked as well")
        attempt.call.begin()

    def adopt(self, winner: Contender) -> None:
        """The race is decided."""
        self._rival = None
        self._attempt, self._answer = winner.attempt, winner.attempt.answer
        self.placed, self.replica = winner.placed, winner.placed.live
        self.series = self._floor.series(self, winner.placed.live)

    def drop(self, loser: Contender, refusal: Refusal | None) -> None:
        """It was slower, or failed."""
        loser.attempt.close(is_whole=False)
        self._floor.release(loser.placed)
        if refusal is not None:
            self.tries.leave(loser.placed.live.name)
            is_its_fault = failure_of(refusal.kind, refusal.code) in FAULTS
            self._floor.attempt_failed(loser.placed.live, refusal.kind, is_its_fault=is_its_fault)

    def _end_race(self) -> None:
        """Undecided, and nobody waits for its end any more."""
        rival, self._rival = self._rival, None
        if rival is not None:
            self.drop(rival, None)

    def _rest(self, prepared: Prepared, answer: Answer, replica: LiveReplica) -> Prepared | None:
        """The attempt that goes on from what was said; None when it ends here, well or not."""
        match rest_of(prepared, replica.abilities, answer=answer):
            case Prepared() as rest:
                return rest
            case bytes() as end:
                self.end_stream(end)
            case None:
                message = f"{replica.name} cannot go on from where the answer was cut."
                self.refuse(Refusal(kind="upstream_failed", message=message))
        return None

    def _may_go_on(self) -> bool:
        """True when another replica could go on from what the client has."""
        if self._answer is None or not self._answer.said or self.model is None:
            return False
        is_raw = self._surface.path == "/v1/completions"  # a prompt can always be made longer
        return is_raw or self._floor.catalog[self.model].continues

    def _failover_view(self) -> FailoverView:
        return FailoverView(
            attempts=self.tries.failures,
            attempts_max=self._floor.settings.attempts_max,
            has_untried=self._floor.has_untried(self),
            has_fallback=self.next_model is not None,
            has_begun=self.has_begun,
            may_retry=self._floor.retries(self).has_some,
            waited_s=self._floor.now_s() - self.tries.failed_s,
            wait_s_max=self._floor.settings.replica_wait_s,
        )

    def _again(self, delay_s: float) -> None:
        self._attempt = None
        self.tries.leave(self.replica.name if self.replica else None)
        self._floor.route_later(self, delay_s)

    def _break(self, refusal: Refusal) -> None:
        """End a stream that has begun with the API's error event, never as a success.

        Its body is whole, so the connection stays.
        """
        if self._answer is None:
            self.request.keep_alive = False  # its body cannot be ended
        else:
            event = stream_part(self._answer.error(refusal), self.request)
            self._client.write(event + stream_end(self.request))
        self._settle("failed", status=200, reason=refusal.message)

    def _settle(self, outcome: Outcome, *, status: int, reason: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._end_race()
        if self._attempt is not None:
            self._attempt.close(is_whole=outcome == "finished")
            self._attempt = None  # it knows us: a cycle that only the collector would free
        self._floor.settled(self, self._usage(outcome, status, reason))
        keep_alive = self.request.keep_alive and not self._floor.is_draining
        self._client.finish(keep_alive=keep_alive)

    def _usage(self, outcome: Outcome, status: int, reason: str) -> Usage:
        key, replica = self.key, self.replica
        meter = _NO_METER if self._answer is None else self._answer.meter
        return Usage(
            request=self.request.id,
            at_s=self._at_s,
            tenant=key.tenant if key else None,
            key=key.id if key else None,
            tier=key.tier if key else None,
            surface=self._surface.name,
            model=self.model,
            replica=replica.name if replica else None,
            outcome=outcome,
            status=status,
            reason=reason[:500],
            attempts=self.tries.attempts,
            tokens_in=meter.tokens_in,
            tokens_cached=meter.tokens_cached,
            tokens_out=meter.tokens_out,
            ttft_s=self.ttft_s,
            duration_s=self._floor.now_s() - self.request.received_s,
        )
