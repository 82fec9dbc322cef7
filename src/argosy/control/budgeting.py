"""The fleet as the budget of `policies/health` sees it: who may be taken out now. Pure.

Whoever takes replicas out by its own hand asks here: killing what hangs, quarantine. Going over to
another generation is the lifecycle's, which makes before it breaks.
"""

from collections.abc import Iterable, Mapping

from argosy.control.plan import DeploymentPlan
from argosy.control.records import Record
from argosy.policies.health import BudgetNode, BudgetReplica, BudgetSettings, BudgetView
from argosy.policies.health.budget import Taken, most_out


def budget_view(
    records: Iterable[Record],
    wanted: Mapping[str, DeploymentPlan],
    *,
    now_s: float,
    served_s: Mapping[str, float | None],
    settings: BudgetSettings,
    nodes: tuple[BudgetNode, ...] = (),
) -> BudgetView:
    """`served_s`: when a gateway had bytes of an answer last, by replica.

    Who leaves is left out: nobody wants it any more, so that it is no part of what must be left.
    """
    return BudgetView(
        now_s=now_s,
        replicas=tuple(
            _budgeted(one, served_s.get(one.name)) for one in records if one.leaving is None
        ),
        nodes=nodes,
        needed=needed(wanted, settings),
    )


def needed(wanted: Mapping[str, DeploymentPlan], settings: BudgetSettings) -> dict[str, int]:
    """By deployment: what must be left in use; one of it is, where any is wanted."""
    share = settings.out_share_model
    return {
        plan.name: max(1, plan.replicas - most_out(plan.replicas, share))
        for plan in wanted.values()
        if plan.replicas > 0
    }


def _budgeted(record: Record, served_s: float | None) -> BudgetReplica:
    row = record.row
    return BudgetReplica(
        name=record.name,
        deployment=record.spec.deployment,
        model=record.spec.model,
        pool=record.spec.pool,
        node=row.node,
        is_serving=row.state in ("ready", "suspect"),
        out=_out(record),
        failing_since_s=record.health.failing_since_s,
        probe_good_s=record.probe_good_s,
        served_s=served_s,
        is_local=record.is_local,
    )


def _out(record: Record) -> Taken | None:
    """A crash loop is its own doing: others are to be helped all the same."""
    if record.is_killed and record.crash_loop is None:
        return "killed"
    return None if record.quarantine is None else "quarantined"
