"""What going over to other deployments takes, in numbers: for whoever asked for it. Pure."""

from collections.abc import Iterable

import msgspec

from argosy.control.plan import DeploymentPlan
from argosy.control.records import Record


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas."""

    kept: int = 0
    added: int = 0
    succeeded: int = 0  # each goes when another is ready in its place
    removed: int = 0


def change(records: Iterable[Record], wanted: Iterable[DeploymentPlan]) -> Change:
    """From what there is to what is wanted."""
    staying = [record for record in records if record.leaving is None]
    plans = list(wanted)
    names = {plan.name for plan in plans}
    kept = added = succeeded = 0
    removed = sum(record.spec.deployment not in names for record in staying)
    for plan in plans:
        own = [one for one in staying if one.spec.deployment == plan.name]
        same = sum(one.spec.generation == plan.spec.generation for one in own)
        others = len(own) - same
        missing = max(0, plan.replicas - same)
        kept += min(same, plan.replicas)
        succeeded += min(missing, others)
        added += max(0, missing - others)
        removed += max(0, same - plan.replicas) + max(0, others - missing)
    return Change(kept=kept, added=added, succeeded=succeeded, removed=removed)
