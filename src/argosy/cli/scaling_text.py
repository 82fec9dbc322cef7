"""One logged decision as a person reads it; of the autoscaling's also what it was made from.

What was logged is given to the policy once more, and whether it decides the same is said.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import typer

from argosy.cli.tables import print_table

if TYPE_CHECKING:
    from argosy.policies.autoscaling import Decision, DeploymentView, Given
    from argosy.policies.capacity import Logged, Placing
    from argosy.store.decisions import LoggedDecision


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What `replay` found; for machines too."""

    logged: "Decision | None"  # as it was taken; None: the log does not say
    again: "Decision | None"  # as the policy decides it now; None: nothing to decide it from
    same: bool | None  # None: it was not decided again
    why: str  # in a sentence


def logged_of(one: "LoggedDecision") -> "Logged | None":
    """What the autoscaling logged; None of other decisions, and where its inputs were left out."""
    from argosy.policies.capacity import Logged

    if one.kind != "scale" or one.inputs is None:
        return None
    try:
        return msgspec.json.decode(one.inputs, type=Logged)
    except msgspec.MsgspecError:  # left out for its size, or of another version
        return None


def replay(one: "LoggedDecision") -> Replayed:
    """Decide it again from what was logged."""
    from argosy.policies.capacity import replayed

    if one.kind != "scale":
        why = f"a decision of kind {one.kind} is not replayed: its reason is all that is logged"
        return Replayed(logged=None, again=None, same=None, why=why)
    logged = logged_of(one)
    if logged is None:
        why = "the log has not (or no longer) what it was made from: there is nothing to replay"
        return Replayed(logged=None, again=None, same=None, why=why)
    again = replayed(logged)
    if again is None:
        why = "the rule was not asked, its reason says why: there is nothing to replay"
        return Replayed(logged=logged.decision, again=None, same=None, why=why)
    both = "the autoscaling policy" if logged.placing is None else "autoscaling and placement"
    return Replayed(
        logged=logged.decision,
        again=again,
        same=again == logged.decision,
        why=f"replayed through {both}: "
        + ("the same decision" if again == logged.decision else "ANOTHER DECISION"),
    )


def print_logged(one: "LoggedDecision") -> None:
    """To stdout."""
    at = datetime.fromtimestamp(one.at_s, UTC)
    typer.echo(f"Decision {one.seq} at {at:%Y-%m-%d %H:%M:%S} UTC: {one.kind} {one.subject}")
    typer.echo(f"{one.reason}.")
    logged, found = logged_of(one), replay(one)
    if logged is not None and logged.given is not None:
        _print_loads(logged.decision, logged.given)
        _print_replicas(logged.decision, logged.given)
        if logged.placing is not None:
            _print_placing(logged.decision, logged.placing)
    typer.echo(f"{found.why[0].upper()}{found.why[1:]}.")
    if found.same is False and found.again is not None:
        for target in found.again.targets:
            typer.echo(f"It now says {target.deployment} {target.reason}")
        typer.echo("Another version took it, or this is a bug in Argosy.")


def _print_loads(decided: "Decision", given: "Given") -> None:
    settings, view = given.settings, given.view
    waiting = view.queued + sum(one.waiting for one in view.deployments)
    loads = (
        ("now", decided.load_now, f"of the last seconds, and of {waiting} that wait"),
        ("forecast", decided.load_forecast, f"likely within {decided.horizon_s:.0f} s"),
        ("quantile", decided.load_quantile, f"{settings.quantile:.0%} of what comes is below"),
        ("headroom", decided.headroom, "kept warm beyond the forecast"),
    )
    typer.echo(f"\nLoad of {view.model}, in replicas of {view.deployments[0].name}:")
    print_table(("", "replicas", ""), [(name, round(load, 3), said) for name, load, said in loads])
    share = f"A replica is to be {settings.utilisation_max:.0%} busy at most"
    typer.echo(f"{share}; the horizon is a cold start, a look and the view's age.")
    if decided.is_panic:
        typer.echo("Panic: more is asked for than the ready replicas do; nothing is removed.")


def _print_replicas(decided: "Decision", given: "Given") -> None:
    targets = {one.deployment: one.replicas for one in decided.targets}
    names = ("deployment", "ready", "pending", "draining", "target", "min", "max")
    print_table(
        (*names, "start p95 (s)", "in flight"),
        [_row(one, targets.get(one.name)) for one in given.view.deployments],
    )
    typer.echo()


def _print_placing(decided: "Decision", placing: "Placing") -> None:
    pools = {one.deployment: one.pool for one in placing.world.sites}
    closed = {one.pool: one.why for one in placing.world.closed}
    typer.echo("Where, and why:")
    for one in decided.targets:
        pool = pools[one.deployment]
        shut = f" ({pool} {closed[pool]})" if pool in closed else ""
        typer.echo(f"  {one.deployment}{shut}: {one.reason.rpartition(': ')[0]}")
    if placing.others:
        names = ", ".join(sorted(one.model for one in placing.others))
        typer.echo(f"  Placed together with {names}, which may run on the same pools.")
    typer.echo()


def _row(one: "DeploymentView", target: int | None) -> tuple[object, ...]:
    counts = (one.ready, len(one.pending), len(one.draining), target, one.min, one.max)
    return (one.name, *counts, round(one.start_s_p95, 1), one.in_flight)
