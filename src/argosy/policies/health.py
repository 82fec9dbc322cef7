"""Whether a replica still answers, and how long one that ended stays down. Pure.

Two decisions, each with its memory in the signature. Probing, killing and starting are left to
the control plane; a process that ended needs no judgement, it is simply gone.
"""

import msgspec

DOUBLINGS_MAX = 60  # 2.0 ** more than this says nothing new and would overflow in the end


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often replicas are asked, how patient we are with them, how fast they are restarted."""

    probe_interval_s: float = 0.5  # from one answer to the next question
    probe_timeout_s: float = 1.0  # interval + timeout: a hang is seen within 1.5 s
    probe_interval_s_starting: float = 0.2  # until the first good probe
    probe_interval_s_endpoint: float = 5.0  # whoever runs an endpoint may bill or limit probes
    probe_timeout_s_endpoint: float = 5.0  # another continent and a TLS handshake on each probe
    probes_failed_suspect: int = 1
    probes_failed_unresponsive: int = 2  # never for one probe: the asker may have been held up
    unresponsive_s: float = 6.0
    start_s_max: float = 600.0  # from the start to the first good probe
    restart_delay_s_first: float = 0.1
    restart_delay_s_max: float = 30.0
    restart_reset_s: float = 60.0  # up for this long: its earlier restarts are forgotten


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a replica and what came of it."""

    ok: bool
    seconds: float
    detail: str  # e.g. "HTTP 503", "no answer within 1.0 s"


class HealthState(msgspec.Struct, frozen=True, kw_only=True):
    """The failures in a row so far."""

    probes_failed: int = 0
    failing_since_s: float | None = None  # when the first of them was sent


class Healthy(msgspec.Struct, frozen=True, kw_only=True):
    """Send it requests."""

    reason: str


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """Send it requests only when nothing better is left."""

    reason: str


class Unresponsive(msgspec.Struct, frozen=True, kw_only=True):
    """Give up on it: kill and restart it, where it is ours to restart."""

    reason: str


def judge(
    state: HealthState, probe: Probe, *, now_s: float, settings: HealthSettings
) -> tuple[HealthState, Healthy | Suspect | Unresponsive]:
    """Believe one good probe at once; believe failures the more, the longer nothing else comes."""
    if probe.ok:
        return HealthState(), Healthy(reason="answers its probes")
    since_s = now_s - probe.seconds if state.failing_since_s is None else state.failing_since_s
    failed = state.probes_failed + 1
    failing = HealthState(probes_failed=failed, failing_since_s=since_s)
    failing_s = now_s - since_s
    probes = "1 probe" if failed == 1 else f"{failed} probes"
    reason = f"no good answer to {probes} in {failing_s:.1f} s: {probe.detail}"
    if failed >= settings.probes_failed_unresponsive and failing_s >= settings.unresponsive_s:
        return failing, Unresponsive(reason=reason)
    if failed >= settings.probes_failed_suspect:
        return failing, Suspect(reason=reason)
    return failing, Healthy(reason=f"{reason}; suspect from {settings.probes_failed_suspect} on")


class RestartState(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts in a row so far, none of which lasted."""

    restarts: int = 0
    ready_since_s: float | None = None  # None: not ready since its last start


class RestartDelay(msgspec.Struct, frozen=True, kw_only=True):
    """Start it again after `delay_s`."""

    delay_s: float
    reason: str


def became_ready(state: RestartState, *, now_s: float) -> RestartState:
    """The same restarts, and the moment from which it has to last."""
    return RestartState(restarts=state.restarts, ready_since_s=now_s)


def restart_delay_s(
    state: RestartState, *, now_s: float, jitter: float, settings: HealthSettings
) -> tuple[RestartState, RestartDelay]:
    """Restart what just ended soon at first, then half as often each time.

    `jitter` in [0, 1) spreads replicas that ended together over half of the delay; below the cap
    no delay is shorter than the one before it, whatever the jitter was.
    """
    up_s = None if state.ready_since_s is None else now_s - state.ready_since_s
    lasted = up_s is not None and up_s >= settings.restart_reset_s
    restarts = 1 if lasted else state.restarts + 1
    doubled_s = settings.restart_delay_s_first * 2.0 ** min(restarts - 1, DOUBLINGS_MAX)
    delay_s = min(settings.restart_delay_s_max, doubled_s) * (0.5 + jitter / 2)
    row = "" if restarts == 1 else f", number {restarts} in a row"
    return (
        RestartState(restarts=restarts),
        RestartDelay(delay_s=delay_s, reason=f"restart in {delay_s:.2g} s{row}"),
    )
