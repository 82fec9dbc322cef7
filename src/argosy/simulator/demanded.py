"""The fleet file's `demand` as a trace: what `argosy simulate` replays without `--trace`."""

from argosy.fleet.config import Fleet
from argosy.fleet.demand import Demand, Lengths
from argosy.simulator.traces.arrivals import Diurnal, Rate
from argosy.simulator.traces.demand import Chats, Stream, demand
from argosy.simulator.traces.lengths import Lognormal, Lognormals
from argosy.simulator.traces.window import Trace

BLOCK_TOKENS = 128  # of prompts that share beginnings: a system prompt is a few of them
_PAUSE_S = 60.0  # between two turns of a chat, on average


def trace_of_demand(fleet: Fleet, *, seed: int, until_s: float) -> Trace:
    """Second 0 is midnight UTC. Raises TraceError where the fleet has no demand."""
    streams = [_stream(fleet, one) for one in fleet.demand]
    shares = any(stream.chats is not None for stream in streams)
    return demand(
        streams, seed=seed, until_s=until_s, block_tokens=BLOCK_TOKENS if shares else None
    )


def _stream(fleet: Fleet, asked: Demand) -> Stream:
    mean = asked.requests_per_s
    rate: Rate = (
        Diurnal(requests_per_s=tuple(mean * factor for factor in asked.hourly))
        if asked.hourly
        else mean
    )
    chats = None
    if asked.shared_tokens or asked.turns > 1:
        chats = Chats(
            system_tokens=asked.shared_tokens, turns_mean=asked.turns, pause_s_mean=_PAUSE_S
        )
    return Stream(
        rate=rate,
        lengths=Lognormals(
            prompt=_lognormal(asked.prompt_tokens), output=_lognormal(asked.output_tokens)
        ),
        chats=chats,
        model=asked.model,
        tenant=asked.tenant or tenant_of_tier(fleet, asked.tier),
        tier=asked.tier,
        origin=asked.origin,
    )


def tenant_of_tier(fleet: Fleet, tier: str) -> str:
    """The first tenant of that tier; where there is none, one that is named like the tier."""
    return next((tenant.name for tenant in fleet.tenants if tenant.tier == tier), tier)


def _lognormal(lengths: Lengths) -> Lognormal:
    return Lognormal(tokens_mean=lengths.mean, tokens_p95=lengths.p95 or lengths.mean)
