"""What the elastic policies are told, their settings, and what they answer."""

import msgspec


class ElasticitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The first four are `outer` of the run's file; the others are docs/TRAINING_PARITY.md's."""

    inner_steps: int = 30  # of an island of mean speed between two deltas
    quorum: int = 1  # islands without whose delta no round closes
    grace_s_max: float = 30.0  # that a round with quorum waits for the others
    staleness_max: int = 3
    ration_over_median_max: float = 4.0  # no island drifts further than so from the others
    ration_change_min: float = 0.15  # relative; below it a ration stays as it was
    late_share: float = 0.25  # of the seconds expected: so much later an island may be
    staleness_discount: float = 0.8  # weight of a delta, for each round that its base is behind
    norm_ratio_max: float = 8.0  # a delta's norm over its own and others' recent ones
    cosine_noise: float = 0.06  # spread of honest deltas' cosines, at least
    cosine_spread_min: float = 1 / 3  # of the usual cosine; it may fall before its median does
    evidence_max: float = 14.0  # nats for turned signs: a million to one
    against_max: int = 4  # refused deltas of turned signs before their island is to begin anew
    seen_min: int = 4  # deltas of recent rounds before norms or cosines are judged
    seen_max: int = 64  # believed deltas that new ones are compared with
    rounds_doubted_max: int = 2  # in a row, of which nothing was believed


class IslandSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An island that lives, as of the round under way."""

    island: str
    steps_per_s: float | None  # measured; None: not yet
    has_contributed: bool = False  # a delta of it waits for this round
    steps_leased: int | None = None  # of its oldest lease without a delta; None: it has none
    leased_s: float | None = None  # when it began with that
    upload_s: float = 0.0  # that its deltas take to come once trained
    back_by_s: float | None = None  # the syncer was away: what it has for it comes until then


class RoundView(msgspec.Struct, frozen=True, kw_only=True):
    """A round that is open; times are of one clock."""

    islands: tuple[IslandSeen, ...]  # all that live
    contributed: int  # islands of which a delta waits, also such as live no more
    quorum_s: float | None  # when the last delta that the quorum needed came; None: not yet
    is_last: bool = False  # no block is left that anyone may still train on


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Close the round now with what is there."""

    reason: str


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Ask again with the next delta, join or leave, or at `until_s`. None: time alone is no use."""

    until_s: float | None
    reason: str


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that will be in the round."""

    tokens: int
    staleness: int  # rounds closed since its base, this one not counted; 0: none


class DeltaWeight(msgspec.Struct, frozen=True, kw_only=True):
    """Of all deltas of a round: what each is multiplied by, and what the round amounts to."""

    weights: tuple[float, ...]  # in the order given
    share: float  # tokens of the round over those of a full one, 1 at most


class DeltaSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A delta as numbers."""

    island: str
    norm: float  # Euclidean, of all of it; may be nan or infinite
    steps: int
    cosine: float | None = None  # with the round's other islands, one vote each; None: it is alone
