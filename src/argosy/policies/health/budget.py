"""How much may be out of use at once, by our own hand: of a model and of the fleet. Pure.

Whatever takes replicas out asks here first: killing what does not answer, quarantine, draining, and
cordoning nodes. What crashed of itself is no part of the budget, but of what is left to serve.

When no replica has answered a probe since one began to fail, it is rather the prober's own network
than all of them: nothing is killed for `blind_s`. When others answer but none of its pool does, it
is rather the way there: nothing is killed for `blind_pool_s`. Then one at a time is tried, for they
may all hang indeed; whoever serves is spared by the gateway's witness.
"""

import math
from collections import Counter
from typing import Literal

import msgspec

Taken = Literal["killed", "quarantined", "draining"]


class BudgetReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is wanted, in whatever state.

    `out` is by our own hand: killed until it is ready again, or found to be in a crash loop, which
    is its own doing and must not keep others from being helped.
    """

    name: str
    deployment: str
    model: str
    pool: str
    node: str | None = None
    is_serving: bool  # it takes requests now: ready or suspect
    out: Taken | None = None
    failing_since_s: float | None = None  # its probes, all since then; None: they do not
    probe_good_s: float | None = None  # when it answered one last; None: never
    served_s: float | None = None  # when the gateway had bytes of an answer last; None: never
    is_local: bool = False  # on the prober's own machine: no network lies between


class BudgetNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node of a pool."""

    name: str
    pool: str
    is_cordoned: bool = False


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet as far as the budget must know it."""

    now_s: float
    replicas: tuple[BudgetReplica, ...]
    nodes: tuple[BudgetNode, ...] = ()
    needed: dict[str, int] = {}  # serving replicas by deployment; not named: 0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Take these out, all or none. `cordon` is of a node and takes out no replica."""

    kind: Literal["kill", "quarantine", "drain", "cordon"]
    replicas: tuple[str, ...] = ()
    node: str | None = None  # of `cordon`
    pool: str | None = None  # of that node
    since_s: float  # of two of a kind the older one goes first
    reason: str


class PutOff(msgspec.Struct, frozen=True, kw_only=True):
    """Not now; wish again."""

    wish: Wish
    reason: str


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done now, and what not and why; together all the wishes, once each."""

    granted: tuple[Wish, ...]
    put_off: tuple[PutOff, ...]


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of all wanted replicas, or of a pool's nodes; one is always allowed."""

    out_share_model: float = 0.25
    out_share_fleet: float = 0.1
    out_fleet_min: int = 2  # may be out of any fleet: small ones must heal too
    cordoned_share: float = 0.25  # of a pool's nodes
    blind_replicas: int = 2  # so many, none of which answers: the prober may be cut off
    blind_s: float = 300.0  # then one at a time is tried: they may all hang indeed
    blind_pool_replicas: int = 3  # of a pool, while others answer: the way there may be
    blind_pool_s: float = 60.0  # then one at a time is tried
    witness_s: float = 5.0  # an answer's bytes so lately: it lives, whatever its probes say


class _Left(msgspec.Struct, kw_only=True):
    """What is left of the budget while wishes are granted."""

    models: Counter[str]
    fleet: int
    nodes: Counter[str]
    spare: Counter[str]  # serving replicas beyond what is needed, by deployment
    killed: Counter[str]  # by pool
    out: set[str]
    cordoned: set[tuple[str, str]]


def allowed(view: BudgetView, wishes: tuple[Wish, ...], settings: BudgetSettings) -> Allowance:
    """Grant in order: kills (they serve nobody), quarantines, drains, cordons; older ones first.

    The same wishes in another order are granted alike.
    """
    known = {one.name: one for one in view.replicas}
    left = _left(view, settings)
    granted: list[Wish] = []
    put_off: list[PutOff] = []
    for wish in sorted(wishes, key=_order):
        reason = _cordon(wish, left) if wish.kind == "cordon" else None
        if wish.kind == "kill":
            reason = _kill(wish, known, left, view, settings)
        if wish.kind != "cordon":
            reason = reason or _take(wish, known, left)
        if reason is None:
            granted.append(wish)
        else:
            put_off.append(PutOff(wish=wish, reason=reason))
    return Allowance(granted=tuple(granted), put_off=tuple(put_off))


def most_out(replicas: int, share: float, least: int = 1) -> int:
    """Of so many: rounded down, `least` anyway."""
    return max(least, math.floor(share * replicas))


def _order(wish: Wish) -> tuple[int, float, tuple[str, ...], str, str, str]:
    kinds = ("kill", "quarantine", "drain", "cordon")
    place = kinds.index(wish.kind)
    return place, wish.since_s, wish.replicas, wish.pool or "", wish.node or "", wish.reason


def _left(view: BudgetView, settings: BudgetSettings) -> _Left:
    models = Counter(one.model for one in view.replicas)
    out = [one for one in view.replicas if one.out is not None]
    out_models = Counter(one.model for one in out)
    nodes = Counter(one.pool for one in view.nodes)
    cordoned = {(one.pool, one.name) for one in view.nodes if one.is_cordoned}
    cordoned_pools = Counter(pool for pool, _ in cordoned)
    spare = Counter(one.deployment for one in view.replicas if one.is_serving and one.out is None)
    for deployment in spare:
        spare[deployment] -= view.needed.get(deployment, 0)
    share = settings.out_share_model
    fleet = most_out(len(view.replicas), settings.out_share_fleet, settings.out_fleet_min)
    return _Left(
        models=Counter({m: most_out(n, share) - out_models[m] for m, n in models.items()}),
        fleet=fleet - len(out),
        nodes=Counter(
            {p: most_out(n, settings.cordoned_share) - cordoned_pools[p] for p, n in nodes.items()}
        ),
        spare=spare,
        killed=Counter(one.pool for one in out if one.out == "killed"),
        out={one.name for one in out},
        cordoned=cordoned,
    )


def _kill(
    wish: Wish,
    known: dict[str, BudgetReplica],
    left: _Left,
    view: BudgetView,
    settings: BudgetSettings,
) -> str | None:
    """Why not, where the failing probes are not to be believed."""
    for name in wish.replicas:
        one = known.get(name)
        if one is None or one.failing_since_s is None:
            continue  # not killed for its probes
        if one.served_s is not None and view.now_s - one.served_s <= settings.witness_s:
            return f"the gateway had an answer from {name} {view.now_s - one.served_s:.1f} s ago"
        reason = None if one.is_local else _unbelieved(one, wish, left, view, settings)
        if reason is not None:
            return reason
    return None


def _unbelieved(
    one: BudgetReplica, wish: Wish, left: _Left, view: BudgetView, settings: BudgetSettings
) -> str | None:
    """Why it is rather the network than this replica."""
    assert one.failing_since_s is not None, "it fails"
    failing_s = view.now_s - one.failing_since_s
    far = [other for other in view.replicas if _is_far(other)]
    alike = [other for other in far if other.pool == one.pool and other.out != "killed"]
    if len(far) >= settings.blind_replicas and not _answered(far, one.failing_since_s):
        words = f"none of {len(far)} replicas has answered a probe since {one.name} does not"
        if failing_s < settings.blind_s:
            return f"{words}: rather the prober's own network than all of them; nothing is killed"
        is_one = not left.killed and len(wish.replicas) == 1
    elif len(alike) >= settings.blind_pool_replicas and not _answered(alike, one.failing_since_s):
        words = f"none of {len(alike)} replicas of {one.pool} has answered a probe since {one.name}"
        if failing_s < settings.blind_pool_s:
            return f"{words} does not: rather the way there than all of them"
        words = f"{words} does not"
        is_one = left.killed[one.pool] < 1 and len(wish.replicas) == 1
    else:
        return None
    return None if is_one else f"{words}: one at a time is tried"


def _is_far(one: BudgetReplica) -> bool:
    """Over a network, and it was asked; one that was killed to try counts too."""
    is_known = one.probe_good_s is not None or one.failing_since_s is not None
    return is_known and not one.is_local


def _answered(replicas: list[BudgetReplica], since_s: float) -> bool:
    return any(one.probe_good_s is not None and one.probe_good_s > since_s for one in replicas)


def _take(wish: Wish, known: dict[str, BudgetReplica], left: _Left) -> str | None:
    """Why not; where there is no reason it is counted as out."""
    unknown = [name for name in wish.replicas if name not in known]
    if unknown:
        return f"{unknown[0]} is not known"
    new = [known[name] for name in sorted({*wish.replicas} - left.out)]
    models = Counter(one.model for one in new)
    for model, count in sorted(models.items()):
        if count > left.models[model]:
            return f"{count} more of {model} at once, {_may(left.models[model])}"
    if len(new) > left.fleet:
        return f"{len(new)} more of the fleet at once, {_may(left.fleet)}"
    serving = Counter(one.deployment for one in new if one.is_serving)
    if wish.kind != "kill":
        for deployment, count in sorted(serving.items()):
            if count > left.spare[deployment]:
                return f"{deployment} can spare {max(0, left.spare[deployment])} of its replicas"
    left.models.subtract(models)
    left.fleet -= len(new)
    left.spare.subtract(serving)
    left.out.update(one.name for one in new)
    if wish.kind == "kill":
        left.killed.update(known[name].pool for name in wish.replicas)
    return None


def _cordon(wish: Wish, left: _Left) -> str | None:
    pool, node = wish.pool or "", wish.node or ""
    if (pool, node) in left.cordoned:
        return None
    if left.nodes[pool] < 1:
        return f"1 more node of {pool} at once, {_may(left.nodes[pool])}"
    left.nodes[pool] -= 1
    left.cordoned.add((pool, node))
    return None


def _may(left: int) -> str:
    return "none may be" if left <= 0 else f"{left} may be"
