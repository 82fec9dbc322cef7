"""How long one that ended stays down, when that is a crash loop, and who is on probation. Pure.

A row of restarts ends with a life of `restart_reset_s`, or of `probation_s` for one on probation.
What to try instead of a crash loop, another pool or the generation before, is the caller's.
"""

import msgspec
from msgspec.structs import replace

from argosy.policies.health.probes import Healthy, Verdict
from argosy.policies.health.settings import HealthSettings

DOUBLINGS_MAX = 60  # 2.0 ** more than this says nothing new and would overflow in the end


class RestartState(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts in a row so far, none of which lasted."""

    restarts: int = 0
    ready_since_s: float | None = None  # None: not ready since its last start
    row_since_s: float | None = None  # the first of these restarts; None: not known
    probation_why: str | None = None  # this life is, or was, on probation
    probation_next: str | None = None  # why the next one will be
    probation_faults: int = 0  # lives in a row that ended on probation


class RestartDelay(msgspec.Struct, frozen=True, kw_only=True):
    """Start it again after `delay_s`."""

    delay_s: float
    reason: str


class CrashLoop(msgspec.Struct, frozen=True, kw_only=True):
    """It does not live: go on after `delay_s`, the longest, and try something else meanwhile."""

    delay_s: float
    restarts: int  # in a row
    reason: str


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """It may take `share` of the requests that a replica alike takes, until `until_s`."""

    share: float
    until_s: float
    reason: str


class SentBack(msgspec.Struct, frozen=True, kw_only=True):
    """A fault on probation: kill it, and start it again after what `restart_delay_s` says."""

    reason: str


def became_ready(state: RestartState, *, now_s: float) -> RestartState:
    """The same restarts, and the moment from which it has to last, on probation or not."""
    why = state.probation_next or state.probation_why
    return replace(state, ready_since_s=now_s, probation_why=why, probation_next=None)


def put_on_probation(state: RestartState, *, why: str) -> RestartState:
    """It is killed for its health, released from quarantine, or its node was repaired.

    Probation begins with the next `became_ready`: say that at once of one that runs.
    """
    return replace(state, probation_next=why)


def probation(state: RestartState, *, now_s: float, settings: HealthSettings) -> Probation | None:
    """What it may take now; None: as much as any other, or it is not ready."""
    if state.probation_why is None or state.ready_since_s is None:
        return None
    until_s = state.ready_since_s + settings.probation_s
    if now_s >= until_s:
        return None
    reason = f"on probation for {until_s - now_s:.0f} s more: {state.probation_why}"
    return Probation(share=settings.probation_share, until_s=until_s, reason=reason)


def sent_back(
    state: RestartState, verdict: Verdict, *, now_s: float, settings: HealthSettings
) -> SentBack | None:
    """A single fault is enough on probation, a failed probe or worse; the budget is asked still."""
    on = probation(state, now_s=now_s, settings=settings)
    if on is None or isinstance(verdict, Healthy):
        return None
    return SentBack(reason=f"a fault on probation ({state.probation_why}): {verdict.reason}")


def restart_delay_s(
    state: RestartState, *, now_s: float, jitter: float, settings: HealthSettings
) -> tuple[RestartState, RestartDelay | CrashLoop]:
    """Restart what just ended soon at first, then half as often each time.

    `jitter` in [0, 1) spreads replicas that ended together over half of the delay; below the cap
    no delay is shorter than the one before it, whatever the jitter was. One that ended on
    probation waits `probation_delay_s_first` at least, twice as long each time.
    """
    after = _after(state, now_s=now_s, settings=settings)
    spread = 0.5 + jitter / 2
    if _is_crash_loop(after, state, now_s=now_s, settings=settings):
        return after, _crash_loop(after, spread, now_s=now_s, settings=settings)
    first_s, max_s = settings.restart_delay_s_first, settings.restart_delay_s_max
    delay_s = _doubled_s(first_s, after.restarts, max_s) * spread
    row = "" if after.restarts == 1 else f", number {after.restarts} in a row"
    if after.probation_faults:
        delay_s = max(delay_s, _probation_s(after, settings) * spread)
        row += f"; lives that ended on probation: {after.probation_faults}"
    return after, RestartDelay(delay_s=delay_s, reason=f"restart in {delay_s:.2g} s{row}")


def _after(state: RestartState, *, now_s: float, settings: HealthSettings) -> RestartState:
    """One restart more, of a row that goes on or begins."""
    was_on = state.probation_why is not None
    up_s = None if state.ready_since_s is None else now_s - state.ready_since_s
    lasting_s = settings.restart_reset_s
    if was_on:
        lasting_s = max(lasting_s, settings.probation_s)
    if up_s is not None and up_s >= lasting_s:
        return RestartState(restarts=1, row_since_s=now_s, probation_next=state.probation_next)
    return RestartState(
        restarts=state.restarts + 1,
        row_since_s=now_s if state.row_since_s is None else state.row_since_s,
        probation_next=state.probation_next or state.probation_why,
        probation_faults=state.probation_faults + (1 if was_on else 0),
    )


def _is_crash_loop(
    after: RestartState, before: RestartState, *, now_s: float, settings: HealthSettings
) -> bool:
    """Many restarts in a row, or fewer in a long one; a row of unknown begin is none."""
    if before.row_since_s is None or after.row_since_s is None:
        return False
    if after.restarts >= settings.crash_restarts:
        return True
    is_long = now_s - after.row_since_s >= settings.crash_s
    return is_long and after.restarts >= settings.crash_restarts_slow


def _crash_loop(
    after: RestartState, spread: float, *, now_s: float, settings: HealthSettings
) -> CrashLoop:
    assert after.row_since_s is not None, "a loop has a begin"
    delay_s = settings.restart_delay_s_max * spread
    if after.probation_faults:
        delay_s = max(delay_s, _probation_s(after, settings) * spread)
    reason = (
        f"crash loop: {after.restarts} restarts in {now_s - after.row_since_s:.0f} s, none of "
        f"which lasted; next in {delay_s:.2g} s"
    )
    return CrashLoop(delay_s=delay_s, restarts=after.restarts, reason=reason)


def _probation_s(after: RestartState, settings: HealthSettings) -> float:
    first_s, max_s = settings.probation_delay_s_first, settings.probation_delay_s_max
    return _doubled_s(first_s, after.probation_faults, max_s)


def _doubled_s(first_s: float, times: int, max_s: float) -> float:
    return min(max_s, first_s * 2.0 ** min(times - 1, DOUBLINGS_MAX))
