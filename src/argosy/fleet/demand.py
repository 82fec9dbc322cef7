"""What clients ask for and are promised: the tables `demand`, `slo`, `links` and `autoscale`."""

from typing import Annotated

from msgspec import Meta

from argosy.fleet.fields import Config, Name, PositiveFloat, PositiveInt, RegionName, Tier

HOURS = 24


class Slo(Config, frozen=True, kw_only=True):
    """What is promised of a model's answers; what is unset is not promised.

    A request meets it when its TTFT is at most `ttft_s_p95` and its TPOT at most `itl_s_p99`;
    the model meets it when 95 % of TTFTs and 99 % of the gaps between tokens do.
    """

    ttft_s_p95: Annotated[
        PositiveFloat | None,
        Meta(description="Seconds to the first token, of 95 of 100 requests."),
    ] = None
    itl_s_p99: Annotated[
        PositiveFloat | None,
        Meta(description="Seconds between two tokens, of 99 of 100 gaps."),
    ] = None


class Lengths(Config, frozen=True, kw_only=True):
    """Tokens of prompts or answers: log-normal by its mean and 95th percentile."""

    mean: Annotated[PositiveFloat, Meta(description="Tokens on average.")]
    p95: Annotated[
        PositiveFloat | None,
        Meta(description="Tokens that 95 of 100 stay below; unset: all are of the mean length."),
    ] = None


class Demand(Config, frozen=True, kw_only=True):
    """Requests of one kind: a model, from one region, in one tier."""

    model: Annotated[Name, Meta(description="The name of a model of this fleet.")]
    origin: Annotated[RegionName, Meta(description="The region nearest to these clients.")]
    tier: Annotated[Tier, Meta(description="Their priority class.")] = "consumer"
    tenant: Annotated[
        Name | None, Meta(description="Whose requests; unset: the first tenant of the tier.")
    ] = None
    requests_per_s: Annotated[PositiveFloat, Meta(description="Requests per second, on average.")]
    hourly: Annotated[
        tuple[Annotated[float, Meta(ge=0)], ...],
        Meta(description="24 factors, by hour of the UTC day; unset: even over the day."),
    ] = ()
    prompt_tokens: Annotated[
        Lengths,
        Meta(description="New text of a prompt, without what its chat said before or all share."),
    ]
    output_tokens: Annotated[Lengths, Meta(description="Answers.")]
    shared_tokens: Annotated[
        int, Meta(ge=0, description="Tokens at the beginning that all these prompts share.")
    ] = 0
    turns: Annotated[
        float,
        Meta(ge=1, description="Requests of one chat on average; each repeats what went before."),
    ] = 1.0


class Link(Config, frozen=True, kw_only=True):
    """How far two regions are apart."""

    between: Annotated[tuple[RegionName, ...], Meta(description="Two regions, in either order.")]
    round_trip_s: Annotated[float, Meta(ge=0, description="Seconds to the other region and back.")]


class Nodes(Config, frozen=True, kw_only=True):
    """The machines of a pool."""

    max: Annotated[PositiveInt, Meta(description="Nodes that the pool may have.")]
    min: Annotated[int, Meta(ge=0, description="Nodes that are kept and paid for at least.")] = 0
    chips_per_node: Annotated[PositiveInt, Meta(description="Chips of a node.")] = 8


class Autoscale(Config, frozen=True, kw_only=True):
    """Between which bounds the replicas of a deployment follow its demand."""

    min: Annotated[
        int, Meta(ge=0, description="Replicas that are kept at least; 0: none where nobody asks.")
    ] = 1
    max: Annotated[
        PositiveInt | None,
        Meta(description="Replicas at most; unset: they do not follow demand."),
    ] = None
