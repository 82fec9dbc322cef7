"""The gate before routing: a tenant's budget, then a slot of the model, by `policies/admission`.

    reserve (budget) -> offer (slot) -> start, now or when its turn comes -> end (settle both)
                  |            |
                  +- 429       +- 503 or 429: the queue is full, or its time to wait is over

Keeps which exchange each waiting work belongs to, and sums up the slots of each model from the
replica table. Decides nothing: who goes next and who is refused is the policy's, what a budget
has left the ledger's.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from argosy.engines.registry import adapter
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key, Refusal, ReplicaTable, Usage
from argosy.fleet.share import slots_of
from argosy.gateway.arrivals import Arrivals
from argosy.gateway.ledger import Exceeded, Ledger, Reservation
from argosy.gateway.surfaces.port import Ask, Served
from argosy.policies.admission.bounds import (
    ANSWER_TOKENS_ASSUMED,
    ANSWER_TOKENS_PREDICTED,
    cost_predicted_tokens,
    reservation_tokens,
)
from argosy.policies.admission.fair_queue import FairQueue
from argosy.policies.admission.work import RANKS, Admit, Shed, Work, settings_of

ANYBODY = "anybody"  # whose requests come without a key


class Applicant(Protocol):
    """A request that wants to start: an exchange."""

    key: Key | None
    ticket: "Ticket | None"

    def route(self) -> None:
        """It may start."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """It may not."""
        ...


class Ticket(msgspec.Struct, kw_only=True):
    """What a request holds of its tenant's budget and of its model's slots."""

    work: Work
    queue: FairQueue
    model: str
    reservation: Reservation | None = None  # None: its tenant has no budget
    limit_tokens: int | None = None  # the answer must be told this limit: the bound rests on it
    reason: str = ""  # why it waited, in words; "" when it started at once
    waited_s: float = 0.0


class Admission:
    """All queues and budgets of one gateway process."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        ledger: Ledger | None,
        unix_time_s: Callable[[], float],
        now_s: Callable[[], float],
        process: int = 0,
    ) -> None:
        self._ledger = ledger
        self._unix_time_s = unix_time_s
        self._now_s = now_s
        self._timeouts: dict[str, float] = msgspec.structs.asdict(fleet.gateway.queue_timeout_s)
        self._budgeted = frozenset(tenant.name for tenant in fleet.tenants if tenant.budgets)
        settings = settings_of(fleet)
        self._queues = {
            model.name: FairQueue(settings, now_s=now_s()) for model in fleet.models
        }  # one queue a model
        self._process, self._processes = process, fleet.gateway.processes
        self._wanted = {
            model.name: self._own(_slots_wanted(fleet, model.name)) for model in fleet.models
        }
        self._slots: dict[str, int | None] = dict(self._wanted)
        self._waiting: dict[str, Applicant] = {}  # by request
        self.arrivals = {model.name: Arrivals() for model in fleet.models}

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    def queued(self) -> dict[str, int]:
        """Those of the enterprise and consumer tiers, by model."""
        return {
            model: sum(queue.tier_waiting()[: RANKS["batch"]])
            for model, queue in self._queues.items()
        }

    def replace_table(self, table: ReplicaTable) -> None:
        """Slots come and go with their replicas."""
        listening: dict[str, list[int | None]] = {}
        for replica in table.replicas:
            if replica.url and replica.state in ("ready", "suspect"):
                slots = adapter(replica.engine).abilities(replica.engine).slots
                listening.setdefault(replica.model, []).append(slots)
        for model, wanted in self._wanted.items():
            # While none listens those that may start wait for a replica, as many as there will be
            # slots; the others go on waiting here, in their order.
            self._slots[model] = self._own(_sum(listening[model])) if model in listening else wanted
            self._start_next(model)

    def _own(self, slots: int | None) -> int | None:
        return slots_of(slots, process=self._process, processes=self._processes)

    def admit(self, applicant: Applicant, ask: Ask, served: Served, *, id_: str, size: int) -> bool:
        """True: it starts now. False: it waits and is routed later, or has been refused."""
        key, now_s = applicant.key, self._now_s()
        tenant, tier = (key.tenant, key.tier) if key is not None else (ANYBODY, "consumer")
        reservation, limit = None, None
        if tenant in self._budgeted and self._ledger is not None:
            tokens, limit = _bound(ask, served, size)
            reserved = self._ledger.reserve(tenant, tokens, self._unix_time_s())
            if isinstance(reserved, Exceeded):
                applicant.refuse(_out_of_budget(reserved))
                return False
            reservation = reserved
        self.arrivals[served.name].came(tier, size)
        queue = self._queues[served.name]
        if reservation is None and self._slots[served.name] is None and not queue.waiting:
            return True  # its replicas queue by themselves: there is nothing to hold
        work = Work(
            request=id_,
            tenant=tenant,
            tier=tier,
            cost_tokens=cost_predicted_tokens(
                size,
                ANSWER_TOKENS_PREDICTED if ask.answer_tokens_max is None else ask.answer_tokens_max,
            ),
            arrived_s=now_s,
            deadline_s=now_s + self._timeouts[tier],
        )
        applicant.ticket = Ticket(
            work=work,
            queue=queue,
            model=served.name,
            reservation=reservation,
            limit_tokens=limit,
        )
        return self._offer(applicant, applicant.ticket, now_s)

    def move(self, applicant: Applicant, ticket: Ticket, model: str, *, size: int) -> bool:
        """The same request, now for another model; as `admit`."""
        now_s, before = self._now_s(), ticket.model
        self.arrivals[model].came(ticket.work.tier, size)
        self._give_up(ticket, 0, now_s)
        ticket.queue, ticket.model = self._queues[model], model
        may_start = self._offer(applicant, ticket, now_s)
        self._start_next(before)
        return may_start

    def _offer(self, applicant: Applicant, ticket: Ticket, now_s: float) -> bool:
        work = ticket.work
        decision = ticket.queue.offer(work, self._slots[ticket.model], now_s)
        if isinstance(decision, Admit):
            return True
        self._waiting[work.request] = applicant
        ticket.reason = decision.reason
        if isinstance(decision, Shed):
            self._refuse(decision)
        return False

    def end(self, ticket: Ticket, usage: Usage) -> None:
        """It has ended: its slot is free, and what it used is settled."""
        now_s, tokens = self._now_s(), usage.tokens_in + usage.tokens_out
        self._give_up(ticket, tokens, now_s)
        if ticket.reservation is not None and self._ledger is not None:
            # The same rule as the store's when it sums up what counts against a budget.
            if usage.outcome == "finished" or (usage.outcome != "refused" and usage.attempts):
                self._ledger.settle(ticket.reservation, tokens)
            else:
                self._ledger.refund(ticket.reservation)
            ticket.reservation = None
        self._start_next(ticket.model)

    def _give_up(self, ticket: Ticket, tokens: int, now_s: float) -> None:
        """Its slot or its place in the queue; a refused one has neither."""
        work = ticket.work
        if self._waiting.pop(work.request, None) is not None:
            ticket.queue.cancel(work)
        elif ticket.queue.holds(work):
            ticket.queue.settle(work, tokens, now_s)

    def sweep(self, now_s: float) -> None:
        """Refuse those whose time to wait is over."""
        for model, queue in self._queues.items():
            for shed in queue.expire(now_s):
                self._refuse(shed)
            self._start_next(model)

    def _start_next(self, model: str) -> None:
        queue = self._queues[model]
        while queue.waiting:
            started = queue.next(self._slots[model], self._now_s())
            if started is None:
                return
            applicant = self._waiting.pop(started.work.request)
            if applicant.ticket is not None:
                applicant.ticket.waited_s = self._now_s() - started.work.arrived_s
                applicant.ticket.reason += f"; then: {started.reason}"
            applicant.route()

    def _refuse(self, shed: Shed) -> None:
        applicant = self._waiting.pop(shed.victim.request)
        message = f"{shed.reason[:1].upper()}{shed.reason[1:]}."
        applicant.refuse(
            Refusal(kind=shed.kind, message=message, retry_after_s=shed.retry_after_s or 1.0)
        )


def _sum(slots: list[int | None]) -> int | None:
    known = [count for count in slots if count is not None]
    return sum(known) if len(known) == len(slots) else None


def _slots_wanted(fleet: Fleet, model: str) -> int | None:
    """Of all the replicas that the fleet file wants."""
    slots: list[int | None] = []
    for deployment in fleet.deployments:
        if deployment.model == model:
            each = adapter(deployment.engine).abilities(deployment.engine).slots
            slots += [each] * deployment.replicas
    return _sum(slots)


def _bound(ask: Ask, served: Served, size: int) -> tuple[int, int | None]:
    """The most tokens that it can use; and the limit that its answer must be told for that."""
    asked, sampling = ask.answer_tokens_max, served.sampling.get("max_tokens")
    tokens = reservation_tokens(
        size + len((served.system_prompt or "").encode()),
        max_tokens=asked,
        context_tokens=served.context_tokens,
        sampling_max_tokens=msgspec.json.decode(sampling, type=int) if sampling else None,
        answers=ask.answers,
    )
    is_unlimited = asked is None and sampling is None and served.context_tokens is None
    return tokens, ANSWER_TOKENS_ASSUMED if is_unlimited else None


def _out_of_budget(exceeded: Exceeded) -> Refusal:
    message = f"{exceeded.reason[:1].upper()}{exceeded.reason[1:]}."
    return Refusal(
        kind="rate_limited",
        message=message,
        code="budget_exceeded",
        retry_after_s=exceeded.retry_after_s,
    )
