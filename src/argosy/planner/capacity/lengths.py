"""Length classes: which requests of a model are alike enough to share one measured rate.

Two demands are of one class when mean and 95th percentile of their prompts and answers, what their
prompts share, and the turns of their chats all lie within `LIKE` of each other. A class has the
lengths of its demand with the most requests, and the slots that the gateway lets its tenants have.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from argosy.fleet.config import Fleet
from argosy.fleet.demand import Demand
from argosy.policies.admission.work import AdmissionSettings, settings_of
from argosy.simulator.demanded import BLOCK_TOKENS, streams_of_demand
from argosy.simulator.traces.arrivals import Curve
from argosy.simulator.traces.demand import Chats, Stream, demand
from argosy.simulator.traces.lengths import Lognormals

LIKE = 1.15  # a class's figures differ by less than this factor
_ROWS = 16_384  # that are drawn to see how long a request is with all that its chat said before


class LengthClass(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one model that are alike."""

    model: str
    lengths: Lognormals
    chats: Chats | None
    tokens_in: float  # of a request, on average, with what its chat said before
    tokens_out: float
    members: tuple[int, ...]  # places in the demand
    slots_share: float = 1.0  # of a replica's, that they hold at most: gateway.tenant_share_max, …

    def stream(self, requests_per_s: float) -> Stream:
        """Their arrivals at that rate, as chance has them."""
        return Stream(rate=requests_per_s, lengths=self.lengths, chats=self.chats, model=self.model)

    @property
    def block_tokens(self) -> int | None:
        """Of the blocks that prompts share; None where they share none."""
        return None if self.chats is None else BLOCK_TOKENS


def classes_of(fleet: Fleet, asked: Sequence[Demand]) -> dict[str, tuple[LengthClass, ...]]:
    """By model; raises TraceError where a demand asks for more than its model's context holds."""
    fleet = replace(fleet, demand=tuple(asked))
    streams = streams_of_demand(fleet, from_hour=0, scale=1.0)
    busiest = sorted(range(len(asked)), key=lambda place: (-asked[place].requests_per_s, place))
    groups: dict[str, list[list[int]]] = {model.name: [] for model in fleet.models}
    for place in busiest:
        found = groups[asked[place].model]
        like = (group for group in found if _are_alike(streams[group[0]], streams[place]))
        group = next(like, None)
        if group is None:
            found.append([place])
        else:
            group.append(place)
    queue = settings_of(fleet)
    return {
        model: tuple(
            _class_of(model, streams, group, _slots_share(queue, [streams[at] for at in group]))
            for group in found
        )
        for model, found in groups.items()
    }


def _are_alike(one: Stream, other: Stream) -> bool:
    pairs = zip(_figures(one), _figures(other), strict=True)
    return all(max(pair) <= LIKE * min(pair) for pair in pairs)


def _figures(stream: Stream) -> tuple[float, ...]:
    lengths, chats = stream.lengths, stream.chats or Chats()
    assert isinstance(lengths, Lognormals), "the fleet file's demand is lognormal"
    laws = (lengths.prompt, lengths.output)
    tokens = [value for law in laws for value in (law.tokens_mean, law.tokens_p95)]
    return (*tokens, 64.0 + chats.system_tokens, chats.turns_mean)


def _slots_share(queue: AdmissionSettings, streams: Sequence[Stream]) -> float:
    """Of all slots, what these fill when the largest share of any tenant or tier is full."""
    total = sum(Curve(one.rate).requests_per_s_mean for one in streams)
    held: defaultdict[str, float] = defaultdict(float)
    for one in streams:
        each = Curve(one.rate).requests_per_s_mean / total
        held[f"tenant {one.tenant}"] += each
        held["lower"] += 0.0 if one.tier == "enterprise" else each
        held["batch"] += each if one.tier == "batch" else 0.0
    most = {"lower": queue.lower_share_max, "batch": queue.batch_share_max}
    return min(
        1.0,
        *(most.get(name, queue.tenant_share_max) / each for name, each in held.items() if each),
    )


def _class_of(
    model: str, streams: Sequence[Stream], members: Sequence[int], slots_share: float
) -> LengthClass:
    stream = streams[members[0]]
    assert isinstance(stream.lengths, Lognormals)
    drawn = next(demand([replace(stream, rate=1.0)], seed=0).windows(_ROWS))
    return LengthClass(
        model=model,
        lengths=stream.lengths,
        chats=stream.chats,
        tokens_in=float(np.mean(drawn.prompt_tokens)),
        tokens_out=float(np.mean(drawn.output_tokens)),
        members=tuple(sorted(members)),
        slots_share=slots_share,
    )
