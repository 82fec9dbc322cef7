"""What is remembered of the latest requests, and the story of one of them.

Keeps each routing decision with its inputs as they were, and what else befell a request: a wait,
a failed attempt and what followed from it, a refusal. An ordinary request leaves its decision and
nothing more; words are made when somebody asks. It decides nothing.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.admission import Ticket
from argosy.gateway.http import Request
from argosy.policies.failover import Again, FailureKind, FallBack, GiveUp
from argosy.policies.routing import Decision, NoRoute, Note, Route, decision, replay

DECISIONS_KEPT = 4096  # of all models, the latest; about 3 MB with four replicas a model
EVENTS_KEPT = 4096  # likewise, of what is not ordinary

StepKind = Literal[
    "queued",  # no slot of its model was free for it
    "started",  # its turn came
    "routed",
    "no_replica",
    "failed",  # an attempt
    "hedged",  # a second replica was asked while the first was silent
    "moved",  # off a suspect replica, before its first byte
    "fell_back",  # to another model, where no replica of its own could be trusted
    "refused",  # the client was told an error
]
Kept: TypeAlias = tuple[str, float, Note, Route | NoRoute]  # request, received_s, inputs, answer


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something unusual, as it happened; times are the loop's."""

    request: str
    received_s: float
    at_s: float
    kind: StepKind
    text: str
    ticket: Ticket | None = None  # of one that is queued: tells later when and why it started


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a request."""

    after_s: float  # since its first byte came
    kind: StepKind
    text: str


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """One routing decision, as it was taken, in full."""

    after_s: float  # since the request's first byte came
    decision: Decision
    replays: bool  # the same policy on the same inputs gives the same answer now


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What `/argosy/explain/{request}` answers."""

    request: str
    received_s_ago: float
    is_running: bool
    steps: tuple[Step, ...]  # first to last, the routing decisions among them
    decisions: tuple[Routing, ...]


class Decisions:
    """The latest decisions of all models and the latest events; readable when somebody asks."""

    def __init__(self, kept: int = DECISIONS_KEPT, events_kept: int = EVENTS_KEPT) -> None:
        self._kept: deque[Kept] = deque(maxlen=kept)
        self.add = self._kept.append  # every request calls it: no Python between
        # Each beside the decision that was the latest then: the loop's clock ticks in whole
        # milliseconds, too coarse to put events and decisions in order.
        self._events: deque[tuple[Kept | None, Event]] = deque(maxlen=events_kept)

    def happened(
        self,
        request: Request,
        kind: StepKind,
        text: str,
        *,
        now_s: float,
        ticket: Ticket | None = None,
    ) -> None:
        """Something unusual; `ticket` is that of a request that is queued."""
        event = Event(
            request=request.id,
            received_s=request.received_s,
            at_s=now_s,
            kind=kind,
            text=text,
            ticket=ticket,
        )
        self._events.append((self._kept[-1] if self._kept else None, event))

    def explain(self, request: str, *, now_s: float, is_running: bool) -> Explanation | Refusal:
        """All that is kept of that request, or why nothing is. O(what is kept)."""
        found: list[tuple[int, float, Routing | Event]] = []  # place, received_s, what
        places: dict[int, int] = {}
        for place, kept in enumerate(self._kept):
            places[id(kept)] = place
            if kept[0] == request:
                found.append((place, kept[1], _routing(kept)))
        for latest, event in self._events:
            if event.request == request:
                found.append((places.get(id(latest), -1), event.received_s, event))
        if not found:
            return self._forgotten(request, now_s)
        found.sort(key=lambda entry: entry[0])  # stable: a decision stands before its events
        return Explanation(
            request=request,
            received_s_ago=now_s - found[0][1],
            is_running=is_running,
            steps=tuple(step for _, _, what in found for step in _steps(what)),
            decisions=tuple(what for _, _, what in found if isinstance(what, Routing)),
        )

    def _forgotten(self, request: str, now_s: float) -> Refusal:
        told = "no request has been routed since this gateway started"
        if self._kept:
            since_s = now_s - self._kept[0][2][1].now_s
            count, count_max = len(self._kept), self._kept.maxlen
            told = f"it has {count} (at most {count_max}), the oldest from {since_s:.0f} s ago"
        message = (
            f"The gateway keeps no decision for {request[:100]!r}: {told}. "
            "The usage record is kept for good: argosy usage --records 20"
        )
        return Refusal(kind="unknown_path", message=message)


def failure_words(
    attempt: int,
    replica: str,
    *,
    kind: FailureKind,
    message: str,
    then: Again | FallBack | GiveUp | None,
) -> str:
    """An attempt that failed, and what was decided; `then` None: its answer cannot go on."""
    match then:
        case Again(delay_s=delay_s, reason=reason):
            when = f"in {delay_s:g} s" if delay_s else "at once"
            told = f"Tried again {when}: {reason}."
        case FallBack(reason=reason):
            told = f"Falls back to the next model: {reason}."
        case GiveUp(reason=reason):
            told = f"Given up: {reason}."
        case None:
            told = "Given up: the client has a part of the answer, and no other can go on from it."
    return f"attempt {attempt} on {replica} ({kind}): {message} {told}"


def _routing(kept: Kept) -> Routing:
    """The decision as it was taken, held against the policy's answer to the same inputs."""
    _, received_s, noted, chosen = kept
    decided = decision(noted)
    asked = decided.request
    decided = msgspec.structs.replace(
        decided,
        # JSON knows dicts alone, and the gateway's are read-only views where they are empty.
        request=msgspec.structs.replace(asked, cached=dict(asked.cached)),
        chosen=chosen.replica if isinstance(chosen, Route) else None,
        reason=chosen.reason,
    )
    return Routing(
        after_s=noted[1].now_s - received_s,
        decision=decided,
        replays=replay(decided) == chosen,
    )


def _steps(what: Routing | Event) -> Iterator[Step]:
    if isinstance(what, Routing):
        chosen, reason = what.decision.chosen, what.decision.reason
        if chosen is None:
            yield Step(after_s=what.after_s, kind="no_replica", text=reason)
        else:
            yield Step(after_s=what.after_s, kind="routed", text=f"to {chosen}: {reason}")
        return
    yield Step(after_s=what.at_s - what.received_s, kind=what.kind, text=what.text)
    ticket = what.ticket
    # A ticket that waited for two models tells only of the second.
    if ticket is not None and ticket.reason.startswith(f"{what.text}; then: "):
        started_s = ticket.work.arrived_s + ticket.waited_s
        reason = ticket.reason.removeprefix(f"{what.text}; then: ")
        yield Step(
            after_s=started_s - what.received_s,
            kind="started",
            text=f"after {ticket.waited_s:.3f} s in the queue: {reason}",
        )
