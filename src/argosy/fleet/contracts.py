"""What may be bought and what a plan must keep: the tables `contracts` and `plan`, and promises.

Structs only; what relates them to pools, models and the catalogue is checked in
`rules_contracts.py`, what is made of them is the planner's.
"""

from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.fields import Config, Name, PositiveFloat, PositiveInt, RegionName, Share

SurviveKind = Literal["any_one_cloud", "any_one_maker", "any_one_region", "any_one_pool"]
ON_PREMISES = "on-premises"  # in `residency`: the cloud `own`
OWN = "own"  # the cloud whose machines are one's own
Place = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)?(?!\n)$",
        max_length=100,
        description="A region (cloud/region), a cloud, an area such as eu, us or uk, or "
        "on-premises.",
    ),
]


class Amount(Config, frozen=True, kw_only=True):
    """A whole number that the plan decides."""

    min: Annotated[int, Meta(ge=0, description="At least so many; signed: what is held.")] = 0
    max: Annotated[PositiveInt, Meta(description="At most so many; signed: what is held.")]


class Reserved(Config, frozen=True, kw_only=True, tag_field="kind", tag="reserved"):
    """Nodes that are paid for whether they are used or not, and are there."""

    name: Name
    pools: Annotated[
        tuple[Name, ...], Meta(min_length=1, description="Of which pools nodes may be reserved.")
    ]
    price_usd_per_chip_hour: Annotated[
        float, Meta(ge=0, description="What a chip of a reserved node costs.")
    ]
    nodes: Annotated[Amount, Meta(description="Nodes of each of its pools.")]
    begin: Annotated[date, Meta(description="The first day, YYYY-MM-DD.")] = msgspec.field(
        name="from"
    )
    until: Annotated[date, Meta(description="The day after its last, YYYY-MM-DD.")]
    is_signed: Annotated[
        bool, Meta(description="It is held already: nodes.min = nodes.max are paid in any case.")
    ] = False


class CommittedSpend(Config, frozen=True, kw_only=True, tag_field="kind", tag="committed_spend"):
    """Money that is paid to a cloud whatever is used, for lower prices up to that sum."""

    name: Name
    cloud: Annotated[Name, Meta(description="The cloud, as its regions begin: azure.")]
    usd_per_year: Annotated[PositiveFloat, Meta(description="What one unit costs in a year.")]
    units: Annotated[Amount, Meta(description="Units that are bought.")] = Amount(max=1)
    discount: Annotated[
        float, Meta(ge=0, lt=1, description="The share that list prices are lowered by: 0.2.")
    ] = 0.0
    begin: Annotated[date, Meta(description="The first day, YYYY-MM-DD.")] = msgspec.field(
        name="from"
    )
    until: Annotated[date, Meta(description="The day after its last, YYYY-MM-DD.")]
    is_signed: Annotated[
        bool, Meta(description="It is held already: units.min = units.max are paid in any case.")
    ] = False


class Spot(Config, frozen=True, kw_only=True, tag_field="kind", tag="spot"):
    """Nodes that are cheap and may be taken away."""

    name: Name
    pools: Annotated[
        tuple[Name, ...], Meta(min_length=1, description="Of which pools nodes may be had.")
    ]
    price_usd_per_chip_hour: Annotated[
        float, Meta(ge=0, description="What a chip costs while it is there.")
    ]
    availability: Annotated[
        Share, Meta(description="The share of time in which a node is there: 0.9.")
    ] = 0.9
    nodes_max: Annotated[PositiveInt, Meta(description="Nodes of each of its pools, at most.")]


Contract = Reserved | CommittedSpend | Spot


class Spread(Config, frozen=True, kw_only=True):
    """The largest share of a model's requests in any one domain; what is unset is not limited."""

    cloud: Annotated[Share | None, Meta(description="In any one cloud: 0.6.")] = None
    maker: Annotated[Share | None, Meta(description="On chips of any one maker.")] = None
    region: Annotated[Share | None, Meta(description="In any one region.")] = None
    pool: Annotated[Share | None, Meta(description="In any one pool.")] = None


class TrainingRun(Config, frozen=True, kw_only=True):
    """A training run that competes with the requests for chips."""

    name: Name
    architecture: Annotated[
        Name, Meta(description="What is trained, as argosy catalogue --models names it.")
    ]
    tokens: Annotated[PositiveFloat, Meta(description="Tokens that it is trained on: 1.0e+12.")]
    by: Annotated[date, Meta(description="The day before which it must be done, YYYY-MM-DD.")]
    pools: Annotated[
        tuple[Name, ...], Meta(min_length=1, description="Pools whose chips it may use.")
    ]
    mfu: Annotated[
        Share, Meta(description="The share of the chips' dense bf16 peak that it reaches.")
    ] = 0.35


class Planning(Config, frozen=True, kw_only=True):
    """What `argosy plan` plans for: from when, what growth, with what reserve, within what caps."""

    begin: Annotated[
        date | None, Meta(description="The first day, YYYY-MM-DD; unset: the first of next month.")
    ] = msgspec.field(default=None, name="from")
    years: Annotated[int, Meta(ge=1, le=10, description="For how many years.")] = 1
    growth_per_year: Annotated[
        PositiveFloat, Meta(description="The factor by which demand grows in a year: 1.5.")
    ] = 1.0
    headroom: Annotated[
        float,
        Meta(
            ge=0,
            description="Replicas have room for so much more than is expected: at 0.5 for all "
            "though they do a third less than believed.",
        ),
    ] = 0.5
    headroom_lost: Annotated[
        float, Meta(ge=0, description="The same while a domain of survive is lost.")
    ] = 0.0
    on_demand: Annotated[
        bool,
        Meta(description="Nodes up to nodes.max may be had by the hour, at the pool's price."),
    ] = True
    network_share_max: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="Of the TTFT that is promised, the share that the way to a region and "
            "back may take.",
        ),
    ] = 0.25
    power_kw_max: Annotated[
        dict[RegionName, PositiveFloat],
        Meta(description="kW of all chips of a region and their cooling, at most, by region."),
    ] = msgspec.field(default_factory=dict[str, float])
    energy_kwh_per_day_max: Annotated[
        PositiveFloat | None, Meta(description="kWh in a day on average; unset: no cap.")
    ] = None
    carbon_kg_per_day_max: Annotated[
        PositiveFloat | None, Meta(description="kg CO2 in a day on average; unset: no cap.")
    ] = None
    usd_per_hour_max: Annotated[
        PositiveFloat | None, Meta(description="USD in an hour on average; unset: no cap.")
    ] = None
    runs: Annotated[
        tuple[TrainingRun, ...], Meta(description="Training runs that must be done meanwhile.")
    ] = ()
