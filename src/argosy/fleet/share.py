"""What one of several gateway processes may use of limits that hold for all of them together. Pure.

The kernel deals connections out by a hash of their addresses, so each process sees about the same
part of them. A limit of the whole is divided; one of a single request or connection is not.
"""

from msgspec.structs import replace

from argosy.fleet.config import Fleet


def share_of(fleet: Fleet) -> Fleet:
    """The fleet as each of its gateway processes is told it; the same where there is one."""
    processes = fleet.gateway.processes
    if processes == 1:
        return fleet
    gateway = replace(
        fleet.gateway,
        connections_max=_up(fleet.gateway.connections_max, processes),
        waiting_max=_up(fleet.gateway.waiting_max, processes),
        body_bytes_pending_max=max(
            fleet.gateway.body_bytes_max, _up(fleet.gateway.body_bytes_pending_max, processes)
        ),
    )
    tenants = tuple(
        replace(tenant, reserved_tokens_per_s=tenant.reserved_tokens_per_s / processes)
        if tenant.reserved_tokens_per_s is not None
        else tenant
        for tenant in fleet.tenants
    )
    return replace(fleet, gateway=gateway, tenants=tenants)


def slots_of(slots: int | None, *, process: int, processes: int) -> int | None:
    """The part of a model's slots that process number `process` gives out; None: not known.

    The parts add up to `slots`, but for a model with fewer slots than there are processes: each
    has one then, or its clients would wait for ever. The engine queues what is too much.
    """
    if slots is None or slots == 0:
        return slots
    return max(1, slots // processes + (process < slots % processes))


def _up(limit: int, processes: int) -> int:
    return -(-limit // processes)
