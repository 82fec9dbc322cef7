"""What a changed fleet file means for the replicas that run: kept, added, succeeded, removed. Pure.

A replica is told by what it is (its deployment, how it is started), not by its name: one that the
new file wants just as it is stays untouched. When to start and to stop is left to the supervisor.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from argosy.control.plan import ReplicaPlan


class Succession(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that goes when its successor is ready."""

    old: str
    new: ReplicaPlan


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The way from what runs to what is wanted."""

    kept: tuple[ReplicaPlan, ...] = ()
    added: tuple[ReplicaPlan, ...] = ()
    succeeded: tuple[Succession, ...] = ()
    removed: tuple[str, ...] = ()


def change(
    running: Sequence[ReplicaPlan], wanted: Sequence[ReplicaPlan], *, taken: Iterable[str] = ()
) -> Change:
    """The smallest change. New names are free ones: not of what runs, nor of `taken`."""
    left = list(running)
    kept: list[ReplicaPlan] = []
    new: list[ReplicaPlan] = []
    for plan in sorted(wanted, key=lambda plan: plan.name not in {one.name for one in left}):
        same = _same(plan, left)
        if same is None:
            new.append(plan)
        else:
            left.remove(same)
            kept.append(same)
    names = {plan.name for plan in running} | set(taken)
    added: list[ReplicaPlan] = []
    succeeded: list[Succession] = []
    for plan in new:
        fresh = _named(plan, names)
        names.add(fresh.name)
        old = next((one for one in left if _deployment(one) == _deployment(plan)), None)
        if old is None:
            added.append(fresh)
        else:
            left.remove(old)
            succeeded.append(Succession(old=old.name, new=fresh))
    return Change(
        kept=tuple(kept),
        added=tuple(added),
        succeeded=tuple(succeeded),
        removed=tuple(plan.name for plan in left),
    )


def _same(plan: ReplicaPlan, among: list[ReplicaPlan]) -> ReplicaPlan | None:
    """One that is what `plan` wants; of several the one of its name."""
    found = [one for one in among if _essence(one) == _essence(plan)]
    return next((one for one in found if one.name == plan.name), found[0] if found else None)


def _essence(plan: ReplicaPlan) -> ReplicaPlan:
    return replace(plan, replica=replace(plan.replica, name=""))


def _deployment(plan: ReplicaPlan) -> str:
    return plan.replica.deployment


def _named(plan: ReplicaPlan, taken: set[str]) -> ReplicaPlan:
    """Under its own name, or the next free number of its kind."""
    name, number = plan.name, 1
    base = name.rpartition("-")[0]
    while name in taken:
        name = f"{base}-{number}"
        number += 1
    return replace(plan, replica=replace(plan.replica, name=name))
