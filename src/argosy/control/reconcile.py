"""One tick of the control plane: what is wanted and seen comes in, what to do goes out. Pure.

Level-triggered: nothing here depends on how things came to be as they are, only on how they are.
The same tick may be taken twice, or by another control plane that has just taken over. What is
decided is left to `policies`; what is to be done, to the controller.
"""

import random
from collections.abc import Container, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from argosy.control.budgeting import budget_view
from argosy.control.lives import killed, leave, next_moment, on_trial, quarantined, shown, spared
from argosy.control.plan import DeploymentPlan
from argosy.control.quarantines import Quarantines
from argosy.control.records import Record, SeenReplica, first_record
from argosy.fleet.messages import ObservedReplica, Replica, ReplicaSpec, ReplicaTable
from argosy.policies.health import BudgetSettings, HealthSettings, Wish, allowed, probation
from argosy.policies.lifecycle import Lifecycle, ReplicaView, View, Wanted, decide
from argosy.policies.lifecycle import Settings as Pace

_NOTHING = SeenReplica()
_NO_ROOM_S = 30.0  # after a start that found no room


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the control plane is."""

    health: HealthSettings = HealthSettings()
    pace: Pace = Pace()
    budget: BudgetSettings = BudgetSettings()
    drain_s: float = 30.0
    stop_grace_s: float = 3.0
    lost_s: float = 30.0  # out of sight and silent: another is started in its place


class Drains(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator wants emptied."""

    pools: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    replicas: frozenset[str] = frozenset()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that is remembered from tick to tick."""

    records: Mapping[str, Record] = {}
    lifecycle: Lifecycle = Lifecycle()
    no_room_until_s: Mapping[str, float] = {}  # by pool
    table: ReplicaTable = ReplicaTable(version=0, replicas=())
    strays: frozenset[str] = frozenset()  # found, and unknown: their names are taken


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at one tick."""

    now_s: float
    replicas: Mapping[str, SeenReplica] = {}
    unseen_pools: frozenset[str] = frozenset()
    quarantines: Quarantines = Quarantines()
    strays: tuple[tuple[str, ObservedReplica], ...] = ()  # by pool: found there, and not on record


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is to be there."""

    spec: ReplicaSpec


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is not to be there."""

    name: str
    pool: str
    grace_s: float


Action = Start | Stop


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, for the log."""

    kind: str  # create, remove, start, end, ready …
    subject: str
    reason: str
    inputs: bytes | None = None  # JSON: what it was decided from


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of a tick."""

    state: State
    actions: tuple[Action, ...]  # all that should be under way, again at each tick
    notes: tuple[Note, ...]
    waits: tuple[str, ...]  # what has to wait, and why
    due_s: float  # when time alone will have changed something; inf: never


def reconcile(
    state: State,
    wanted: Mapping[str, DeploymentPlan],
    seen: Seen,
    *,
    drains: Drains,
    settings: Settings,
    chance: random.Random,
) -> Step:
    """The next state, and what is to be done to bring it about."""
    records: dict[str, Record] = {}
    for name, record in state.records.items():
        new = next_moment(
            record,
            seen.replicas.get(name, _NOTHING),
            now_s=seen.now_s,
            settings=settings.health,
            chance=chance,
        )
        if new is not None:
            records[name] = _in_quarantine(record, new, seen)
    notes: list[Note] = list(_taken_in(records, wanted, seen))
    strays = state.strays | {note.subject for note in notes if note.kind == "stray"}
    _kill_those_that_hang(records, wanted, seen, settings, chance)
    no_room = _no_room(state, records, seen)
    view = _view(records, wanted, seen, drains=drains, no_room=no_room, settings=settings)
    remembered, decision = decide(state.lifecycle, view, settings.pace)
    for one in decision.create:
        record = _created({*records, *strays}, wanted[one.deployment], seen.now_s)
        records[record.name] = record
        notes.append(Note(kind="create", subject=record.name, reason=one.reason))
    for one in decision.remove:
        record = records[one.replica]
        records[one.replica] = leave(
            record, now_s=seen.now_s, drain_s=settings.drain_s, reason=one.reason
        )
        notes.append(Note(kind="remove", subject=one.replica, reason=one.reason))
    rows = tuple(shown(one, now_s=seen.now_s, settings=settings.health) for one in records.values())
    notes += _news(state.records, records, rows)
    notes += _stuck(state.records, records, wanted)
    return Step(
        state=State(
            records=records,
            lifecycle=remembered,
            no_room_until_s=no_room,
            table=_table(state.table, rows),
            strays=strays,
        ),
        actions=tuple(_actions(records.values(), settings)),
        notes=tuple(notes),
        waits=decision.waits,
        due_s=_due_s(records.values(), seen.now_s, settings),
    )


def _taken_in(
    records: dict[str, Record], wanted: Mapping[str, DeploymentPlan], seen: Seen
) -> Iterable[Note]:
    """Replicas of a control plane that died before their records were stored."""
    plans = {(plan.spec.pool, plan.spec.generation): plan for plan in wanted.values()}
    for pool, one in seen.strays:
        plan = plans.get((pool, one.generation))
        if one.name in records or one.state == "ended":
            continue
        if plan is None:
            told = f"nobody knows it: generation {one.generation} on {pool}; it is left alone"
            yield Note(kind="stray", subject=one.name, reason=told)
            continue
        record = first_record(plan.named(one.name), now_s=seen.now_s, reason="found running")
        records[one.name] = replace(
            record, life="starting", asked_at_s=seen.now_s, accepted_at_s=seen.now_s
        )
        yield Note(kind="adopt", subject=one.name, reason=f"found on {pool}, and on no record")


def _in_quarantine(before: Record, record: Record, seen: Seen) -> Record:
    """With what is known of its peers."""
    one = seen.quarantines.of(record)
    has_come_up = before.life == "starting" and record.life == "up"
    if has_come_up and seen.quarantines.is_on_trial(record):
        record = on_trial(record, now_s=seen.now_s)
    return quarantined(record, None if one is None else one.reason, now_s=seen.now_s)


def _kill_those_that_hang(
    records: dict[str, Record],
    wanted: Mapping[str, DeploymentPlan],
    seen: Seen,
    settings: Settings,
    chance: random.Random,
) -> None:
    """As many as the budget allows; the others hear why not."""
    now_s = seen.now_s
    wishes = tuple(
        Wish(
            kind="kill",
            replicas=(record.name,),
            since_s=record.health.failing_since_s or now_s,
            reason=record.hang,
        )
        for record in records.values()
        if record.hang is not None and record.leaving is None
    )
    if not wishes:
        return
    view = budget_view(
        records.values(),
        wanted,
        now_s=now_s,
        served_s={name: one.served_s for name, one in seen.replicas.items()},
        settings=settings.budget,
    )
    allowance = allowed(view, wishes, settings.budget)
    for wish in allowance.granted:
        (name,) = wish.replicas
        records[name] = killed(records[name], now_s=now_s, settings=settings.health, chance=chance)
    for put_off in allowance.put_off:
        (name,) = put_off.wish.replicas
        records[name] = spared(records[name], put_off.reason)


def _no_room(state: State, records: Mapping[str, Record], seen: Seen) -> dict[str, float]:
    """Pools that had no room of late."""
    found = {pool: at_s for pool, at_s in state.no_room_until_s.items() if at_s > seen.now_s}
    for name, one in seen.replicas.items():
        record = records.get(name)
        if record is not None and one.failure is not None and one.failure.is_capacity:
            wait_s = one.failure.retry_after_s or _NO_ROOM_S
            found[record.spec.pool] = seen.now_s + max(wait_s, _NO_ROOM_S)
    return found


def _view(
    records: Mapping[str, Record],
    wanted: Mapping[str, DeploymentPlan],
    seen: Seen,
    *,
    drains: Drains,
    no_room: Mapping[str, float],
    settings: Settings,
) -> View:
    bad = seen.quarantines.pools()
    gone = drains.pools | seen.unseen_pools
    return View(
        now_s=seen.now_s,
        replicas=tuple(_replica_view(one, seen, drains, settings) for one in records.values()),
        wanted=tuple(
            Wanted(
                deployment=plan.name,
                model=plan.spec.model,
                generation=plan.spec.generation,
                replicas=plan.replicas,
                is_open=plan.spec.pool not in gone | bad,
                is_kept=plan.spec.pool in bad - gone,
                has_room=plan.spec.pool not in no_room,
            )
            for plan in wanted.values()
        ),
    )


def _replica_view(record: Record, seen: Seen, drains: Drains, settings: Settings) -> ReplicaView:
    row = record.row
    unseen_s = 0.0 if record.unseen_since_s is None else seen.now_s - record.unseen_since_s
    is_silent = row.state not in ("ready", "suspect")
    up_s = seen.now_s - (record.restarts.ready_since_s or 0.0)
    is_shaky = record.crash_loop is not None and up_s < settings.health.restart_reset_s
    is_drained = (
        record.name in drains.replicas
        or record.spec.pool in drains.pools
        or row.node in drains.nodes
    )
    return ReplicaView(
        name=record.name,
        deployment=record.spec.deployment,
        model=record.spec.model,
        generation=record.spec.generation,
        created_at_s=record.created_at_s,
        is_ready=row.state == "ready" and not is_shaky,
        is_serving=row.state in ("ready", "suspect", "unreachable"),
        is_leaving=record.leaving is not None,
        is_seen=record.unseen_since_s is None or record.life == "down",
        is_lost=is_silent and unseen_s > settings.lost_s,
        is_unwelcome=is_drained or record.quarantine is not None,
        why_unwelcome="it is drained" if is_drained else f"in quarantine: {record.quarantine}",
        is_crash_looping=record.crash_loop is not None and (record.life != "up" or is_shaky),
        requests_in_flight=seen.replicas.get(record.name, _NOTHING).requests_in_flight,
    )


def _created(taken: Container[str], plan: DeploymentPlan, now_s: float) -> Record:
    """Under the first free number."""
    number = 1
    while f"{plan.names}-{number}" in taken:
        number += 1
    spec = plan.named(f"{plan.names}-{number}")
    return first_record(spec, now_s=now_s, reason="starts for the first time")


def _news(
    old: Mapping[str, Record], new: Mapping[str, Record], rows: Iterable[Replica]
) -> Iterable[Note]:
    """What became of replicas: each change of state but those that are told already."""
    for (name, record), row in zip(new.items(), rows, strict=True):
        before = old.get(name)
        if before is None or before.row.state == row.state:
            continue
        if row.state != "stopping":
            yield Note(kind=row.state, subject=name, reason=row.reason)
        if record.crash_loop is not None and before.crash_loop is None:
            yield Note(kind="crash-loop", subject=name, reason=row.reason)
    for name in old:
        if name not in new:
            yield Note(kind="gone", subject=name, reason=old[name].row.reason)


def _stuck(
    old: Mapping[str, Record], new: Mapping[str, Record], wanted: Mapping[str, DeploymentPlan]
) -> Iterable[Note]:
    """Generations that are to come, and do not come up: those before them stay."""
    for name, record in new.items():
        before, plan = old.get(name), wanted.get(record.spec.deployment)
        if record.crash_loop is None or before is None or before.crash_loop is not None:
            continue
        if plan is None or record.spec.generation != plan.spec.generation:
            continue
        others = [one for one in new.values() if one.spec.deployment == plan.name]
        staying = [
            one
            for one in others
            if one.leaving is None and one.spec.generation != plan.spec.generation
        ]
        if staying:
            ready = sum(one.row.state == "ready" for one in staying)
            yield Note(
                kind="stuck",
                subject=plan.name,
                reason=f"generation {plan.spec.generation} does not come up: {name} is in a "
                f"{record.crash_loop}; {len(staying)} replicas of the one before stay, {ready} "
                f"of them ready. Last: {record.row.reason.partition('; ')[0]}",
            )


def _actions(records: Iterable[Record], settings: Settings) -> Iterable[Action]:
    for record in records:
        if record.life == "starting" and record.accepted_at_s is None:
            yield Start(spec=record.spec)
        elif record.life == "ending":
            grace_s = settings.stop_grace_s if record.leaving is not None else 0.0
            yield Stop(name=record.name, pool=record.spec.pool, grace_s=grace_s)


def _table(old: ReplicaTable, rows: tuple[Replica, ...]) -> ReplicaTable:
    """The same one where nothing has changed."""
    if rows == old.replicas and old.version:
        return old
    return ReplicaTable(version=old.version + 1, replicas=rows)


def _due_s(records: Iterable[Record], now_s: float, settings: Settings) -> float:
    """The earliest time at which a record changes though nothing new is seen."""
    due_s = float("inf")
    for record in records:
        if record.life == "down":
            due_s = min(due_s, record.not_before_s)
        elif record.life == "starting":
            due_s = min(due_s, record.asked_at_s + settings.health.start_s_max)
        if record.leaving is not None:
            due_s = min(due_s, record.leaving.until_s)
        on = probation(record.restarts, now_s=now_s, settings=settings.health)
        if on is not None:
            due_s = min(due_s, on.until_s)
        if record.unseen_since_s is not None:
            due_s = min(due_s, max(now_s + 1.0, record.unseen_since_s + settings.lost_s))
    return due_s


def adopted(records: Iterable[Record]) -> dict[str, Record]:
    """Records of another control plane: believed until something else is seen.

    What was being started is asked for again, for nobody knows how far that had come.
    """
    return {record.name: _adopted(record) for record in records}


def _adopted(record: Record) -> Record:
    if not record.is_ours:
        return replace(record, life="down")
    return replace(record, accepted_at_s=None) if record.life == "starting" else record
