"""The fleet file's `demand` as a trace: what `argosy simulate` replays without `--trace`."""

from argosy.fleet.config import Fleet
from argosy.fleet.demand import HOURS, Demand, Lengths
from argosy.simulator.traces.arrivals import Diurnal, Rate
from argosy.simulator.traces.demand import Chats, Stream, demand
from argosy.simulator.traces.lengths import Lognormal, Lognormals
from argosy.simulator.traces.window import Trace, TraceError

BLOCK_TOKENS = 128  # of prompts that share beginnings: a system prompt is a few of them
_PAUSE_S = 60.0  # between two turns of a chat, on average


def trace_of_demand(
    fleet: Fleet, *, seed: int, until_s: float, from_hour: int = 0, scale: float = 1.0
) -> Trace:
    """`scale` times the demand; second 0 is `from_hour` in UTC.

    More users of one application share its system prompt, so the rates grow, not the number of
    applications. Raises TraceError where the fleet has no demand, or asks for more tokens than its
    models' context holds.
    """
    streams = streams_of_demand(fleet, from_hour=from_hour, scale=scale)
    shares = any(stream.chats is not None for stream in streams)
    return demand(
        streams, seed=seed, until_s=until_s, block_tokens=BLOCK_TOKENS if shares else None
    )


def streams_of_demand(fleet: Fleet, *, from_hour: int, scale: float) -> list[Stream]:
    """One for each entry of `demand`; raises as `trace_of_demand` does."""
    for place, one in enumerate(fleet.demand):
        _check_lengths(fleet, one, f"demand[{place}]")
    return [_stream(fleet, one, from_hour, scale) for one in fleet.demand]


def busiest_hour(fleet: Fleet) -> int:
    """The hour in UTC in which most tokens are asked for; 0 where all are alike."""

    def tokens(hour: int) -> float:
        return sum(
            asked.requests_per_s
            * (asked.hourly[hour] if asked.hourly else 1.0)
            * (asked.prompt_tokens.mean + asked.output_tokens.mean)
            for asked in fleet.demand
        )

    return max(range(HOURS), key=lambda hour: (tokens(hour), -hour))


def _stream(fleet: Fleet, asked: Demand, from_hour: int, scale: float) -> Stream:
    mean = asked.requests_per_s * scale
    context_tokens = _context_tokens(fleet, asked.model)
    rate: Rate = mean
    if asked.hourly:
        hourly = asked.hourly[from_hour:] + asked.hourly[:from_hour]
        rate = Diurnal(requests_per_s=tuple(mean * factor for factor in hourly))
    chats = None
    if asked.shared_tokens or asked.turns > 1:
        chats = Chats(
            system_tokens=asked.shared_tokens,
            turns_mean=asked.turns,
            pause_s_mean=_PAUSE_S,
            prompt_tokens_max=context_tokens * 3 // 4,
        )
    return Stream(
        rate=rate,
        lengths=Lognormals(
            prompt=_lognormal(asked.prompt_tokens, context_tokens * 3 // 4),
            output=_lognormal(asked.output_tokens, context_tokens // 4),
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


def _check_lengths(fleet: Fleet, asked: Demand, path: str) -> None:
    """Tails are cut; what would cut one request of 20 is a mistake, not a tail."""
    context_tokens = _context_tokens(fleet, asked.model)
    for name, lengths, most in (
        ("prompt_tokens", asked.prompt_tokens, context_tokens * 3 // 4),
        ("output_tokens", asked.output_tokens, context_tokens // 4),
    ):
        longest = max(lengths.mean, lengths.p95 or 0.0)
        if longest > most:
            raise TraceError(
                f"{path}.{name} of {longest:g} tokens do not fit model {asked.model}: of its "
                f"{context_tokens:,} tokens of context a prompt has three quarters, an answer one, "
                f"{most:,} tokens here. Ask for fewer, or write engine.context_tokens of more."
            )


def _context_tokens(fleet: Fleet, model: str) -> int:
    """The longest that one of its deployments takes; the tails of demand are cut to fit it."""
    longest = [one.engine.context_tokens or 0 for one in fleet.deployments if one.model == model]
    return max(longest, default=0) or 131_072


def _lognormal(lengths: Lengths, tokens_max: int) -> Lognormal:
    return Lognormal(
        tokens_mean=lengths.mean, tokens_p95=lengths.p95 or lengths.mean, tokens_max=tokens_max
    )
