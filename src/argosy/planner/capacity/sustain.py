"""The largest rate of requests at which one replica keeps its model's SLO, found by trying rates.

Each try is an exact simulation of one replica: Poisson arrivals, the class's own lengths and
chats, the engine's own batching. The same requests come at every rate, only closer together, so the
answer is the same each time and hardly jumps; chats are drawn anew from one band of rates to the
next, for their pauses do not shrink, and a few of their turns come from elsewhere. A rate is kept
where 95 % of first tokens are in time, and 99 % of the gaps between tokens, as the simulator's
report says it; what comes while the replica fills up is not counted.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel
from argosy.perf.step_time import StepTime
from argosy.planner.capacity.lengths import LengthClass
from argosy.policies.admission.shares import part_of
from argosy.simulator.demanded import BLOCK_TOKENS
from argosy.simulator.engine import ReplicaGroup, State, account, build, itl_counts, use_hashes
from argosy.simulator.engine.histogram import quantile_s
from argosy.simulator.engine.replay import Arrivals, Replay
from argosy.simulator.engine.state import reset_replica
from argosy.simulator.tally import share_within
from argosy.simulator.traces.chance import hashes, key, mixed, uniforms
from argosy.simulator.traces.demand import demand
from argosy.simulator.traces.window import Window

REQUESTS = 10_000  # of a try
REQUESTS_ROUGHLY = 2_000  # of one that only says about where the rate is
# Of the last tries: a queue takes minutes to grow. At 360 requests/s the rate of 10,000 was
# 4 % higher than that of 80,000; at 6, within 2 % either way (2026-11).
LASTS_S = 200.0
_TIMES_MAX = 8  # as many requests to last so long
FILLING_SHARE = 0.2  # of them come first and are not counted
SEED = 20
EXACT_TO = 0.01  # how near the rate is found
ROUGHLY = 0.05  # the same, where it is compared with others and not planned with
_GROWTH, _DEVIATIONS = 0.02, 3.0  # of those that came, who may be left; more is a queue that grows
# Of requests, those that a gateway sends elsewhere than the rest of their chat. Caches spared 0.67
# of the prompt tokens where none strayed, 0.57 to 0.60 at a share of 0.1; in simulated fleets of 3
# and 12 replicas 0.60 to 0.64, of 40 0.51 to 0.55 (2026-11).
STRAY_SHARE = 0.1
_BAND = 1.5  # chats are drawn anew when the rate is so many times another; pauses err by its root
_WIDEN = 1.4  # between two tries while no bound is known
_FIRST = 0.35  # of what a replica does at its best: where the first try is
_LEAST = 1e-3  # of the same: who fails there fails at any rate

Slo = Literal["ttft_s_p95", "itl_s_p99"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica must keep; None: nothing is promised."""

    ttft_s_p95: float | None  # from when a request reaches it
    itl_s_p99: float | None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One rate, simulated."""

    requests_per_s: float
    broken: tuple[Slo, ...]  # () where all is kept
    ttft_s_p95: float
    itl_s_p99: float | None
    busy_share: float
    batch_mean: float  # requests together while it was busy
    spared_share: float  # of prompt tokens, by the prefix cache


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The largest rate that is kept: 0 where none is."""

    requests_per_s: float
    binds: tuple[Slo, ...]  # what breaks a little beyond it, or at any rate; (): nothing is asked
    at: Tried  # that rate, or the smallest that was tried


class Drawn:
    """The requests of one class, at any rate; drawn once for all replicas that are asked."""

    def __init__(self, asked: LengthClass, *, requests: int = REQUESTS, seed: int = SEED) -> None:
        self.asked, self.requests, self._seed = asked, requests, seed
        self._bands: dict[int, Window] = {}
        self._longer: dict[int, Drawn] = {}

    @cached_property
    def roughly(self) -> "Drawn":
        """The first of them, for tries that need no more; itself where it has no more."""
        if self.requests <= REQUESTS_ROUGHLY:
            return self
        return Drawn(self.asked, requests=REQUESTS_ROUGHLY, seed=self._seed)

    def lasting(self, requests_per_s: float) -> "Drawn":
        """As many more as it takes to last at that rate; itself where they do."""
        times = 1
        while times < _TIMES_MAX and times * self.requests < LASTS_S * requests_per_s:
            times *= 2
        if times not in self._longer:
            self._longer[times] = Drawn(self.asked, requests=times * self.requests, seed=self._seed)
        return self if times == 1 else self._longer[times]

    def window(self, requests_per_s: float) -> Window:
        """They come at this rate."""
        has_pauses = self.asked.chats is not None and self.asked.chats.turns_mean > 1
        band = round(math.log(requests_per_s, _BAND)) if has_pauses else 0
        if band not in self._bands:
            stream = self.asked.stream(_BAND**band)
            trace = demand([stream], seed=self._seed, block_tokens=self.asked.block_tokens)
            window = next(trace.windows(self.requests))
            self._bands[band] = _strayed(window, self.asked, key(self._seed, "stray"))
        drawn = self._bands[band]
        return drawn._replace(arrival_s=drawn.arrival_s * (_BAND**band / requests_per_s))


def _strayed(window: Window, asked: LengthClass, of_key: int) -> Window:
    """Some requests find nothing of their chat here: what went before was said elsewhere."""
    offsets, names, block_tokens = window.block_offsets, window.block_hashes, asked.block_tokens
    if offsets is None or names is None or asked.chats is None or block_tokens is None:
        return window
    rows, counts = np.arange(window.rows), np.diff(offsets)
    place = np.arange(names.size) - np.repeat(offsets[:-1], counts)
    strays = uniforms(hashes(of_key, rows)) < STRAY_SHARE
    lost = np.repeat(strays, counts) & (place >= asked.chats.system_tokens // block_tokens)
    foreign = hashes(of_key, np.repeat(rows, counts)[lost]) ^ names[lost]
    named = names.copy()
    named[lost] = mixed(foreign)
    return window._replace(block_hashes=named)


class Start(NamedTuple):
    """Where a rate is looked for first, and how exactly it is wanted."""

    requests_per_s: float | None = None  # None: nothing is known, so a share of its best
    widen: float = _WIDEN  # between two tries while no bound is known
    exact_to: float = EXACT_TO


_ANYWHERE = Start()


class OneReplica:
    """A replica that can be tried: with any class, at any rate and any speed. Built once."""

    def __init__(self, perf: ReplicaModel, settings: EngineSettings) -> None:
        self._step, self._settings = perf.step_time, settings
        group = ReplicaGroup(
            count=1, step_time=perf.step_time, kv_tokens=perf.kv_tokens, settings=settings
        )
        self._state = build([group], hash_tokens=BLOCK_TOKENS)
        self._fresh = self._state.replicas.copy()

    def rate(
        self,
        drawn: Drawn,
        limits: Limits,
        *,
        slowness: float = 1.0,
        start: Start = _ANYWHERE,
    ) -> Rate:
        """With every step `slowness` times as long."""

        def tried(requests_per_s: float) -> Tried:
            return self.tried(drawn, limits, requests_per_s, slowness=slowness)

        best = best_per_s(self._step, self._settings, drawn.asked) / slowness
        within = Within(
            least=_LEAST * best,
            most=1.1 * best,
            widen=start.widen,
            exact_to=start.exact_to,
        )
        first = _FIRST * best if start.requests_per_s is None else start.requests_per_s
        return largest(tried, guess=min(max(first, within.least), within.most), within=within)

    def tried(
        self, drawn: Drawn, limits: Limits, requests_per_s: float, *, slowness: float = 1.0
    ) -> Tried:
        """One rate."""
        slots = part_of(self._settings.requests_max, drawn.asked.slots_share)
        self._fresh["slowness"], self._fresh["requests_max"] = slowness, slots
        return self._try(drawn.window(requests_per_s), requests_per_s, limits)

    def _try(self, window: Window, requests_per_s: float, limits: Limits) -> Tried:
        state = self._state
        state.replicas[:] = self._fresh
        state.requests.view(np.uint8)[:] = 0  # bytes: 0.01 ms, field by field 0.2 ms
        state.itl_counts[:] = 0
        reset_replica(state, 0)
        ttft_s, itl, left = _served(state, window, int(FILLING_SHARE * window.rows))
        did = account(state)
        read = did.tokens_prefilled + did.tokens_spared
        in_time_s = np.nan_to_num(ttft_s, nan=np.inf)  # refused: never
        return Tried(
            requests_per_s=requests_per_s,
            broken=tuple(_broken(in_time_s, itl, limits, left)),
            ttft_s_p95=float(np.quantile(in_time_s, 0.95, method="higher")),
            itl_s_p99=quantile_s(itl, 0.99),
            busy_share=min(1.0, float(did.busy_s) / float(window.arrival_s[-1])),
            batch_mean=float(did.batch_s) / max(float(did.busy_s), 1e-9),
            spared_share=did.tokens_spared / max(1, read),
        )


def _broken(
    ttft_s: NDArray[np.float64], itl: NDArray[np.int64], limits: Limits, left: int
) -> Iterator[Slo]:
    """`left` more were under way at the end than at first: in time none of them would be."""
    grows = left > _GROWTH * ttft_s.size + _DEVIATIONS * math.sqrt(ttft_s.size)
    most = limits.ttft_s_p95
    if grows or (most is not None and float(np.mean(ttft_s <= most)) < 0.95):
        yield "ttft_s_p95"
    within = None if limits.itl_s_p99 is None else share_within(itl, limits.itl_s_p99)
    if within is not None and within < 0.99:
        yield "itl_s_p99"


def _served(
    state: State, window: Window, filling: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """TTFT of those who came after the first `filling`, the gaps, and how many more were left.

    Both of the latter until the last arrived.
    """
    ranges = np.zeros((0, 2), np.int64)
    if window.block_offsets is not None and window.block_hashes is not None:
        use_hashes(state, window.block_hashes)
        ranges = np.stack([window.block_offsets[:-1], window.block_offsets[1:]], axis=1)
    columns = (window.arrival_s, window.prompt_tokens, window.output_tokens, ranges)
    run = Replay(state)
    first = run.feed(Arrivals(*(column[:filling] for column in columns)))
    before = itl_counts(state, 0).copy()
    second = run.feed(Arrivals(*(column[filling:] for column in columns)))
    itl = itl_counts(state, 0) - before
    ttft_s = np.full(window.rows, np.nan)
    for answers in (first, second, run.drain()):
        ttft_s[answers.request] = answers.ttft_s
    return ttft_s[filling:], itl, window.rows - filling - second.request.size


class Within(NamedTuple):
    """Where a rate is looked for."""

    least: float  # who breaks there has a rate of 0
    most: float  # who keeps all there is tried no further
    widen: float  # between two tries while no bound is known
    exact_to: float


def largest(tried: Callable[[float], Tried], *, guess: float, within: Within) -> Rate:
    """The largest rate that keeps all."""
    least, most = within.least, within.most
    kept: Tried | None = None
    broken: Tried | None = None
    rate, step = guess, within.widen
    while kept is None or broken is None:
        now = tried(rate)
        if now.broken:
            broken = now
            if rate <= least:
                return Rate(requests_per_s=0.0, binds=now.broken, at=now)
            rate = max(least, rate / step)
        else:
            kept = now
            if rate >= most:
                return Rate(requests_per_s=most, binds=(), at=now)
            rate = min(most, rate * step)
        # The way down to a rate that is kept may be long, and so may the way up from a near guess.
        step *= step if kept is None or step < _WIDEN else 1.0
    while broken.requests_per_s > (1.0 + within.exact_to) * kept.requests_per_s:
        middle = math.sqrt(kept.requests_per_s * broken.requests_per_s)
        now = tried(middle)
        kept, broken = (kept, now) if now.broken else (now, broken)
    return Rate(requests_per_s=kept.requests_per_s, binds=broken.broken, at=kept)


def best_per_s(step: StepTime, settings: EngineSettings, asked: LengthClass) -> float:
    """A rate that no such replica exceeds: each token at the cheapest step there is.

    A request computes its new text and its answer, whatever is cached of the rest; its answer's
    tokens attend to all that went before.
    """
    knots = [tokens for tokens in step.knots_tokens if tokens <= settings.prefill_tokens_max]
    sizes = [*knots, float(settings.prefill_tokens_max)]
    token_s = min(step.linear_s(tokens) / tokens for tokens in sizes)
    new = asked.lengths.prompt.tokens_mean if asked.chats is not None else asked.tokens_in
    computed = min(new, asked.tokens_in) + asked.tokens_out
    attended = asked.tokens_out * (asked.tokens_in + asked.tokens_out / 2)
    return 1.0 / (computed * token_s + attended * step.context_s_per_token)
