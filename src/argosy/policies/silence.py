"""How long a stream may say nothing on a replica that the control plane has its doubts about. Pure.

A cable that is cut says nothing: no connection is reset, and a stream on it would wait for
`stall_timeout_s`. Two signals together end that wait: what the control plane says of the replica,
and the stream's own silence. Either alone may be a false alarm: a prober that is cut off itself, or
a replica that reads a long prompt.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from argosy.fleet.messages import Replica, ReplicaState

LOST: frozenset[ReplicaState] = frozenset({"unreachable", "dead"})
DOUBTED: frozenset[ReplicaState] = frozenset({"suspect", "unreachable", "dead"})
LOST_S = 2.0  # longer than any step of an engine that streams
GONE_S = 0.5  # its name has another life by now: nothing more comes from this one
SUSPECT_S = 4.0  # one probe failed: it may be slow


def patience_s(rows: Iterable[Replica]) -> Mapping[str, float]:
    """By replica, how long its streams may be silent; of others the gateway's timeout holds.

    A suspect is as good as lost where all of its pool is in doubt, two replicas or more: that is
    how the loss of a region begins, seconds before it is certain.
    """
    pools: defaultdict[str, list[Replica]] = defaultdict(list)
    for row in rows:
        if row.state in DOUBTED or row.state == "ready":
            pools[row.pool].append(row)
    found: dict[str, float] = {}
    for pool in pools.values():
        is_lost = len(pool) > 1 and all(row.state in DOUBTED for row in pool)
        for row in pool:
            if row.state in LOST or (is_lost and row.state == "suspect"):
                found[row.name] = LOST_S
            elif row.state == "suspect":
                found[row.name] = SUSPECT_S
    return found
