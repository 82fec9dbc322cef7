"""Where a plan has replicas at this hour: what `argosy plan --json` printed, as live it is read.

A fleet that was planned begins with the plan's replicas, and the placement's search looks there
first; from then on the demand decides. Other layouts than a deployment's count by their chips.
"""

import math
from datetime import UTC, date, datetime

import msgspec

from argosy.fleet.config import Fleet

_SCHEMA = "argosy.plan/1"


class PlanUnreadableError(Exception):
    """No plan, or none of this fleet; the message says what would work."""


class _Period(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    begin: str
    until: str


class _Slot(msgspec.Struct, frozen=True, kw_only=True):
    period: str
    hour: int


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    pool: str
    chips: int
    replicas: tuple[int, ...]  # by slot


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a plan."""

    schema: str
    fleet: str
    periods: tuple[_Period, ...] = ()
    slots: tuple[_Slot, ...] = ()
    replicas: tuple[_Row, ...] = ()

    def counts(self, fleet: Fleet, now_s: float) -> dict[str, int]:
        """Replicas of each deployment that scales, within its bounds.

        Before the plan's first day its first period counts, after its last the last.
        """
        slot = self._slot(now_s)
        chips: dict[tuple[str, str], int] = {}
        for row in self.replicas:
            key = row.model, row.pool
            chips[key] = chips.get(key, 0) + row.chips * row.replicas[slot]
        return {
            one.name: min(
                max(
                    math.ceil(chips.get((one.model, one.pool), 0) / max(1, one.layout.chips)),
                    one.autoscale.min,
                ),
                one.autoscale.max,
            )
            for one in fleet.deployments
            if one.autoscale.max is not None
        }

    def _slot(self, now_s: float) -> int:
        now = datetime.fromtimestamp(now_s, UTC)
        begun = [one for one in self.periods if date.fromisoformat(one.begin) <= now.date()]
        period = (begun or list(self.periods[:1]))[-1].name
        places = [at for at, one in enumerate(self.slots) if one.period == period]
        return min(places, key=lambda at: (abs(self.slots[at].hour - now.hour), at))


def read_plan(body: bytes, *, fleet: str) -> Planned:
    """Of that fleet. Raises PlanUnreadableError."""
    try:
        found = msgspec.json.decode(body, type=Planned)
    except msgspec.MsgspecError as error:
        raise PlanUnreadableError(
            f"it is no plan as argosy plan --json prints one: {error}"
        ) from error
    if found.schema != _SCHEMA:
        raise PlanUnreadableError(f"its schema is {found.schema}; {_SCHEMA} can be read")
    if not (found.periods and found.slots and found.replicas):
        raise PlanUnreadableError("it has no replicas: the planner found a conflict")
    if found.fleet != fleet:
        raise PlanUnreadableError(f"it is a plan of fleet {found.fleet}, not of {fleet}")
    return found
