"""What a routing policy is told and what it answers. Pure data, and the order in which views count.

Everything about a prompt is in bytes: the gateway has no tokenizer. The views are the gateway's
own, one for each replica, changed in place as requests come and go; a policy only reads them, so
that a decision builds nothing but its `Route`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class ReplicaView(msgspec.Struct, kw_only=True, gc=False):
    """One replica as the gateway sees it. Not frozen: the gateway updates it in place.

    The rates are learned (`policies/rates.py`); their defaults are a usual replica's. All are
    finite and not negative, `slots` is at least 1.
    """

    replica: str
    is_ready: bool  # False: suspect, used only when nothing better is left
    requests_in_flight: int
    slots: int | None  # requests it decodes together; None: unknown
    ready_since_s: float | None = None  # on the clock of `RequestShape.now_s`; None: long ago
    prefill_bytes_queued: int = 0  # uncached prompt bytes in flight there without a first token
    prefill_s_per_byte: float = 5e-5  # of uncached prompt
    base_s: float = 0.05  # TTFT of an empty prompt on an idle replica
    service_s: float = 2.0  # mean time that a request holds a slot
    price_usd_per_hour: float = 0.0  # what the replica costs whether or not it works
    price_usd_per_mtok: float = 0.0  # what an API asks for a million tokens, in and out alike


class RequestShape(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a request when it is routed."""

    prompt_bytes: int = 0
    cached: Mapping[str, int] = {}  # replica to prompt bytes that its prefix cache holds
    home: str | None = None  # where its session lives, as `home_of` says
    turn: int = 0  # how many requests this model had before: takes turns among equals
    chance: float = 0.0  # uniform in [0, 1): the draw of `power_of_two`
    now_s: float = 0.0


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set of `predicted`."""

    affinity_load_max: float = 0.5  # requests per slot above the least loaded replica
    slow_start_s: float = 10.0  # a replica's slots grow from 1 to all of them meanwhile
    price_weight_s_per_usd: float = 0.0  # seconds of waiting that a dollar is worth


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Send the request there."""

    replica: str
    policy: str
    candidates: int  # replicas that were as ready, and as untried, as this one
    requests_in_flight: int  # there, without this request
    score_s: float | None = None  # predicted seconds to the first token, and the price's
    spared_bytes: int = 0  # prompt bytes that the prediction counts as cached

    @property
    def reason(self) -> str:
        """Why there, in words; made when asked for, for few read it."""
        busy, among = f"{self.requests_in_flight} in flight", f"of {self.candidates}"
        match self.policy:
            case "round_robin":
                return f"its turn, one {among}"
            case "power_of_two":
                return f"{busy}, the less loaded of two drawn {among}"
            case "predicted":
                spared = f", {self.spared_bytes} prompt bytes cached" if self.spared_bytes else ""
                return f"predicted {self.score_s or 0.0:.3f} s, least {among}: {busy}{spared}"
            case _:
                return f"{busy}, least loaded {among}"


class NoRoute(msgspec.Struct, frozen=True, kw_only=True):
    """No replica may take it now."""

    reason: str
    retry_after_s: float


class Policy(Protocol):
    """What every routing policy looks like."""

    def __call__(
        self,
        replicas: Sequence[ReplicaView],
        *,
        request: RequestShape = ...,
        tried: frozenset[str] = ...,
        tuning: Tuning = ...,
    ) -> Route | NoRoute:
        """Choose among `replicas`; `tried` ones already failed this request."""
        ...


ANY_REQUEST = RequestShape()
DEFAULT_TUNING = Tuning()
NONE_TRIED: frozenset[str] = frozenset()
NO_REPLICA = NoRoute(reason="0 replicas are ready", retry_after_s=1.0)


def best_kind(replicas: Sequence[ReplicaView], tried: frozenset[str]) -> list[ReplicaView]:
    """The ready ones that were not tried; where there are none, the next best kind.

    Tried replicas come last, not never: one that was restarted keeps its name. Suspect ones come
    after even those.
    """
    ready = [view for view in replicas if view.is_ready]
    if not tried:
        return ready or list(replicas)
    if best := [view for view in ready if view.replica not in tried]:
        return best
    return ready or [view for view in replicas if view.replica not in tried] or list(replicas)


def load_of(view: ReplicaView) -> float:
    """Requests in flight for each slot; an unknown number of slots counts as one."""
    return view.requests_in_flight / (view.slots or 1)
