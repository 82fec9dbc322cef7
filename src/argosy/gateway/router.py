"""The replicas of one model as routing sees them: who is there, how busy, what they hold.

Keeps what the policy is told (`ReplicaView`s, changed in place), calls it, and keeps what became
of each request that it placed: in flight, prompt bytes not yet read, rates learned from the
answers. It decides nothing itself; `policies/routing` does.
"""

from collections.abc import Callable, Mapping

import msgspec

from argosy.fleet.messages import Usage
from argosy.fleet.share import slots_of
from argosy.gateway.explain import Decisions
from argosy.gateway.prefixes import BLOCK_BYTES, PrefixIndex, block_hashes
from argosy.gateway.quotas import Quotas
from argosy.gateway.rates import PoolRates
from argosy.gateway.replicas import LiveReplica
from argosy.policies.admission.bounds import BYTES_PER_TOKEN
from argosy.policies.failover import RetryBudget
from argosy.policies.routing import (
    POLICIES,
    NoRoute,
    PolicyName,
    ReplicaView,
    RequestShape,
    Tuning,
    home_of,
    note,
    turns_waited,
)

_HELD_WEIGHT = 0.1  # of one answer, in what is known of a replica's cache
_NOTHING: Mapping[str, int] = {}
_LEARN_EVERY_S = 0.02  # a replica teaches 50 times a second at most: more costs and adds nothing
_CACHE_BYTES = 16 * 2**20  # of a replica that does not say how much it holds


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What routing reads of a request, once."""

    length: int  # bytes
    blocks: list[int]  # hashes of its beginnings
    session: bytes | None = None  # requests with the same one like the same replica


def prompt_of(body: bytes, session: bytes | None) -> Prompt:
    """The body from its messages on: what comes before is not what a prefix cache sees."""
    begin = body.find(b'"messages"')
    if begin < 0:
        begin = max(0, body.find(b'"prompt"'), body.find(b'"input"'))
    length = len(body) - begin
    blocks = block_hashes(body, begin=begin) if length >= BLOCK_BYTES else []
    return Prompt(length=length, blocks=blocks, session=session)


class Placed(msgspec.Struct, kw_only=True):
    """A request on a replica, from its sending to its end."""

    live: LiveReplica
    at_s: float
    to_read_bytes: int  # of its own prompt, while its first token has not come
    ahead_bytes: int  # to be read before that token, its own included
    turns_waited: float
    blocks: list[int]  # of its prompt, until they are known to be in that replica's cache
    indexed_bytes: int = 0  # of its prompt, in that replica's cache by the prefix index
    believed_bytes: int = 0  # of these, those that are taken to be there
    ttft_s: float | None = None
    quota_tokens: int | None = None  # taken of its pool's quota; None: it has none
    used_tokens: int = 0  # so far as it is known when it ends


class Router:
    """One model."""

    def __init__(
        self,
        *,
        policy: PolicyName,
        tuning: Tuning,
        decisions: Decisions,
        chance: Callable[[], float],
        processes: int = 1,
        quotas: Quotas | None = None,
    ) -> None:
        self.lives: list[LiveReplica] = []
        self._policy: PolicyName = policy
        self._choose = POLICIES[policy]
        self._tuning = tuning
        self._remember = decisions.add
        self._chance = chance
        self._quotas = quotas
        self.lacks_quota = False  # why there was no route last
        self._processes = processes  # that send to the same replicas, each about its part
        self._by_name: dict[str, LiveReplica] = {}
        self._views: list[ReplicaView] = []
        self._prefixes = PrefixIndex()
        self._rates: dict[str, PoolRates] = {}  # by pool
        self._turn = 0
        self.retries = RetryBudget()
        self._learn_from_s: dict[str, float] = {}  # by replica: not before
        self._tells_cached: set[str] = set()  # replicas whose engines say what their caches spare
        self._held_share: dict[str, float] = {}  # of what a replica is taken to hold, what it does

    # Who is there.

    def join(self, live: LiveReplica, now_s: float) -> None:
        """A replica listens, for the first time or as a new process."""
        self.leave(live.name)
        abilities, view = live.abilities, live.view
        live.slots = slots_of(abilities.slots, process=0, processes=self._processes)
        view.slots = live.slots
        view.ready_since_s = now_s if self._turn else None  # a fleet's first replicas start cold
        tokens = (abilities.context_tokens or 0) * (abilities.slots or 0)
        capacity = tokens * BYTES_PER_TOKEN or _CACHE_BYTES
        self._prefixes.join(live.name, capacity_bytes=capacity)
        self._rates.setdefault(live.pool, PoolRates()).join(view)
        self._by_name[live.name] = live
        self._held_share[live.name] = 1.0
        self._relist()

    def leave(self, name: str) -> None:
        """It listens no more: its cache is gone."""
        if self._by_name.pop(name, None) is not None:
            self._prefixes.forget(name)
            self._relist()

    def _relist(self) -> None:
        self.lives = sorted(self._by_name.values(), key=lambda live: live.name)
        self._views = [live.view for live in self.lives]  # by name, which settles equals soonest

    def has_trusted(self, now_s: float, *, but: frozenset[str] = frozenset()) -> bool:
        """True when a replica may be relied on, beside those."""
        return any(live.is_trusted(now_s) and live.name not in but for live in self.lives)

    # One request.

    def choose(
        self,
        request: str,
        prompt: Prompt,
        *,
        tried: frozenset[str],
        received_s: float,
        now_s: float,
        tokens: int = 0,
    ) -> Placed | NoRoute:
        """The replica that it is to be sent to; it counts there from now on.

        `tokens`: about so many it may use, for pools that have a quota.
        """
        for live in self.lives:
            if live.is_unsure:
                live.look_again(now_s)
        views, self.lacks_quota = self._views, False
        if self._quotas is not None and not isinstance(views := self._within(tokens), list):
            return views
        session = prompt.session
        indexed = self._prefixes.longest(prompt.blocks) if prompt.blocks else _NOTHING
        shape = RequestShape(
            prompt_bytes=prompt.length,
            cached=self._believed(indexed),
            home=home_of(session, views) if session else None,
            turn=self._turn,
            chance=self._chance(),
            now_s=now_s,
        )
        chosen = self._choose(views, request=shape, tried=tried, tuning=self._tuning)
        self._turn += 1
        noted = note(self._policy, views, request=shape, tried=tried, tuning=self._tuning)
        self._remember((request, received_s, noted, chosen))
        if isinstance(chosen, NoRoute):
            return chosen
        live = self._by_name[chosen.replica]
        if self._quotas is None or not self._quotas.has(live.pool):
            return self._place(live, prompt, shape, indexed)
        if not self._quotas.take(live.pool, tokens):
            self.lacks_quota = True
            return NoRoute(
                reason=f"the quota of {live.pool} has just been taken", retry_after_s=1.0
            )
        placed = self._place(live, prompt, shape, indexed)
        placed.quota_tokens = tokens
        return placed

    def _within(self, tokens: int) -> list[ReplicaView] | NoRoute:
        """Those whose pools' quotas leave room."""
        assert self._quotas is not None
        waits = {live.pool: self._quotas.wait_s(live.pool, tokens) for live in self.lives}
        if not any(waits.values()):
            return self._views
        views = [live.view for live in self.lives if not waits[live.pool]]
        if views:
            return views
        self.lacks_quota = bool(waits)
        pool, wait_s = min(waits.items(), key=lambda one: (one[1], one[0]))
        reason = f"the quota of {pool} is used up for {wait_s:.1f} s"
        return NoRoute(reason=reason, retry_after_s=wait_s)

    def _believed(self, indexed: Mapping[str, int]) -> Mapping[str, int]:
        """Of what the index says a replica holds, what its engine has lately confirmed."""
        if not indexed or not self._tells_cached:
            return indexed
        shares = self._held_share
        return {name: int(held * shares[name]) for name, held in indexed.items()}

    def _place(
        self, live: LiveReplica, prompt: Prompt, shape: RequestShape, indexed: Mapping[str, int]
    ) -> Placed:
        view = live.view
        cached = shape.cached.get(live.name, 0)
        to_read = max(0, prompt.length - cached)
        placed = Placed(
            live=live,
            at_s=shape.now_s,
            to_read_bytes=to_read,
            ahead_bytes=view.prefill_bytes_queued + to_read,
            turns_waited=turns_waited(view.requests_in_flight, live.slots),
            blocks=prompt.blocks,
            indexed_bytes=indexed.get(live.name, 0),
            believed_bytes=cached,
        )
        view.requests_in_flight += 1
        view.prefill_bytes_queued += to_read
        live.tried(shape.now_s)
        return placed

    def first_token(self, placed: Placed, now_s: float) -> None:
        """Its prompt has been read."""
        placed.live.view.prefill_bytes_queued -= placed.to_read_bytes
        placed.to_read_bytes = 0
        placed.ttft_s = now_s - placed.at_s
        self._has_read(placed)

    def _has_read(self, placed: Placed) -> None:
        """Now, not when it was sent: what is still being read spares nobody anything.

        Else eight chats that begin together with one system prompt would all go where the first
        went, and each read all of it.
        """
        blocks, placed.blocks = placed.blocks, []
        if blocks:
            self._prefixes.insert(blocks, placed.live.name)

    def finished(self, placed: Placed, prompt: Prompt, usage: Usage, now_s: float) -> None:
        """It was answered: what that teaches of the replica's speed and of its cache."""
        name = placed.live.name
        self._has_read(placed)
        if now_s < self._learn_from_s.get(name, 0.0):
            return
        self._learn_from_s[name] = now_s + _LEARN_EVERY_S
        rates, read_bytes = self._rates[placed.live.pool], placed.ahead_bytes
        cached_bytes = self._confirmed(placed, prompt, usage)
        if cached_bytes is not None:  # the engine knows better than the prefix index
            read_bytes += placed.believed_bytes - cached_bytes
        if placed.ttft_s is not None:
            rates.first_token(
                name,
                ttft_s=placed.ttft_s,
                prompt_bytes=max(0, read_bytes),
                turns_waited=placed.turns_waited,
            )
        rates.finished(
            name,
            duration_s=now_s - placed.at_s,
            tokens_out=usage.tokens_out,
            ttft_s=placed.ttft_s,
            turns_waited=placed.turns_waited,
        )

    def _confirmed(self, placed: Placed, prompt: Prompt, usage: Usage) -> int | None:
        """Bytes that the engine says its cache spared; None of one that never said any."""
        name = placed.live.name
        if usage.tokens_cached:
            self._tells_cached.add(name)
        if not usage.tokens_in or name not in self._tells_cached:
            return None
        cached_bytes = int(prompt.length * usage.tokens_cached / usage.tokens_in)
        if placed.indexed_bytes:
            share = min(1.0, cached_bytes / placed.indexed_bytes)
            self._held_share[name] += (share - self._held_share[name]) * _HELD_WEIGHT
        return cached_bytes

    def release(self, placed: Placed) -> None:
        """It is there no more, however it ended."""
        if placed.quota_tokens is not None and self._quotas is not None:
            self._quotas.give_back(placed.live.pool, placed.quota_tokens - placed.used_tokens)
        view = placed.live.view
        view.requests_in_flight -= 1
        view.prefill_bytes_queued -= placed.to_read_bytes
