"""Where a session lives, by rendezvous hashing: no state, so every gateway process agrees.

A map from session to its last replica would be exact in one process, wrong in the next one that
the client's connection lands on, and one more thing to bound. What a replica really holds is the
prefix index's to know, and that outweighs the home; the home is for what it does not know: a
process that has not seen the session yet, one that was restarted, a prompt that was forgotten.
When a replica leaves, only its own sessions move.
"""

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from argosy.policies.routing.views import ReplicaView


def home_of(session: bytes, replicas: Sequence[ReplicaView]) -> str | None:
    """The replica that this session prefers among the ready ones (else among all)."""
    names = [view.replica for view in replicas if view.is_ready]
    names = names or [view.replica for view in replicas]
    if not names:
        return None
    return max(
        names, key=lambda name: (xxh3_64_intdigest(b"%b\0%b" % (session, name.encode())), name)
    )
