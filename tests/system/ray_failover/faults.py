"""What is broken, one after the other, and when the fleet is whole again.

Each takes the fleet, whole and under load, breaks it, and returns once it is whole again.
"""

import time
from collections.abc import Callable

import msgspec
import psutil

from tests.system.ray_failover.fleet import NODES, RayFleet, until

_WHOLE_S_MAX = 150.0
_HEADLESS_S = 6.0


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that was. Times are of `time.monotonic`."""

    at_s: float
    whole_s: float  # from then on until all is as it should be
    told: str = ""


def kill_replica(fleet: RayFleet) -> Broken:
    """SIGKILL to the engine's process that has a stream."""
    victim = fleet.busiest()
    assert victim.pid is not None
    at_s = time.monotonic()
    psutil.Process(victim.pid).kill()
    _until_seen(fleet, victim.name)
    fleet.wait_whole(_WHOLE_S_MAX)
    return Broken(at_s=at_s, whole_s=time.monotonic() - at_s - 0.5, told=victim.name)


def kill_raylet(fleet: RayFleet) -> Broken:
    """SIGKILL to a raylet whose node has a stream and a pool with another node."""
    return _lose_node(fleet, lambda name: fleet.cluster.raylet(name).kill())


def lose_machine(fleet: RayFleet) -> Broken:
    """All of a node's processes at once, as a power cut."""
    return _lose_node(fleet, fleet.cluster.kill)


def _lose_node(fleet: RayFleet, lose: Callable[[str], object]) -> Broken:
    rows = [row for row in fleet.replicas() if row.pool == "azure-h100"]
    busy = fleet.busiest()
    victim = busy if busy.pool == "azure-h100" else rows[0]
    name = next(name for name, (ip, *_) in NODES.items() if ip == victim.node)
    at_s = time.monotonic()
    lose(name)
    _until_seen(fleet, victim.name)
    fleet.wait_whole(_WHOLE_S_MAX)
    whole_s = time.monotonic() - at_s - 0.5
    homes = {row.node for row in fleet.replicas() if row.pool == "azure-h100"}
    assert victim.node not in homes, homes
    if lose != fleet.cluster.kill:
        fleet.cluster.kill(name)
    fleet.start_node(name)
    return Broken(at_s=at_s, whole_s=whole_s, told=f"{name}; its pool's are now on {homes}")


def kill_head(fleet: RayFleet) -> Broken:
    """SIGKILL to the head's processes; started again six seconds later."""
    before = {(row.name, row.pid) for row in fleet.replicas()}
    at_s = time.monotonic()
    fleet.cluster.kill("head")
    time.sleep(_HEADLESS_S)
    fleet.cluster.start_head()
    back_s = time.monotonic()
    # Only a pool that is seen has anything started: one more in each shows that it is.
    deployments = sorted({row.deployment for row in fleet.replicas()})[:1]
    for deployment in deployments:
        fleet.ask("scale", deployment, 2)
    until(lambda: len(fleet.replicas()) > len(before), _WHOLE_S_MAX, lambda: fleet.said)
    until(
        lambda: all(row.state == "ready" for row in fleet.replicas()),
        _WHOLE_S_MAX,
        lambda: fleet.said,
    )
    whole_s = time.monotonic() - at_s
    for deployment in deployments:
        fleet.ask("scale", deployment, "auto")
    fleet.wait_whole(_WHOLE_S_MAX)
    after = {(row.name, row.pid) for row in fleet.replicas()}
    told = f"back after {back_s - at_s:.1f} s; {len(before & after)} of {len(before)} are the same"
    return Broken(at_s=at_s, whole_s=whole_s, told=told)


def kill_leader(fleet: RayFleet) -> Broken:
    """SIGKILL to the control plane that leads."""
    leader = fleet.leader()
    assert leader is not None
    before = {(row.name, row.pid) for row in fleet.replicas()}
    at_s = time.monotonic()
    fleet.controls[leader].end()
    until(lambda: fleet.leader() == 1 - leader, 30.0, lambda: fleet.said)
    whole_s = time.monotonic() - at_s
    fleet.control_again(leader)
    fleet.wait_whole(_WHOLE_S_MAX)
    after = {(row.name, row.pid) for row in fleet.replicas()}
    return Broken(at_s=at_s, whole_s=whole_s, told=f"{len(before & after)} adopted")


def restart_postgresql(fleet: RayFleet) -> Broken:
    """A crash and a start."""
    at_s = time.monotonic()
    fleet.postgresql.restart(crash=True)
    fleet.wait_whole(_WHOLE_S_MAX)
    return Broken(at_s=at_s, whole_s=time.monotonic() - at_s - 0.5)


def drain_node(fleet: RayFleet) -> Broken:
    """`argosy drain NODE`, and `--undo` once it is empty."""
    row = next(row for row in fleet.replicas() if row.pool == "azure-h100")
    node = row.node
    at_s = time.monotonic()
    fleet.ask("drain", node)
    until(
        lambda: all(row.node != node for row in fleet.replicas()) and fleet.is_whole(),
        _WHOLE_S_MAX,
        lambda: fleet.said,
    )
    whole_s = time.monotonic() - at_s
    fleet.ask("drain", node, "--undo")
    fleet.wait_whole(_WHOLE_S_MAX)
    return Broken(at_s=at_s, whole_s=whole_s, told=f"node {node}")


def roll(fleet: RayFleet, *, timeout_s: float = 420.0) -> Broken:
    """`argosy apply` of a file with other engines."""
    before = {row.pid for row in fleet.replicas()}
    at_s = time.monotonic()
    fleet.ask("apply", fleet.write(tokens=1280))
    until(
        lambda: fleet.is_whole() and not before & {row.pid for row in fleet.replicas()},
        timeout_s,
        lambda: f"{fleet.status().waits}\n{fleet.said}",
    )
    return Broken(at_s=at_s, whole_s=time.monotonic() - at_s)


def _until_seen(fleet: RayFleet, replica: str) -> None:
    """Until the control plane knows of it."""
    until(
        lambda: not any(r.name == replica and r.state == "ready" for r in fleet.replicas()),
        _WHOLE_S_MAX,
        lambda: fleet.said,
    )


FAULTS: dict[str, Callable[[RayFleet], Broken]] = {
    "replica": kill_replica,
    "raylet": kill_raylet,
    "machine": lose_machine,
    "head": kill_head,
    "leader": kill_leader,
    "postgresql": restart_postgresql,
    "drain": drain_node,
    "roll": roll,
}
