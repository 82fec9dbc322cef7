"""One replica's next moment: its record and what is seen of it come in, its record goes out. Pure.

What a failed probe means and how long to wait before a restart is decided in `policies/health`;
whether the replica is wanted at all, in `policies/lifecycle`.
"""

import random

from msgspec.structs import replace

from argosy.control.records import Leaving, Record, SeenReplica
from argosy.fleet.messages import ObservedReplica, Replica
from argosy.policies.health import (
    CrashLoop,
    HealthSettings,
    HealthState,
    Healthy,
    Probe,
    Suspect,
    Unresponsive,
    became_ready,
    judge,
    probation,
    put_on_probation,
    restart_delay_s,
    sent_back,
)

_VANISHED_S = 5.0  # a launcher may be slow to show what it has accepted
# Failed probes that send back one on probation. On the prober's own machine one says as much of the
# machine as of the replica: a laptop whose cores are all busy answers late, and is well.
_FAULTS, _FAULTS_LOCAL = 1, 2
# Where a pool without room does not say when to ask again: soon, then every quarter of the wait.
_NO_ROOM_AGAIN_S, _NO_ROOM_AGAIN_S_MAX = 2.0, 30.0


def next_moment(
    record: Record,
    seen: SeenReplica,
    *,
    now_s: float,
    settings: HealthSettings,
    chance: random.Random,
) -> Record | None:
    """The record as it is now; None when the replica has left for good."""
    if record.life == "ending":
        return _after_its_end(record, now_s=now_s) if seen.is_stopped else record
    if record.life == "down":
        if record.leaving is not None:
            return None
        return record if now_s < record.not_before_s else _asked_for(record, now_s)
    seen = _since_asked(record, seen)
    record = _looked_at(record, seen, now_s)
    ended = _why_ended(record, seen, now_s, settings)
    if ended is not None:
        return _ended(record, seen, ended, now_s=now_s, settings=settings, chance=chance)
    if record.leaving is not None:
        return _leaving(record, record.leaving, seen, now_s)
    if seen.observed is not None and seen.observed.state == "listening":
        record = _listens(record, seen.observed)
    for probe in seen.probes if record.row.url is not None else ():
        record = _probed(record, probe, now_s, settings)
    return record


def leave(record: Record, *, now_s: float, drain_s: float, reason: str) -> Record:
    """From here on it is wanted no more, whatever comes."""
    return replace(
        record,
        leaving=Leaving(until_s=now_s + drain_s, reason=reason),
        hang=None,
        row=record.told("stopping", f"{reason}; it ends what it has"),
    )


# Its beginning.


def _asked_for(record: Record, now_s: float) -> Record:
    return replace(
        record,
        life="starting",
        asked_at_s=now_s,
        accepted_at_s=None,
        health=HealthState(),
        row=_again(record) if record.row.state == "dead" and record.is_ours else record.row,
    )


def _again(record: Record) -> Replica:
    reason = f"started again; before that: {record.row.reason.rpartition('; ')[0]}"
    if record.crash_loop is not None and record.crash_loop not in reason:
        reason = f"{reason}; {record.crash_loop}"
    row = record.told("starting", reason)
    return row if record.had_no_room else replace(row, restarts=row.restarts + 1)


def _listens(record: Record, observed: ObservedReplica) -> Record:
    """Where it listens; another address is another process, which has to prove itself."""
    row = record.row
    if (row.url, row.pid) == (observed.url, observed.pid):
        return replace(record, row=replace(row, node=observed.node))
    if row.url is not None and row.state in ("ready", "suspect", "unreachable"):
        record = replace(record, life="starting", health=HealthState())
    return replace(record, row=record.told("starting", "listens", of=observed))


def _tried(record: Record, ok: bool, detail: str, now_s: float) -> Record:
    if not ok:
        return replace(record, row=record.told("starting", f"listens, not ready yet: {detail}"))
    return replace(
        record,
        life="up",
        is_killed=False,
        restarts=became_ready(record.restarts, now_s=now_s),
        row=record.told("ready", "answers its probes"),
    )


def _probed(record: Record, probe: Probe, now_s: float, settings: HealthSettings) -> Record:
    if probe.ok:
        record = replace(record, probe_good_s=now_s)
    if record.life == "starting" and record.is_ours:
        return _tried(record, probe.ok, probe.detail, now_s)
    health, verdict = judge(record.health, probe, now_s=now_s, settings=settings)
    record = _judged(replace(record, health=health, hang=None), verdict)
    return _on_probation(record, verdict, now_s, settings) if record.hang is None else record


def _on_probation(
    record: Record,
    verdict: Healthy | Suspect | Unresponsive,
    now_s: float,
    settings: HealthSettings,
) -> Record:
    """Less is forgiven to one that was killed before."""
    if not record.is_ours or record.unseen_since_s is not None:
        return record
    back = sent_back(record.restarts, verdict, now_s=now_s, settings=settings)
    faults = _FAULTS_LOCAL if record.is_local else _FAULTS
    if back is None or record.health.probes_failed < faults:
        return record
    return replace(record, hang=back.reason, row=record.told("suspect", back.reason))


# In quarantine, and what others are told of it.


def quarantined(record: Record, why: str | None, *, now_s: float) -> Record:
    """With what is said of it now; who comes out of quarantine is on probation."""
    if record.quarantine == why:
        return record
    if why is not None or record.leaving is not None:
        return replace(record, quarantine=why)
    restarts = put_on_probation(record.restarts, why="it was in quarantine")
    if record.row.state in ("ready", "suspect"):
        restarts = became_ready(restarts, now_s=now_s)
    return replace(record, quarantine=None, restarts=restarts)


def on_trial(record: Record, *, now_s: float) -> Record:
    """One that has just become ready where others were unlike their peers not long ago."""
    restarts = put_on_probation(record.restarts, why="its node or pool was in quarantine")
    return replace(record, restarts=became_ready(restarts, now_s=now_s))


def shown(record: Record, *, now_s: float, settings: HealthSettings) -> Replica:
    """Its row, with the share of requests that it may take."""
    row = record.row
    if row.state not in ("ready", "suspect"):
        return row
    if record.quarantine is not None:
        why = f"in quarantine: {record.quarantine}"
    elif probation(record.restarts, now_s=now_s, settings=settings) is not None:
        why = f"on probation: {record.restarts.probation_why}"
    else:
        return row
    return replace(row, share=settings.probation_share, reason=f"{row.reason}; {why}")


# Its course.


def _since_asked(record: Record, seen: SeenReplica) -> SeenReplica:
    """Without what was seen of its life before."""
    if seen.observed_at_s is None or seen.observed_at_s >= record.asked_at_s:
        return seen
    return replace(seen, observed=None, observed_at_s=float("-inf"))


def _looked_at(record: Record, seen: SeenReplica, now_s: float) -> Record:
    if seen.is_accepted and record.accepted_at_s is None:
        record = replace(record, accepted_at_s=now_s)
    is_seen = seen.observed_at_s is not None and (
        seen.observed is None or seen.observed.state != "unreachable"
    )
    if is_seen:
        if record.unseen_since_s is None:
            return record
        # The way to it may heal later than the way to its launcher: it has all patience again.
        return replace(record, unseen_since_s=None, health=HealthState())
    return record if record.unseen_since_s is not None else replace(record, unseen_since_s=now_s)


def _judged(record: Record, verdict: Healthy | Suspect | Unresponsive) -> Record:
    match verdict:
        case Healthy():
            return replace(record, life="up", row=record.told("ready", verdict.reason))
        case Suspect():
            return replace(record, row=record.told("suspect", verdict.reason))
        case Unresponsive() if not record.is_ours:
            return replace(record, row=record.told("dead", verdict.reason))
        case Unresponsive() if record.unseen_since_s is not None:
            reason = f"{verdict.reason}; its pool or node cannot be seen, so it is left alone"
            return replace(record, row=record.told("unreachable", reason))
        case Unresponsive():
            row = record.told("suspect", verdict.reason)
            return replace(record, hang=verdict.reason, row=row)


def killed(
    record: Record, *, now_s: float, settings: HealthSettings, chance: random.Random
) -> Record:
    """One that hangs: it is ended, and started again."""
    why = record.hang or "it is killed"
    if not record.is_local:  # there is no other machine whose fault it could be
        restarts = put_on_probation(record.restarts, why="it hung and was killed")
        record = replace(record, restarts=restarts)
    ended = _ended(record, SeenReplica(), why, now_s=now_s, settings=settings, chance=chance)
    return replace(ended, hang=None, is_killed=True)


def spared(record: Record, why: str) -> Record:
    """One that hangs and is not killed now."""
    return replace(record, row=record.told("suspect", f"{record.hang}; not killed: {why}"))


# Its end.


def _why_ended(
    record: Record, seen: SeenReplica, now_s: float, settings: HealthSettings
) -> str | None:
    if seen.failure is not None and record.life == "starting":
        return f"cannot start: {seen.failure.reason}"
    observed = seen.observed
    if observed is None:
        return "it is gone from its pool" if _has_vanished(record, seen) else None
    if observed.generation != record.spec.generation and record.accepted_at_s is not None:
        return f"what runs under its name is of generation {observed.generation}"
    if observed.state == "ended":
        if record.life == "up":
            return observed.detail
        what = "cannot start" if record.row.url is None else "ended before it was ready"
        return f"{what}: {observed.detail}"
    is_late = now_s - record.asked_at_s > settings.start_s_max
    if record.life == "starting" and record.is_ours and is_late and record.row.state == "starting":
        return f"not ready after {settings.start_s_max:g} s"
    return None


def _has_vanished(record: Record, seen: SeenReplica) -> bool:
    """Seen before, or accepted for long, and its pool shows it no more."""
    if seen.observed_at_s is None:
        return False
    if record.life == "up" and record.accepted_at_s is not None:
        return seen.observed_at_s > record.accepted_at_s
    return (
        record.accepted_at_s is not None and seen.observed_at_s > record.accepted_at_s + _VANISHED_S
    )


def _ended(
    record: Record,
    seen: SeenReplica,
    why: str,
    *,
    now_s: float,
    settings: HealthSettings,
    chance: random.Random,
) -> Record:
    restarts, delay = restart_delay_s(
        record.restarts, now_s=now_s, jitter=chance.random(), settings=settings
    )
    delay_s, reason = delay.delay_s, delay.reason
    crash_loop = reason.partition("; ")[0] if isinstance(delay, CrashLoop) else None
    asked = None if seen.failure is None else seen.failure.retry_after_s
    if asked is not None and asked > delay_s:
        delay_s, reason = asked, f"restart in {asked:.2g} s, as its pool asks"
    had_no_room = seen.failure is not None and seen.failure.is_capacity
    if had_no_room:  # no fault of its own
        restarts, crash_loop = record.restarts, record.crash_loop
        delay_s = asked or _no_room_again_s(record, now_s, chance)
        reason = f"tried again in {delay_s:.2g} s"
    told = why if record.leaving is not None else f"{why}; {reason}"
    row = record.told("dead" if record.leaving is None else "stopping", told)
    return replace(
        record,
        life="ending",
        restarts=restarts,
        had_no_room=had_no_room,
        crash_loop=crash_loop,
        not_before_s=now_s + delay_s,
        row=replace(row, url=None, pid=None),
    )


def _no_room_again_s(record: Record, now_s: float, chance: random.Random) -> float:
    waited_s = now_s - max(record.created_at_s, record.restarts.row_since_s or 0.0)
    again_s = min(max(waited_s / 4, _NO_ROOM_AGAIN_S), _NO_ROOM_AGAIN_S_MAX)
    return again_s * chance.uniform(0.75, 1.25)


def _leaving(record: Record, leaving: Leaving, seen: SeenReplica, now_s: float) -> Record:
    if seen.requests_in_flight == 0 or now_s >= leaving.until_s or record.row.url is None:
        return replace(record, life="ending")
    return record


def _after_its_end(record: Record, *, now_s: float) -> Record | None:
    if record.leaving is not None:
        return None
    record = replace(record, life="down", accepted_at_s=None)
    return record if now_s < record.not_before_s else _asked_for(record, now_s)
