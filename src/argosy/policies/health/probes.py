"""Whether a replica still answers. Pure.

Memory is in the signature. Probing, killing and starting are left to the control plane; a process
that ended needs no judgement, it is simply gone; and what cannot be seen is not judged here: nobody
is killed for that (`control/lives.py`).
"""

import msgspec

from argosy.policies.health.settings import HealthSettings


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


Verdict = Healthy | Suspect | Unresponsive


def judge(
    state: HealthState, probe: Probe, *, now_s: float, settings: HealthSettings
) -> tuple[HealthState, Verdict]:
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
