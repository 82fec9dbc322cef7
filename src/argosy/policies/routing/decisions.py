"""The policies by name; and a decision as plain data, which replays to the same answer.

A request in flight keeps a `Note`: its inputs as they were, copied for little (the views are
changed in place). Only who asks `argosy explain` pays for the `Decision` with its words.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from argosy.policies.routing.loads import least_loaded, power_of_two, round_robin
from argosy.policies.routing.predicted import Score, predicted, scores
from argosy.policies.routing.views import (
    ANY_REQUEST,
    DEFAULT_TUNING,
    NONE_TRIED,
    NoRoute,
    Policy,
    ReplicaView,
    RequestShape,
    Route,
    Tuning,
)

PolicyName = Literal["predicted", "least_loaded", "power_of_two", "round_robin"]
POLICIES: dict[PolicyName, Policy] = {
    "predicted": predicted,
    "least_loaded": least_loaded,
    "power_of_two": power_of_two,
    "round_robin": round_robin,
}
DEFAULT_POLICY: PolicyName = "predicted"

Note = tuple[PolicyName, RequestShape, Tuning, frozenset[str], tuple[ReplicaView, ...]]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was known, what was chosen, and why: enough to decide again."""

    policy: PolicyName
    request: RequestShape
    tuning: Tuning
    tried: tuple[str, ...]
    replicas: tuple[ReplicaView, ...]  # copies that nobody changes
    chosen: str | None  # None: no replica could take it
    reason: str
    scores: tuple[Score, ...]  # of the candidates, as `predicted` sees them, under any policy


def note(
    policy: PolicyName,
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> Note:
    """The inputs of a decision as they are now; to be called before they change."""
    # A third of the time of copy.copy, which msgspec's stubs know alone.
    copies: tuple[ReplicaView, ...] = tuple([view.__copy__() for view in replicas])  # type: ignore
    return policy, request, tuning, tried, copies


def decision(noted: Note) -> Decision:
    """The whole decision that these inputs led to."""
    policy, request, tuning, tried, replicas = noted
    answer = POLICIES[policy](replicas, request=request, tried=tried, tuning=tuning)
    return Decision(
        policy=policy,
        request=request,
        tuning=tuning,
        tried=tuple(sorted(tried)),
        replicas=replicas,
        chosen=answer.replica if isinstance(answer, Route) else None,
        reason=answer.reason,
        scores=scores(replicas, request=request, tried=tried, tuning=tuning),
    )


def replay(decided: Decision) -> Route | NoRoute:
    """Decide again on the same inputs."""
    return POLICIES[decided.policy](
        decided.replicas,
        request=decided.request,
        tried=frozenset(decided.tried),
        tuning=decided.tuning,
    )
