"""Whether a replica still answers, and whether its launcher still sees it. Pure.

Memory is in the signature. Probing, killing and starting are left to the control plane; a process
that ended needs no judgement, it is simply gone. `judge` believes probes alone; `judge_seen` adds
what the launcher says: a replica whose node or pool is not seen is not at fault, is never killed or
deleted for that, and has at most a substitute started elsewhere.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from argosy.fleet.messages import Observation
from argosy.policies.health.settings import HealthSettings

Sight = Literal["seen", "node_unseen", "pool_unseen"]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a replica and what came of it."""

    ok: bool
    seconds: float
    detail: str  # e.g. "HTTP 503", "no answer within 1.0 s"


class HealthState(msgspec.Struct, frozen=True, kw_only=True):
    """The failures in a row so far."""

    probes_failed: int = 0
    failing_since_s: float | None = None  # when the first of them was sent


class SeenState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a replica from one look to the next."""

    health: HealthState = HealthState()
    unreachable_since_s: float | None = None  # None: it is seen, or answers


class Healthy(msgspec.Struct, frozen=True, kw_only=True):
    """Send it requests."""

    reason: str


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """Send it requests only when nothing better is left."""

    reason: str


class Unresponsive(msgspec.Struct, frozen=True, kw_only=True):
    """Give up on it: kill and restart it, where it is ours to restart."""

    reason: str


class Unreachable(msgspec.Struct, frozen=True, kw_only=True):
    """Send it nothing and keep it: it may run on where nobody looks.

    `is_given_up`: start a substitute elsewhere. Never stop it for this: when it is seen again it is
    one too many, and goes by a drain.
    """

    since_s: float
    is_given_up: bool
    reason: str


Verdict = Healthy | Suspect | Unresponsive | Unreachable


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


def sights(observation: Observation | None, names: Iterable[str]) -> dict[str, Sight]:
    """How the launcher sees each of these replicas; None: the pool is not seen at all.

    One that is left out is gone: its launcher says that it ended, or knows none of that name.
    """
    if observation is None:
        return dict.fromkeys(names, "pool_unseen")
    lost = {node.name for node in observation.nodes if node.state == "lost"}
    found = {replica.name: replica for replica in observation.replicas}
    seen: dict[str, Sight] = {}
    for name in names:
        replica = found.get(name)
        if replica is None or replica.state == "ended":
            continue
        is_lost = replica.state == "unreachable" or replica.node in lost
        seen[name] = "node_unseen" if is_lost else "seen"
    return seen


def judge_seen(
    state: SeenState,
    probe: Probe | None,
    sight: Sight,
    *,
    now_s: float,
    settings: HealthSettings,
) -> tuple[SeenState, Verdict]:
    """What probes and launcher say together; `probe` is None where it could not be asked.

    Answering counts for more than being seen: a pool whose API is cut off serves on. What neither
    is seen nor answers is unreachable. One that is seen again has all of the patience before it
    again: the way to it may heal a moment later than the way to its launcher.
    """
    if sight == "seen":
        return _seen(state, probe, now_s=now_s, settings=settings)
    who = "its node is" if sight == "node_unseen" else "its pool is"
    if probe is not None and probe.ok:
        reason = f"answers its probes, though {who} not seen"
        fine = Healthy(reason=reason) if sight == "pool_unseen" else Suspect(reason=reason)
        return SeenState(), fine
    sent_s = now_s - probe.seconds if probe is not None else now_s
    since_s = sent_s if state.unreachable_since_s is None else state.unreachable_since_s
    unseen_s = now_s - since_s
    is_given_up = unseen_s >= settings.unreachable_s
    does = "it gets a substitute elsewhere and is kept" if is_given_up else "it is kept"
    answers = probe.detail if probe is not None else "not asked"
    reason = f"{who} not seen and it does not answer ({answers}) for {unseen_s:.1f} s; {does}"
    return (
        SeenState(unreachable_since_s=since_s),  # its failures are not its own: forgotten
        Unreachable(since_s=since_s, is_given_up=is_given_up, reason=reason),
    )


def _seen(
    state: SeenState, probe: Probe | None, *, now_s: float, settings: HealthSettings
) -> tuple[SeenState, Verdict]:
    if probe is None:  # it has no URL yet, or is not due: what was known stays
        failing = state.health.probes_failed > 0 or state.unreachable_since_s is not None
        reason = "seen; not asked since it failed" if failing else "seen; not asked"
        return state, Suspect(reason=reason) if failing else Healthy(reason=reason)
    health = state.health
    if state.unreachable_since_s is not None:
        health = HealthState(failing_since_s=now_s)
    health, verdict = judge(health, probe, now_s=now_s, settings=settings)
    return SeenState(health=health), verdict
